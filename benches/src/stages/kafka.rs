//! Publishing to Kafka and receiving from it: events a second, beside hand-written loops, on a
//! private broker.

use super::{
    consume::{self, Consumed, Way},
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

/// Receives in all ways in turn, in an order that changes from round to round.
pub(crate) async fn consume(
    server: &Server,
    messages: u32,
    rounds: usize,
    ways: &[Way],
) -> Result<Consumed> {
    let environment = Environment::shared(AT_ONCE).await?;
    let (mut consumed, mut order) = (Consumed::default(), ways.to_vec());
    for _ in 0..rounds {
        for way in order.iter().copied() {
            environment.empty().await?;
            let bus = Bus::new(server);
            bus.fill(messages).await?;
            let (outbox, pool) = (&environment.outbox, &environment.pool);
            let took = match way.handling() {
                Some(handling) => {
                    kafka::received_by_consumer(outbox, &bus, messages, handling).await?
                }
                None => kafka::received_by_baseline(pool, &bus, messages, way == Way::Once).await?,
            };
            consume::check(&environment, messages, way).await?;
            let rate = per_second(messages, took);
            eprintln!("{way:?} {rate:.0}/s");
            consumed.push(way, rate);
        }
        order.rotate_left(1);
    }
    Ok(consumed)
}
