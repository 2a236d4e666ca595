//! Publishing to NATS, Redis and MQTT and receiving from them: events a second, beside loops by
//! hand with the client libraries, on private brokers. Not SQS: what answers here is an emulator,
//! whose speed says nothing of Amazon's.

use super::{drain::per_second, publish::Published};
use crate::{
    args::Sides,
    environment::Environment,
    figures::Rounds,
    load::{
        broker::{self, Broker},
        fill::fill,
        receive::AT_ONCE,
    },
};
use anyhow::{Result, ensure};

/// Messages a second, round by round.
#[derive(Debug, Default)]
pub(crate) struct Received {
    /// The loop by hand that does each message once.
    pub(crate) once: Rounds,
    pub(crate) ours: Rounds,
}

/// Drains by ours and by hand in turn, in an order that changes from round to round.
pub(crate) async fn publish<B: Broker>(
    events: u32,
    rounds: usize,
    sides: Sides,
) -> Result<Published> {
    let environment = Environment::shared(4).await?;
    let (mut broker, mut published) = (B::start().await?, Published::default());
    for round in 0..rounds {
        for ours in [round % 2 == 0, round % 2 == 1] {
            if !(if ours { sides.ours() } else { sides.floor() }) {
                continue;
            }
            fill(&environment, events).await?;
            broker.renew().await?;
            let (took, meter) = if ours {
                broker::drained_by_relay(&environment.outbox, events, &broker).await?
            } else {
                (broker::drained_by_hand(environment.url(), &broker).await?, String::new())
            };
            let left = environment.number("SELECT count(*)::float8 FROM outbox_events").await?;
            ensure!(left == 0.0, "the drain is void: {left} left in the table");
            broker.holds(events).await?;
            let rate = per_second(events, took);
            eprintln!("{} {} {rate:.0}/s; {meter}", B::NAME, name(ours));
            if ours { &mut published.ours } else { &mut published.baseline }.push(rate);
        }
    }
    Ok(published)
}

/// Receives by ours and by hand in turn, in an order that changes from round to round.
pub(crate) async fn consume<B: Broker>(
    messages: u32,
    rounds: usize,
    sides: Sides,
) -> Result<Received> {
    let environment = Environment::shared(AT_ONCE).await?;
    let (mut broker, mut received) = (B::start().await?, Received::default());
    for round in 0..rounds {
        for ours in [round % 2 == 0, round % 2 == 1] {
            if !(if ours { sides.ours() } else { sides.floor() }) {
                continue;
            }
            environment.empty().await?;
            broker.renew().await?;
            broker::fill(&broker, messages).await?;
            let took = if ours {
                broker::received_by_consumer(&environment.outbox, &broker, messages).await?
            } else {
                broker::received_by_hand(&environment.pool, &broker, messages).await?
            };
            let rows = environment.number("SELECT count(*)::float8 FROM orders").await?;
            ensure!(rows == f64::from(messages), "void: {rows} rows of {messages} messages");
            let rate = per_second(messages, took);
            eprintln!("{} {} {rate:.0}/s", B::NAME, name(ours));
            if ours { &mut received.ours } else { &mut received.once }.push(rate);
        }
    }
    Ok(received)
}

fn name(ours: bool) -> &'static str {
    if ours { "ours   " } else { "by hand" }
}
