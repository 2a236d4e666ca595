//! When a consumer isolates crashes, since one of its instances has died: pure.
//!
//! A delivery whose handler ends the process is delivered again, and would end the next process too. Brokers that do
//! not count deliveries cannot tell it from others. So where an instance ended without deregistering, the others store
//! each delivery before they run it, and the runs of stored deliveries are counted.

use crate::outbox::InstanceRow;
use std::{collections::BTreeMap, sync::Arc, time::Duration};

/// After so long a broker delivers nothing of an ended instance again, unless it says longer.
const FORGOTTEN_AFTER: Duration = Duration::from_hours(24);

/// Reads of the rows, three to a lease, for which isolation goes on when as many deliveries have settled as were in
/// flight: those in flight need not be the first that arrive. A broker with partitions delivers one after the other.
const LINGERING_READS: u32 = 3;

/// The state of the other instances of a consumer, as one instance knows it.
#[derive(Debug, Default)]
pub(super) struct CrashIsolation {
    peers: BTreeMap<Arc<str>, PeerState>,
    /// Unsettled deliveries of ended instances whose rows another instance has removed.
    unsettled_of_removed: u64,
    /// Whether the rows were read before: an instance of the first read may be dead.
    has_read: bool,
    /// For how long after an instance's lease its broker may still keep what the instance had in flight.
    redelivery_delay: Duration,
    /// Whether a delivery has settled since isolation was turned on.
    has_settled: bool,
    /// Reads for which isolation goes on.
    lingering_reads: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PeerState {
    /// Its row was there at the start, and it has not renewed its lease since.
    Unproven { lease_until: i64 },
    /// It has renewed its lease, or has started later.
    Alive,
    /// Its lease has expired, and so many of its deliveries are not settled yet.
    Ended { unsettled: u32, waited: bool },
}

impl CrashIsolation {
    pub(super) fn new(redelivery_delay: Duration) -> Self {
        Self { redelivery_delay, ..Self::default() }
    }

    /// Updates the state by the rows of the other instances.
    pub(super) fn read(&mut self, rows: &[InstanceRow]) {
        let was_needed = self.is_needed();
        self.lingering_reads = self.lingering_reads.saturating_sub(1);
        let mut before = std::mem::take(&mut self.peers);
        for row in rows {
            let known = before.remove(&row.id);
            self.peers
                .insert(row.id.clone(), next(known, row, !self.has_read, self.redelivery_delay));
        }
        for other in before.into_values() {
            // An instance that has deregistered had nothing in flight; another instance removes the row of an ended one
            // when it has settled as many.
            if let PeerState::Ended { unsettled, .. } = other {
                self.unsettled_of_removed =
                    self.unsettled_of_removed.saturating_add(u64::from(unsettled));
            }
        }
        self.has_read = true;
        self.linger_after(was_needed);
    }

    /// Notes that a delivery was stored before its run: it counts for one of the ended instances.
    pub(super) fn settled(&mut self) {
        let was_needed = self.is_needed();
        self.has_settled |= was_needed;
        self.settle_one();
        self.linger_after(was_needed);
    }

    fn settle_one(&mut self) {
        for other in self.peers.values_mut() {
            if let PeerState::Ended { unsettled: unsettled @ 1.., .. } = other {
                *unsettled -= 1;
                return;
            }
        }
        self.unsettled_of_removed = self.unsettled_of_removed.saturating_sub(1);
    }

    /// Keeps isolation on for a while where as many deliveries have settled as were in flight.
    fn linger_after(&mut self, was_needed: bool) {
        if was_needed && !self.is_needed() && std::mem::take(&mut self.has_settled) {
            self.lingering_reads = LINGERING_READS;
        }
    }

    /// Tells whether deliveries are stored before they are run.
    pub(super) fn is_on(&self) -> bool {
        self.is_needed() || self.lingering_reads > 0
    }

    fn is_needed(&self) -> bool {
        !self.has_read
            || self.unsettled_of_removed > 0
            || self.peers.values().any(|other| *other != PeerState::Alive && !other.is_over())
    }

    /// Tells whether an instance has ended whose deliveries are not settled yet.
    pub(super) fn has_ended_peers(&self) -> bool {
        let has_ended =
            |other: &PeerState| matches!(other, PeerState::Ended { .. }) && !other.is_over();
        self.unsettled_of_removed > 0
            || self.lingering_reads > 0
            || self.peers.values().any(has_ended)
    }

    /// Lists the ended instances whose rows are no longer needed.
    pub(super) fn removable(&self) -> Vec<Arc<str>> {
        self.peers.iter().filter(|(_, other)| other.is_over()).map(|(id, _)| id.clone()).collect()
    }
}

impl PeerState {
    /// Tells whether an ended instance's deliveries are settled.
    const fn is_over(self) -> bool {
        matches!(self, Self::Ended { unsettled: 0, waited: true })
    }
}

/// Gives the state of an instance after its row was read.
fn next(
    known: Option<PeerState>,
    row: &InstanceRow,
    at_start: bool,
    redelivery_delay: Duration,
) -> PeerState {
    let Some(expired_for) = row.expired_for else {
        return match known {
            None if at_start => PeerState::Unproven { lease_until: row.lease_until },
            Some(PeerState::Unproven { lease_until }) if lease_until == row.lease_until => {
                PeerState::Unproven { lease_until }
            }
            // An instance that renews an expired lease was only paused.
            _ => PeerState::Alive,
        };
    };
    let waited = expired_for >= redelivery_delay;
    match known {
        _ if waited && expired_for >= FORGOTTEN_AFTER => PeerState::Ended { unsettled: 0, waited },
        Some(PeerState::Ended { unsettled, .. }) => PeerState::Ended { unsettled, waited },
        // It had nothing in flight that is delivered again.
        _ if row.max_in_flight == 0 => PeerState::Ended { unsettled: 0, waited: true },
        _ => PeerState::Ended { unsettled: row.max_in_flight, waited },
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
        /// There is no row of another instance.
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
                "beside one that is alive",
                &[(Reads(1, None), true), (Reads(1, None), true), (Reads(2, None), false)],
            ),
            ("beside one that deregisters", &[(Reads(1, None), true), (ReadsNone, false)]),
            ("one that starts later is alive", &[(ReadsNone, false), (Reads(1, None), false)]),
            (
                "after a supervised restart",
                &[
                    (Reads(1, None), true),
                    (Settles, true),
                    // A delivery that settled before the lease expired does not count: the other might be alive.
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
                "nothing of it was delivered for a day",
                &[
                    (ReadsNone, false),
                    (Reads(1, None), false),
                    (Reads(1, Some(86_399)), true),
                    (Reads(1, Some(86_400)), false),
                ],
            ),
            (
                "it was only paused",
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
                    isolation.is_on() || !isolation.has_ended_peers(),
                    "{name}, step {at}: {then:?}"
                );
            }
        }
    }

    #[test]
    fn deliveries_settle_for_one_ended_instance_after_the_other() {
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
    fn an_ended_instance_without_deliveries_in_flight_turns_no_isolation_on() {
        let mut isolation = CrashIsolation::new(Duration::from_mins(1));
        let row = InstanceRow { max_in_flight: 0, ..row("a", 1, Some(0)) };
        isolation.read(&[row]);
        assert!(!isolation.is_on());
        assert_eq!(isolation.removable(), [Arc::from("a")]);
    }
}
