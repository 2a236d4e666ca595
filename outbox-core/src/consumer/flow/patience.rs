//! Whether a delivery may still be begun whose sender waits for the answer. Pure.

use crate::transport::Delivery;
use std::time::{Duration, Instant};

/// How long deliveries take: the longest of late, of which shorter ones take an eighth away each.
#[derive(Debug, Default)]
pub(super) struct Patience {
    usual: Duration,
}

impl Patience {
    /// Notes how long a delivery took from its start to its answer; tells whether that is longer than others took.
    pub(super) fn took(&mut self, time: Duration) -> bool {
        let is_longer = time > self.usual;
        self.usual = if is_longer { time } else { self.usual - (self.usual - time) / 8 };
        is_longer
    }

    /// Gives the last instant at which a delivery may be begun: its answer would still be awaited then, if it takes as long as
    /// others do. Half of the sender's time is always enough, or what takes longer than that would never be begun.
    pub(super) fn last_begin(&self, delivery: &Delivery) -> Option<Instant> {
        let (since, until) = delivery.awaited?;
        let half = until.saturating_duration_since(since) / 2;
        Some(until.checked_sub(self.usual.min(half)).unwrap_or(since))
    }

    /// Tells whether a delivery is not to be begun any more, since its sender will not hear the answer and sends it again.
    pub(super) fn is_late(&self, delivery: &Delivery, now: Instant) -> bool {
        delivery.is_given_up() || self.last_begin(delivery).is_some_and(|last| last < now)
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
    fn a_delivery_is_begun_while_its_answer_can_still_be_heard() {
        let (start, second) = (Instant::now(), Duration::from_secs(1));
        // How long deliveries take, and until when one may be begun that is awaited for 8 s.
        for (takes, last) in
            [(0, 8_000), (100, 7_900), (2_000, 6_000), (4_000, 4_000), (60_000, 4_000)]
        {
            let mut patience = Patience::default();
            patience.took(Duration::from_millis(takes));
            let delivery =
                Delivery::new(Err(String::new()), None, Box::new(Sender { gave_up: false }));
            assert!(!patience.is_late(&delivery, start + 3_600 * second), "nobody waits for it");
            let delivery = delivery.awaited(start, start + 8 * second);
            let last = start + Duration::from_millis(last);
            assert!(!patience.is_late(&delivery, last), "{takes}");
            assert!(patience.is_late(&delivery, last + Duration::from_millis(1)), "{takes}");
        }
        let given_up = Delivery::new(Err(String::new()), None, Box::new(Sender { gave_up: true }));
        assert!(Patience::default().is_late(&given_up, start));
    }

    #[test]
    fn the_time_that_deliveries_take_rises_at_once_and_falls_slowly() {
        let mut patience = Patience::default();
        let mut after = |millis: u64| {
            patience.took(Duration::from_millis(millis));
            patience.usual.as_millis()
        };
        assert_eq!([after(100), after(900), after(100), after(100)], [100, 900, 800, 712]);
    }
}
