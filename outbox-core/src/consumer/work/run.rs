//! One run of a handler, in a transaction of its own with its inbox row.

use super::{HandlerOutcome, Worker, reports::FailureKind};
use crate::{
    consumer::{
        barrier::Command,
        commands::MessageRole,
        handle::ConsumerStats,
        handler::{
            HandlerContext, HandlerEntry, HandlerError, Kind, Next, PendingReply, SharedSlot,
        },
    },
    event::{CorrelationContext, Message},
    failure::{FailureClass, full_text},
    outbox::{
        Admission, ConsumerStore, DeliveryClaim, InboxKey, StoreError, order_hash, roll_back,
    },
    runtime::{
        Watch, catch_unwind,
        fault::{FaultPoint, fault_point},
        now, watched,
    },
};
use std::{sync::Arc, time::Duration};
use tokio::sync::watch;

/// The consumer logs a handler that holds the only write lock of its database for longer than this:
/// other writers have waited by then.
const LOCKED_LONG: Duration = Duration::from_secs(1);

/// The result of one run of a handler.
pub(super) enum RunResult {
    Completed(HandlerOutcome),
    /// The handler did not run: the inbox knew the message.
    Duplicate,
    /// The handler did not run: stored deliveries of the message's key come first.
    QueuedBehind,
    /// The handler did not run, or its transaction was rolled back: another instance has claimed the
    /// stored delivery.
    ClaimLost,
    /// The handler did not run, or its transaction was rolled back: the database aborted it in favour
    /// of another one, or the connection was lost. No attempt is counted.
    Disturbed(StoreError),
    /// The database failed.
    StoreFailed(StoreError),
}

impl RunResult {
    /// Gives the result of a run whose transaction had begun when the database failed. A lost
    /// connection does not show that the database is down; the next attempt to begin shows it.
    fn broken(error: StoreError) -> Self {
        if error.class() == FailureClass::Permanent {
            Self::StoreFailed(error)
        } else {
            Self::Disturbed(error)
        }
    }

    /// Gives what `error.type` says of the run, as [`HandlerOutcome::error_type`] does.
    pub(super) const fn error_type(&self) -> Option<&'static str> {
        match self {
            Self::Completed(outcome) => outcome.error_type(),
            Self::Disturbed(_) => Some("disturbed"),
            Self::Duplicate | Self::QueuedBehind | Self::ClaimLost | Self::StoreFailed(_) => None,
        }
    }
}

/// Where the delivery of a run comes from, and who keeps it while the handler runs.
pub(in crate::consumer) enum DeliverySource<'a> {
    /// The transport keeps it; with the delivery attempt as the broker counts.
    Transport(Option<u32>),
    /// The transport keeps it until the handler acknowledges it; with the same count.
    Manual(Option<u32>, &'a SharedSlot),
    /// The database keeps it, under this claim.
    Stored(&'a DeliveryClaim),
}

impl DeliverySource<'_> {
    fn delivery(&self) -> Option<u32> {
        match self {
            Self::Transport(n) | Self::Manual(n, _) => *n,
            Self::Stored(_) => None,
        }
    }
}

