//! Failed logins by the address that they come from and the name that they claim: with each further
//! one, that name waits there for longer.

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    net::{IpAddr, Ipv6Addr},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// Failed logins that cost nothing: a password that was mistyped, an old one that a browser sends
/// with each request of a page.
const FREE: u32 = 10;
/// The wait after the first failed login beyond those; it doubles with each one more.
const FIRST_WAIT: Duration = Duration::from_secs(1);
/// Longest wait: 1,440 guesses a day find no password of twelve characters, and somebody who shares
/// the address and the name with a guesser gets in.
const LONGEST_WAIT: Duration = Duration::from_mins(1);
/// How long failed logins are remembered after the last one.
const REMEMBERED: Duration = Duration::from_mins(15);
/// Most entries that are remembered, some 500 KiB.
const MOST: usize = 4_096;
/// Bits of an IPv6 address that tell networks apart: who has one such network has all its
/// addresses.
const NETWORK: u128 = !0 << 64;

/// An address and the hash of a name that its logins claim.
type Key = (IpAddr, u64);

/// The failed logins. Other addresses and other names never wait.
#[derive(Debug, Default)]
pub(super) struct Attempts {
    failures: Mutex<HashMap<Key, Failures>>,
    /// Names are as long as whoever sends them likes, so that their hashes are kept. Its keys are
    /// random: nobody makes two names that wait together.
    hasher: RandomState,
}

/// The failed logins of an address and a name.
#[derive(Debug, Clone, Copy)]
struct Failures {
    count: u32,
    last: Instant,
    /// Whether it is forgotten last: otherwise a guesser would make room by names that he invents.
    is_kept: bool,
}

impl Failures {
    fn wait(self) -> Duration {
        match self.count.checked_sub(FREE + 1) {
            None => Duration::ZERO,
            Some(doubled) => {
                FIRST_WAIT.saturating_mul(2_u32.saturating_pow(doubled)).min(LONGEST_WAIT)
            }
        }
    }
}

impl Attempts {
    /// Gives how long a name has to wait at an address until its next login is looked at; `None`
    /// where it need not. What is sent until then is not looked at, or a guesser would learn from
    /// it. Without a name it is that of the lines which tell of the address.
    pub(super) fn wait(&self, peer: IpAddr, name: Option<&[u8]>, now: Instant) -> Option<Duration> {
        let failures = self.lock().get(&self.key(peer, name)).copied()?;
        let left = (failures.last + failures.wait()).saturating_duration_since(now);
        (!left.is_zero()).then_some(left)
    }

    /// Counts a failed login. One of a name that a login has is kept for longer than others.
    pub(super) fn failed(&self, peer: IpAddr, name: Option<&[u8]>, is_kept: bool, now: Instant) {
        let (key, mut all) = (self.key(peer, name), self.lock());
        let is_old =
            |failures: &Failures| now.saturating_duration_since(failures.last) > REMEMBERED;
        if all.len() >= MOST && !all.contains_key(&key) {
            all.retain(|_, failures| !is_old(failures));
            if all.len() >= MOST
                && let Some(oldest) =
                    all.iter().min_by_key(|(_, f)| (f.is_kept, f.last)).map(|(key, _)| *key)
            {
                all.remove(&oldest);
            }
        }
        let failures = all.entry(key).or_insert(Failures { count: 0, last: now, is_kept });
        let count = if is_old(failures) { 0 } else { failures.count };
        *failures = Failures { count: count.saturating_add(1), last: now, is_kept };
    }

    /// Forgets the failed logins of a name at an address, as it has got in there.
    pub(super) fn succeeded(&self, peer: IpAddr, name: &[u8]) {
        self.lock().remove(&self.key(peer, Some(name)));
    }

