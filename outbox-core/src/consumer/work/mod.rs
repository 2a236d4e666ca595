//! The work for one delivery, from its arrival to its acknowledgement.

mod batch;
mod command;
mod given_up;
mod hands;
mod run;
mod step;
mod stored;

pub(super) use run::Held;
pub(super) use step::Answer;
pub use step::{Runs, Step, Verdict, Wait, next_step};

use super::{
    config::{AckMode, Settings},
    flow::Switch,
    handle::ConsumerStats,
    handler::{Layers, Route, UnknownPolicy},
};
use crate::{
    event::{Message, jitter},
    failure::{AttemptError, DeadReason, FailureClass, LetterListener, full_text},
    outbox::{ConsumerStore, History, PutBy, ReceivedLetter, StoreError},
    runtime::{
        Shutdown, Wake,
        fault::{FaultPoint, reach},
        now,
    },
    telemetry::{attribute, metric, process_span},
    transport::Delivery,
};
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
/// Longest source in bytes that the inbox takes: it is part of the row's key.
const MAX_SOURCE: usize = 255;
/// A delivery that the broker makes for this time, or later, is stored before it is handled: two deliveries before it
/// were never answered, and it may have ended their processes. The runs of stored ones are counted.
const SUSPECT: u32 = 3;

/// Everything that the handling of a delivery needs.
pub(super) struct Worker<S: ConsumerStore> {
    pub(super) consumer: Arc<str>,
    pub(super) store: S,
    pub(super) routes: Vec<Route<S>>,
    pub(super) layers: Layers<S::Tx>,
    pub(super) settings: Settings,
    pub(super) dead: Vec<LetterListener>,
    pub(super) switch: Option<Mutex<Switch>>,
    /// Rings when a delivery was stored.
    pub(super) stored: Wake,
    pub(super) stats: Arc<watch::Sender<ConsumerStats>>,
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
                self.process(message, delivery, Vec::new()).instrument(span).await
            }
            Err(reason) => self.unreadable(delivery, reason).await,
        }
    }

    /// Handles a message; `ran` are handlers' verdicts on it that are known already.
    async fn process(&self, message: Message, delivery: Delivery, ran: Vec<(Arc<str>, Verdict)>) -> Ended {
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
        tracing::warn!(error = full_text(error), "the database failed; the delivery is returned");
        self.answer(delivery, Answer::Nack).await;
        Ended::StoreDown
    }

    /// Runs every handler that takes the message; gives what the transport is to be told.
    async fn handle_all(
        &self,
        message: &Message,
        delivery: Option<u32>,
        mut ran: Vec<(Arc<str>, Verdict)>,
        begun: Instant,
    ) -> Result<Answer, StoreError> {
        let mut answers = None;
        for route in self.routes.iter().filter(|route| route.takes(message)) {
            let known = ran.iter().position(|(name, _)| *name == route.name).map(|at| ran.swap_remove(at).1);
            answers = answers.max(Some(self.handle(route, message, delivery, known, begun).await?));
        }
        match answers {
            Some(answer) => Ok(answer),
            None => self.unknown(message).await,
        }
    }

    /// Answers for a message that no handler takes.
    async fn unknown(&self, message: &Message) -> Result<Answer, StoreError> {
        tracing::debug!("no handler takes the message");
        self.count(|s| s.unknown += 1);
        let reason = format!("no handler takes the type `{}`", message.event_type);
        match self.settings.unknown {
            UnknownPolicy::Ack => Ok(Answer::Ack),
            UnknownPolicy::Nack => {
                self.before_a_return().await;
                Ok(Answer::Nack)
            }
            UnknownPolicy::Reject => Ok(Answer::Reject(reason)),
            UnknownPolicy::DeadLetter => {
                let history = History { errors: vec![permanent(&reason)], ..History::default() };
                let letter = self.letter("", Ok(message), DeadReason::UnknownType, &history);
                self.give_up(&letter, None, reason).await
            }
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
        if delivery.is_some_and(|n| n >= SUSPECT) {
            self.put_by(route, message, Some(Duration::ZERO), &account.history).await?;
            return Ok(Answer::Ack);
        }
        let mut busy = 0;
        loop {
            let ran = match known.take() {
                Some(verdict) => Run::Ended(verdict),
                None => self.run(route, message, account.history.runs + 1, &Held::Delivery(delivery)).await,
            };
            let verdict = match ran {
                Run::Ended(verdict) => verdict,
                Run::Repeat | Run::Lost => return Ok(Answer::Ack),
                // Where those before it were finished meanwhile, it is its turn.
                Run::Behind if self.put_by(route, message, None, &account.history).await? => return Ok(Answer::Ack),
                Run::Behind => continue,
                Run::Store(error) if error.class() == FailureClass::Transient && busy < BUSY_LIMIT => {
                    busy += 1;
                    tokio::time::sleep(jitter(BUSY_WAIT)).await;
                    continue;
                }
                Run::Store(error) => return Err(error),
            };
            busy = 0;
            account.note(&verdict);
            log(&route.name, account.history.runs, &verdict);
            let hold_left = self.settings.hold.saturating_sub(now().duration_since(begun));
            let runs = Runs { failures: account.history.failures, failing_for: account.history.failing_for, hold_left };
            match next_step(&verdict, runs, &self.settings.retry) {
                Step::Finish => return Ok(Answer::Ack),
                Step::Hold(wait) => tokio::select! {
                    () = tokio::time::sleep(wait.spread()) => self.count(|s| s.retried += 1),
                    () = self.shutdown.requested() => return Ok(Answer::Nack),
                },
                Step::Store(wait) => {
                    self.put_by(route, message, Some(wait.spread()), &account.history).await?;
                    return Ok(Answer::Ack);
                }
                Step::Bury(reason) => {
                    let letter = self.letter(&route.name, Ok(message), reason, &account.history);
                    return self.give_up(&letter, None, text_of(&verdict)).await;
                }
            }
        }
    }

    /// Stores a delivery for one handler; `false` when it should go behind others that are gone.
    async fn put_by(
        &self,
        route: &Route<S>,
        message: &Message,
        due_in: Option<Duration>,
        history: &History,
    ) -> Result<bool, StoreError> {
        let (consumer, handler) = (&*self.consumer, &*route.name);
        let delivery = PutBy { consumer, handler, message, due_in, history: history.clone() };
        reach(FaultPoint::BeforePutBy);
        let stored = self.with_patience(|| self.put_by_once(&delivery)).await?;
        reach(FaultPoint::AfterPutBy);
        if stored {
            tracing::debug!(handler = &*route.name, ?due_in, "the delivery is stored for later");
            self.count(|s| s.stored += 1);
            self.stored.wake();
        }
        Ok(stored)
    }

    async fn put_by_once(&self, delivery: &PutBy<'_>) -> Result<bool, StoreError> {
        let tx = self.store.begin().await?;
        match self.store.put_by(&tx, delivery).await {
            Ok(true) => self.store.commit(tx).await.map(|()| true),
            other => {
                self.roll_back(tx).await;
                other
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
            tracing::debug!(error = full_text(&error), "a rollback was not answered; the connection's end does it");
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
            tracing::warn!(error = full_text(&error), "the transport could not be told; the message will come again");
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
            Verdict::Done | Verdict::Snoozed(_) => return,
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
    if message.source.is_empty() || message.source.len() > MAX_SOURCE || message.source.chars().any(char::is_control) {
        return Err(format!("its source does not have 1 to {MAX_SOURCE} bytes without control characters"));
    }
    Ok(message)
}

/// Says what went wrong.
fn text_of(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Failed(text) | Verdict::Rejected(text) | Verdict::Undecodable(text) => text.clone(),
        Verdict::Done | Verdict::Snoozed(_) => String::new(),
    }
}

fn log(handler: &str, attempt: u32, verdict: &Verdict) {
    match verdict {
        Verdict::Done => tracing::debug!(handler, attempt, "handled"),
        Verdict::Failed(error) => tracing::warn!(handler, attempt, error, "a handler failed"),
        Verdict::Rejected(reason) => tracing::warn!(handler, attempt, reason, "a handler rejected the message"),
        Verdict::Undecodable(reason) => tracing::warn!(handler, attempt, reason, "a message does not decode"),
        Verdict::Snoozed(wait) => tracing::debug!(handler, attempt, ?wait, "a handler asked to be run later"),
    }
}
