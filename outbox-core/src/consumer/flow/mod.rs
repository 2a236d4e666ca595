//! How deliveries flow: a reader for each subscriber, and the core that starts work.

mod lanes;
mod patience;
mod reader;
mod switch;

pub(super) use reader::{Arrival, Reader, leave};
pub use switch::KillSwitch;
pub(super) use switch::{Gate, Switch};

use super::work::{Answer, Ended, Worker};
use crate::{
    event::MessageId,
    failure::{FailureClass, RetryPolicy, full_text},
    outbox::{ConsumerStore, InboxKey, StoreError},
    runtime::{Exit, Mailbox, Shutdown, Tasks, now},
    transport::Delivery,
};
use lanes::{Lanes, Places};
use patience::Patience;
use std::{
    convert::Infallible,
    sync::{
        Arc, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

/// Waits after failures of a broker or a database: 100 ms doubling to 5 s, for ever.
pub(super) fn backoff(failures: u32) -> Duration {
    let policy = RetryPolicy::default()
        .backoff(Duration::from_millis(100))
        .max_backoff(Duration::from_secs(5));
    policy.wait_after(failures.max(1))
}

/// The key in whose order a delivery stands: source and message key.
type OrderKey = (String, String);

/// What a task of the core does.
enum Work {
    /// Deliveries of different keys, in one transaction where there are several, from when on.
    Deliveries(Vec<Option<OrderKey>>, Instant),
    /// Returns deliveries that have not begun.
    Returning,
    /// Waits for the database.
    Probe,
}

/// Starts work: bounded, ordered by key, not while the database is down or the kill switch says no.
pub(super) struct Core<S: ConsumerStore> {
    worker: Arc<Worker<S>>,
    arrivals: Mailbox<Arrival>,
    open: Arc<AtomicUsize>,
    /// Asked to stop when nothing more will come.
    done: Shutdown,
}

impl<S: ConsumerStore> Clone for Core<S> {
    fn clone(&self) -> Self {
        Self {
            worker: self.worker.clone(),
            arrivals: self.arrivals.clone(),
            open: self.open.clone(),
            done: self.done.clone(),
        }
    }
}

/// What one life of the core remembers.
struct State<S: ConsumerStore> {
    worker: Arc<Worker<S>>,
    lanes: Lanes<OrderKey, Delivery>,
    tasks: Tasks<Work, Vec<Ended>>,
    patience: Patience,
    /// When to look for deliveries whose senders will not wait any longer.
    next_late: Option<Instant>,
    /// Tasks that handle deliveries.
    working: usize,
    /// Times in a row that the database failed; while it is probed nothing is started.
    outages: u32,
    probing: bool,
    stopping: bool,
}

impl<S: ConsumerStore> Core<S> {
    pub(super) fn new(
        worker: Arc<Worker<S>>,
        arrivals: Mailbox<Arrival>,
        open: Arc<AtomicUsize>,
        done: Shutdown,
    ) -> Self {
        Self { worker, arrivals, open, done }
    }

    pub(super) async fn run(self) -> Result<(), Infallible> {
        let mut arrivals = self.arrivals.open().await;
        let shutdown = self.worker.shutdown.clone();
        tokio::select! {
            biased;
            () = shutdown.requested() => {}
            () = self.worker.isolation.looked() => {}
        }
        let settings = self.worker.settings;
        let mut state = State {
            worker: self.worker,
            lanes: Lanes::new(Places {
                concurrency: settings.concurrency.saturating_mul(settings.batch),
                prefetch: settings.prefetch,
                per_key: settings.prefetch_per_key,
            }),
            tasks: Tasks::default(),
            patience: Patience::default(),
            next_late: None,
            working: 0,
            outages: 0,
            probing: false,
            stopping: false,
        };
        let mut drained = false;
        loop {
            let gate = state.start_what_may();
            let closed = drained || (self.open.load(Ordering::Acquire) == 0 && arrivals.is_empty());
            if closed && state.tasks.is_empty() && state.lanes.is_empty() {
                // What is stored waits for the next start.
                self.done.request(Duration::MAX);
                return Ok(());
            }
            let shut = matches!(gate, Gate::Shut(_));
            let takes =
                !drained && (state.stopping || (!state.probing && !shut && state.lanes.has_room()));
            let opens = if let Gate::Shut(Some(until)) = gate { Some(until) } else { None };
            tokio::select! {
                biased;
                () = shutdown.requested(), if !state.stopping => {
                    arrivals.close();
                    state.stop();
                }
                Some((work, exit)) = state.tasks.next() => state.ended(work, exit),
                arrival = arrivals.recv(), if takes => match arrival {
                    Some(Arrival::Delivery(delivery)) => state.arrived(delivery),
                    Some(Arrival::Closed) => {}
                    None => drained = true,
                },
                () = until(opens), if opens.is_some() => {}
                () = until(state.next_late), if state.next_late.is_some() => state.return_late(),
            }
        }
    }
}

async fn until(instant: Option<Instant>) {
    if let Some(instant) = instant {
        tokio::time::sleep_until(instant.into()).await;
    }
}

impl<S: ConsumerStore> State<S> {
    fn arrived(&mut self, delivery: Delivery) {
        self.worker.count(|s| s.received += 1);
        if self.stopping {
            return self.return_all(vec![delivery]);
        }
        let key =
            delivery.message.as_ref().ok().and_then(|m| Some((m.source.clone(), m.key.clone()?)));
        if delivery.comes_back_in_order && key.as_ref().is_some_and(|key| self.lanes.is_full(key)) {
            return self.return_all(vec![delivery]);
        }
        self.next_late =
            self.next_late.into_iter().chain(self.patience.last_begin(&delivery)).min();
        self.lanes.arrive(key, delivery);
    }

    /// Returns what waits and could not be answered in time, with what waits behind it.
    fn return_late(&mut self) {
        let now = now();
        let (patience, mut next) = (&self.patience, None::<Instant>);
        let late = self.lanes.take_if(|delivery| {
            let last = patience.last_begin(delivery);
            let is_late = last.is_some_and(|last| last <= now);
            if !is_late {
                next = next.into_iter().chain(last).min();
            }
            is_late
        });
        self.next_late = next;
        self.worker.count(|s| s.late += late.len() as u64);
        self.return_all(late);
    }

    /// Gives the next delivery that may start. Those whose senders will not hear the answer are returned, with what waits behind.
    fn next(&mut self, now: Instant) -> Option<(Option<OrderKey>, Delivery)> {
        loop {
            let (key, delivery) = self.lanes.start()?;
            if !self.patience.is_late(&delivery, now) {
                return Some((key, delivery));
            }
            let mut late = vec![delivery];
            late.extend(self.lanes.turn_back(key));
            self.worker.count(|s| s.late += late.len() as u64);
            self.return_all(late);
        }
    }

    /// Starts what may start, and tells what the kill switch says.
    fn start_what_may(&mut self) -> Gate {
        let worker = self.worker.clone();
        loop {
            let gate = worker.gate();
            let most = match gate {
                Gate::Open => worker.settings.batch,
                Gate::Probe => 1,
                Gate::Shut(_) => 0,
            };
            let free = !self.probing && self.working < worker.settings.concurrency;
            let now = now();
            let batch: Vec<_> =
                if free { (0..most).map_while(|_| self.next(now)).collect() } else { Vec::new() };
            if batch.is_empty() {
                return gate;
            }
            if gate == Gate::Probe {
                worker.with_switch(Switch::probe_started);
            }
            worker.count(|s| s.in_flight += batch.len());
            self.working += 1;
            let (keys, mut deliveries): (Vec<_>, Vec<_>) = batch.into_iter().unzip();
            let worker = worker.clone();
            self.tasks.spawn(Work::Deliveries(keys, now), async move {
                match (deliveries.pop(), deliveries.is_empty()) {
                    (Some(delivery), true) => vec![worker.work(delivery).await],
                    (last, _) => {
                        deliveries.extend(last);
                        worker.work_batch(deliveries).await
                    }
                }
            });
        }
    }

    fn ended(&mut self, work: Work, exit: Exit<Vec<Ended>>) {
        let keys = match work {
            Work::Returning => return,
            Work::Probe => {
                self.probing = false;
                return self.worker.count(|s| s.store_down = false);
            }
            Work::Deliveries(keys, since) => {
                if self.patience.took(now().saturating_duration_since(since))
                    && self.next_late.is_some()
                {
                    self.return_late();
                }
                keys
            }
        };
        self.working -= 1;
        self.worker.count(|s| s.in_flight -= keys.len());
        if self.worker.gate() == Gate::Shut(None) {
            // It ended without a run that could have said how things are.
            self.worker.with_switch(Switch::probe_void);
        }
        let mut ended = match exit {
            Exit::Finished(ended) => ended.into_iter(),
            // The deliveries were dropped with their task, which counts as returned.
            Exit::Panicked(_) | Exit::Cancelled => {
                self.worker.count(|s| s.returned += keys.len() as u64);
                Vec::new().into_iter()
            }
        };
        let mut down = false;
        for key in keys {
            match ended.next().unwrap_or(Ended::Returned) {
                Ended::Answered => {
                    self.outages = 0;
                    self.lanes.finish(key);
                }
                Ended::Returned => self.turn_back(key),
                Ended::StoreDown => {
                    self.turn_back(key);
                    down = true;
                }
            }
        }
        if down {
            self.wait_for_the_store();
        }
    }

    fn turn_back(&mut self, key: Option<OrderKey>) {
        let behind = self.lanes.turn_back(key);
        self.return_all(behind);
    }

    /// Starts nothing until a transaction can be opened; what waits is returned, for another instance may do better.
    fn wait_for_the_store(&mut self) {
        let waiting = self.lanes.drain();
        self.return_all(waiting);
        if self.probing || self.stopping {
            return;
        }
        self.probing = true;
        self.outages = self.outages.saturating_add(1);
        self.worker.count(|s| s.store_down = true);
        self.tasks.spawn(Work::Probe, probe(self.worker.clone(), self.outages));
    }

    fn stop(&mut self) {
        self.stopping = true;
        let waiting = self.lanes.drain();
        self.return_all(waiting);
    }

    fn return_all(&mut self, deliveries: Vec<Delivery>) {
        if deliveries.is_empty() {
            return;
        }
        let worker = self.worker.clone();
        self.tasks.spawn(Work::Returning, async move {
            for delivery in deliveries {
                worker.answer(delivery, Answer::Nack).await;
            }
            Vec::new()
        });
    }
}

impl<S: ConsumerStore> Worker<S> {
    /// Tells what the kill switch lets start.
    pub(super) fn gate(&self) -> Gate {
        let gate = match &self.switch {
            Some(switch) => switch.lock().unwrap_or_else(PoisonError::into_inner).gate(now()),
            None => return Gate::Open,
        };
        self.stats.send_if_modified(|stats| {
            std::mem::replace(&mut stats.paused, gate != Gate::Open) != stats.paused
        });
        gate
    }

    /// Does what every message begins with; a server that opens transactions may still take no writes.
    async fn try_the_store(&self) -> Result<(), StoreError> {
        let tx = self.store.begin().await?;
        let key = InboxKey {
            consumer: &self.consumer,
            handler: "",
            source: "probe",
            message_id: MessageId::generate(),
        };
        let noted = self.store.receive(&tx, key).await;
        self.roll_back(tx).await;
        noted.map(|_| ())
    }

    fn with_switch(&self, change: impl FnOnce(&mut Switch)) {
        if let Some(switch) = &self.switch {
            change(&mut switch.lock().unwrap_or_else(PoisonError::into_inner));
        }
    }
}

/// Returns when a message could be noted as received, which is rolled back; or when the consumer stops.
async fn probe<S: ConsumerStore>(worker: Arc<Worker<S>>, outages: u32) -> Vec<Ended> {
    for failures in outages.. {
        tokio::select! {
            () = tokio::time::sleep(backoff(failures)) => {}
            () = worker.shutdown.requested() => break,
        }
        match worker.try_the_store().await {
            Ok(()) => break,
            Err(error) if error.class() == FailureClass::Permanent => {
                tracing::error!(
                    error = full_text(&error),
                    "the database takes nothing; somebody has to mend it"
                );
            }
            Err(error) => tracing::debug!(error = full_text(&error), "the database is still down"),
        }
    }
    Vec::new()
}
