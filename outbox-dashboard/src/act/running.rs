//! The plans that this process applies: each in a task that outlives the request that began it, and
//! ends with the process. The audit says "running" then, and applying the plan again goes on.

use crate::{access::Refusal, store::Database};
use http::StatusCode;
use outbox_core::{
    admin::{ActStore, Applied, AuditOutcome, Canary, OperatorNote, PlanId, apply},
    runtime::{Exit, Shutdown, spawn},
};
use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{sync::watch, time::timeout};

/// Most plans that are applied at once: each holds a connection in turn, and relays need theirs.
const MOST_RUNNING: usize = 8;
/// Failed applications that are remembered, for the page of their plan.
const MOST_FAILED: usize = 64;

/// A plan of a database.
type Key = (Arc<str>, PlanId);

/// The plans that this process applies, or that it could not apply to the end.
#[derive(Default)]
pub(crate) struct Running {
    applications: Mutex<HashMap<Key, Application>>,
}

/// How far the application of a plan is.
#[derive(Debug, Clone, Default)]
pub(crate) struct Standing {
    /// Its counts, from the first chunk on.
    pub(crate) applied: Option<Applied>,
    /// How it ended, or why it could not go on.
    pub(crate) end: Option<Result<AuditOutcome, Refusal>>,
}

/// The application of a plan.
#[derive(Clone)]
pub(crate) struct Application {
    cancel: Shutdown,
    standing: watch::Receiver<Standing>,
}

/// Runs an act to its end in a task of its own, also where the request that asked for it is gone: what
/// a client that hangs up leaves half done would say "running" in the audit for good.
pub(super) async fn to_its_end<T: Send + 'static>(
    act: impl Future<Output = T> + Send + 'static,
) -> Result<T, Refusal> {
    match spawn(act).await {
        Exit::Finished(done) => Ok(done),
        Exit::Panicked(_) | Exit::Cancelled => {
            let title = "The task of the act ended unexpectedly";
            Err(Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, title)
                .advising("What it has done, the audit says: look there before you act again."))
        }
    }
}

impl fmt::Debug for Running {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Running").field("plans", &self.lock().len()).finish()
    }
}

impl Running {
    /// Begins to apply a plan in a task of its own. Gives the application that is under way, where
    /// another request has begun it.
    pub(crate) fn start(
        &self,
        database: &Database,
        plan: PlanId,
        note: OperatorNote,
        canary: Option<Canary>,
    ) -> Result<Application, Refusal> {
        let key = (Arc::clone(&database.name), plan);
        let mut applications = self.lock();
        if let Some(there) = applications.get(&key).filter(|there| there.is_running()) {
            return Ok(there.clone());
        }
        applications.retain(|_, application| application.is_running() || application.has_failed());
        if applications.values().filter(|application| application.is_running()).count()
            >= MOST_RUNNING
        {
            return Err(Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "Too much is under way")
                .because(format!("{MOST_RUNNING} plans are being applied"))
                .advising("Wait until one has ended, or cancel one; the plan stays as it is."));
        }
        if applications.len() >= MOST_RUNNING + MOST_FAILED {
            applications.retain(|_, application| application.is_running());
        }
        let (sender, standing) = watch::channel(Standing::default());
        let application = Application { cancel: Shutdown::default(), standing };
        let (cancel, store) = (application.cancel.clone(), Arc::clone(&database.store));
        spawn(async move {
            let ends = Ends(sender);
            let tell = |applied| ends.0.send_modify(|standing| standing.applied = Some(applied));
            let store: &dyn ActStore = &*store;
            let end = apply(store, plan, &note, canary, &cancel, tell).await;
            ends.0.send_modify(|standing| standing.end = Some(end.map_err(Refusal::from)));
        })
        .detach();
        applications.insert(key, application.clone());
        Ok(application)
    }

    /// Gives the application of a plan, if this process has one.
    pub(crate) fn get(&self, database: &Database, plan: PlanId) -> Option<Application> {
        self.lock().get(&(Arc::clone(&database.name), plan)).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Application>> {
        // Nothing that is done under the lock leaves the map half changed.
        self.applications.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tells that a task ended, also where it panicked.
struct Ends(watch::Sender<Standing>);

impl Drop for Ends {
    fn drop(&mut self) {
        self.0.send_if_modified(|standing| {
            let is_open = standing.end.is_none();
            if is_open {
                let title = "The task that applied the plan ended unexpectedly";
                standing.end = Some(Err(Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, title)
                    .advising("Apply the plan again: it goes on after the last chunk.")));
            }
            is_open
        });
    }
}

impl Application {
    /// Gives how far it is.
    pub(crate) fn standing(&self) -> Standing {
        self.standing.borrow().clone()
    }

    pub(crate) fn is_running(&self) -> bool {
        self.standing.borrow().end.is_none()
    }

    fn has_failed(&self) -> bool {
        matches!(self.standing.borrow().end, Some(Err(_)))
    }

    /// Asks it to end after its present chunk.
    pub(crate) fn cancel(&self) {
        self.cancel.request(Duration::ZERO);
    }

    /// Waits until its first chunk is done or it has ended, for so long at most.
    pub(crate) async fn begun(&self, within: Duration) -> Standing {
        self.wait(within, |standing| standing.applied.is_some() || standing.end.is_some()).await
    }

    /// Waits until it has ended, for so long at most.
    pub(crate) async fn ended(&self, within: Duration) -> Standing {
        self.wait(within, |standing| standing.end.is_some()).await
    }

    async fn wait(&self, within: Duration, until: impl FnMut(&Standing) -> bool) -> Standing {
        let mut standing = self.standing.clone();
        // Past the time, and where the sender is gone, it stands as it stands.
        let _ = timeout(within, standing.wait_for(until)).await;
        self.standing()
    }
}
