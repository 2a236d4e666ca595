//! The work for one delivery, from its arrival to its acknowledgement.

mod batch;
mod command;
mod deferred;
mod disturbed;
mod given_up;
mod hands;
mod left;
mod overdue;
mod reports;
mod run;
mod step;
mod stored;

pub(super) use command::Commands;
pub(super) use left::Others;
pub(super) use reports::ConsumerReports;
pub(super) use run::Held;
pub(super) use step::Answer;
pub use step::{Runs, Step, Verdict, Wait, next_step};

use super::{
    flow::Switch,
    handle::ConsumerStats,
    handler::{Layers, Route},
    instance::Isolation,
    settings::{AckMode, Settings},
};
use crate::{
    event::{Message, jitter},
    failure::{AttemptError, DeadReason, FailureClass, LetterListener, full_text},
    outbox::{ConsumerStore, DeclaredHandler, History, ReceivedLetter, StoreError},
    runtime::{
        Shutdown, Taken, Wake,
        fault::{FaultPoint, reach},
        now,
    },
    telemetry::{attribute, metric, process_span},
    transport::{Delivery, cloudevents},
};
use deferred::Deferred;
use disturbed::{Again, Disturbances};
use reports::{Failing, FailureKind};
use run::Run;
use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};
use tokio::sync::watch;
use tracing::{Instrument, Span};

/// Times in a row that a busy database is asked again at once; then it counts as down.
const BUSY_LIMIT: u32 = 5;
/// Longest wait before a busy database is asked again: about as long as a deadlock takes to clear.
const BUSY_WAIT: Duration = Duration::from_millis(50);
/// How long a delivery is held that is returned though the database is well.
const RETURN_AFTER: Duration = Duration::from_secs(1);
/// A delivery that the broker makes for this time, or later, is stored before it is handled: two deliveries before it
/// were never answered, and it may have ended their processes. The runs of stored ones are counted.
const SUSPECT: u32 = 3;

/// Everything that the handling of a delivery needs.
pub(super) struct Worker<S: ConsumerStore> {
    pub(super) consumer: Arc<str>,
    /// Random for each start: who claims stored deliveries.
    pub(super) by: Arc<str>,
    pub(super) store: S,
    pub(super) routes: Vec<Route<S>>,
    /// What an instance declares of these.
    pub(super) declared: Arc<[DeclaredHandler]>,
    pub(super) commands: Commands,
    pub(super) others: Others,
    pub(super) started_at: Instant,
    pub(super) layers: Layers<S::Tx>,
    pub(super) settings: Settings,
    /// Its connections, as long as it runs.
    pub(super) _taken: Taken,
    pub(super) dead: Vec<LetterListener>,
    pub(super) switch: Option<Mutex<Switch>>,
    /// Rings when a delivery was stored.
    pub(super) stored: Wake,
    pub(super) stats: Arc<watch::Sender<ConsumerStats>>,
    pub(super) isolation: Isolation,
    pub(super) reports: ConsumerReports,
    pub(super) shutdown: Shutdown,
}

/// How the handling of a delivery ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    /// It was acknowledged or rejected, or a handler answers for it.
    Answered,
    /// It was returned and will come again.
    Returned,
    /// It was returned because the database is down.
    StoreDown,
}

impl<S: ConsumerStore> Worker<S> {
    pub(super) fn count(&self, change: impl FnOnce(&mut ConsumerStats)) {
        self.stats.send_modify(change);
    }

    /// Handles a delivery and answers for it.
    pub(super) async fn work(&self, delivery: Delivery) -> Ended {
        match readable(&delivery) {
            Ok(message) => {
                let span = process_span(&self.consumer, &message);
                self.note(&message);
                self.process(message, delivery, Vec::new()).instrument(span).await
            }
            Err(reason) => self.unreadable(delivery, reason).await,
        }
    }

    /// Counts a message that is of a kind of its own.
    fn note(&self, message: &Message) {
        if message.is_tombstone() {
            self.count(|s| s.tombstones += 1);
        }
    }

    /// Handles a message; `ran` are handlers' verdicts on it that are known already.
    async fn process(
        &self,
        message: Message,
        delivery: Delivery,
        ran: Vec<(Arc<str>, Verdict)>,
    ) -> Ended {
        let begun = now();
        let (span, attempt) = (Span::current(), delivery.attempt);
        let ended = match self.settings.ack {
            AckMode::Before => self.acknowledged_first(&message, delivery).await,
            AckMode::Manual => self.by_hand(&message, delivery).await,
            AckMode::AfterHandlers => match self.handle_all(&message, attempt, ran, begun).await {
                Ok(answer) => {
                    if answer != Answer::Ack {
                        span.record(attribute::ERROR_TYPE, "handler");
                    }
                    self.answer(delivery, answer).await
                }
                Err(error) => self.return_for(delivery, &error).await,
            },
        };
        span.record(metric::PROCESS_DURATION, now().duration_since(begun).as_secs_f64());
        ended
    }

