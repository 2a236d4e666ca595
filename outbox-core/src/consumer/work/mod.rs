//! The work for one delivery, from its arrival to its acknowledgement.

mod ack_modes;
mod batch;
mod command;
mod dead_letter;
mod decoding;
mod deferred;
mod disturbed;
mod handover;
mod history;
mod outcome;
mod overdue;
mod reports;
mod run;
mod stored;
mod together;

pub(super) use command::Commands;
pub(super) use decoding::Decoding;
pub(super) use handover::PeerCache;
pub use outcome::{HandlerOutcome, NextAction, RetryState, Wait, next_action};
pub(super) use reports::ConsumerReports;
pub(super) use run::DeliverySource;

use super::{
    handle::ConsumerStats,
    handler::{HandlerEntry, Layers},
    instance::{Isolation, OperatorState},
    intake::Switch,
    metrics::ConsumerMetrics,
    settings::{AckMode, Settings},
};
use crate::{
    event::{Message, jitter},
    failure::{DeadLetterListener, DeadReason, FailureClass, full_text},
    outbox::{ConsumerStore, DeclaredHandler, History, ReceivedLetter, StoreError},
    runtime::{
        ConnectionGrant, Shutdown, Wake,
        fault::{FaultPoint, fault_point},
        now,
    },
    telemetry::{Heartbeats, attribute, process_span, record_error},
    transport::{AckDecision, Delivery, cloudevents},
};
use deferred::StoredFirst;
use disturbed::{Again, Disturbances};
use history::{RunHistory, permanent, text_of};
use reports::{Failing, FailureKind};
use run::RunResult;
use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};
use tokio::sync::watch;
use tracing::{Instrument, Span};

/// Consecutive retries of work in a busy database; then the database counts as down.
const BUSY_LIMIT: u32 = 5;
/// Longest wait before work in a busy database is retried: about as long as a deadlock takes to clear.
const BUSY_WAIT: Duration = Duration::from_millis(50);
/// Pause before the consumer returns a delivery though the database is up.
const PAUSE_BEFORE_NACK: Duration = Duration::from_secs(1);
/// From this delivery attempt on, as the broker counts, the consumer stores a delivery before it runs
/// the handlers: two attempts before it were never acknowledged, and may have ended their processes.
/// The database counts the runs of stored deliveries.
const CRASH_SUSPECT_ATTEMPT: u32 = 3;

/// Everything that the handling of a delivery needs.
pub(super) struct Worker<S: ConsumerStore> {
    pub(super) consumer: Arc<str>,
    /// Identity of this start, random: the owner of claims on stored deliveries.
    pub(super) by: Arc<str>,
    pub(super) store: S,
    pub(super) handlers: Vec<HandlerEntry<S>>,
    /// The handlers as this instance declares them in its row.
    pub(super) declared: Arc<[DeclaredHandler]>,
    pub(super) commands: Commands,
    pub(super) decoding: Decoding,
    pub(super) peer_cache: PeerCache,
    pub(super) started_at: Instant,
    pub(super) layers: Layers<S::Tx>,
    pub(super) settings: Settings,
    /// Its connections, as long as it runs.
    pub(super) _connections: ConnectionGrant,
    pub(super) dead_letter_listeners: Vec<DeadLetterListener>,
    pub(super) switch: Option<Mutex<Switch>>,
    /// Wakes the retrier when a delivery was stored.
    pub(super) stored: Wake,
    pub(super) stats: Arc<watch::Sender<ConsumerStats>>,
    pub(super) isolation: Isolation,
    pub(super) operator: OperatorState,
    pub(super) reports: ConsumerReports,
    pub(super) metrics: ConsumerMetrics,
    pub(super) heartbeats: Arc<Heartbeats>,
    pub(super) shutdown: Shutdown,
}

/// What became of a delivery in a task of the dispatcher.
#[derive(Debug)]
pub(super) enum Worked {
    Ended(DeliveryResult),
    /// It was in a transaction with others, and is handled by itself now.
    RunsAlone(Delivery),
}

