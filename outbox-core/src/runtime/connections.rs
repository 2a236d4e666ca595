//! The connections of a pool, shared out to those who work on it.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

/// How many of a worker's transactions run at once unless set: a few for each connection of a usual pool.
const USUAL: usize = 16;

/// The connections of one pool, and how many of them consumers and sagas may use at once. Cloning is cheap, and clones share.
#[derive(Clone)]
pub struct Connections(Arc<Shared>);

struct Shared {
    most: usize,
    /// Connections that somebody else uses too: an application's requests.
    reserved: usize,
    users: Mutex<Vec<(String, usize)>>,
}

impl fmt::Debug for Connections {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connections").field("most", &self.0.most).finish_non_exhaustive()
    }
}

/// What a worker takes of a pool. Dropped, it gives that back.
#[derive(Debug)]
pub(crate) struct Taken {
    pub(crate) concurrency: usize,
    from: Option<(Connections, String)>,
}

impl Drop for Taken {
    fn drop(&mut self) {
        if let Some((connections, who)) = &self.from {
            let mut users = connections.users();
            if let Some(at) = users.iter().position(|(user, _)| user == who) {
                users.remove(at);
            }
        }
    }
}

/// How a worker uses connections.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Use {
    /// Its share of the pool is one of so many.
    pub(crate) one_of: usize,
    /// How many connections it uses at once with a concurrency.
    pub(crate) at_once: fn(usize) -> usize,
}

impl Connections {
    /// Describes a pool of so many connections. Of a pool that an application uses too, a quarter is left to it.
    #[must_use]
    pub fn new(most: usize, of_application: bool) -> Self {
        let reserved =
            if of_application { most.div_ceil(4).min(most.saturating_sub(1)) } else { 0 };
        Self(Arc::new(Shared { most, reserved, users: Mutex::default() }))
    }

    fn users(&self) -> std::sync::MutexGuard<'_, Vec<(String, usize)>> {
        self.0.users.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives the concurrency that a worker has unless set: at most 16, and no more than its share and what is left.
    fn usual(&self, how: Use, taken: usize) -> usize {
        let free = self.0.most - self.0.reserved;
        let share = (free / how.one_of).min(free.saturating_sub(taken));
        (1..=USUAL).rev().find(|n| (how.at_once)(*n) <= share).unwrap_or(1)
    }
}

/// Takes connections for a worker, as many as were set or, where nothing was, as fit. Warns where those that run at once want
/// more than the pool has. Without a pool that is known it is as many as were set, or 16.
pub(crate) fn take(from: Option<Connections>, who: &str, set: Option<usize>, how: Use) -> Taken {
    let Some(connections) = from else {
        return Taken { concurrency: set.unwrap_or(USUAL), from: None };
    };
    let mut users = connections.users();
    let taken = users.iter().map(|(_, n)| n).sum();
    let concurrency = set.unwrap_or_else(|| connections.usual(how, taken));
    let at_once = (how.at_once)(concurrency);
    users.push((who.to_owned(), at_once));
    let (most, all) = (connections.0.most, taken + at_once);
    // A pool of one has no more to share, and whoever works on it knows that it waits.
    if all > most && (set.is_some() || (taken > 0 && most > 1)) {
        let others =
            users.iter().map(|(user, n)| format!("{user}: {n}")).collect::<Vec<_>>().join(", ");
        let needed = all + connections.0.reserved;
        tracing::warn!(
            pool = most,
            at_once = all,
            "{who} and others use up to {all} connections at once ({others}), and the pool has {most}: they wait for each other; \
             give the pool at least {needed} (`max_connections`), or set a lower `concurrency`"
        );
    }
    drop(users);
    Taken { concurrency, from: Some((connections, who.to_owned())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONSUMER: Use = Use { one_of: 2, at_once: |n| n + (n / 4).max(1) };
    const SAGAS: Use = Use { one_of: 4, at_once: |n| n };

    #[test]
    fn what_was_not_set_fits_the_pool_with_all_others() {
        for (most, of_application, consumer, second, sagas) in [
            (1, true, 1, 1, 1),
            (2, true, 1, 1, 1),
            (5, false, 1, 1, 1),
            (10, false, 4, 4, 1),
            (10, true, 2, 2, 1),
            (20, false, 8, 8, 1),
            (40, false, 16, 16, 1),
            (100, false, 16, 16, 16),
            (100, true, 16, 16, 16),
        ] {
            let pool = Connections::new(most, of_application);
            let take = |who: &str, how| take(Some(pool.clone()), who, None, how);
            let taken = [take("a", CONSUMER), take("b", CONSUMER), take("sagas", SAGAS)];
            let found = taken.each_ref().map(|t| t.concurrency);
            assert_eq!(found, [consumer, second, sagas], "{most} {of_application}");
        }
    }

    #[test]
    fn what_ends_gives_its_connections_to_the_next_one() {
        let pool = Connections::new(10, false);
        let taken = take(Some(pool.clone()), "a", Some(8), CONSUMER);
        assert_eq!((taken.concurrency, pool.users()[0].1), (8, 10));
        assert_eq!(take(Some(pool.clone()), "b", None, CONSUMER).concurrency, 1);
        drop(taken);
        assert_eq!(take(Some(pool.clone()), "b", None, CONSUMER).concurrency, 4);
        assert!(pool.users().is_empty());
    }

    #[test]
    fn without_a_known_pool_it_is_what_was_set_or_sixteen() {
        let found = [None, Some(3), Some(40)].map(|set| take(None, "a", set, CONSUMER).concurrency);
        assert_eq!(found, [16, 3, 40]);
    }
}
