//! Publishing waiting events to RabbitMQ with confirms: events a second, beside a hand-written
//! loop.

use super::drain::per_second;
use crate::{
    args::Sides,
    environment::Environment,
    figures::Rounds,
    load::{
        fill::fill,
        rabbit::{self, Queue},
    },
};
use anyhow::{Result, ensure};

/// Events a second, round by round.
#[derive(Debug, Default)]
pub(crate) struct Published {
    pub(crate) ours: Rounds,
    pub(crate) baseline: Rounds,
}

/// Drains by ours and by the baseline in turn, in an order that changes from round to round.
pub(crate) async fn run(events: u32, rounds: usize, sides: Sides) -> Result<Published> {
    let environment = Environment::shared(4).await?;
    let mut published = Published::default();
    for round in 0..rounds {
        for ours in [round % 2 == 0, round % 2 == 1] {
            if if ours { sides.ours() } else { sides.floor() } {
                one(&environment, events, ours, &mut published).await?;
            }
        }
    }
    Ok(published)
}

async fn one(
    environment: &Environment,
    events: u32,
    is_ours: bool,
    published: &mut Published,
) -> Result<()> {
    fill(environment, events).await?;
    let queue = Queue::declare().await?;
    let (took, meter) = if is_ours {
        rabbit::by_relay(&environment.outbox, events, &queue).await?
    } else {
        (rabbit::baseline(environment.url(), &queue).await?, String::new())
    };
    let left = environment.number("SELECT count(*)::float8 FROM outbox_events").await?;
    ensure!(left == 0.0, "the drain is void: {left} left in the table");
    queue.holds(events).await?;
    let rate = per_second(events, took);
    eprintln!("{} {rate:.0}/s; {meter}", if is_ours { "ours   " } else { "by hand" });
    if is_ours { &mut published.ours } else { &mut published.baseline }.push(rate);
    Ok(())
}
