//! One run of a handler, in a transaction of its own with its inbox row.

use super::{Verdict, Worker, reports::FailureKind};
use crate::{
    consumer::{
        barrier::Command,
        commands::Meaning,
        handle::ConsumerStats,
        handler::{Given, HandlerContext, HandlerError, Kind, Next, Route, Slot},
    },
    event::{Message, Trail},
    failure::{FailureClass, full_text},
    outbox::{Admission, Claim, ConsumerStore, InboxKey, StoreError, lane_of},
    runtime::{
        Watch, caught,
        fault::{FaultPoint, reach},
        now, watched,
    },
};
use std::{sync::Arc, time::Duration};
use tokio::sync::watch;

/// A handler that holds the only write lock of its database for longer is told of: others have waited for it by then.
const LOCKED_LONG: Duration = Duration::from_secs(1);

/// What one run of a handler came to.
pub(super) enum Run {
    Ended(Verdict),
    /// It was not run: the inbox knew the message.
    Repeat,
    /// It was not run: stored deliveries of its key come first.
    Behind,
    /// It was not run, or all was rolled back: the stored delivery is somebody else's by now.
    Lost,
    /// It was not run, or all was rolled back: the database disturbed it for the sake of others, or its connection was lost.
    /// No attempt counts.
    Disturbed(StoreError),
    Store(StoreError),
}

impl Run {
    /// Says what a failure of the database comes to that has let a transaction begin. That a connection is lost does not say
    /// that the database is down; the next beginning does.
    fn broken(error: StoreError) -> Self {
        if error.class() == FailureClass::Permanent {
            Self::Store(error)
        } else {
            Self::Disturbed(error)
        }
    }
}

