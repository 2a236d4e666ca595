//! What is on the server: one exchange, three queues, and one queue for the dead letters of all three.

use outbox_amqp::{Exchange, Queue, Topology};
use outbox_sea_orm::prelude::MessageId;
use std::time::Duration;

/// Everything goes away by itself when nobody has used it for so long, as this is an example.
const UNUSED: Duration = Duration::from_mins(1);
/// How long an offer stands.
const OFFER: Duration = Duration::from_millis(200);

/// Names that no other run of this program has.
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

    /// Says what has to be there. Publishers and subscribers declare it whenever they connect.
    pub fn topology(&self) -> Topology {
        let (exchange, dead) = (self.exchange(), self.queue("dead"));
        // A quorum queue hands what is rejected to the dead letters at least once: it forgets a message only when the other
        // queue has confirmed it. For that it refuses new messages at a limit, rather than giving old ones up.
        let tickets = Queue::quorum(self.queue("tickets"))
            .bind(&exchange, "ticket.sold")
            .dead_letter_to(&dead)
            .max_length(10_000);
        let offers = Queue::quorum(self.queue("offers"))
            .bind(&exchange, "offer.made")
            .dead_letter_to(&dead)
            .ttl(OFFER);
        // Only the newest price counts, so this queue gives the oldest one up when it is too long. Such a queue may lose: what
        // it gives up goes to the dead letters at most once, without a confirm. Never let anything wait in it that must
        // not be missed.
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
