//! When a consumer isolates crashes, since one of its instances has died: pure.
//!
//! A delivery whose handler ends the process comes again, and would end the next process too. Brokers that do not count
//! deliveries cannot tell it from others. So where an instance ended without signing off, the others
//! store each delivery before they run it, and the runs of stored deliveries are counted.

use crate::outbox::InstanceRow;
use std::{collections::BTreeMap, sync::Arc, time::Duration};

/// After so long nothing of an ended instance comes again, unless a broker says longer.
const FORGOTTEN_AFTER: Duration = Duration::from_hours(24);

/// Looks at the rows, three to a lease, for which isolation goes on when as many have settled as were in flight: the ones that
/// were in flight need not be the first that come. A broker with partitions gives those of one out before it has another.
const LINGERING_LOOKS: u32 = 3;

/// What an instance knows of the other instances of its consumer.
#[derive(Debug, Default)]
pub(super) struct CrashIsolation {
    others: BTreeMap<Arc<str>, Other>,
    /// Deliveries still to settle for ended instances whose rows another instance has removed.
    left_of_removed: u64,
    /// Whether the rows were read before: what the first read finds may be dead.
    has_read: bool,
    /// For how long after an instance's lease its broker may still keep what the instance had in flight.
    redelivered_within: Duration,
    /// Whether something was settled since isolation was turned on.
    has_settled: bool,
    /// Looks for which it goes on.
    lingers: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Other {
    /// Its row was there at the start, and nothing has shown since whether it lives.
    Unproven { lease_until: i64 },
    /// It has renewed its lease, or has started later.
    Alive,
    /// Its lease ran out. So many of its deliveries are not settled yet.
    Ended { left: u32, waited: bool },
}

impl CrashIsolation {
    pub(super) fn new(redelivered_within: Duration) -> Self {
        Self { redelivered_within, ..Self::default() }
    }

    /// Takes in the rows of the other instances.
    pub(super) fn read(&mut self, rows: &[InstanceRow]) {
        let was_needed = self.is_needed();
        self.lingers = self.lingers.saturating_sub(1);
        let mut before = std::mem::take(&mut self.others);
        for row in rows {
            let known = before.remove(&row.id);
            self.others
                .insert(row.id.clone(), next(known, row, !self.has_read, self.redelivered_within));
        }
        for other in before.into_values() {
            // An instance that has signed off leaves nothing behind; the row of an ended one goes when another instance has
            // settled as many.
            if let Other::Ended { left, .. } = other {
                self.left_of_removed = self.left_of_removed.saturating_add(u64::from(left));
            }
        }
        self.has_read = true;
        self.linger_after(was_needed);
    }

    /// Notes that a delivery was stored before it is run: it counts for one of the ended instances.
    pub(super) fn settled(&mut self) {
        let was_needed = self.is_needed();
        self.has_settled |= was_needed;
        self.settle_one();
        self.linger_after(was_needed);
    }

    fn settle_one(&mut self) {
        for other in self.others.values_mut() {
            if let Other::Ended { left: left @ 1.., .. } = other {
                *left -= 1;
                return;
            }
        }
        self.left_of_removed = self.left_of_removed.saturating_sub(1);
    }

    /// Goes on for a while where as many were settled as were in flight.
    fn linger_after(&mut self, was_needed: bool) {
        if was_needed && !self.is_needed() && std::mem::take(&mut self.has_settled) {
            self.lingers = LINGERING_LOOKS;
        }
    }

    /// Tells whether deliveries are to be stored before they are run.
    pub(super) fn is_on(&self) -> bool {
        self.is_needed() || self.lingers > 0
    }

    fn is_needed(&self) -> bool {
        !self.has_read
            || self.left_of_removed > 0
            || self.others.values().any(|other| *other != Other::Alive && !other.is_over())
    }

    /// Tells whether an instance has ended whose deliveries are not settled yet.
    pub(super) fn knows_of_an_end(&self) -> bool {
        let has_ended = |other: &Other| matches!(other, Other::Ended { .. }) && !other.is_over();
        self.left_of_removed > 0 || self.lingers > 0 || self.others.values().any(has_ended)
    }