/// Where the message is kept meanwhile.
pub(in crate::consumer) enum Held<'a> {
    /// By the transport, which has delivered it so often.
    Delivery(Option<u32>),
    /// By the transport, until the handler answers for it.
    Hand(Option<u32>, &'a Slot),
    /// By the database.
    Store(&'a Claim),
}

impl Held<'_> {
    fn delivery(&self) -> Option<u32> {
        match self {
            Self::Delivery(n) | Self::Hand(n, _) => *n,
            Self::Store(_) => None,
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
    pub(super) async fn begin(&self, claim: Option<&Claim>) -> Result<S::Tx, StoreError> {
        if claim.is_some() { self.store.begin_stored().await } else { self.store.begin().await }
    }

    /// Runs a handler once.
    pub(super) async fn run(
        &self,
        route: &Route<S>,
        message: &Message,
        attempt: u32,
        held: &Held<'_>,
    ) -> Run {
        let claim = if let Held::Store(claim) = held { Some(*claim) } else { None };
        let lane = self.lane(message, held);
        let deferred = match self.commands.meaning(route, message) {
            Meaning::Event if route.options.deferred && route.options.renamed_from.is_none() => {
                self.store.begin_deferred(self.inbox_key(&route.name, message), lane).await
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
            Err(error) if error.class() == FailureClass::Transient => return Run::Disturbed(error),
            Err(error) => return Run::Store(error),
        };
        reach(FaultPoint::BeforeInbox);
        let (tx, verdict) = match self.run_in(tx, route, message, attempt, held, known).await {
            Ok(ran) => ran,
            Err(run) => return run,
        };
        if verdict != Verdict::Done {
            if let Some(error) = self.undo(tx, &verdict).await {
                return Run::broken(error);
            }
            self.watch(matches!(verdict, Verdict::Failed(_)));
            return Run::Ended(verdict);
        }
        if let Held::Store(claim) = held {
            match self.store.finish(&tx, claim).await {
                Ok(true) => {}
                Ok(false) => {
                    self.roll_back(tx).await;
                    return Run::Lost;
                }
                Err(error) => {
                    self.roll_back(tx).await;
                    return match error {
                        StoreError::Refused(_) => Run::Ended(Verdict::Failed(full_text(&error))),
                        error => Run::broken(error),
                    };
                }
            }
        }
        match self.store.commit(tx).await {
            Ok(()) => {
                self.watch(false);
                self.count(|s| s.handled += 1);
                Run::Ended(Verdict::Done)
            }
            // What the database refuses at commit is the handler's work: a deferred constraint, an event too large.
            Err(error) if error.class() == FailureClass::Permanent => {
                self.watch(true);
                Run::Ended(Verdict::Failed(full_text(&error)))
            }
            // Whether it is committed may be unknown; the inbox tells when the message comes again.
            Err(error) => Run::broken(error),
        }
    }

    /// Rolls a run back. Gives the database's failure where that is why the handler failed: it is gone, and no attempt
    /// counts.
    async fn undo(&self, tx: S::Tx, verdict: &Verdict) -> Option<StoreError> {
        let undone = self.store.rollback(tx).await;
        let gone = undone.err().filter(|error| error.class() == FailureClass::Unavailable);
        gone.filter(|_| matches!(verdict, Verdict::Failed(_)))
    }

    /// Gives the lane in which the message has to wait; a stored delivery is the first of its lane already.
    fn lane(&self, message: &Message, held: &Held<'_>) -> Option<i64> {
        if matches!(held, Held::Store(_)) { None } else { lane_of(message) }
    }

    /// Admits the message and runs the handler in an open transaction; gives that back with the verdict. In one that is deferred
    /// what the admission would be is `known`, and it is asked for when the handler is done.
    pub(super) async fn run_in(
        &self,
        tx: S::Tx,
        route: &Route<S>,
        message: &Message,
        attempt: u32,
        held: &Held<'_>,
        known: Option<Admission>,
    ) -> Result<(S::Tx, Verdict), Run> {
        let tx = match self.admit(tx, route, message, held, known).await? {
            Ok(tx) => tx,
            Err(failed) => return Ok(failed),
        };
        self.store.follow(&tx, Trail::of(message));
        match self.commands.meaning(route, message) {
            Meaning::Command(command) => {
                self.run_command(tx, route, message, command, attempt, held).await
            }
            Meaning::Event => {
                let (mut tx, verdict, given) =
                    self.call(tx, route, message, None, attempt, held).await?;
                if known.is_some() && verdict == Verdict::Done {
                    tx = match self.admit(tx, route, message, held, None).await? {
                        Ok(tx) => tx,
                        Err(failed) => return Ok(failed),
                    };
                }
                // On a message that is no command, an answer is an event like others.
                match given.filter(|_| verdict == Verdict::Done) {
                    Some(given) => {
                        self.commands.warn_of_an_answer(&self.consumer, route, message);
                        match self.store.append(&tx, &[given.event]).await {
                            Ok(()) => Ok((tx, verdict)),
                            Err(error) => self.failed(tx, error).await,
                        }
                    }
                    None => Ok((tx, verdict)),
                }
            }
            Meaning::Refused(reason) => Ok((tx, Verdict::Rejected(reason))),
        }
    }

    /// Admits the message, or says what its run comes to without it.
    async fn admit(
        &self,
        tx: S::Tx,
        route: &Route<S>,
        message: &Message,
        held: &Held<'_>,
        known: Option<Admission>,
    ) -> Result<Result<S::Tx, (S::Tx, Verdict)>, Run> {
        let admission = match known {
            Some(known) => Ok(known),
            None => self.admit_under_all_names(&tx, route, message, self.lane(message, held)).await,
        };
        match admission {
            Ok(Admission::First) => Ok(Ok(tx)),
            Ok(Admission::Behind) => {
                self.roll_back(tx).await;
                Err(Run::Behind)
            }
            Ok(Admission::Repeat) => Err(self.repeated(tx, &route.name, held).await),
            Err(error) => self.failed(tx, error).await.map(Err),
        }
    }

    /// Admits the message under the name that the handler had before, where it had one, and under its own: what an instance of
    /// either version has received, or has stored of its key, counts for both.
    async fn admit_under_all_names(
        &self,
        tx: &S::Tx,
        route: &Route<S>,
        message: &Message,
        lane: Option<i64>,
    ) -> Result<Admission, StoreError> {
        for name in route.names() {
            match self.store.admit(tx, self.inbox_key(name, message), lane).await? {
                Admission::First => {}
                other => return Ok(other),
            }
        }
        Ok(Admission::First)
    }

    /// Runs the handler with its layers, until it ends or its time limit does; gives the transaction back, with the verdict and
    /// what the handler said. Where the database has disturbed the transaction, the handler is not to blame for its failure.
    pub(super) async fn call(
        &self,
        tx: S::Tx,
        route: &Route<S>,
        message: &Message,
        command: Option<Command>,
        attempt: u32,
        held: &Held<'_>,
    ) -> Result<(S::Tx, Verdict, Option<Given>), Run> {
        let slot = if let Held::Hand(_, slot) = held { Some((*slot).clone()) } else { None };
        let cx =
            HandlerContext::new(tx, message.clone(), route.name.clone(), attempt, held.delivery());
        let cx = cx.with_delivery(slot).for_command(command);
        let next = Next { layers: &self.layers, handler: route.handle(&cx) };
        let limit = route.options.timeout.unwrap_or(self.settings.timeout);
        let watch = Watch { limit, awake_every: self.store.idle_limit().map(|limit| limit / 3) };
        let slow = |after| self.slow(route, message, after, limit);
        let (begun, writes) = (now(), self.store.writes(&cx.tx));
        let handling = self.store.within(&cx.tx, Box::pin(next.run(&cx)));
        let ended = watched(caught(handling), watch, slow, || self.store.keep_awake(&cx.tx)).await;
        reach(FaultPoint::AfterHandler);
        self.tell_of_the_lock(route, message, now().duration_since(begun));
        let too_long = ended.is_err();
        let verdict = match ended {
            Ok(Ok(Ok(()))) => Verdict::Done,
            Ok(Ok(Err(error))) => verdict_of(error),
            Ok(Err(panic)) => Verdict::Failed(format!("a panic: {panic}")),
            Err(limit) => {
                self.count(|s| s.timed_out += 1);
                Verdict::Failed(limit.to_string())
            }
        };
        let (tx, given) = cx.into_parts();
        if verdict == Verdict::Done
            && let Some(writes) = writes
        {
            self.watch_writes(
                route,
                given.is_some() || self.store.writes(&tx).is_none_or(|now| now > writes),
            );
        }
        if !too_long
            && matches!(verdict, Verdict::Failed(_))
            && let Some(error) = self.store.disturbance(&tx)
        {
            self.roll_back(tx).await;
            return Err(Run::broken(error));
        }
        Ok((tx, verdict, given))
    }

    /// Warns of a handler whose runs write nothing through their transaction.
    fn watch_writes(&self, route: &Route<S>, wrote: bool) {
        if route.write_watch.note(wrote) && !route.options.no_writes {
            tracing::warn!(
                consumer = &*self.consumer,
                handler = &*route.name,
                "the first hundred runs of a handler wrote nothing through `cx.tx`: what it writes through another connection is \
                 done again when a message comes twice; write through `cx.tx`, or say `no_writes` where it writes nothing"
            );
        }
    }

    /// Tells of a handler that kept all other writers of the database waiting.
    fn tell_of_the_lock(&self, route: &Route<S>, message: &Message, held_for: Duration) {
        let is_long =
            held_for > LOCKED_LONG && !route.options.deferred && self.store.has_one_writer();
        if is_long && self.tells(FailureKind::LockHeld, &route.name, &format!("for {held_for:?}")) {
            tracing::warn!(
                consumer = &*self.consumer,
                handler = &*route.name,
                message_id = %message.id,
                ?held_for,
                "a handler held the database's only write lock, and all other writers waited: let it wait for others before its \
                 transaction or register it with `deferred()`, or use another database than SQLite"
            );
        }
    }

    /// Tells of a run that takes long, and counts it until what this gives is dropped.
    fn slow(
        &self,
        route: &Route<S>,
        message: &Message,
        after: Duration,
        limit: Option<Duration>,
    ) -> SlowRun {
        if self.tells(FailureKind::Slow, &route.name, &format!("after {after:?}")) {
            tracing::warn!(
                consumer = &*self.consumer,
                handler = &*route.name,
                message_id = %message.id,
                ?after,
                ?limit,
                "a handler is slow; at its time limit, where it has one, it is dropped and counts as failed"
            );
        }
        self.count(|s| s.slow += 1);
        SlowRun(Arc::clone(&self.stats))
    }

    /// Says what a failure of the store in the middle of a run comes to.
    pub(super) async fn failed(
        &self,
        tx: S::Tx,
        error: StoreError,
    ) -> Result<(S::Tx, Verdict), Run> {
        // What was refused is this message, whose attributes come from a stranger: the others must not wait.
        if matches!(error, StoreError::Refused(_)) {
            return Ok((tx, Verdict::Failed(full_text(&error))));
        }
        self.roll_back(tx).await;
        Err(Run::broken(error))
    }

    /// Ends the transaction of a message that the inbox knew; a stored delivery of it is not needed any more.
    async fn repeated(&self, tx: S::Tx, handler: &str, held: &Held<'_>) -> Run {
        tracing::debug!(handler, "a repeat was suppressed");
        let Held::Store(claim) = held else {
            self.count(|s| s.duplicates += 1);
            self.roll_back(tx).await;
            return Run::Repeat;
        };
        let finished = match self.store.finish(&tx, claim).await {
            Ok(true) => self.store.commit(tx).await,
            Ok(false) => {
                self.roll_back(tx).await;
                return Run::Lost;
            }
            Err(error) => {
                self.roll_back(tx).await;
                Err(error)
            }
        };
        match finished {
            Ok(()) => {
                self.count(|s| s.duplicates += 1);
                Run::Repeat
            }
            Err(error) => Run::broken(error),
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

fn verdict_of(error: HandlerError) -> Verdict {
    match error.into_kind() {
        Kind::Retry(error) => Verdict::Failed(full_text(&*error)),
        Kind::Reject(reason) => Verdict::Rejected(reason),
        Kind::Undecodable(reason) => Verdict::Undecodable(reason),
        Kind::Snooze(wait) => Verdict::Snoozed(wait),
        Kind::Unknown(awaited) => Verdict::Unknown(awaited),
    }
}
