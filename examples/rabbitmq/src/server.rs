//! The topology of the example: one exchange, three queues, and one queue for the dead letters of
//! all three.

use outbox_amqp::{Exchange, Queue, Topology};
use outbox_sea_orm::prelude::MessageId;
use std::time::Duration;

/// The server deletes queues that were unused for so long, as this is an example.
const UNUSED: Duration = Duration::from_mins(1);
/// The time to live of an offer.
const OFFER: Duration = Duration::from_millis(200);

/// Names of this run alone.
pub struct Names(String);

impl Names {
    /// Makes them.
    pub fn of_this_run() -> Self {
        Self(format!("example.{}", MessageId::generate()))
    }

    /// Gives the exchange.
    pub fn exchange(&self) -> String {
        format!("{}.shop", self.0)
    }

    /// Gives a queue.
    pub fn queue(&self, short: &str) -> String {
        format!("{}.{short}", self.0)
    }

    /// Gives the short name of a queue.
    pub fn short<'a>(&self, queue: &'a str) -> &'a str {
        queue.strip_prefix(&self.0).map_or(queue, |short| short.trim_start_matches('.'))
    }

    /// Gives the topology. Publishers and subscribers declare it whenever they connect.
    pub fn topology(&self) -> Topology {
        let (exchange, dead) = (self.exchange(), self.queue("dead"));
        // A quorum queue forwards rejected messages to the dead letters at least once: it deletes a
        // message only when the other queue has confirmed it. For that it rejects new messages at
        // its limit, instead of dropping old ones.
        let tickets = Queue::quorum(self.queue("tickets"))
            .bind(&exchange, "ticket.sold")
            .dead_letter_to(&dead)
            .max_length(10_000);
        let offers = Queue::quorum(self.queue("offers"))
            .bind(&exchange, "offer.made")
            .dead_letter_to(&dead)
            .ttl(OFFER);
        // Only the newest price counts, so this queue drops the oldest one at its limit. Such a
        // queue may lose messages: it forwards dropped ones to the dead letters at most once,
        // without a confirm. Do not use it for messages that must not be lost.
        let prices = Queue::quorum(self.queue("prices"))
            .bind(&exchange, "price.changed")
            .dead_letter_to(&dead)
            .max_length(1)
            .drop_head();
        Topology::new()
            .exchange(Exchange::topic(&exchange))
            .queue(Queue::quorum(&dead).expires(UNUSED))
            .queue(tickets.expires(UNUSED))
            .queue(offers.expires(UNUSED))
            .queue(prices.expires(UNUSED))
    }
}