    fn key(&self, peer: IpAddr, name: Option<&[u8]>) -> Key {
        (network(peer), self.hasher.hash_one(name))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Failures>> {
        // Each change is one insertion or removal, so that a panic leaves the map whole.
        self.failures.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Gives the address, or the network of one of IPv6.
fn network(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(peer) => IpAddr::V6(Ipv6Addr::from_bits(peer.to_bits() & NETWORK)),
        peer => peer,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANN: Option<&[u8]> = Some(b"ann");
    const BOB: Option<&[u8]> = Some(b"bob");

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn now() -> Instant {
        outbox_core::runtime::now()
    }

    #[test]
    fn a_name_waits_longer_after_each_failed_login_and_no_other_name_or_address_does() {
        let (attempts, guesser, begun) = (Attempts::default(), address("10.0.0.7"), now());
        let mut failed = 0;
        for (failures, wait) in [(1, 0), (10, 0), (11, 1), (12, 2), (16, 32), (17, 60), (99, 60)] {
            while failed < failures {
                attempts.failed(guesser, ANN, true, begun);
                failed += 1;
            }
            let expected = Duration::from_secs(wait);
            let seen = attempts.wait(guesser, ANN, begun).unwrap_or_default();
            assert_eq!(seen, expected, "after {failures}");
            assert_eq!(attempts.wait(guesser, ANN, begun + expected), None, "the wait is over");
        }
        assert_eq!(attempts.wait(address("10.0.0.8"), ANN, begun), None);
        assert_eq!(attempts.wait(guesser, BOB, begun), None);
        assert_eq!(attempts.wait(guesser, None, begun), None);
        // After a quarter of an hour it begins anew.
        let later = begun + REMEMBERED + Duration::from_secs(1);
        attempts.failed(guesser, ANN, true, later);
        assert_eq!(attempts.wait(guesser, ANN, later), None);
    }

    #[test]
    fn a_login_that_succeeds_forgets_the_failed_ones_of_its_name_alone() {
        let (attempts, peer, begun) = (Attempts::default(), address("10.0.0.7"), now());
        for name in [ANN, BOB].into_iter().cycle().take(22) {
            attempts.failed(peer, name, true, begun);
        }
        attempts.succeeded(peer, b"ann");
        assert_eq!(attempts.wait(peer, ANN, begun), None);
        assert_eq!(attempts.wait(peer, BOB, begun), Some(FIRST_WAIT));
        attempts.failed(peer, ANN, true, begun);
        assert_eq!(attempts.wait(peer, ANN, begun), None, "it counts from the start");
    }

    #[test]
    fn an_address_is_the_same_in_both_families_and_one_network_is_one() {
        for (one, other, is_same) in [
            ("10.0.0.7", "::ffff:10.0.0.7", true),
            ("2001:db8::1", "2001:db8::ffff:1", true),
            ("2001:db8::1", "2001:db8:0:1::1", false),
            ("10.0.0.7", "10.0.0.8", false),
        ] {
            assert_eq!(network(address(one)) == network(address(other)), is_same, "{one} {other}");
        }
    }

    #[test]
    fn as_many_failures_are_remembered_as_there_is_room_for_the_last_ones_first() {
        let (attempts, begun) = (Attempts::default(), now());
        for number in 0..=u32::try_from(MOST).unwrap() {
            let peer = IpAddr::from(number.to_be_bytes());
            attempts.failed(peer, ANN, true, begun + Duration::from_millis(u64::from(number)));
        }
        let has = |peer| attempts.lock().contains_key(&attempts.key(address(peer), ANN));
        assert_eq!(attempts.lock().len(), MOST);
        assert!(!has("0.0.0.0") && has("0.0.16.0"));
    }

    #[test]
    fn names_that_a_guesser_invents_make_no_room_for_more_guesses_of_one_that_there_is() {
        let (attempts, peer, begun) = (Attempts::default(), address("10.0.0.7"), now());
        for _ in 0..=FREE {
            attempts.failed(peer, ANN, true, begun);
        }
        for number in 0..2 * MOST {
            attempts.failed(peer, Some(&number.to_be_bytes()), false, begun);
        }
        assert_eq!(attempts.lock().len(), MOST);
        assert_eq!(attempts.wait(peer, ANN, begun), Some(FIRST_WAIT));
    }
}
