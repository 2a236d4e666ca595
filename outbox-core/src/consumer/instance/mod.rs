//! The instance: an actor that keeps the row of this process and reads those of the consumer's others.

mod isolation;
mod peers;

pub(super) use peers::{Peers, Unknown, after_unknown, claimed_names, known_of, knows};

use super::{flow::backoff, work::Worker};
use crate::{
    failure::full_text,
    outbox::{ConsumerStore, NewInstance, StoreError},
    runtime::Shutdown,
};
use isolation::CrashIsolation;
use std::{
    collections::BTreeSet,
    convert::Infallible,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

/// How long the last word to the database may take when the consumer stops, at least: beyond it the row runs out by itself.
const LAST_WORD: Duration = Duration::from_secs(1);
/// Longest shutdown that the last renewal covers.
const LONGEST_SHUTDOWN: Duration = Duration::from_mins(10);

/// Whether deliveries are to be stored before they are run, as the instance tells those that run them.
pub(super) struct Isolation {
    state: Mutex<CrashIsolation>,
    /// Whether it is on, for those that ask with each delivery.
    on: AtomicBool,
    /// Whether the rows were looked at, or could not be: nothing is begun before that.
    looked: watch::Sender<bool>,
}

impl Isolation {
    /// Begins with nothing known. `redelivered_within` is for how long after an instance's lease its broker may still keep
    /// what it had in flight.
    pub(super) fn new(redelivered_within: Duration) -> Self {
        let state = Mutex::new(CrashIsolation::new(redelivered_within));
        Self { state, on: AtomicBool::new(true), looked: watch::Sender::new(false) }
    }

    /// Tells whether deliveries are to be stored before they are run.
    pub(super) fn is_on(&self) -> bool {
        self.on.load(Ordering::Acquire)
    }

    /// Notes that a delivery was stored that may have been in flight at an instance that ended.
    pub(super) fn settled(&self) {
        let _ = self.change(CrashIsolation::settled);
    }

    /// Waits until it is known how the consumer has to begin; where the database is away, isolation is on.
    pub(super) async fn looked(&self) {
        // The sender lives as long as this value: the channel cannot close.
        let _ = self.looked.subscribe().wait_for(|looked| *looked).await;
    }

    /// Changes what is known; gives whether isolation is on now.
    fn change(&self, change: impl FnOnce(&mut CrashIsolation)) -> bool {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut state);
        let on = state.is_on();
        self.on.store(on, Ordering::Release);
        on
    }

    fn told(&self, on: bool) -> Told {
        match (on, self.state.lock().unwrap_or_else(PoisonError::into_inner).knows_of_an_end()) {
            (false, _) => Told::Off,
            (true, false) => Told::Unproven,
            (true, true) => Told::Ended,
        }
    }

    fn removable(&self) -> Vec<Arc<str>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).removable()
    }
}

/// The instances that live in this process: of these nobody has to wait for a renewal to know that they do.
static LIVING: Mutex<BTreeSet<Arc<str>>> = Mutex::new(BTreeSet::new());

/// An instance as one that lives in this process, until it is dropped.
struct Living(Arc<str>);

impl Living {
    fn new(id: Arc<str>) -> Arc<Self> {
        LIVING.lock().unwrap_or_else(PoisonError::into_inner).insert(id.clone());
        Arc::new(Self(id))
    }

    fn is_here(id: &str) -> bool {
        LIVING.lock().unwrap_or_else(PoisonError::into_inner).contains(id)
    }
}

impl Drop for Living {
    fn drop(&mut self) {
        LIVING.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.0);
    }
}

/// Keeps the row of one start of a consumer.
pub(super) struct Instance<S: ConsumerStore> {
    worker: Arc<Worker<S>>,
    id: Arc<str>,
    living: Arc<Living>,
    max_in_flight: u32,
    /// Asked to stop when no more deliveries will come.
    done: Shutdown,
}

impl<S: ConsumerStore> Clone for Instance<S> {
    fn clone(&self) -> Self {
        Self {
            worker: self.worker.clone(),
            id: self.id.clone(),
            living: self.living.clone(),
            max_in_flight: self.max_in_flight,
            done: self.done.clone(),
        }
    }
}

impl<S: ConsumerStore> Instance<S> {
    pub(super) fn new(worker: Arc<Worker<S>>, id: &str, done: Shutdown) -> Self {
        let max_in_flight =
            u32::try_from(worker.settings.comes_again_at_once()).unwrap_or(u32::MAX);
        let id: Arc<str> = id.into();
        Self { worker, living: Living::new(id.clone()), id, max_in_flight, done }
    }

