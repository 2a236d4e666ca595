//! Publishing what waits to RabbitMQ with confirms: events a second, beside a loop by hand.

use super::drain::per_second;
use crate::{
    args::Sides,
    figures::Rounds,
    load::{
        fill::fill,
        rabbit::{self, Queue},
    },
    place::Place,
};
use anyhow::{Result, ensure};

/// Events a second, round by round.
#[derive(Debug, Default)]
pub(crate) struct Published {
    pub(crate) ours: Rounds,
    pub(crate) by_hand: Rounds,
}

/// Drains, ours and by hand in turn; which of them begins changes from round to round.
pub(crate) async fn run(events: u32, rounds: usize, sides: Sides) -> Result<Published> {
    let place = Place::shared(4).await?;
    let mut published = Published::default();
    for round in 0..rounds {
        for ours in [round % 2 == 0, round % 2 == 1] {
            if if ours { sides.ours() } else { sides.floor() } {
                one(&place, events, ours, &mut published).await?;
            }
        }
    }
    Ok(published)
}

async fn one(place: &Place, events: u32, is_ours: bool, published: &mut Published) -> Result<()> {
    fill(place, events).await?;
    let queue = Queue::declare().await?;
    let (took, told) = if is_ours {
        rabbit::by_relay(&place.outbox, events, &queue).await?
    } else {
        (rabbit::by_hand(place.url(), &queue).await?, String::new())
    };
    let left = place.number("SELECT count(*)::float8 FROM outbox_events").await?;
    ensure!(left == 0.0, "the drain is void: {left} left in the table");
    queue.holds(events).await?;
    let rate = per_second(events, took);
    eprintln!("{} {rate:.0}/s; {told}", if is_ours { "ours   " } else { "by hand" });
    if is_ours { &mut published.ours } else { &mut published.by_hand }.push(rate);
    Ok(())
}
