//! Whether the consumer can still acknowledge a delivery before its sender stops waiting. Pure.

use crate::transport::Delivery;
use std::time::{Duration, Instant};

/// How long deliveries take: the longest of late, which each shorter one lowers by an eighth of the
/// difference.
#[derive(Debug, Default)]
pub(super) struct AckDeadlines {
    typical: Duration,
}

impl AckDeadlines {
    /// Notes how long a delivery took from its start to its acknowledgement; tells whether that is longer than
    /// typical.
    pub(super) fn record(&mut self, time: Duration) -> bool {
        let is_longer = time > self.typical;
        self.typical = if is_longer { time } else { self.typical - (self.typical - time) / 8 };
        is_longer
    }

    /// Gives the last instant at which a delivery may start: its sender would still wait for the
    /// acknowledgement, if the delivery takes as long as others do. At most half of the sender's time is
    /// kept for that, or a delivery that takes longer would never start.
    pub(super) fn latest_start(&self, delivery: &Delivery) -> Option<Instant> {
        let (since, until) = delivery.awaited?;
        let half = until.saturating_duration_since(since) / 2;
        Some(until.checked_sub(self.typical.min(half)).unwrap_or(since))
    }

    /// Tells whether a delivery must not start any more: its sender will have stopped waiting, and sends the
    /// message again.
    pub(super) fn is_late(&self, delivery: &Delivery, now: Instant) -> bool {
        delivery.is_given_up() || self.latest_start(delivery).is_some_and(|last| last < now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::{Acknowledge, SubscribeError};
    use async_trait::async_trait;

    struct Sender {
        gave_up: bool,
    }

    #[async_trait]
    impl Acknowledge for Sender {
        async fn ack(self: Box<Self>) -> Result<(), SubscribeError> {
            Ok(())
        }
        async fn nack(self: Box<Self>, _: bool) -> Result<(), SubscribeError> {
            Ok(())
        }
        async fn reject(self: Box<Self>, _: &str) -> Result<(), SubscribeError> {
            Ok(())
        }
        fn is_given_up(&self) -> bool {
            self.gave_up
        }
    }

    #[test]
    fn a_delivery_starts_while_its_sender_still_waits_at_its_end() {
        let (start, second) = (Instant::now(), Duration::from_secs(1));
        // How long deliveries take, and until when one may start whose sender waits for 8 s.
        for (takes, last) in
            [(0, 8_000), (100, 7_900), (2_000, 6_000), (4_000, 4_000), (60_000, 4_000)]
        {
            let mut ack_deadlines = AckDeadlines::default();
            ack_deadlines.record(Duration::from_millis(takes));
            let delivery =
                Delivery::new(Err(String::new()), None, Box::new(Sender { gave_up: false }));
            assert!(
                !ack_deadlines.is_late(&delivery, start + 3_600 * second),
                "no sender waits for it"
            );
            let delivery = delivery.awaited(start, start + 8 * second);
            let last = start + Duration::from_millis(last);
            assert!(!ack_deadlines.is_late(&delivery, last), "{takes}");
            assert!(ack_deadlines.is_late(&delivery, last + Duration::from_millis(1)), "{takes}");
        }
        let given_up = Delivery::new(Err(String::new()), None, Box::new(Sender { gave_up: true }));
        assert!(AckDeadlines::default().is_late(&given_up, start));
    }

    #[test]
    fn the_time_that_deliveries_take_rises_at_once_and_falls_slowly() {
        let mut ack_deadlines = AckDeadlines::default();
        let mut after = |millis: u64| {
            ack_deadlines.record(Duration::from_millis(millis));
            ack_deadlines.typical.as_millis()
        };
        assert_eq!([after(100), after(900), after(100), after(100)], [100, 900, 800, 712]);
    }
}
