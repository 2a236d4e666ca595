//! Failed logins by the address that they come from: with each further one it waits for longer.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// Failed logins of an address that cost it nothing: a password that was mistyped, an old one that
/// a browser sends with each request of a page.
const FREE: u32 = 10;
/// The wait after the first failed login beyond those; it doubles with each one more.
const FIRST_WAIT: Duration = Duration::from_secs(1);
/// Longest wait: 1,440 guesses a day find no password of twelve characters, and somebody who shares
/// the address with a guesser gets in.
const LONGEST_WAIT: Duration = Duration::from_mins(1);
/// How long an address is remembered after its last failed login.
const REMEMBERED: Duration = Duration::from_mins(15);
/// Most addresses that are remembered, some 200 KiB.
const MOST: usize = 4_096;
/// Bits of an IPv6 address that tell networks apart: who has one such network has all its
/// addresses.
const NETWORK: u128 = !0 << 64;

/// The addresses from which logins have failed. Others never wait.
#[derive(Debug, Default)]
pub(super) struct Attempts(Mutex<HashMap<IpAddr, Failures>>);

/// The failed logins of an address.
#[derive(Debug, Clone, Copy)]
struct Failures {
    count: u32,
    last: Instant,
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
    /// Gives how long an address has to wait until its next login is looked at; `None` where it
    /// need not. What it sends until then is not looked at, or a guesser would learn from it.
    pub(super) fn wait(&self, peer: IpAddr, now: Instant) -> Option<Duration> {
        let failures = self.lock().get(&network(peer)).copied()?;
        let left = (failures.last + failures.wait()).saturating_duration_since(now);
        (!left.is_zero()).then_some(left)
    }

    /// Counts a failed login.
    pub(super) fn failed(&self, peer: IpAddr, now: Instant) {
        let (peer, mut all) = (network(peer), self.lock());
        let is_old =
            |failures: &Failures| now.saturating_duration_since(failures.last) > REMEMBERED;
        if all.len() >= MOST && !all.contains_key(&peer) {
            all.retain(|_, failures| !is_old(failures));
            if all.len() >= MOST
                && let Some(oldest) = all.iter().min_by_key(|(_, f)| f.last).map(|(peer, _)| *peer)
            {
                all.remove(&oldest);
            }
        }
        let failures = all.entry(peer).or_insert(Failures { count: 0, last: now });
        let count = if is_old(failures) { 0 } else { failures.count };
        *failures = Failures { count: count.saturating_add(1), last: now };
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<IpAddr, Failures>> {
        // Each change is one insertion or removal, so that a panic leaves the map whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
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

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn now() -> Instant {
        outbox_core::runtime::now()
    }

    #[test]
    fn an_address_waits_longer_after_each_failed_login_and_no_other_does() {
        let (attempts, guesser, begun) = (Attempts::default(), address("10.0.0.7"), now());
        for (failures, wait) in [(1, 0), (10, 0), (11, 1), (12, 2), (16, 32), (17, 60), (99, 60)] {
            while attempts.lock().get(&guesser).is_none_or(|seen| seen.count < failures) {
                attempts.failed(guesser, begun);
            }
            let expected = Duration::from_secs(wait);
            let seen = attempts.wait(guesser, begun).unwrap_or_default();
            assert_eq!(seen, expected, "after {failures}");
            assert_eq!(attempts.wait(guesser, begun + expected), None, "the wait is over");
        }
        assert_eq!(attempts.wait(address("10.0.0.8"), begun), None);
        // After a quarter of an hour it begins anew.
        let later = begun + REMEMBERED + Duration::from_secs(1);
        attempts.failed(guesser, later);
        assert_eq!(attempts.wait(guesser, later), None);
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
    fn as_many_addresses_are_remembered_as_there_is_room_for_the_last_ones_first() {
        let (attempts, begun) = (Attempts::default(), now());
        for number in 0..=u32::try_from(MOST).unwrap() {
            let peer = IpAddr::from(number.to_be_bytes());
            attempts.failed(peer, begun + Duration::from_millis(u64::from(number)));
        }
        let all = attempts.lock();
        assert_eq!(all.len(), MOST);
        assert!(!all.contains_key(&address("0.0.0.0")) && all.contains_key(&address("0.0.16.0")));
    }
}
