//! The work for one stored delivery.

use super::{
    Account, Again, Disturbances, Held, Run, Runs, Step, Verdict, Worker, next_step, permanent,
    text_of,
};
use crate::{
    consumer::{handler::UnhandledPolicy, retrier::KEEP_ORPHANED},
    event::{Message, jitter},
    failure::{DeadReason, FailureClass, full_text},
    outbox::{
        Awaited, Claim, ConsumerStore, History, Postponed, PutBy, StoreError, StoredDelivery,
    },
    runtime::{
        fault::{FaultPoint, reach},
        now,
    },
    telemetry::process_span,
};
use std::time::Duration;
use tracing::Instrument;

/// Wait before a letter is written again that the database refuses: somebody has to look at it.
const REFUSED_WAIT: Duration = Duration::from_mins(1);

impl<S: ConsumerStore> Worker<S> {
    /// Runs a stored delivery whose turn it is.
    pub(in crate::consumer) async fn work_stored(
        &self,
        stored: &StoredDelivery,
    ) -> Result<(), StoreError> {
        let message = match &stored.message {
            Ok(message) => message,
            Err(reason) => {
                let mut history = stored.history.clone();
                history.errors.push(permanent(reason));
                return self
                    .bury_stored(stored, None, DeadReason::Undecodable, &history, reason.clone())
                    .await;
            }
        };
        let span = process_span(&self.consumer, message);
        if stored.expired {
            let text = "its time ran out while it was stored".to_owned();
            return self
                .bury_stored(stored, Some(message), DeadReason::Expired, &stored.history, text)
                .instrument(span)
                .await;
        }
        self.run_stored(stored, message).instrument(span).await
    }

    /// Prolongs the claim; returns when it is lost.
    pub(in crate::consumer) async fn keep_claim(&self, stored: &StoredDelivery) {
        let lease = self.settings.lease;
        let mut held_until = now() + lease;
        loop {
            tokio::time::sleep(lease / 3).await;
            let asked = now();
            match self.store.prolong(&stored.claim, lease, false).await {
                Ok(true) => held_until = asked + lease,
                // It was finished or given back at this very moment, or somebody else has it.
                Ok(false) => return,
                // The run itself may keep the database busy, as each writer does on SQLite; if somebody else should have it
                // by now, it cannot be finished.
                Err(StoreError::Busy(_)) => {}
                Err(_) if now() >= held_until => return,
                Err(error) => {
                    tracing::debug!(error = full_text(&error), "a claim could not be prolonged")
                }
            }
        }
    }

    /// Buries a stored delivery that ended its process each time it was run.
    pub(in crate::consumer) async fn crashed(
        &self,
        stored: &StoredDelivery,
    ) -> Result<(), StoreError> {
        let text =
            format!("it was begun {} times and never ended", stored.started - stored.history.runs);
        let mut history = stored.history.clone();
        history.errors.push(permanent(&text));
        self.bury_stored(stored, stored.message.as_ref().ok(), DeadReason::Crashed, &history, text)
            .await
    }

    pub(super) async fn bury_stored(
        &self,
        stored: &StoredDelivery,
        message: Option<&Message>,
        reason: DeadReason,
        history: &History,
        text: String,
    ) -> Result<(), StoreError> {
        let letter = self.letter(&stored.handler, message.ok_or(None), reason, history);
        match self.give_up(&letter, Some(&stored.claim), text).await {
            Err(error) if error.class() == FailureClass::Permanent => {
                tracing::error!(
                    error = full_text(&error),
                    "the database refused a dead letter; it is written again later"
                );
                let postponed = Postponed { due_in: REFUSED_WAIT, history };
                self.store.postpone(&stored.claim, Some(postponed)).await.map(|_| ())
            }
            done => done.map(|_| ()),
        }
    }