    /// Returns a delivery because the database failed.
    async fn return_for(&self, delivery: Delivery, error: &StoreError) -> Ended {
        Span::current().record(attribute::ERROR_TYPE, error.class().as_str());
        if error.class() == FailureClass::Transient {
            self.report(Failing::of(FailureKind::DatabaseBusy, &full_text(error)));
            self.before_a_return().await;
            return self.answer(delivery, Answer::Nack).await;
        }
        self.report(Failing::of(FailureKind::DatabaseFailed, &full_text(error)));
        self.answer(delivery, Answer::Nack).await;
        Ended::StoreDown
    }

    /// Tells whether a delivery is to be stored before it is run, for the sake of its count: a broker that counts deliveries
    /// itself tells which one ends its process.
    pub(super) fn isolates(&self, delivery: Option<u32>) -> bool {
        delivery.is_none() && self.isolation.is_on()
    }

    /// Runs every handler that takes the message; gives what the transport is to be told.
    async fn handle_all(
        &self,
        message: &Message,
        delivery: Option<u32>,
        mut ran: Vec<(Arc<str>, Verdict)>,
        begun: Instant,
    ) -> Result<Answer, StoreError> {
        let (mut answers, mut settles, isolates) = (None, false, self.isolates(delivery));
        let defers = isolates || delivery.is_some_and(|n| n >= SUSPECT);
        for route in self.routes.iter().filter(|route| route.takes(message)) {
            let known = ran
                .iter()
                .position(|(name, _)| *name == route.name)
                .map(|at| ran.swap_remove(at).1);
            if defers && known.is_none() {
                let deferred = self.defer(route, message, isolates).await?;
                settles |= deferred == Deferred::Stored;
                if deferred != Deferred::Refused {
                    answers = answers.max(Some(Answer::Ack));
                    continue;
                }
            }
            answers = answers.max(Some(self.handle(route, message, delivery, known, begun).await?));
        }
        // What a broker counts is not stored for its count, and may have been in flight all the same.
        if (isolates && settles) || (delivery.is_some() && self.isolation.is_on()) {
            self.isolation.settled();
        }
        match answers {
            Some(answer) => Ok(answer),
            None => self.unhandled(message).await,
        }
    }

    /// Runs one handler until it is done, or until it is to be run no more with this delivery, which was begun then.
    async fn handle(
        &self,
        route: &Route<S>,
        message: &Message,
        delivery: Option<u32>,
        mut known: Option<Verdict>,
        begun: Instant,
    ) -> Result<Answer, StoreError> {
        let mut account = Account::default();
        let mut disturbances = Disturbances::new(begun);
        loop {
            let ran = match known.take() {
                Some(verdict) => Run::Ended(verdict),
                None => {
                    self.run_watched(
                        route,
                        message,
                        account.history.runs + 1,
                        &Held::Delivery(delivery),
                    )
                    .await
                }
            };
            let verdict = match ran {
                Run::Ended(verdict) => verdict,
                Run::Repeat | Run::Lost => return Ok(Answer::Ack),
                // Where those before it were finished meanwhile, it is its turn.
                Run::Behind => match self.put_by(route, message, None, &account.history).await? {
                    Some(answer) => return Ok(answer),
                    None => continue,
                },
                Run::Disturbed(error) => {
                    match self.disturbed(
                        &route.name,
                        message,
                        &mut disturbances,
                        self.settings.hold,
                        &error,
                    ) {
                        Again::Hold(pause) => tokio::select! {
                            () = tokio::time::sleep(jitter(pause)) => continue,
                            () = self.shutdown.requested() => return Ok(Answer::Nack),
                        },
                        Again::Store(pause) => {
                            let stored = self
                                .put_by(route, message, Some(jitter(pause)), &account.history)
                                .await?;
                            return Ok(stored.unwrap_or(Answer::Ack));
                        }
                        Again::Failed => Verdict::Failed(full_text(&error)),
                    }
                }
                Run::Store(error) => return Err(error),
            };
            disturbances.clear();
            account.note(&verdict);
            self.log_verdict(&route.name, message, account.history.runs, &verdict);
            let hold_left = self.settings.hold.saturating_sub(now().duration_since(begun));
            let runs = Runs {
                failures: account.history.failures,
                failing_for: account.history.failing_for,
                hold_left,
            };
            match next_step(&verdict, runs, &self.settings.retry) {
                Step::Finish => return Ok(Answer::Ack),
                Step::Hold(wait) => tokio::select! {
                    () = tokio::time::sleep(wait.spread()) => self.count(|s| s.retried += 1),
                    () = self.shutdown.requested() => return Ok(Answer::Nack),
                },
                Step::Store(wait) => {
                    let stored =
                        self.put_by(route, message, Some(wait.spread()), &account.history).await?;
                    return Ok(stored.unwrap_or(Answer::Ack));
                }
                Step::Leave => {
                    return self
                        .leave(
                            self.stored_name(route),
                            message,
                            &account.history,
                            verdict.awaited(),
                        )
                        .await;
                }
                Step::Bury(reason) => {
                    let letter = self.letter(&route.name, Ok(message), reason, &account.history);
                    return self.give_up(&letter, None, text_of(&verdict)).await;
                }
            }
        }
    }

