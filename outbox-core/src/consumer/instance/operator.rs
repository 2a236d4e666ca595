//! What an operator has paused, as the consumer obeys it, and what the instance writes about itself,
//! after each renewal of its row.

use crate::{
    consumer::work::Worker,
    failure::{BackgroundWork, FailureClass},
    outbox::{
        ConsumerLive, ConsumerStore, ControlReader, ControlScope, Controls, LastFailure, Live,
        OperatorRows, StoreError,
    },
    runtime::now,
};
use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

/// Whether an operator has paused the consumer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::consumer) enum Pause {
    /// The controls were not read yet: nothing starts before.
    Unknown,
    /// It is not paused.
    No,
    /// It is paused, until an operator or the time ends that.
    Until(Option<Instant>),
}

/// A failure of a handler, with the handled messages at that time.
#[derive(Debug)]
struct NotedFailure {
    text: String,
    class: FailureClass,
    at: Instant,
    handled: u64,
}

/// The failures of handlers: how many, and the last one.
#[derive(Debug, Default)]
struct Failures {
    count: u64,
    last: Option<NotedFailure>,
}

/// What the consumer's operator has set, and what the operator is to see: set by the instance and the
/// workers, read by all.
pub(in crate::consumer) struct OperatorState {
    rows: Option<Arc<dyn OperatorRows>>,
    pause: watch::Sender<Pause>,
    failures: Mutex<Failures>,
}

impl OperatorState {
    /// Begins with the rows of the store, if it has any.
    pub(in crate::consumer) fn new(rows: Option<Arc<dyn OperatorRows>>) -> Self {
        let pause = if rows.is_some() { Pause::Unknown } else { Pause::No };
        Self { rows, pause: watch::Sender::new(pause), failures: Mutex::default() }
    }

    /// Tells whether nothing may start now; `Some` with the instant at which that ends by itself.
    pub(in crate::consumer) fn paused(&self, now: Instant) -> Option<Option<Instant>> {
        match *self.pause.borrow() {
            Pause::No => None,
            Pause::Unknown => Some(None),
            Pause::Until(Some(until)) if until <= now => None,
            Pause::Until(until) => Some(until),
        }
    }

    /// Tells whether the controls were not read yet.
    pub(in crate::consumer) fn is_unknown(&self) -> bool {
        *self.pause.borrow() == Pause::Unknown
    }

    /// Gives a receiver that sees each change of the pause.
    pub(in crate::consumer) fn changes(&self) -> watch::Receiver<Pause> {
        self.pause.subscribe()
    }

    /// Notes a failure of a handler, for the operator.
    pub(in crate::consumer) fn note_failure(&self, class: FailureClass, text: &str, handled: u64) {
        let text = text.to_owned();
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        failures.count += 1;
        failures.last = Some(NotedFailure { text, class, at: now(), handled });
    }

    /// Gives the number of failures, and the last one, unless a message was handled after it.
    fn failures(&self, handled: u64, now: Instant) -> (u64, Option<LastFailure>) {
        let failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let last = failures.last.as_ref().filter(|last| last.handled == handled);
        let shown = last.map(|last| {
            LastFailure::new(&last.text, last.class, now.saturating_duration_since(last.at))
        });
        (failures.count, shown)
    }

    fn apply(&self, controls: &Controls, consumer: &str) {
        let pause = match controls.pause(ControlScope::Consumer, consumer) {
            None => Pause::No,
            Some(control) => Pause::Until(control.ends_in.map(|left| now() + left)),
        };
        self.pause.send_replace(pause);
    }

    /// Goes on without controls where they could not be read.
    fn go_on(&self) {
        self.pause.send_if_modified(|pause| {
            let was_unknown = *pause == Pause::Unknown;
            if was_unknown {
                *pause = Pause::No;
            }
            was_unknown
        });
    }
}

/// Reads the controls and writes the live row of one start of an instance.
pub(super) struct InstanceOperator<S: ConsumerStore> {
    worker: Arc<Worker<S>>,
    id: Arc<str>,
    reader: Option<ControlReader>,
    wake: Option<watch::Receiver<u64>>,
    work: BackgroundWork,
}

impl<S: ConsumerStore> InstanceOperator<S> {
    pub(super) fn new(worker: &Arc<Worker<S>>, id: &Arc<str>) -> Self {
        let rows = &worker.operator.rows;
        Self {
            worker: worker.clone(),
            id: id.clone(),
            reader: rows.clone().map(|rows| ControlReader::new(rows)),
            wake: rows.as_ref().and_then(|rows| rows.control_wake()).map(|wake| wake.listen()),
            work: BackgroundWork::default(),
        }
    }

    /// Reads the controls for the first time, unless the database has just failed; nothing starts
    /// before.
    pub(super) async fn begin(&mut self, is_up: bool) {
        if self.worker.operator.is_unknown() {
            if is_up {
                self.read().await;
            }
            self.worker.operator.go_on();
        }
    }

    /// Reads the controls and writes the live row after a renewal, and reads the controls on wakes,
    /// until it is time for the next renewal: neither delays that.
    pub(super) async fn serve(&mut self, is_renewed: bool, until_next: Duration) {
        if self.reader.is_none() || !is_renewed {
            return sleep(until_next).await;
        }
        let serving = async {
            self.read().await;
            self.write().await;
            while let Some(reader) = &self.reader {
                reader.woken(self.wake.as_mut()).await;
                self.read().await;
            }
        };
        _ = timeout(until_next, serving).await;
    }

    async fn read(&mut self) {
        let within = self.worker.settings.lease / 3;
        let Some(reader) = &mut self.reader else { return };
        if let Some(controls) = reader.read(within).await {
            self.worker.operator.apply(&controls, &self.worker.consumer);
        }
    }

    async fn write(&self) {
        let Some(rows) = &self.worker.operator.rows else { return };
        let live = Live::Consumer(self.live());
        let write = rows.write_live(&self.id, &self.worker.consumer, live);
        let written = match timeout(self.worker.settings.lease / 3, write).await {
            Ok(written) => written,
            Err(late) => Err(StoreError::Unavailable(late.into())),
        };
        match written {
            Ok(()) => self.work.succeeded("write the consumer's live row"),
            Err(error) => self.work.failed("write the consumer's live row", &error),
        }
    }

    fn live(&self) -> ConsumerLive {
        let (worker, now) = (&self.worker, now());
        let stats = *worker.stats.borrow();
        let (failed, last_failure) = worker.operator.failures(stats.handled, now);
        ConsumerLive {
            handlers: worker.declared.iter().map(|handler| handler.name.clone()).collect(),
            omitted: 0,
            in_flight: stats.in_flight as u64,
            handled: stats.handled,
            failed,
            paused: worker.operator.paused(now).is_some(),
            isolating: stats.isolating,
            last_failure,
        }
    }
}

impl<S: ConsumerStore> Worker<S> {
    /// Deletes the live row of an instance that ends.
    pub(super) async fn delete_live(&self, id: &str) {
        if let Some(rows) = &self.operator.rows {
            // A janitor deletes it after a day.
            _ = rows.delete_live(id).await;
        }
    }
}
