//! The instance: an actor that keeps this process's row and reads the rows of the consumer's other instances.

mod isolation;
mod operator;
mod peers;

pub(super) use operator::OperatorState;
pub(super) use peers::{Peers, Unknown, after_unknown, claimed_names, known_of, knows};

use super::work::Worker;
use crate::{
    failure::{backoff, full_text},
    outbox::{ConsumerStore, NewInstance, StoreError},
    runtime::Shutdown,
};
use isolation::CrashIsolation;
use operator::InstanceOperator;
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

/// How long the last statement to the database may take at least when the consumer stops: after that the lease
/// expires by itself.
const DEREGISTER_GRACE: Duration = Duration::from_secs(1);
/// Longest shutdown that the last renewal covers.
const LONGEST_SHUTDOWN: Duration = Duration::from_mins(10);

/// Whether deliveries are stored before they are run: set by the instance, read by the workers.
pub(super) struct Isolation {
    state: Mutex<CrashIsolation>,
    /// Whether isolation is on, for the workers, which read it with each delivery.
    on: AtomicBool,
    /// Whether the first read of the rows has ended, with or without success: nothing is started before.
    first_read: watch::Sender<bool>,
}

impl Isolation {
    /// Begins without knowledge of other instances. `redelivery_delay` is for how long after an instance's lease its
    /// broker may still keep its deliveries in flight.
    pub(super) fn new(redelivery_delay: Duration) -> Self {
        let state = Mutex::new(CrashIsolation::new(redelivery_delay));
        Self { state, on: AtomicBool::new(true), first_read: watch::Sender::new(false) }
    }

    /// Tells whether deliveries are stored before they are run.
    pub(super) fn is_on(&self) -> bool {
        self.on.load(Ordering::Acquire)
    }

    /// Notes that a delivery was stored that an ended instance may have had in flight.
    pub(super) fn settled(&self) {
        let _ = self.change(CrashIsolation::settled);
    }

    /// Waits until the first read of the rows has ended; where the database is down, isolation is on.
    pub(super) async fn first_read(&self) {
        // The sender lives as long as this value: the channel cannot close.
        let _ = self.first_read.subscribe().wait_for(|first_read| *first_read).await;
    }

    /// Changes the state; gives whether isolation is on now.
    fn change(&self, change: impl FnOnce(&mut CrashIsolation)) -> bool {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut state);
        let on = state.is_on();
        self.on.store(on, Ordering::Release);
        on
    }

    fn log_state(&self, on: bool) -> IsolationLog {
        match (on, self.state.lock().unwrap_or_else(PoisonError::into_inner).has_ended_peers()) {
            (false, _) => IsolationLog::Off,
            (true, false) => IsolationLog::Unproven,
            (true, true) => IsolationLog::Ended,
        }
    }

    fn removable(&self) -> Vec<Arc<str>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).removable()
    }
}

/// The instances of this process, which are known to be alive without waiting for a renewal.
static LOCAL: Mutex<BTreeSet<Arc<str>>> = Mutex::new(BTreeSet::new());

/// Registers an instance of this process until it is dropped.
struct LocalInstance(Arc<str>);

impl LocalInstance {
    fn new(id: Arc<str>) -> Arc<Self> {
        LOCAL.lock().unwrap_or_else(PoisonError::into_inner).insert(id.clone());
        Arc::new(Self(id))
    }

    fn is_local(id: &str) -> bool {
        LOCAL.lock().unwrap_or_else(PoisonError::into_inner).contains(id)
    }
}

impl Drop for LocalInstance {
    fn drop(&mut self) {
        LOCAL.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.0);
    }
}

/// Keeps the row of one start of a consumer.
pub(super) struct Instance<S: ConsumerStore> {
    worker: Arc<Worker<S>>,
    id: Arc<str>,
    local: Arc<LocalInstance>,
    max_in_flight: u32,
    /// Requested when the dispatcher has ended.
    done: Shutdown,
}

impl<S: ConsumerStore> Clone for Instance<S> {
    fn clone(&self) -> Self {
        Self {
            worker: self.worker.clone(),
            id: self.id.clone(),
            local: self.local.clone(),
            max_in_flight: self.max_in_flight,
            done: self.done.clone(),
        }
    }
}

