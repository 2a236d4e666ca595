//! The intake: a reader for each subscriber, and the dispatcher that starts work.

mod ack_deadline;
mod key_queues;
mod kill_switch;
mod reader;

pub(super) use key_queues::most_waiting;
pub use kill_switch::KillSwitch;
pub(super) use kill_switch::{GateState, Switch};
pub(super) use reader::{Incoming, Reader, close_all};

use super::{
    batch::{BatchPlan, Batching, Sharing},
    work::{DeliveryResult, Worked, Worker},
};
use crate::{
    event::MessageId,
    failure::{FailureClass, backoff, full_text},
    outbox::{ConsumerStore, InboxKey, StoreError, roll_back},
    runtime::{Exit, Mailbox, Shutdown, Tasks, now},
    transport::{AckDecision, Delivery},
};
use ack_deadline::AckDeadlines;
use key_queues::{Capacity, KeyQueues, Pick};
use std::{
    convert::Infallible,
    sync::{
        Arc, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

/// The key by which deliveries are ordered: source and message key.
type OrderKey = (String, String);

/// A delivery that waits.
struct Waiting {
    delivery: Delivery,
    /// How it may share its transaction; `None` where it runs alone.
    sharing: Option<Sharing>,
}

/// A task of the dispatcher.
enum Work {
    /// Handles deliveries of different keys, in one transaction where there are several; with the start.
    Deliveries(Vec<Option<OrderKey>>, Instant),
    /// Returns deliveries whose handlers have not run.
    Returning,
    /// Probes the database until it is up.
    Probe,
}

/// Starts work: bounded, ordered by key, and not while the database is down or the kill switch has tripped.
pub(super) struct Dispatcher<S: ConsumerStore> {
    worker: Arc<Worker<S>>,
    incoming: Mailbox<Incoming>,
    open: Arc<AtomicUsize>,
    /// Requested when all subscribers are closed and all deliveries handled.
    done: Shutdown,
}

impl<S: ConsumerStore> Clone for Dispatcher<S> {
    fn clone(&self) -> Self {
        Self {
            worker: self.worker.clone(),
            incoming: self.incoming.clone(),
            open: self.open.clone(),
            done: self.done.clone(),
        }
    }
}

/// The state of one run of the dispatcher.
struct State<S: ConsumerStore> {
    worker: Arc<Worker<S>>,
    queues: KeyQueues<OrderKey, Waiting>,
    tasks: Tasks<Work, Vec<Worked>>,
    ack_deadlines: AckDeadlines,
    /// When the first ack deadline of a waiting delivery passes.
    next_deadline: Option<Instant>,
    /// Tasks that handle deliveries.
    working: usize,
    /// Consecutive failures of the database; the dispatcher starts nothing while it probes.
    outages: u32,
    probing: bool,
    stopping: bool,
}

impl<S: ConsumerStore> Dispatcher<S> {
    pub(super) fn new(
        worker: Arc<Worker<S>>,
        incoming: Mailbox<Incoming>,
        open: Arc<AtomicUsize>,
        done: Shutdown,
    ) -> Self {
        Self { worker, incoming, open, done }
    }

    pub(super) async fn run(self) -> Result<(), Infallible> {
        let mut incoming = self.incoming.open().await;
        let shutdown = self.worker.shutdown.clone();
        tokio::select! {
            biased;
            () = shutdown.requested() => {}
            () = self.worker.isolation.first_read() => {}
        }
        let mut pauses = self.worker.operator.changes();
        let mut state = State::new(self.worker);
        let mut drained = false;
        loop {
            let gate = state.start_ready();
            let closed = drained || (self.open.load(Ordering::Acquire) == 0 && incoming.is_empty());
            if closed && state.tasks.is_empty() && state.queues.is_empty() {
                // Stored deliveries wait for the next start.
                self.done.request(Duration::MAX);
                return Ok(());
            }
            let is_closed = matches!(gate, GateState::Closed(_) | GateState::Paused(_));
            let receives = !drained
                && (state.stopping || (!state.probing && !is_closed && state.queues.has_room()));
            let opens = match gate {
                GateState::Closed(until) | GateState::Paused(until) => until,
                GateState::Open | GateState::Probe => None,
            };
            tokio::select! {
                biased;
                () = shutdown.requested(), if !state.stopping => {
                    incoming.close();
                    state.stop();
                }
                Some((work, exit)) = state.tasks.next() => state.finish(work, exit),
                received = incoming.recv(), if receives => match received {
                    Some(Incoming::Delivery(delivery)) => state.accept(delivery),
                    Some(Incoming::Closed) => {}
                    None => drained = true,
                },
                () = until(opens), if opens.is_some() => {}
                Ok(()) = pauses.changed() => {}
                () = until(state.next_deadline), if state.next_deadline.is_some() => state.nack_late(),
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
    fn new(worker: Arc<Worker<S>>) -> Self {
        let settings = worker.settings;
        Self {
            worker,
            queues: KeyQueues::new(Capacity {
                concurrency: settings.most_running(),
                prefetch: settings.prefetch,
                per_key: settings.prefetch_per_key,
            }),
            tasks: Tasks::default(),
            ack_deadlines: AckDeadlines::default(),
            next_deadline: None,
            working: 0,
            outages: 0,
            probing: false,
            stopping: false,
        }
    }

    fn accept(&mut self, delivery: Delivery) {
        self.worker.count(|s| s.received += 1);
        self.worker.metrics.received(&delivery);
        if self.stopping {
            return self.nack_all(vec![delivery]);
        }
        let key =
            delivery.message.as_ref().ok().and_then(|m| Some((m.source.clone(), m.key.clone()?)));
        if delivery.comes_back_in_order && key.as_ref().is_some_and(|key| self.queues.is_full(key))
        {
            return self.nack_all(vec![delivery]);
        }
        self.next_deadline =
            self.next_deadline.into_iter().chain(self.ack_deadlines.latest_start(&delivery)).min();
        let sharing = self.worker.sharing(&delivery);
        self.queues.push(key, Waiting { delivery, sharing });
    }

    /// Returns waiting deliveries that cannot be acknowledged in time, with those of their keys behind.
    fn nack_late(&mut self) {
        let now = now();
        let (ack_deadlines, mut next) = (&self.ack_deadlines, None::<Instant>);
        let late = self.queues.take_if(|waiting| {
            let last = ack_deadlines.latest_start(&waiting.delivery);
            let is_late = last.is_some_and(|last| last <= now);
            if !is_late {
                next = next.into_iter().chain(last).min();
            }
            is_late
        });
        self.next_deadline = next;
        self.worker.count(|s| s.late += late.len() as u64);
        self.nack_waiting(late);
    }

    /// Gives the next delivery that may start. Returns deliveries whose senders have stopped waiting by
    /// their end, with those of their keys behind.
    fn next(&mut self, now: Instant) -> Option<(Option<OrderKey>, Waiting)> {
        loop {
            let (key, waiting) = self.queues.start()?;
            if !self.ack_deadlines.is_late(&waiting.delivery, now) {
                return Some((key, waiting));
            }
            let mut late = vec![waiting];
            late.extend(self.queues.finish_nacked(key));
            self.worker.count(|s| s.late += late.len() as u64);
            self.nack_waiting(late);
        }
    }

    /// Gives the deliveries that start next in one task, where `is_open` as many as may share a transaction.
    fn next_together(&mut self, is_open: bool, now: Instant) -> Vec<(Option<OrderKey>, Waiting)> {
        if let (Batching::Savepoints(most), true) = (self.worker.settings.batching, is_open) {
            return (0..most).map_while(|_| self.next(now)).collect();
        }
        let mut batch: Vec<_> = self.next(now).into_iter().collect();
        let Some((_, Waiting { sharing: Some(first), .. })) = batch.first() else { return batch };
        let worker = Arc::clone(&self.worker);
        if !is_open || !worker.batches_now() {
            return batch;
        }
        let mut plan = BatchPlan::of(worker.candidate(first), worker.store.has_one_writer());
        let ack_deadlines = &self.ack_deadlines;
        batch.extend(self.queues.start_some(|waiting| match &waiting.sharing {
            _ if plan.is_full() => Pick::Stop,
            Some(sharing)
                if !ack_deadlines.is_late(&waiting.delivery, now)
                    && plan.add(worker.candidate(sharing)) =>
            {
                Pick::Take
            }
            _ => Pick::Leave,
        }));
        batch
    }

    /// Starts all deliveries that may start, and gives the state of the kill switch.
    fn start_ready(&mut self) -> GateState {
        let worker = self.worker.clone();
        loop {
            let gate = worker.gate();
            let may_start = matches!(gate, GateState::Open | GateState::Probe)
                && !self.probing
                && self.working < worker.settings.concurrency;
            let now = now();
            let batch = match may_start {
                true => self.next_together(gate == GateState::Open, now),
                false => Vec::new(),
            };
            if batch.is_empty() {
                return gate;
            }
            if gate == GateState::Probe {
                worker.with_switch(Switch::probe_started);
            }
            worker.count(|s| s.in_flight += batch.len());
            self.working += 1;
            let (keys, deliveries): (Vec<_>, Vec<_>) = batch.into_iter().unzip();
            self.tasks.spawn(Work::Deliveries(keys, now), work(worker.clone(), deliveries));
        }
    }

    fn finish(&mut self, work: Work, exit: Exit<Vec<Worked>>) {
        let keys = match work {
            Work::Returning => return,
            Work::Probe => {
                self.probing = false;
                return self.worker.count(|s| s.store_down = false);
            }
            Work::Deliveries(keys, since) => {
                if self.ack_deadlines.record(now().saturating_duration_since(since))
                    && self.next_deadline.is_some()
                {
                    self.nack_late();
                }
                keys
            }
        };
        self.working -= 1;
        self.worker.count(|s| s.in_flight -= keys.len());
        if self.worker.switch_gate() == GateState::Closed(None) {
            // The probe ended without a run, so that nothing is known yet.
            self.worker.with_switch(Switch::probe_inconclusive);
        }
        let mut results = match exit {
            Exit::Finished(results) => results.into_iter(),
            // The deliveries were dropped with their task, which counts as returned.
            Exit::Panicked(_) | Exit::Cancelled => {
                self.worker.count(|s| s.returned += keys.len() as u64);
                Vec::new().into_iter()
            }
        };
        let (mut down, mut alone) = (false, Vec::new());
        for key in keys {
            match results.next().unwrap_or(Worked::Ended(DeliveryResult::Returned)) {
                Worked::Ended(DeliveryResult::Acknowledged) => {
                    self.outages = 0;
                    self.queues.finish(key);
                }
                Worked::Ended(DeliveryResult::Returned) => self.nack_key(key),
                Worked::Ended(DeliveryResult::StoreDown) => {
                    self.nack_key(key);
                    down = true;
                }
                Worked::RunsAlone(delivery) if self.stopping || self.probing => {
                    self.nack_all(vec![delivery]);
                    self.nack_key(key);
                }
                Worked::RunsAlone(delivery) => {
                    alone.push((key, Waiting { delivery, sharing: None }));
                }
            }
        }
        self.queues.restart(alone);
        if down {
            self.pause_until_store_up();
        }
    }

    /// Returns the deliveries that wait behind a returned one of their key.
    fn nack_key(&mut self, key: Option<OrderKey>) {
        let behind = self.queues.finish_nacked(key);
        self.nack_waiting(behind);
    }

    /// Starts nothing until the database takes a transaction. Returns waiting deliveries: another instance
    /// may reach its database.
    fn pause_until_store_up(&mut self) {
        let waiting = self.queues.drain();
        self.nack_waiting(waiting);
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
        let waiting = self.queues.drain();
        self.nack_waiting(waiting);
    }

    fn nack_waiting(&mut self, waiting: Vec<Waiting>) {
        self.nack_all(waiting.into_iter().map(|waiting| waiting.delivery).collect());
    }

    fn nack_all(&mut self, deliveries: Vec<Delivery>) {
        if deliveries.is_empty() {
            return;
        }
        let worker = self.worker.clone();
        self.tasks.spawn(Work::Returning, async move {
            for delivery in deliveries {
                worker.acknowledge(delivery, AckDecision::Busy).await;
            }
            Vec::new()
        });
    }
}

impl<S: ConsumerStore> Worker<S> {
    /// Tells what an operator and the kill switch let start.
    pub(super) fn gate(&self) -> GateState {
        let gate = match self.operator.paused(now()) {
            Some(until) => GateState::Paused(until),
            None => self.switch_gate(),
        };
        // Before the first read of the controls it waits for that, and is not paused.
        let is_paused = gate != GateState::Open && !self.operator.is_unknown();
        if self.stats.borrow().paused != is_paused {
            self.count(|stats| stats.paused = is_paused);
        }
        gate
    }

    /// Tells what the kill switch lets start.
    fn switch_gate(&self) -> GateState {
        match &self.switch {
            Some(switch) => switch.lock().unwrap_or_else(PoisonError::into_inner).gate(now()),
            None => GateState::Open,
        }
    }

    /// Writes an inbox row and rolls back; a server that opens transactions may still take no writes.
    async fn probe_store(&self) -> Result<(), StoreError> {
        let tx = self.store.begin().await?;
        let key = InboxKey {
            consumer: &self.consumer,
            handler: "",
            source: "probe",
            message_id: MessageId::generate(),
        };
        let received = self.store.receive(&tx, key).await;
        roll_back(&self.store, tx).await;
        received.map(|_| ())
    }

    fn with_switch(&self, change: impl FnOnce(&mut Switch)) {
        if let Some(switch) = &self.switch {
            change(&mut switch.lock().unwrap_or_else(PoisonError::into_inner));
        }
    }
}

/// Handles deliveries of different keys: one by itself, or several in one transaction.
async fn work<S: ConsumerStore>(
    worker: Arc<Worker<S>>,
    mut deliveries: Vec<Waiting>,
) -> Vec<Worked> {
    if deliveries.len() == 1
        && let Some(waiting) = deliveries.pop()
    {
        return vec![Worked::Ended(worker.work(waiting.delivery).await)];
    }
    if let Batching::Savepoints(_) = worker.settings.batching {
        let deliveries = deliveries.into_iter().map(|waiting| waiting.delivery).collect();
        return worker.work_batch(deliveries).await.into_iter().map(Worked::Ended).collect();
    }
    worker.work_together(deliveries.into_iter().map(|w| (w.delivery, w.sharing)).collect()).await
}

/// Returns when the database takes writes again, or when the consumer stops.
async fn probe<S: ConsumerStore>(worker: Arc<Worker<S>>, outages: u32) -> Vec<Worked> {
    for failures in outages.. {
        tokio::select! {
            () = tokio::time::sleep(backoff(failures)) => {}
            () = worker.shutdown.requested() => break,
        }
        match worker.probe_store().await {
            Ok(()) => break,
            Err(error) if error.class() == FailureClass::Permanent => {
                tracing::error!(
                    error = full_text(&error),
                    "the database accepts no writes; operator action needed"
                );
            }
            Err(error) => tracing::debug!(error = full_text(&error), "the database is still down"),
        }
    }
    Vec::new()
}
