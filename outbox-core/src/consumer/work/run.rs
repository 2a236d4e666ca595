//! One run of a handler, in a transaction of its own with its inbox row.

use super::{Verdict, Worker};
use crate::{
    consumer::{
        barrier::Command,
        handler::{Given, HandlerContext, HandlerError, Kind, Next, Route, Slot},
    },
    event::{Message, Trail},
    failure::{FailureClass, full_text},
    outbox::{Admission, Claim, ConsumerStore, InboxKey, StoreError, lane_of},
    runtime::{
        caught,
        fault::{FaultPoint, reach},
    },
};

/// What one run of a handler came to.
pub(super) enum Run {
    Ended(Verdict),
    /// It was not run: the inbox knew the message.
    Repeat,
    /// It was not run: stored deliveries of its key come first.
    Behind,
    /// It was not run, or all was rolled back: the stored delivery is somebody else's by now.
    Lost,
    Store(StoreError),
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
        InboxKey { consumer: &self.consumer, handler, source: &message.source, message_id: message.id }
    }

    /// Opens a transaction, for a stored delivery where there is a claim.
    pub(super) async fn begin(&self, claim: Option<&Claim>) -> Result<S::Tx, StoreError> {
        if claim.is_some() { self.store.begin_stored().await } else { self.store.begin().await }
    }

    /// Runs a handler once.
    pub(super) async fn run(&self, route: &Route<S>, message: &Message, attempt: u32, held: &Held<'_>) -> Run {
        let claim = if let Held::Store(claim) = held { Some(*claim) } else { None };
        let tx = match self.begin(claim).await {
            Ok(tx) => tx,
            Err(error) => return Run::Store(error),
        };
        reach(FaultPoint::BeforeInbox);
        let (tx, verdict) = match self.run_in(tx, route, message, attempt, held).await {
            Ok(ran) => ran,
            Err(run) => return run,
        };
        if verdict != Verdict::Done {
            if let Some(error) = self.undo(tx, &verdict).await {
                return Run::Store(error);
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
                    return Run::Store(error);
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
            Err(error) => Run::Store(error),
        }
    }

    /// Rolls a run back. Gives the database's failure where that is why the handler failed: it is gone, and no attempt
    /// counts.
    async fn undo(&self, tx: S::Tx, verdict: &Verdict) -> Option<StoreError> {
        let undone = self.store.rollback(tx).await;
        let gone = undone.err().filter(|error| error.class() == FailureClass::Unavailable);
        gone.filter(|_| matches!(verdict, Verdict::Failed(_)))
    }

    /// Admits the message and runs the handler in an open transaction; gives that back with the verdict.
    pub(super) async fn run_in(
        &self,
        tx: S::Tx,
        route: &Route<S>,
        message: &Message,
        attempt: u32,
        held: &Held<'_>,
    ) -> Result<(S::Tx, Verdict), Run> {
        // A stored delivery is the first of its lane already.
        let lane = if matches!(held, Held::Store(_)) { None } else { lane_of(message) };
        match self.store.admit(&tx, self.inbox_key(&route.name, message), lane).await {
            Ok(Admission::First) => {}
            Ok(Admission::Behind) => {
                self.roll_back(tx).await;
                return Err(Run::Behind);
            }
            Ok(Admission::Repeat) => return Err(self.repeated(tx, &route.name, held).await),
            Err(error) => return self.failed(tx, error).await,
        }
        self.store.follow(&tx, Trail::of(message));
        match Command::read(message) {
            Ok(Some(command)) => self.run_command(tx, route, message, command, attempt, held).await,
            Ok(None) => {
                let (tx, verdict, given) = self.call(tx, route, message, None, attempt, held).await;
                // On a message that is no command, an answer is an event like others.
                match given.filter(|_| verdict == Verdict::Done) {
                    Some(given) => match self.store.append(&tx, &[given.event]).await {
                        Ok(()) => Ok((tx, verdict)),
                        Err(error) => self.failed(tx, error).await,
                    },
                    None => Ok((tx, verdict)),
                }
            }
            Err(fault) => Ok((tx, Verdict::Rejected(fault))),
        }
    }

    /// Runs the handler with its layers; gives the transaction back, with the verdict and what the handler said.
    pub(super) async fn call(
        &self,
        tx: S::Tx,
        route: &Route<S>,
        message: &Message,
        command: Option<Command>,
        attempt: u32,
        held: &Held<'_>,
    ) -> (S::Tx, Verdict, Option<Given>) {
        let slot = if let Held::Hand(_, slot) = held { Some((*slot).clone()) } else { None };
        let cx = HandlerContext::new(tx, message.clone(), route.name.clone(), attempt, held.delivery());
        let cx = cx.with_delivery(slot).for_command(command);
        let next = Next { layers: &self.layers, handler: route.handle(&cx) };
        let result = caught(next.run(&cx)).await;
        reach(FaultPoint::AfterHandler);
        let verdict = match result {
            Ok(Ok(())) => Verdict::Done,
            Ok(Err(error)) => verdict_of(error),
            Err(panic) => Verdict::Failed(format!("a panic: {panic}")),
        };
        let (tx, given) = cx.into_parts();
        (tx, verdict, given)
    }

    /// Says what a failure of the store in the middle of a run comes to.
    pub(super) async fn failed(&self, tx: S::Tx, error: StoreError) -> Result<(S::Tx, Verdict), Run> {
        // What was refused is this message, whose attributes come from a stranger: the others must not wait.
        if matches!(error, StoreError::Refused(_)) {
            return Ok((tx, Verdict::Failed(full_text(&error))));
        }
        self.roll_back(tx).await;
        Err(Run::Store(error))
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
            Err(error) => Run::Store(error),
        }
    }
}

fn verdict_of(error: HandlerError) -> Verdict {
    match error.into_kind() {
        Kind::Retry(error) => Verdict::Failed(full_text(&*error)),
        Kind::Reject(reason) => Verdict::Rejected(reason),
        Kind::Undecodable(reason) => Verdict::Undecodable(reason),
        Kind::Snooze(wait) => Verdict::Snoozed(wait),
    }
}