impl<S: ConsumerStore> Instance<S> {
    pub(super) fn new(worker: Arc<Worker<S>>, id: &str, done: Shutdown) -> Self {
        let max_in_flight = u32::try_from(worker.settings.max_in_flight()).unwrap_or(u32::MAX);
        let id: Arc<str> = id.into();
        Self { worker, local: LocalInstance::new(id.clone()), id, max_in_flight, done }
    }

    pub(super) async fn run(self) -> Result<(), Infallible> {
        let lease = self.worker.settings.lease;
        let (mut registered, mut logged, mut failures) = (false, IsolationLog::Off, 0);
        let mut operator = InstanceOperator::new(&self.worker, &self.id);
        loop {
            let mut wait = lease / 3;
            match self.worker.heartbeats.polled(self.refresh(&mut registered, &mut logged)).await {
                Ok(()) => failures = 0,
                Err(error) => {
                    failures += 1;
                    wait = backoff(failures).min(wait);
                    log_refresh_failure(failures, &error);
                }
            }
            operator.begin(failures == 0).await;
            self.worker.isolation.first_read.send_replace(true);
            self.worker.report_due();
            tokio::select! {
                biased;
                () = self.worker.shutdown.requested() => break,
                () = self.done.requested() => return Ok(()),
                () = operator.serve(failures == 0, wait) => {}
            }
        }
        // The last renewal: other instances count this one as alive until its handlers had their time.
        let time_left = self.worker.shutdown.time_left().unwrap_or_default().min(LONGEST_SHUTDOWN);
        match timeout(
            DEREGISTER_GRACE,
            self.worker.store.renew_instance(&self.id, lease + time_left),
        )
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

    /// Writes or renews the row, and reads the rows of the other instances.
    async fn refresh(
        &self,
        registered: &mut bool,
        logged: &mut IsolationLog,
    ) -> Result<(), StoreError> {
        let (store, lease) = (&self.worker.store, self.worker.settings.lease);
        // Another instance has removed the row of an instance that was paused for long.
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
        self.worker.peer_cache.note(Peers::of(&rows, &self.worker.declared));
        rows.retain(|row| !LocalInstance::is_local(&row.id));
        let isolation = &self.worker.isolation;
        let on = isolation.change(|state| state.read(&rows));
        let now = isolation.log_state(on);
        if now != *logged {
            now.log();
            *logged = now;
        }
        self.worker
            .stats
            .send_if_modified(|stats| std::mem::replace(&mut stats.isolating, on) != on);
        for id in isolation.removable() {
            store.remove_instance(&id, true).await?;
        }
        Ok(())
    }

    /// Removes the row, when every delivery was acknowledged or returned; takes the rest of a shutdown's time, and 1 s
    /// in any case.
    pub(super) async fn deregister(&self) {
        let shutdown = &self.worker.shutdown;
        tokio::select! {
            biased;
            done = self.worker.store.remove_instance(&self.id, false) => {
                if let Err(error) = done {
                    tracing::warn!(
                        error = full_text(&error),
                        "the instance could not deregister; other instances store deliveries before they run them for a while"
                    );
                }
                self.worker.delete_live(&self.id).await;
            }
            _ = futures_util::future::join(shutdown.expired(), sleep(DEREGISTER_GRACE)) => {
                tracing::warn!("the instance could not deregister in time; other instances store deliveries before they run them for a while");
            }
        }
    }
}

/// Logs the first failure in a row; other logs show a database that is down as well.
fn log_refresh_failure(failures: u32, error: &StoreError) {
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

/// The state of isolation as it is logged when it changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum IsolationLog {
    Off,
    /// Instances that were there at the start have not renewed their leases yet.
    Unproven,
    /// An instance has ended without deregistering.
    Ended,
}

impl IsolationLog {
    fn log(self) {
        match self {
            Self::Off => {
                tracing::info!(
                    "deliveries are run as they arrive: no ended instance of this consumer has unsettled deliveries"
                )
            }
            Self::Unproven => tracing::info!(
                "deliveries are stored before they are run, until the other instances of this consumer have renewed their leases"
            ),
            Self::Ended => tracing::warn!(
                "an instance of this consumer has ended without deregistering: deliveries are stored before they are run, until as \
                 many as it may have had in flight have settled"
            ),
        }
    }
}