/// How the handling of a delivery ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DeliveryResult {
    /// The consumer acknowledged or rejected it, or a handler does.
    Acknowledged,
    /// The consumer returned it, and the broker delivers it again.
    Returned,
    /// The consumer returned it because the database is down.
    StoreDown,
}

impl<S: ConsumerStore> Worker<S> {
    pub(super) fn count(&self, change: impl FnOnce(&mut ConsumerStats)) {
        self.stats.send_modify(|stats| {
            let before = *stats;
            change(stats);
            self.metrics.changed(&before, stats);
        });
    }

    /// Handles a delivery and acknowledges, rejects or returns it.
    pub(super) async fn work(&self, delivery: Delivery) -> DeliveryResult {
        match readable(&delivery) {
            Ok(message) => {
                let span = process_span(&self.consumer, &message, delivery.attempt);
                self.count_tombstone(&message);
                self.process(message, delivery, Vec::new()).instrument(span).await
            }
            Err(reason) => self.unreadable(delivery, reason).await,
        }
    }

    /// Counts a tombstone.
    fn count_tombstone(&self, message: &Message) {
        if message.is_tombstone() {
            self.count(|s| s.tombstones += 1);
        }
    }

    /// Handles a message; `ran` has the outcomes of handlers that have run already.
    async fn process(
        &self,
        message: Message,
        delivery: Delivery,
        ran: Vec<(Arc<str>, HandlerOutcome)>,
    ) -> DeliveryResult {
        let begun = now();
        let (span, attempt) = (Span::current(), delivery.attempt);
        let result = match self.settings.ack {
            AckMode::Before => self.ack_before(&message, delivery).await,
            AckMode::Manual => self.manual(&message, delivery).await,
            AckMode::AfterHandlers => match self.handle_all(&message, attempt, ran, begun).await {
                Ok(decision) => {
                    if decision != AckDecision::Ack {
                        record_error(&span, "handler");
                    }
                    self.acknowledge(delivery, decision).await
                }
                Err(error) => self.return_for(delivery, &error).await,
            },
        };
        span.record(attribute::PROCESS_SECONDS, now().duration_since(begun).as_secs_f64());
        result
    }

    /// Returns a delivery because the database failed.
    async fn return_for(&self, delivery: Delivery, error: &StoreError) -> DeliveryResult {
        record_error(&Span::current(), error.class().as_str());
        if error.class() == FailureClass::Transient {
            self.report(Failing::of(FailureKind::DatabaseBusy, &full_text(error)));
            self.pause_before_nack().await;
            return self.acknowledge(delivery, AckDecision::Nack).await;
        }
        // An error of the connection says nothing of the message.
        let is_of_message = error.class() == FailureClass::Permanent;
        let message = delivery.message.as_ref().ok().filter(|_| is_of_message);
        let error = full_text(error);
        self.report(Failing { message, ..Failing::of(FailureKind::DatabaseFailed, &error) });
        self.acknowledge(delivery, AckDecision::Nack).await;
        DeliveryResult::StoreDown
    }

    /// Tells whether the consumer stores a delivery before it runs the handlers, so that the database
    /// counts its runs. Not so where the broker counts: its count shows which delivery ends its process.
    pub(super) fn isolates(&self, delivery: Option<u32>) -> bool {
        delivery.is_none() && self.isolation.is_on()
    }

    /// Runs every handler that takes the message; gives the ack decision.
    async fn handle_all(
        &self,
        message: &Message,
        delivery: Option<u32>,
        mut ran: Vec<(Arc<str>, HandlerOutcome)>,
        begun: Instant,
    ) -> Result<AckDecision, StoreError> {
        let (mut decision, mut settles, isolates) = (None, false, self.isolates(delivery));
        let defers = isolates || delivery.is_some_and(|n| n >= CRASH_SUSPECT_ATTEMPT);
        for entry in self.handlers.iter().filter(|entry| entry.takes(message)) {
            let known = ran
                .iter()
                .position(|(name, _)| *name == entry.name)
                .map(|at| ran.swap_remove(at).1);
            if defers && known.is_none() {
                let stored = self.store_first(entry, message, isolates).await?;
                settles |= stored == StoredFirst::Stored;
                if stored != StoredFirst::Refused {
                    decision = decision.max(Some(AckDecision::Ack));
                    continue;
                }
            }
            let handled = self.handle(entry, message, delivery, known, begun).await?;
            decision = decision.max(Some(handled));
        }
        self.settle(delivery, isolates && settles);
        match decision {
            Some(decision) => Ok(decision),
            None => self.unhandled(message).await,
        }
    }

