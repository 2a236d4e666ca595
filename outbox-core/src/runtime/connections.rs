//! The connections of a pool, shared out to consumers and sagas.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

/// How many of a worker's transactions run at once unless set: a few for each connection of a usual
/// pool.
const MAX_DEFAULT: usize = 16;

/// The connections of one pool, and how many of them consumers and sagas may use at once. Cloning
/// is cheap, and clones share.
#[derive(Clone)]
pub struct Connections(Arc<Shared>);

struct Shared {
    size: usize,
    /// Connections that are left to the application's own requests.
    reserved: usize,
    /// Each worker with the connections that it uses at once.
    workers: Mutex<Vec<(String, usize)>>,
}

impl fmt::Debug for Connections {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connections").field("size", &self.0.size).finish_non_exhaustive()
    }
}

/// The connections that a worker may use at once. Dropped, it returns them to the pool's share.
#[derive(Debug)]
pub(crate) struct ConnectionGrant {
    pub(crate) concurrency: usize,
    from: Option<(Connections, String)>,
}

impl Drop for ConnectionGrant {
    fn drop(&mut self) {
        if let Some((connections, worker)) = &self.from {
            let mut workers = connections.workers();
            if let Some(at) = workers.iter().position(|(name, _)| name == worker) {
                workers.remove(at);
            }
        }
    }
}

/// How a worker uses connections.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ConnectionUse {
    /// Its share of the pool: one part in so many.
    pub(crate) share_divisor: usize,
    /// How many connections it uses at once with a concurrency.
    pub(crate) connections: fn(usize) -> usize,
}

impl Connections {
    /// Describes a pool of `size` connections. If the application uses the pool too, a quarter is
    /// left to it.
    #[must_use]
    pub fn new(size: usize, of_application: bool) -> Self {
        let reserved =
            if of_application { size.div_ceil(4).min(size.saturating_sub(1)) } else { 0 };
        Self(Arc::new(Shared { size, reserved, workers: Mutex::default() }))
    }

    fn workers(&self) -> std::sync::MutexGuard<'_, Vec<(String, usize)>> {
        self.0.workers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives the concurrency that a worker has unless set: at most 16, and no more than its share
    /// and than the connections that are left.
    fn default_concurrency(&self, usage: ConnectionUse, in_use: usize) -> usize {
        let free = self.0.size - self.0.reserved;
        let share = (free / usage.share_divisor).min(free.saturating_sub(in_use));
        (1..=MAX_DEFAULT).rev().find(|n| (usage.connections)(*n) <= share).unwrap_or(1)
    }
}

/// Reserves connections for a worker: for the concurrency that was set, or for the one that fits
/// the pool. Warns if the workers of the pool together use more connections at once than it has.
/// Without a known pool the concurrency is the one that was set, or 16.
pub(crate) fn reserve_connections(
    from: Option<Connections>,
    worker: &str,
    set: Option<usize>,
    usage: ConnectionUse,
) -> ConnectionGrant {
    let Some(connections) = from else {
        return ConnectionGrant { concurrency: set.unwrap_or(MAX_DEFAULT), from: None };
    };
    let mut workers = connections.workers();
    let in_use = workers.iter().map(|(_, n)| n).sum();
    let concurrency = set.unwrap_or_else(|| connections.default_concurrency(usage, in_use));
    let own = (usage.connections)(concurrency);
    workers.push((worker.to_owned(), own));
    let (size, all) = (connections.0.size, in_use + own);
    // Of a pool of one connection a second worker is not warned: nothing is left to share.
    if all > size && (set.is_some() || (in_use > 0 && size > 1)) {
        let shares =
            workers.iter().map(|(name, n)| format!("{name}: {n}")).collect::<Vec<_>>().join(", ");
        let needed = all + connections.0.reserved;
        tracing::warn!(
            pool = size,
            at_once = all,
            "{worker} and others use up to {all} connections at once ({shares}), and the pool has {size}: \
             they wait for each other; \
             give the pool at least {needed} (`max_connections`), or set a lower `concurrency`"
        );
    }
    drop(workers);
    ConnectionGrant { concurrency, from: Some((connections, worker.to_owned())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONSUMER: ConnectionUse =
        ConnectionUse { share_divisor: 2, connections: |n| n + (n / 4).max(1) };
    const SAGAS: ConnectionUse = ConnectionUse { share_divisor: 4, connections: |n| n };

    #[test]
    fn default_concurrencies_of_all_workers_fit_the_pool() {
        for (size, of_application, consumer, second, sagas) in [
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
            let pool = Connections::new(size, of_application);
            let reserve =
                |worker: &str, usage| reserve_connections(Some(pool.clone()), worker, None, usage);
            let grants = [reserve("a", CONSUMER), reserve("b", CONSUMER), reserve("sagas", SAGAS)];
            let found = grants.each_ref().map(|grant| grant.concurrency);
            assert_eq!(found, [consumer, second, sagas], "{size} {of_application}");
        }
    }

    #[test]
    fn a_worker_that_ends_gives_its_connections_to_the_next_one() {
        let pool = Connections::new(10, false);
        let second = || reserve_connections(Some(pool.clone()), "b", None, CONSUMER).concurrency;
        let first = reserve_connections(Some(pool.clone()), "a", Some(8), CONSUMER);
        assert_eq!((first.concurrency, pool.workers()[0].1), (8, 10));
        assert_eq!(second(), 1);
        drop(first);
        assert_eq!(second(), 4);
        assert!(pool.workers().is_empty());
    }

    #[test]
    fn without_a_known_pool_the_concurrency_is_the_one_set_or_sixteen() {
        let found = [None, Some(3), Some(40)]
            .map(|set| reserve_connections(None, "a", set, CONSUMER).concurrency);
        assert_eq!(found, [16, 3, 40]);
    }
}