    async fn run_stored(
        &self,
        stored: &StoredDelivery,
        message: &Message,
    ) -> Result<(), StoreError> {
        if stored.handler.is_empty() {
            return self.hand_on(stored, message).await;
        }
        let Some(route) = self.route(&stored.handler) else {
            // Its time is over, which whoever stored it has said, unless it waits from now on.
            let longest = if stored.awaited_for.is_some() { Duration::ZERO } else { KEEP_ORPHANED };
            return self
                .leave_stored(stored, message, stored.history.clone(), (None, longest))
                .await;
        };
        let mut account = Account { history: stored.history.clone(), ..Account::default() };
        let (held, mut disturbances) = (Held::Store(&stored.claim), Disturbances::new(now()));
        let verdict = loop {
            match self.run_watched(route, message, account.history.runs + 1, &held).await {
                Run::Ended(verdict) => break verdict,
                Run::Repeat => return Ok(()),
                Run::Lost | Run::Behind => {
                    tracing::debug!("a stored delivery is somebody else's by now");
                    return Ok(());
                }
                Run::Disturbed(error) => {
                    match self.disturbed(
                        &route.name,
                        message,
                        &mut disturbances,
                        Duration::ZERO,
                        &error,
                    ) {
                        Again::Hold(pause) => tokio::time::sleep(jitter(pause)).await,
                        Again::Store(pause) => {
                            let postponed =
                                Postponed { due_in: jitter(pause), history: &account.history };
                            return self
                                .store
                                .postpone(&stored.claim, Some(postponed))
                                .await
                                .map(|_| ());
                        }
                        Again::Failed => break Verdict::Failed(full_text(&error)),
                    }
                }
                Run::Store(error) => return Err(error),
            }
        };
        account.note(&verdict);
        self.log_verdict(&route.name, message, account.history.runs, &verdict);
        let History { failures, failing_for, .. } = account.history;
        let runs = Runs { failures, failing_for, hold_left: Duration::ZERO };
        match next_step(&verdict, runs, &self.settings.retry) {
            Step::Finish => {}
            Step::Hold(wait) | Step::Store(wait) => {
                reach(FaultPoint::BeforePostpone);
                let postponed = Postponed { due_in: wait.spread(), history: &account.history };
                if let Err(error) = self.store.postpone(&stored.claim, Some(postponed)).await {
                    return self.not_kept(stored, message, account.history, error).await;
                }
                self.count(|s| s.retried += 1);
                self.stored.wake();
            }
            Step::Leave => {
                let awaited = (verdict.awaited(), self.settings.keep_unknown);
                self.leave_stored(stored, message, account.history, awaited).await?;
            }
            Step::Bury(reason) => {
                let text = text_of(&verdict);
                self.bury_stored(stored, Some(message), reason, &account.history, text).await?;
            }
        }
        Ok(())
    }

    /// Hands a message that no handler took on to those that take it now.
    async fn hand_on(&self, stored: &StoredDelivery, message: &Message) -> Result<(), StoreError> {
        let mut takers: Vec<&str> = self
            .routes
            .iter()
            .filter(|route| route.takes(message))
            .map(|route| self.stored_name(route))
            .collect();
        let peers = self.others.peers();
        if takers.is_empty() {
            takers = peers.takers(message);
        }
        if takers.is_empty() && self.settings.unhandled == UnhandledPolicy::Defer {
            let awaited = Awaited::type_of(message);
            let awaited = (Some(&awaited), self.settings.keep_unknown);
            return self.leave_stored(stored, message, stored.history.clone(), awaited).await;
        }
        if takers.is_empty() {
            let text = format!("no handler takes the type `{}`", message.event_type);
            let mut history = stored.history.clone();
            history.errors.push(permanent(&text));
            return self
                .bury_stored(stored, Some(message), DeadReason::UnknownType, &history, text)
                .await;
        }
        if let Err(error) =
            self.with_patience(|| self.hand_on_once(&stored.claim, message, &takers)).await
        {
            return self.not_kept(stored, message, stored.history.clone(), error).await;
        }
        self.stored.wake();
        Ok(())
    }

    /// Gives up a stored delivery that the database refuses to keep: it would be refused for ever.
    async fn not_kept(
        &self,
        stored: &StoredDelivery,
        message: &Message,
        mut history: History,
        error: StoreError,
    ) -> Result<(), StoreError> {
        let StoreError::Refused(cause) = error else { return Err(error) };
        let text = format!("the database refused to store it for later: {}", full_text(&*cause));
        tracing::error!(handler = &*stored.handler, error = text, "a stored delivery is given up");
        history.errors.push(permanent(&text));
        self.bury_stored(stored, Some(message), DeadReason::NotRetried, &history, text).await
    }

    async fn hand_on_once(
        &self,
        claim: &Claim,
        message: &Message,
        takers: &[&str],
    ) -> Result<(), StoreError> {
        let tx = self.store.begin_stored().await?;
        let handed_on = async {
            for handler in takers {
                let (consumer, due_in) = (&*self.consumer, Some(Duration::ZERO));
                let delivery =
                    PutBy { consumer, handler, message, due_in, history: History::default() };
                self.store.put_by(&tx, &delivery).await?;
            }
            self.store.finish(&tx, claim).await
        };
        match handed_on.await {
            Ok(true) => self.store.commit(tx).await,
            Ok(false) => {
                self.roll_back(tx).await;
                Ok(())
            }
            Err(error) => {
                self.roll_back(tx).await;
                Err(error)
            }
        }
    }
}