    /// Counts a delivery whose handlers have run for one of those that an ended instance had in flight.
    ///
    /// One that the broker counts is not stored first, but an ended instance may have had it in flight
    /// all the same. One that it does not count, and that was not stored, began before isolation did:
    /// it counts for nothing, since isolation must not end before the deliveries that it is for.
    fn settle(&self, delivery: Option<u32>, stored_first: bool) {
        if stored_first || (delivery.is_some() && self.isolation.is_on()) {
            self.isolation.settled();
        }
    }

    /// Runs one handler until it is done, or until no further run of this delivery follows. `begun` is
    /// when the delivery was started.
    async fn handle(
        &self,
        entry: &HandlerEntry<S>,
        message: &Message,
        delivery: Option<u32>,
        mut known: Option<HandlerOutcome>,
        begun: Instant,
    ) -> Result<AckDecision, StoreError> {
        let mut run_history = RunHistory::default();
        let mut disturbances = Disturbances::new(begun);
        loop {
            let ran = match known.take() {
                Some(outcome) => RunResult::Completed(outcome),
                None => {
                    self.run_watched(
                        entry,
                        message,
                        run_history.history.attempts + 1,
                        &DeliverySource::Transport(delivery),
                    )
                    .await
                }
            };
            let outcome = match ran {
                RunResult::Completed(outcome) => outcome,
                RunResult::Duplicate | RunResult::ClaimLost => return Ok(AckDecision::Ack),
                // If the stored deliveries before it were finished meanwhile, the handler runs now.
                RunResult::QueuedBehind => {
                    match self.defer(entry, message, None, &run_history.history).await? {
                        Some(decision) => return Ok(decision),
                        None => continue,
                    }
                }
                RunResult::Disturbed(error) => {
                    match self.disturbed(
                        &entry.name,
                        message,
                        &mut disturbances,
                        self.settings.max_unacked_time,
                        &error,
                    ) {
                        Again::RetryInline(pause) => tokio::select! {
                            () = tokio::time::sleep(jitter(pause)) => continue,
                            () = self.shutdown.requested() => return Ok(AckDecision::Nack),
                        },
                        Again::Defer(pause) => {
                            let stored = self
                                .defer(entry, message, Some(jitter(pause)), &run_history.history)
                                .await?;
                            return Ok(stored.unwrap_or(AckDecision::Ack));
                        }
                        Again::Failed => HandlerOutcome::Failed(full_text(&error)),
                    }
                }
                RunResult::StoreFailed(error) => return Err(error),
            };
            disturbances.clear();
            run_history.note(&outcome);
            self.log_outcome(&entry.name, message, run_history.history.attempts, &outcome);
            let unacked_time_left =
                self.settings.max_unacked_time.saturating_sub(now().duration_since(begun));
            let state = RetryState {
                failures: run_history.history.failures,
                failing_for: run_history.history.failing_for,
                unacked_time_left,
            };
            match next_action(&outcome, state, &self.settings.retry) {
                NextAction::Done => return Ok(AckDecision::Ack),
                NextAction::RetryInline(wait) => tokio::select! {
                    () = tokio::time::sleep(wait.spread()) => self.count(|s| s.retried += 1),
                    () = self.shutdown.requested() => return Ok(AckDecision::Nack),
                },
                NextAction::Defer(wait) => {
                    let stored = self
                        .defer(entry, message, Some(wait.spread()), &run_history.history)
                        .await?;
                    return Ok(stored.unwrap_or(AckDecision::Ack));
                }
                NextAction::HandOver => {
                    return self
                        .hand_over(
                            self.stored_name(entry),
                            message,
                            &run_history.history,
                            outcome.awaited(),
                        )
                        .await;
                }
                NextAction::DeadLetter(reason) => {
                    let letter =
                        self.letter(&entry.name, Ok(message), reason, &run_history.history);
                    return self.give_up(&letter, None, text_of(&outcome)).await;
                }
            }
        }
    }

