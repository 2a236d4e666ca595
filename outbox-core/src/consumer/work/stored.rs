//! The work for one stored delivery.

use super::{Account, BUSY_LIMIT, BUSY_WAIT, Held, Run, Runs, Step, Worker, log, next_step, permanent, text_of};
use crate::{
    event::{Message, jitter},
    failure::{DeadReason, FailureClass, full_text},
    outbox::{Claim, ConsumerStore, History, Postponed, PutBy, StoreError, StoredDelivery},
    runtime::fault::{FaultPoint, reach},
    telemetry::process_span,
};
use std::time::Duration;
use tracing::Instrument;

/// Wait before a letter is written again that the database refuses: somebody has to look at it.
const REFUSED_WAIT: Duration = Duration::from_mins(1);

impl<S: ConsumerStore> Worker<S> {
    /// Runs a stored delivery whose turn it is.
    pub(in crate::consumer) async fn work_stored(&self, stored: &StoredDelivery) -> Result<(), StoreError> {
        let message = match &stored.message {
            Ok(message) => message,
            Err(reason) => {
                let mut history = stored.history.clone();
                history.errors.push(permanent(reason));
                return self.bury_stored(stored, None, DeadReason::Undecodable, &history, reason.clone()).await;
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

    /// Buries a stored delivery that ended its process each time it was run.
    pub(in crate::consumer) async fn crashed(&self, stored: &StoredDelivery) -> Result<(), StoreError> {
        let text = format!("it was begun {} times and never ended", stored.started - stored.history.runs);
        let mut history = stored.history.clone();
        history.errors.push(permanent(&text));
        self.bury_stored(stored, stored.message.as_ref().ok(), DeadReason::Crashed, &history, text).await
    }

    async fn bury_stored(
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

    async fn run_stored(&self, stored: &StoredDelivery, message: &Message) -> Result<(), StoreError> {
        if stored.handler.is_empty() {
            return self.hand_on(stored, message).await;
        }
        // Only known handlers are asked for.
        let Some(route) = self.routes.iter().find(|route| route.name == stored.handler) else { return Ok(()) };
        let mut account = Account { history: stored.history.clone(), ..Account::default() };
        let (held, mut busy) = (Held::Store(&stored.claim), 0);
        let verdict = loop {
            match self.run(route, message, account.history.runs + 1, &held).await {
                Run::Ended(verdict) => break verdict,
                Run::Repeat => return Ok(()),
                Run::Lost | Run::Behind => {
                    tracing::debug!("a stored delivery is somebody else's by now");
                    return Ok(());
                }
                Run::Store(error) if error.class() == FailureClass::Transient && busy < BUSY_LIMIT => {
                    busy += 1;
                    tokio::time::sleep(jitter(BUSY_WAIT)).await;
                }
                Run::Store(error) => return Err(error),
            }
        };
        account.note(&verdict);
        log(&route.name, account.history.runs, &verdict);
        let History { failures, failing_for, .. } = account.history;
        let runs = Runs { failures, failing_for, hold_left: Duration::ZERO };
        match next_step(&verdict, runs, &self.settings.retry) {
            Step::Finish => {}
            Step::Hold(wait) | Step::Store(wait) => {
                reach(FaultPoint::BeforePostpone);
                let postponed = Postponed { due_in: wait.spread(), history: &account.history };
                self.store.postpone(&stored.claim, Some(postponed)).await?;
                self.count(|s| s.retried += 1);
                self.stored.wake();
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
        let takers: Vec<&str> =
            self.routes.iter().filter(|route| route.takes(message)).map(|route| &*route.name).collect();
        if takers.is_empty() {
            let text = format!("no handler takes the type `{}`", message.event_type);
            let mut history = stored.history.clone();
            history.errors.push(permanent(&text));
            return self.bury_stored(stored, Some(message), DeadReason::UnknownType, &history, text).await;
        }
        self.with_patience(|| self.hand_on_once(&stored.claim, message, &takers)).await?;
        self.stored.wake();
        Ok(())
    }

    async fn hand_on_once(&self, claim: &Claim, message: &Message, takers: &[&str]) -> Result<(), StoreError> {
        let tx = self.store.begin_stored().await?;
        let handed_on = async {
            for handler in takers {
                let (consumer, due_in) = (&*self.consumer, Some(Duration::ZERO));
                let delivery = PutBy { consumer, handler, message, due_in, history: History::default() };
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