    /// Writes a letter, unless the message was answered for meanwhile.
    fn letter<'a>(
        &'a self,
        handler: &'a str,
        message: Result<&'a Message, Option<&'a bytes::Bytes>>,
        reason: DeadReason,
        history: &'a History,
    ) -> ReceivedLetter<'a> {
        ReceivedLetter { consumer: &self.consumer, handler, message, reason, history }
    }

    /// Does a piece of work in the database again while that is busy.
    async fn with_patience<T>(&self, work: impl AsyncWork<T>) -> Result<T, StoreError> {
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

    /// Waits before a delivery goes back that may come again at once: a broker has nobody else, or no memory of it.
    pub(super) async fn before_a_return(&self) {
        tokio::select! {
            () = tokio::time::sleep(RETURN_AFTER) => {}
            () = self.shutdown.requested() => {}
        }
    }

    pub(super) async fn roll_back(&self, tx: S::Tx) {
        if let Err(error) = self.store.rollback(tx).await {
            tracing::debug!(
                error = full_text(&error),
                "a rollback was not answered; the connection's end does it"
            );
        }
    }

    /// Tells the kill switch of a run.
    fn watch(&self, failed: bool) {
        let Some(switch) = &self.switch else { return };
        if switch.lock().unwrap_or_else(PoisonError::into_inner).note(failed, now()) {
            tracing::warn!("most of the last runs failed: the consumer pauses");
            self.count(|s| s.paused = true);
        }
    }

    /// Tells the transport. What it does not hear comes again, and is then a repeat.
    pub(super) async fn answer(&self, delivery: Delivery, answer: Answer) -> Ended {
        let (told, ended) = match answer {
            Answer::Ack => {
                reach(FaultPoint::BeforeAck);
                let told = delivery.ack().await;
                reach(FaultPoint::AfterAck);
                self.count(|s| s.acked += 1);
                (told, Ended::Answered)
            }
            Answer::Reject(reason) => {
                self.count(|s| s.rejected += 1);
                (delivery.reject(&reason).await, Ended::Answered)
            }
            Answer::Nack => {
                self.count(|s| s.returned += 1);
                (delivery.nack(true).await, Ended::Returned)
            }
        };
        if let Err(error) = told {
            self.report(Failing::of(FailureKind::NotAcknowledged, &full_text(&error)));
        }
        ended
    }
}

/// Work that can be done again.
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

/// What became of a message with one handler, counted while it is in hand.
#[derive(Default)]
pub(super) struct Account {
    history: History,
    /// When the first failure was counted here, and what was counted before.
    failing_since: Option<(Instant, Duration)>,
}

impl Account {
    fn note(&mut self, verdict: &Verdict) {
        self.history.runs += 1;
        let class = match verdict {
            Verdict::Done | Verdict::Snoozed(_) | Verdict::Unknown(_) => return,
            Verdict::Failed(_) => FailureClass::Transient,
            Verdict::Rejected(_) | Verdict::Undecodable(_) => FailureClass::Permanent,
        };
        self.history.failures += 1;
        let (since, before) = *self.failing_since.get_or_insert((now(), self.history.failing_for));
        self.history.failing_for = before + now().duration_since(since);
        let error = AttemptError::new(self.history.runs, class, text_of(verdict));
        AttemptError::push(&mut self.history.errors, error);
    }
}

impl Wait {
    /// Gives the time to wait: some of it, where many may wait at once.
    fn spread(self) -> Duration {
        match self {
            Self::Within(wait) => jitter(wait),
            Self::Exactly(wait) => wait,
        }
    }
}

fn permanent(reason: &str) -> AttemptError {
    AttemptError::new(1, FailureClass::Permanent, reason)
}

/// Gives the message, or why it cannot be received.
fn readable(delivery: &Delivery) -> Result<Message, String> {
    let message = delivery.message.clone()?;
    cloudevents::check(&message).map_err(|error| error.to_string())?;
    Ok(message)
}

/// Says what went wrong.
fn text_of(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Failed(text) | Verdict::Rejected(text) | Verdict::Undecodable(text) => {
            text.clone()
        }
        Verdict::Done | Verdict::Snoozed(_) | Verdict::Unknown(_) => String::new(),
    }
}