    /// Makes the dead letter of a message that this consumer gives up.
    fn letter<'a>(
        &'a self,
        handler: &'a str,
        message: Result<&'a Message, Option<&'a bytes::Bytes>>,
        reason: DeadReason,
        history: &'a History,
    ) -> ReceivedLetter<'a> {
        ReceivedLetter { consumer: &self.consumer, handler, message, reason, history }
    }

    /// Retries work in the database while the database is busy.
    async fn retry_while_busy<T>(&self, work: impl AsyncWork<T>) -> Result<T, StoreError> {
        let mut busy = 0;
        loop {
            match work.run().await {
                Err(error) if error.class() == FailureClass::Transient && busy < BUSY_LIMIT => {
                    busy += 1;
                    tokio::time::sleep(jitter(BUSY_WAIT)).await;
                }
                done => return done,
            }
        }
    }

    /// Waits before the consumer returns a delivery: a broker without another consumer, or without a
    /// redelivery delay, delivers it again at once.
    pub(super) async fn pause_before_nack(&self) {
        tokio::select! {
            () = tokio::time::sleep(PAUSE_BEFORE_NACK) => {}
            () = self.shutdown.requested() => {}
        }
    }

    /// Feeds the kill switch with the result of a run.
    fn feed_kill_switch(&self, failed: bool) {
        let Some(switch) = &self.switch else { return };
        if switch.lock().unwrap_or_else(PoisonError::into_inner).note(failed, now()) {
            tracing::warn!("most of the last runs failed: the consumer pauses");
            self.count(|s| s.paused = true);
        }
    }

    /// Passes the ack decision to the transport. Where that fails, the broker delivers the message
    /// again, and the inbox recognises the duplicate.
    pub(super) async fn acknowledge(
        &self,
        delivery: Delivery,
        decision: AckDecision,
    ) -> DeliveryResult {
        let (passed_on, result) = match decision {
            AckDecision::Ack => {
                fault_point(FaultPoint::BeforeAck);
                let acked = delivery.ack().await;
                fault_point(FaultPoint::AfterAck);
                self.count(|s| s.acked += 1);
                (acked, DeliveryResult::Acknowledged)
            }
            AckDecision::Reject(reason) => {
                self.count(|s| s.rejected += 1);
                (delivery.reject(&reason).await, DeliveryResult::Acknowledged)
            }
            AckDecision::Nack => {
                self.count(|s| s.returned += 1);
                (delivery.nack(true).await, DeliveryResult::Returned)
            }
            AckDecision::Busy => {
                self.count(|s| s.returned += 1);
                (delivery.busy().await, DeliveryResult::Returned)
            }
        };
        if let Err(error) = passed_on {
            self.report(Failing::of(FailureKind::NotAcknowledged, &full_text(&error)));
        }
        result
    }
}

/// Work that can be retried.
trait AsyncWork<T>: Send {
    fn run(&self) -> impl Future<Output = Result<T, StoreError>> + Send;
}

impl<T, F, Fut> AsyncWork<T> for F
where
    F: Fn() -> Fut + Send + Sync,
    Fut: Future<Output = Result<T, StoreError>> + Send,
{
    fn run(&self) -> impl Future<Output = Result<T, StoreError>> + Send {
        self()
    }
}

impl Wait {
    /// Gives the time to wait, with jitter where many may wait at once.
    fn spread(self) -> Duration {
        match self {
            Self::Within(wait) => jitter(wait),
            Self::Exactly(wait) => wait,
        }
    }
}

/// Gives the message, or why the consumer cannot read it.
fn readable(delivery: &Delivery) -> Result<Message, String> {
    let message = delivery.message.clone()?;
    cloudevents::check(&message).map_err(|error| error.to_string())?;
    Ok(message)
}