impl<S: ConsumerStore> Worker<S> {
    pub(super) fn inbox_key<'a>(&'a self, handler: &'a str, message: &'a Message) -> InboxKey<'a> {
        InboxKey {
            consumer: &self.consumer,
            handler,
            source: &message.source,
            message_id: message.id,
        }
    }

    /// Opens a transaction, for a stored delivery where there is a claim.
    pub(super) async fn begin(&self, claim: Option<&DeliveryClaim>) -> Result<S::Tx, StoreError> {
        if claim.is_some() { self.store.begin_stored().await } else { self.store.begin().await }
    }

    /// Runs a handler once.
    pub(super) async fn run(
        &self,
        entry: &HandlerEntry<S>,
        message: &Message,
        attempt: u32,
        source: &DeliverySource<'_>,
    ) -> RunResult {
        let claim = if let DeliverySource::Stored(claim) = source { Some(*claim) } else { None };
        let order_hash = self.order_hash(message, source);
        let deferred = match self.commands.role(entry, message) {
            MessageRole::Event
                if entry.options.deferred_lock && entry.options.renamed_from.is_none() =>
            {
                self.store
                    .begin_with_deferred_lock(self.inbox_key(&entry.name, message), order_hash)
                    .await
            }
            _ => Ok(None),
        };
        let begun = match deferred {
            Ok(None) => self.begin(claim).await.map(|tx| (tx, None)),
            Ok(Some((admission, tx))) => Ok((tx, Some(admission))),
            Err(error) => Err(error),
        };
        let (tx, known) = match begun {
            Ok(begun) => begun,
            Err(error) if error.class() == FailureClass::Transient => {
                return RunResult::Disturbed(error);
            }
            Err(error) => return RunResult::StoreFailed(error),
        };
        fault_point(FaultPoint::BeforeInbox);
        let (tx, outcome) = match self.run_in(tx, entry, message, attempt, source, known).await {
            Ok(ran) => ran,
            Err(run) => return run,
        };
        if outcome != HandlerOutcome::Done {
            if let Some(error) = self.undo(tx, &outcome).await {
                return RunResult::broken(error);
            }
            self.feed_kill_switch(matches!(outcome, HandlerOutcome::Failed(_)));
            return RunResult::Completed(outcome);
        }
        if let DeliverySource::Stored(claim) = source {
            match self.store.finish(&tx, claim).await {
                Ok(true) => {}
                Ok(false) => {
                    roll_back(&self.store, tx).await;
                    return RunResult::ClaimLost;
                }
                Err(error) => {
                    roll_back(&self.store, tx).await;
                    return match error {
                        StoreError::Refused(_) => {
                            RunResult::Completed(HandlerOutcome::Failed(full_text(&error)))
                        }
                        error => RunResult::broken(error),
                    };
                }
            }
        }
        match self.store.commit(tx).await {
            Ok(()) => {
                self.feed_kill_switch(false);
                self.count(|s| s.handled += 1);
                RunResult::Completed(HandlerOutcome::Done)
            }
            // The database refuses the handler's work at commit: a deferred constraint, an event too large.
            Err(error) if error.class() == FailureClass::Permanent => {
                self.feed_kill_switch(true);
                RunResult::Completed(HandlerOutcome::Failed(full_text(&error)))
            }
            // The commit may have succeeded all the same; the inbox recognises the message then.
            Err(error) => RunResult::broken(error),
        }
    }

    /// Rolls a run back. Gives the database's error where the database was unavailable, which is then
    /// why the handler failed: no attempt is counted.
    async fn undo(&self, tx: S::Tx, outcome: &HandlerOutcome) -> Option<StoreError> {
        let undone = self.store.rollback(tx).await;
        let gone = undone.err().filter(|error| error.class() == FailureClass::Unavailable);
        gone.filter(|_| matches!(outcome, HandlerOutcome::Failed(_)))
    }

    /// Gives the hash under which the message waits behind stored deliveries of its key; none for a
    /// stored delivery, which is the first of its key already.
    fn order_hash(&self, message: &Message, source: &DeliverySource<'_>) -> Option<i64> {
        if matches!(source, DeliverySource::Stored(_)) { None } else { order_hash(message) }
    }

    /// Admits the message and runs the handler in an open transaction; gives the transaction back with
    /// the outcome. In a transaction with a deferred lock the admission is `known` already, and the
    /// inbox row is written after the handler.
    pub(super) async fn run_in(
        &self,
        tx: S::Tx,
        entry: &HandlerEntry<S>,
        message: &Message,
        attempt: u32,
        source: &DeliverySource<'_>,
        known: Option<Admission>,
    ) -> Result<(S::Tx, HandlerOutcome), RunResult> {
        let tx = match self.admit(tx, entry, message, source, known).await? {
            Ok(tx) => tx,
            Err(failed) => return Ok(failed),
        };
        self.store.correlate(&tx, CorrelationContext::of(message));
        // Behind the inbox, which knows a duplicate without its content. Only the role of a command and
        // the handler see the clear message.
        let clear = match self.decoded(message).await {
            Ok(clear) => clear,
            Err(outcome) => return Ok((tx, outcome)),
        };
        match self.commands.role(entry, &clear) {
            MessageRole::Command(command) => {
                self.run_command(tx, entry, &clear, command, attempt, source).await
            }
            MessageRole::Event => {
                let (mut tx, outcome, pending) =
                    self.call(tx, entry, &clear, None, attempt, source).await?;
                if known.is_some() && outcome == HandlerOutcome::Done {
                    tx = match self.admit(tx, entry, message, source, None).await? {
                        Ok(tx) => tx,
                        Err(failed) => return Ok(failed),
                    };
                }
                // On a message that is no command, a reply is an event like others.
                match pending.filter(|_| outcome == HandlerOutcome::Done) {
                    Some(pending) => {
                        self.commands.warn_of_reply_to_event(&self.consumer, entry, message);
                        match self.store.append(&tx, &[pending.event]).await {
                            Ok(()) => Ok((tx, outcome)),
                            Err(error) => self.failed(tx, error).await,
                        }
                    }
                    None => Ok((tx, outcome)),
                }
            }
            MessageRole::Rejected(reason) => Ok((tx, HandlerOutcome::Rejected(reason))),
        }
    }

    /// Admits the message, or gives the result of a run that does not begin.
    async fn admit(
        &self,
        tx: S::Tx,
        entry: &HandlerEntry<S>,
        message: &Message,
        source: &DeliverySource<'_>,
        known: Option<Admission>,
    ) -> Result<Result<S::Tx, (S::Tx, HandlerOutcome)>, RunResult> {
        let admission = match known {
            Some(known) => Ok(known),
            None => {
                self.admit_under_all_names(&tx, entry, message, self.order_hash(message, source))
                    .await
            }
        };
        match admission {
            Ok(Admission::New) => Ok(Ok(tx)),
            Ok(Admission::QueueBehind) => {
                roll_back(&self.store, tx).await;
                Err(RunResult::QueuedBehind)
            }
            Ok(Admission::Duplicate) => Err(self.end_duplicate(tx, &entry.name, source).await),
            Err(error) => self.failed(tx, error).await.map(Err),
        }
    }

    /// Admits the message under the handler's former name, where it has one, and under its own:
    /// messages that an instance of either version has received, or has stored of the key, count for
    /// both versions.
    async fn admit_under_all_names(
        &self,
        tx: &S::Tx,
        entry: &HandlerEntry<S>,
        message: &Message,
        order_hash: Option<i64>,
    ) -> Result<Admission, StoreError> {
        for name in entry.names() {
            match self.store.admit(tx, self.inbox_key(name, message), order_hash).await? {
                Admission::New => {}
                other => return Ok(other),
            }
        }
        Ok(Admission::New)
    }

    /// Runs the handler with its layers, until it ends or its time limit does; gives the transaction
    /// back, with the outcome and the handler's reply. A failure does not count against the handler
    /// where the database has aborted the transaction.
    pub(super) async fn call(
        &self,
        tx: S::Tx,
        entry: &HandlerEntry<S>,
        message: &Message,
        command: Option<Command>,
        attempt: u32,
        source: &DeliverySource<'_>,
    ) -> Result<(S::Tx, HandlerOutcome, Option<PendingReply>), RunResult> {
        let slot =
            if let DeliverySource::Manual(_, slot) = source { Some((*slot).clone()) } else { None };
        let cx = HandlerContext::new(
            tx,
            message.clone(),
            entry.name.clone(),
            attempt,
            source.delivery(),
        );
        let cx = cx.with_delivery(slot).for_command(command);
        let next = Next { layers: &self.layers, handler: entry.handle(&cx) };
        let limit = entry.options.timeout.unwrap_or(self.settings.timeout);
        let watch =
            Watch { limit, keep_alive_every: self.store.idle_limit().map(|limit| limit / 3) };
        let slow = |after| self.slow(entry, message, after, limit);
        let (begun, writes) = (now(), self.store.writes(&cx.tx));
        let handling = self.store.within(&cx.tx, Box::pin(next.run(&cx)));
        let ended =
            watched(catch_unwind(handling), watch, slow, || self.store.keep_alive(&cx.tx)).await;
        fault_point(FaultPoint::AfterHandler);
        let took = now().duration_since(begun);
        self.log_long_lock(entry, message, took);
        entry.pace().note_time(took);
        let too_long = ended.is_err();
        let outcome = match ended {
            Ok(Ok(Ok(()))) => HandlerOutcome::Done,
            Ok(Ok(Err(error))) => outcome_of(error),
            Ok(Err(panic)) => HandlerOutcome::Failed(format!("a panic: {panic}")),
            Err(limit) => {
                self.count(|s| s.timed_out += 1);
                HandlerOutcome::Failed(limit.to_string())
            }
        };
        let (tx, pending) = cx.into_parts();
        if outcome == HandlerOutcome::Done
            && let Some(writes) = writes
        {
            self.watch_writes(
                entry,
                pending.is_some() || self.store.writes(&tx).is_none_or(|now| now > writes),
            );
        }
        if !too_long
            && matches!(outcome, HandlerOutcome::Failed(_))
            && let Some(error) = self.store.disturbance(&tx)
        {
            roll_back(&self.store, tx).await;
            return Err(RunResult::broken(error));
        }
        Ok((tx, outcome, pending))
    }

    /// Warns of a handler whose runs write nothing through their transaction.
    pub(super) fn watch_writes(&self, entry: &HandlerEntry<S>, wrote: bool) {
        if entry.write_watch.note(wrote) && !entry.options.no_writes {
            tracing::warn!(
                consumer = &*self.consumer,
                handler = &*entry.name,
                "the first hundred runs of a handler wrote nothing through `cx.tx`: what it writes through another connection is \
                 done again when a message comes twice; write through `cx.tx`, or say `no_writes` where it writes nothing"
            );
        }
    }

    /// Logs a handler that kept all other writers of the database waiting.
    fn log_long_lock(&self, entry: &HandlerEntry<S>, message: &Message, held_for: Duration) {
        let is_long =
            held_for > LOCKED_LONG && !entry.options.deferred_lock && self.store.has_one_writer();
        if is_long
            && self.starts_report(FailureKind::LockHeld, &entry.name, &format!("for {held_for:?}"))
        {
            tracing::warn!(
                consumer = &*self.consumer,
                handler = &*entry.name,
                message_id = %message.id,
                ?held_for,
                "a handler held the database's only write lock, and all other writers waited: let it wait for others before its \
                 transaction or register it with `deferred_lock()`, or use another database than SQLite"
            );
        }
    }

    /// Logs a run that takes long, and counts it as slow until the returned guard is dropped.
    fn slow(
        &self,
        entry: &HandlerEntry<S>,
        message: &Message,
        after: Duration,
        limit: Option<Duration>,
    ) -> SlowRun {
        if self.starts_report(FailureKind::Slow, &entry.name, &format!("after {after:?}")) {
            tracing::warn!(
                consumer = &*self.consumer,
                handler = &*entry.name,
                message_id = %message.id,
                ?after,
                ?limit,
                "a handler is slow; at its time limit, where it has one, it is dropped and counts as failed"
            );
        }
        self.count(|s| s.slow += 1);
        SlowRun(Arc::clone(&self.stats))
    }

    /// Gives the result of a run in the middle of which the store failed.
    pub(super) async fn failed(
        &self,
        tx: S::Tx,
        error: StoreError,
    ) -> Result<(S::Tx, HandlerOutcome), RunResult> {
        if let StoreError::Unknown(awaited) = error {
            return Ok((tx, HandlerOutcome::Unknown(awaited)));
        }
        // The database refused this message, whose attributes its sender has chosen: the consumer goes
        // on with other messages.
        if matches!(error, StoreError::Refused(_)) {
            return Ok((tx, HandlerOutcome::Failed(full_text(&error))));
        }
        roll_back(&self.store, tx).await;
        Err(RunResult::broken(error))
    }

    /// Ends the transaction of a message that the inbox knew, and removes a stored delivery of it.
    async fn end_duplicate(
        &self,
        tx: S::Tx,
        handler: &str,
        source: &DeliverySource<'_>,
    ) -> RunResult {
        tracing::debug!(handler, "a duplicate was suppressed");
        let DeliverySource::Stored(claim) = source else {
            self.count(|s| s.duplicates += 1);
            roll_back(&self.store, tx).await;
            return RunResult::Duplicate;
        };
        let finished = match self.store.finish(&tx, claim).await {
            Ok(true) => self.store.commit(tx).await,
            Ok(false) => {
                roll_back(&self.store, tx).await;
                return RunResult::ClaimLost;
            }
            Err(error) => {
                roll_back(&self.store, tx).await;
                Err(error)
            }
        };
        match finished {
            Ok(()) => {
                self.count(|s| s.duplicates += 1);
                RunResult::Duplicate
            }
            Err(error) => RunResult::broken(error),
        }
    }
}

/// A run that is slow, counted while it runs.
struct SlowRun(Arc<watch::Sender<ConsumerStats>>);

impl Drop for SlowRun {
    fn drop(&mut self) {
        self.0.send_modify(|stats| stats.slow -= 1);
    }
}

fn outcome_of(error: HandlerError) -> HandlerOutcome {
    match error.into_kind() {
        Kind::Retry(error) => HandlerOutcome::Failed(full_text(&*error)),
        Kind::Reject(reason) => HandlerOutcome::Rejected(reason),
        Kind::Undecodable(reason) => HandlerOutcome::Undecodable(reason),
        Kind::Snooze(wait) => HandlerOutcome::Snoozed(wait),
        Kind::Unknown(awaited) => HandlerOutcome::Unknown(awaited),
    }
}