    /// Lists the ended instances whose rows are needed no longer.
    pub(super) fn removable(&self) -> Vec<Arc<str>> {
        self.others.iter().filter(|(_, other)| other.is_over()).map(|(id, _)| id.clone()).collect()
    }
}

impl Other {
    /// Tells whether an ended instance's deliveries have come and are settled.
    const fn is_over(self) -> bool {
        matches!(self, Self::Ended { left: 0, waited: true })
    }
}

/// Tells what is known of an instance after its row was read.
fn next(
    known: Option<Other>,
    row: &InstanceRow,
    at_start: bool,
    redelivered_within: Duration,
) -> Other {
    let Some(expired_for) = row.expired_for else {
        return match known {
            None if at_start => Other::Unproven { lease_until: row.lease_until },
            Some(Other::Unproven { lease_until }) if lease_until == row.lease_until => {
                Other::Unproven { lease_until }
            }
            // One whose lease was over and is not has only stood still.
            _ => Other::Alive,
        };
    };
    let waited = expired_for >= redelivered_within;
    match known {
        _ if waited && expired_for >= FORGOTTEN_AFTER => Other::Ended { left: 0, waited },
        Some(Other::Ended { left, .. }) => Other::Ended { left, waited },
        // Nothing of it comes again.
        _ if row.max_in_flight == 0 => Other::Ended { left: 0, waited: true },
        _ => Other::Ended { left: row.max_in_flight, waited },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IN_FLIGHT: u32 = 2;

    /// A row by the number of its renewals, and the seconds since its lease ran out.
    fn row(id: &str, renewed: i64, expired: Option<u64>) -> InstanceRow {
        let expired_for = expired.map(Duration::from_secs);
        InstanceRow {
            id: id.into(),
            max_in_flight: IN_FLIGHT,
            lease_until: renewed,
            expired_for,
            handlers: Vec::new(),
        }
    }

    #[derive(Debug, Clone, Copy)]
    enum Then {
        /// The row of the other instance is read: renewals, seconds since its lease ran out.
        Reads(i64, Option<u64>),
        /// No row of another instance is there.
        ReadsNone,
        Settles,
    }
    use Then::{Reads, ReadsNone, Settles};

    #[test]
    fn a_consumer_isolates_crashes_from_a_death_until_as_many_as_were_in_flight_have_settled() {
        // What happens, and whether isolation is on after it.
        for (name, steps) in [
            ("alone", &[(ReadsNone, false), (ReadsNone, false)][..]),
            (
                "beside one that lives",
                &[(Reads(1, None), true), (Reads(1, None), true), (Reads(2, None), false)],
            ),
            ("beside one that signs off", &[(Reads(1, None), true), (ReadsNone, false)]),
            ("one that starts later is alive", &[(ReadsNone, false), (Reads(1, None), false)]),
            (
                "after a supervised restart",
                &[
                    (Reads(1, None), true),
                    (Settles, true),
                    // What was settled before the lease ran out counts for nothing: the other might have lived.
                    (Reads(1, Some(0)), true),
                    (Settles, true),
                    (Settles, true),
                    (Reads(1, Some(59)), true),
                    (Reads(1, Some(60)), true),
                    (Settles, true),
                    (ReadsNone, true),
                    (ReadsNone, true),
                    (ReadsNone, false),
                    (Settles, false),
                ],
            ),
            (
                "a healthy one sees another end",
                &[
                    (ReadsNone, false),
                    (Reads(1, None), false),
                    (Reads(1, Some(1)), true),
                    (Reads(1, Some(61)), true),
                    (Settles, true),
                    (Settles, true),
                    (Reads(1, Some(62)), true),
                    (Reads(1, Some(63)), true),
                    (Reads(1, Some(64)), false),
                ],
            ),
            (
                "another one ends while it lingers",
                &[
                    (Reads(1, Some(60)), true),
                    (Settles, true),
                    (Settles, true),
                    (ReadsNone, true),
                    (Reads(1, Some(60)), true),
                    (ReadsNone, true),
                    (ReadsNone, true),
                    (ReadsNone, true),
                    (Settles, true),
                    (Settles, true),
                    (ReadsNone, true),
                    (ReadsNone, true),
                    (ReadsNone, false),
                ],
            ),
            (
                "it was dead long before",
                &[
                    (Reads(1, Some(7_200)), true),
                    (Settles, true),
                    (Settles, true),
                    (Settles, true),
                    (ReadsNone, true),
                ],
            ),
            ("it was dead a day before", &[(Reads(1, Some(86_400)), false)]),
            (
                "nothing came of it for a day",
                &[
                    (ReadsNone, false),
                    (Reads(1, None), false),
                    (Reads(1, Some(86_399)), true),
                    (Reads(1, Some(86_400)), false),
                ],
            ),
            (
                "it had only stood still",
                &[
                    (Reads(1, None), true),
                    (Reads(1, Some(9)), true),
                    (Reads(2, None), false),
                    (Reads(2, Some(1)), true),
                ],
            ),
            (
                "another instance has removed the row",
                &[
                    (Reads(1, Some(60)), true),
                    (Settles, true),
                    (ReadsNone, true),
                    (Settles, true),
                    (ReadsNone, true),
                    (ReadsNone, true),
                    (ReadsNone, false),
                ],
            ),
        ] {
            let mut isolation = CrashIsolation::new(Duration::from_mins(1));
            assert!(isolation.is_on(), "nothing is known yet");
            for (at, (then, on)) in steps.iter().enumerate() {
                match then {
                    Reads(renewed, expired) => isolation.read(&[row("other", *renewed, *expired)]),
                    ReadsNone => isolation.read(&[]),
                    Settles => isolation.settled(),
                }
                assert_eq!(isolation.is_on(), *on, "{name}, step {at}: {then:?}");
                assert!(
                    isolation.is_on() || !isolation.knows_of_an_end(),
                    "{name}, step {at}: {then:?}"
                );
            }
        }
    }

    #[test]
    fn several_that_ended_are_settled_for_one_after_the_other() {
        let mut isolation = CrashIsolation::new(Duration::from_mins(1));
        isolation.read(&[row("a", 1, Some(60)), row("b", 1, Some(60)), row("c", 1, None)]);
        isolation.read(&[row("a", 1, Some(61)), row("b", 1, Some(61)), row("c", 2, None)]);
        for _ in 0..2 * IN_FLIGHT {
            assert!(isolation.is_on());
            isolation.settled();
        }
        assert_eq!(isolation.removable(), [Arc::from("a"), Arc::from("b")]);
        for renewals in 3..6 {
            assert!(isolation.is_on(), "it lingers");
            isolation.read(&[row("c", renewals, None)]);
        }
        assert!(!isolation.is_on());
    }

    #[test]
    fn one_that_had_nothing_that_comes_again_turns_no_isolation_on() {
        let mut isolation = CrashIsolation::new(Duration::from_mins(1));
        let row = InstanceRow { max_in_flight: 0, ..row("a", 1, Some(0)) };
        isolation.read(&[row]);
        assert!(!isolation.is_on());
        assert_eq!(isolation.removable(), [Arc::from("a")]);
    }
}