    pub(super) async fn run(self) -> Result<(), Infallible> {
        let lease = self.worker.settings.lease;
        let (mut registered, mut told, mut failures) = (false, Told::Off, 0);
        loop {
            let mut wait = lease / 3;
            match self.look(&mut registered, &mut told).await {
                Ok(()) => failures = 0,
                Err(error) => {
                    failures += 1;
                    wait = backoff(failures).min(wait);
                    not_looked(failures, &error);
                }
            }
            self.worker.isolation.looked.send_replace(true);
            self.worker.report_due();
            tokio::select! {
                biased;
                () = self.worker.shutdown.requested() => break,
                () = self.done.requested() => return Ok(()),
                () = sleep(wait) => {}
            }
        }
        // The last renewal: the others count it as alive until its handlers had their time.
        let time_left = self.worker.shutdown.time_left().unwrap_or_default().min(LONGEST_SHUTDOWN);
        match timeout(LAST_WORD, self.worker.store.renew_instance(&self.id, lease + time_left))
            .await
        {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => {
                tracing::debug!(error = full_text(&error), "the instance's lease was not renewed")
            }
            Err(_) => tracing::debug!("the instance's lease was not renewed in time"),
        }
        Ok(())
    }

    /// Writes or renews the row, and reads those of the others.
    async fn look(&self, registered: &mut bool, told: &mut Told) -> Result<(), StoreError> {
        let (store, lease) = (&self.worker.store, self.worker.settings.lease);
        // A row that is gone was taken for dead for long; the instance has only stood still.
        if !(*registered && store.renew_instance(&self.id, lease).await?) {
            let (consumer, max_in_flight) = (&*self.worker.consumer, self.max_in_flight);
            let row = NewInstance {
                id: &self.id,
                consumer,
                max_in_flight,
                handlers: &self.worker.declared,
            };
            store.register_instance(&row, lease).await?;
            *registered = true;
        }
        let mut rows = store.instances(&self.worker.consumer).await?;
        rows.retain(|row| row.id != self.id);
        self.worker.others.note(Peers::of(&rows, &self.worker.declared));
        rows.retain(|row| !Living::is_here(&row.id));
        let isolation = &self.worker.isolation;
        let on = isolation.change(|state| state.read(&rows));
        let now = isolation.told(on);
        if now != *told {
            now.tell();
            *told = now;
        }
        self.worker
            .stats
            .send_if_modified(|stats| std::mem::replace(&mut stats.isolating, on) != on);
        for id in isolation.removable() {
            store.remove_instance(&id, true).await?;
        }
        Ok(())
    }

    /// Removes the row, when everything was answered for; takes what is left of a shutdown's time, and 1 s in any case.
    pub(super) async fn sign_off(&self) {
        let shutdown = &self.worker.shutdown;
        tokio::select! {
            biased;
            done = self.worker.store.remove_instance(&self.id, false) => {
                if let Err(error) = done {
                    tracing::warn!(
                        error = full_text(&error),
                        "the instance could not sign off; other instances store deliveries before they run them for a while"
                    );
                }
            }
            _ = futures_util::future::join(shutdown.expired(), sleep(LAST_WORD)) => {
                tracing::warn!("the instance could not sign off in time; other instances store deliveries before they run them for a while");
            }
        }
    }
}

/// Tells of the first failure in a row; a database that is away shows itself in many ways.
fn not_looked(failures: u32, error: &StoreError) {
    if failures > 1 {
        tracing::debug!(
            failures,
            error = full_text(error),
            "the row of this instance is still not renewed"
        );
        return;
    }
    tracing::warn!(
        error = full_text(error),
        "the row of this instance was neither written nor renewed; while that lasts, other instances of this consumer may \
         take it for ended, and store deliveries before they run them"
    );
}

/// What is told of the isolation, when it changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    Off,
    /// Instances were there at the start that have not shown yet that they live.
    Unproven,
    /// An instance has ended without signing off.
    Ended,
}

impl Told {
    fn tell(self) {
        match self {
            Self::Off => {
                tracing::info!(
                    "deliveries are run as they come: no instance of this consumer has ended unsettled"
                )
            }
            Self::Unproven => tracing::info!(
                "deliveries are stored before they are run, until the other instances of this consumer have shown that they live"
            ),
            Self::Ended => tracing::warn!(
                "an instance of this consumer has ended without signing off: deliveries are stored before they are run, until as \
                 many as it may have had in flight have settled"
            ),
        }
    }
}
