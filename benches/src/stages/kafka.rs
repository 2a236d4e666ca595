//! Publishing to Kafka and receiving from it: events a second, beside hand-written loops, on a
//! private broker.

use super::{
    consume::{BATCH, Consumed},
    drain::per_second,
};
use crate::{
    args::Sides,
    environment::Environment,
    figures::Rounds,
    load::{
        fill::fill,
        kafka::{self, Bus, Headers},
        receive::AT_ONCE,
    },
};
use anyhow::{Result, ensure};
use tests::servers::Server;

/// Events a second, round by round.
#[derive(Debug, Default)]
pub(crate) struct Produced {
    pub(crate) ours: Rounds,
    /// The baseline, with the headers of our records.
    pub(crate) same: Rounds,
    /// The baseline, with three headers.
    pub(crate) lean: Rounds,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Side {
    Ours,
    Baseline(Headers),
}

/// Drains by all three in turn, in an order that changes from round to round.
pub(crate) async fn publish(
    server: &Server,
    events: u32,
    rounds: usize,
    sides: Sides,
) -> Result<Produced> {
    let environment = Environment::shared(4).await?;
    let (mut produced, mut seen) = (Produced::default(), Vec::new());
    let mut order = [Side::Ours, Side::Baseline(Headers::Ours), Side::Baseline(Headers::Three)];
    for _ in 0..rounds {
        for side in order {
            if if side == Side::Ours { sides.ours() } else { sides.floor() } {
                fill(&environment, events).await?;
                let bus = Bus::new(server);
                bus.declare().await?;
                let (took, meter) = match side {
                    Side::Ours => kafka::by_relay(&environment.outbox, events, &bus).await?,
                    Side::Baseline(headers) => {
                        (kafka::baseline(environment.url(), &bus, headers).await?, String::new())
                    }
                };
                let left = environment.number("SELECT count(*)::float8 FROM outbox_events").await?;
                ensure!(left == 0.0, "the drain is void: {left} left in the table");
                bus.holds(events).await?;
                if side != Side::Baseline(Headers::Three) {
                    seen.push(bus.headers().await?);
                    ensure!(
                        seen.first() == seen.last(),
                        "void: the records of both sides differ: {seen:?}"
                    );
                }
                let rate = per_second(events, took);
                let (name, rounds) = match side {
                    Side::Ours => ("ours", &mut produced.ours),
                    Side::Baseline(Headers::Ours) => ("by hand, our records", &mut produced.same),
                    Side::Baseline(Headers::Three) => {
                        ("by hand, three headers", &mut produced.lean)
                    }
                };
                eprintln!("{name} {rate:.0}/s; {meter}");
                rounds.push(rate);
            }
        }
        order.rotate_left(1);
    }
    Ok(produced)
}

/// Receives by all four in turn, in an order that changes from round to round.
pub(crate) async fn consume(
    server: &Server,
    messages: u32,
    rounds: usize,
    sides: Sides,
) -> Result<Consumed> {
    let environment = Environment::shared(AT_ONCE).await?;
    let mut consumed = Consumed::default();
    let mut order = [0, 1, 2, 3];
    for _ in 0..rounds {
        for side in order {
            let is_floor = side == 0 || side == 3;
            if if is_floor { sides.floor() } else { sides.ours() } {
                environment.empty().await?;
                let bus = Bus::new(server);
                bus.fill(messages).await?;
                let (took, rounds, name) = match side {
                    0 => (
                        kafka::received_by_baseline(&environment.pool, &bus, messages, false)
                            .await?,
                        &mut consumed.baseline,
                        "by hand",
                    ),
                    1 => (
                        kafka::received_by_consumer(&environment.outbox, &bus, messages, None)
                            .await?,
                        &mut consumed.ours,
                        "ours",
                    ),
                    2 => (
                        kafka::received_by_consumer(
                            &environment.outbox,
                            &bus,
                            messages,
                            Some(BATCH),
                        )
                        .await?,
                        &mut consumed.batched,
                        "ours in batches",
                    ),
                    _ => (
                        kafka::received_by_baseline(&environment.pool, &bus, messages, true)
                            .await?,
                        &mut consumed.once,
                        "by hand, each once",
                    ),
                };
                let rows = environment.number("SELECT count(*)::float8 FROM orders").await?;
                ensure!(rows == f64::from(messages), "void: {rows} rows of {messages} messages");
                let rate = per_second(messages, took);
                eprintln!("{name} {rate:.0}/s");
                rounds.push(rate);
            }
        }
        order.rotate_left(1);
    }
    Ok(consumed)
}
