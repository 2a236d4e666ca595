//! Whether a rejection speaks of the message or of its destination. Pure, fed with instants.

use std::time::{Duration, Instant};

/// For how long a confirmation shows that the destination accepts messages.
const EVIDENCE: Duration = Duration::from_mins(1);
/// First pause before a rejected message is retried while no other was confirmed; doubled each time.
const FIRST_PAUSE: Duration = Duration::from_millis(400);
/// Longest such pause: the longest delay of a lone message after its destination was repaired.
const LONGEST_PAUSE: Duration = Duration::from_secs(15);

/// After how long a message that alone is rejected is given up, unless its route says otherwise.
pub const DEFAULT_GIVE_UP_REJECTED: Duration = Duration::from_hours(24);

/// The rejections of one message on one route, which may speak of the destination and not of the message.
///
/// A destination that rejects every message is wrong itself: a path that responds with 404, a service that moved. A
/// destination that accepts others and rejects this one speaks of this one. So a rejection is proven only between two
/// confirmations of other messages that are younger than a minute, and by one more try after the second of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    first: Instant,
    count: u32,
    /// The confirmation of another message that preceded the last rejection.
    before: Option<Instant>,
    /// Confirmations of other messages around a rejection.
    between: Option<(Instant, Instant)>,
}

/// Whether a further rejection is proven.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rejected {
    /// The destination accepts others: the message becomes a dead letter.
    Proven,
    /// The destination may be wrong: the message waits so long, or until another one is confirmed.
    Unproven(Duration),
}

/// The last results of other messages on the route of a rejected one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct OtherMessages {
    /// When another message was confirmed last.
    pub confirmed: Option<Instant>,
    /// When another message failed last.
    pub failed: Option<Instant>,
}

impl Rejection {
    /// Begins with a message that was never rejected.
    #[must_use]
    pub const fn starting(now: Instant) -> Self {
        Self { first: now, count: 0, before: None, between: None }
    }

    /// Notes a rejection.
    pub fn rejected(&mut self, others: OtherMessages, now: Instant) -> Rejected {
        let is_fresh = |at: Instant| now.saturating_duration_since(at) < EVIDENCE;
        if self.between.is_some_and(|(first, second)| is_fresh(first) && is_fresh(second)) {
            return Rejected::Proven;
        }
        self.between = None;
        self.before = others.confirmed.filter(|at| is_fresh(*at));
        let pause = FIRST_PAUSE * 2_u32.saturating_pow(self.count.min(16));
        self.count = self.count.saturating_add(1);
        Rejected::Unproven(pause.min(LONGEST_PAUSE))
    }

    /// Notes that another message was confirmed.
    pub fn other_confirmed(&mut self, now: Instant) {
        if let Some(before) = self.before.take() {
            self.between = Some((before, now));
        }
    }

    /// Tells whether a message that was just rejected has been rejected for so long, and alone: no other message failed
    /// since its first rejection. Messages that wait for a destination that rejects all are not alone, and those rejections
    /// prove nothing when the destination accepts messages again.
    #[must_use]
    pub fn is_over(&self, limit: Duration, others: OtherMessages, now: Instant) -> bool {
        let is_alone = others.failed.is_none_or(|at| at < self.first);
        is_alone && now.saturating_duration_since(self.first) >= limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What happens beside and to one message, in seconds.
    #[derive(Debug, Clone, Copy)]
    enum Event {
        /// Another message is confirmed.
        Confirmed(u64),
        /// The message is rejected.
        Rejected(u64),
    }
    use Event::{Confirmed as C, Rejected as R};

    fn story(events: &[Event]) -> Vec<bool> {
        let start = Instant::now();
        let (mut rejection, mut others) = (None, OtherMessages::default());
        let mut proven = Vec::new();
        for event in events {
            match *event {
                C(at) => {
                    let at = start + Duration::from_secs(at);
                    others.confirmed = Some(at);
                    if let Some(rejection) = &mut rejection {
                        Rejection::other_confirmed(rejection, at);
                    }
                }
                R(at) => {
                    let at = start + Duration::from_secs(at);
                    let rejection = rejection.get_or_insert_with(|| Rejection::starting(at));
                    proven.push(rejection.rejected(others, at) == Rejected::Proven);
                }
            }
        }
        proven
    }

    #[test]
    fn a_rejection_is_proven_only_between_confirmations_of_others_and_by_one_more() {
        for (events, expected) in [
            // Nothing else was ever confirmed.
            (vec![R(0), R(1), R(2), R(3_600)], vec![false; 4]),
            // It was rejected while others were taken, and is again.
            (vec![C(0), R(1), C(2), R(3)], vec![false, true]),
            // The first rejection had no confirmation before it.
            (vec![R(0), C(1), R(2), C(3), R(4)], vec![false, false, true]),
            // An outage of half a minute lies between the confirmations: the one more try succeeds in truth, and is not made
            // here; the next confirmation alone proves nothing.
            (vec![C(0), R(10), C(30)], vec![false]),
            // The confirmation before is too old when the second rejection comes.
            (vec![C(0), R(1), C(59), R(61)], vec![false, false]),
            // And the next round proves it.
            (vec![C(0), R(1), C(59), R(61), C(62), R(63)], vec![false, false, true]),
            // Both confirmations came before the rejection.
            (vec![C(0), C(1), R(2), R(3)], vec![false, false]),
            // Rejected again and again while nothing is confirmed: an outage after a good time.
            (vec![C(0), R(1), R(2), R(3), R(4)], vec![false; 4]),
        ] {
            assert_eq!(story(&events), expected, "{events:?}");
        }
    }

    #[test]
    fn pauses_double_up_to_a_quarter_of_a_minute() {
        let now = Instant::now();
        let mut rejection = Rejection::starting(now);
        let pauses: Vec<u128> = (0..8)
            .map(|_| match rejection.rejected(OtherMessages::default(), now) {
                Rejected::Unproven(pause) => pause.as_millis(),
                Rejected::Proven => panic!("nothing was confirmed"),
            })
            .collect();
        assert_eq!(pauses, [400, 800, 1_600, 3_200, 6_400, 12_800, 15_000, 15_000]);
    }

    #[test]
    fn only_a_message_that_is_rejected_alone_is_given_up_by_its_age() {
        let start = Instant::now();
        let day = DEFAULT_GIVE_UP_REJECTED;
        let rejection = Rejection::starting(start);
        let at = |seconds: u64| Some(start + Duration::from_secs(seconds));
        for (confirmed, failed, after, expected) in [
            (None, None, day - Duration::from_secs(1), false),
            (None, None, day, true),
            // Another one failed before: an outage that was over.
            (None, start.checked_sub(Duration::from_secs(1)), day, true),
            // Others fail too: they wait behind a destination that rejects everything.
            (None, at(3), day, false),
            (at(5), at(3), day, false),
            // Others are confirmed right now, after a day in which all were rejected.
            (at(day.as_secs() - 30), at(3), day, false),
        ] {
            assert_eq!(
                rejection.is_over(day, OtherMessages { confirmed, failed }, start + after),
                expected
            );
        }
    }
}
