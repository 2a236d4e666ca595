//! The work for one stored delivery.

use super::{
    Again, DeliverySource, Disturbances, HandlerOutcome, NextAction, RetryState, RunHistory,
    RunResult, Worker, next_action, permanent, text_of,
};
use crate::{
    consumer::{handler::UnhandledPolicy, retrier::KEEP_ORPHANED},
    event::{Message, jitter},
    failure::{DeadReason, FailureClass, full_text, loggable_text},
    outbox::{
        Awaited, ConsumerStore, Deferral, DeferredDelivery, DeliveryClaim, History, StoreError,
        StoredDelivery, roll_back,
    },
    runtime::{
        fault::{FaultPoint, fault_point},
        later, now,
    },
    telemetry::process_span,
};
use std::time::Duration;
use tracing::Instrument;

/// Wait before a dead letter that the database refuses is written again: an operator has to act.
const REFUSED_WAIT: Duration = Duration::from_mins(1);

impl<S: ConsumerStore> Worker<S> {
    /// Runs a stored delivery that this instance has claimed.
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
                    .dead_letter_stored(
                        stored,
                        None,
                        DeadReason::Undecodable,
                        &history,
                        reason.clone(),
                    )
                    .await;
            }
        };
        let attempt = stored.history.attempts.saturating_add(1);
        let span = process_span(&self.consumer, message, Some(attempt));
        if stored.expired {
            let text = "its time ran out while it was stored".to_owned();
            return self
                .dead_letter_stored(
                    stored,
                    Some(message),
                    DeadReason::Expired,
                    &stored.history,
                    text,
                )
                .instrument(span)
                .await;
        }
        self.run_stored(stored, message).instrument(span).await
    }

    /// Extends the claim until it is lost.
    pub(in crate::consumer) async fn renew_claim(&self, stored: &StoredDelivery) {
        let lease = self.settings.lease;
        let mut claimed_until = later(now(), lease);
        loop {
            tokio::time::sleep(lease / 3).await;
            let asked_at = now();
            match self.store.extend_claim(&stored.claim, lease, false).await {
                Ok(true) => claimed_until = later(asked_at, lease),
                // The delivery was finished or released meanwhile, or another instance has claimed it.
                Ok(false) => return,
                // The run itself may keep the database busy, as each writer does on SQLite. Where another instance
                // has claimed the delivery by now, this one cannot finish it.
                Err(StoreError::Busy(_)) => {}
                Err(_) if now() >= claimed_until => return,
                Err(error) => {
                    tracing::debug!(error = full_text(&error), "a claim could not be extended")
                }
            }
        }
    }

    /// Writes the dead letter of a stored delivery that ended its process each time it ran.
    pub(in crate::consumer) async fn dead_letter_crashed(
        &self,
        stored: &StoredDelivery,
    ) -> Result<(), StoreError> {
        let text = format!(
            "it was begun {} times and never ended",
            stored.started - stored.history.attempts
        );
        let mut history = stored.history.clone();
        history.errors.push(permanent(&text));
        self.dead_letter_stored(
            stored,
            stored.message.as_ref().ok(),
            DeadReason::Crashed,
            &history,
            text,
        )
        .await
    }

    pub(super) async fn dead_letter_stored(
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
                    error = loggable_text(&full_text(&error), error.class(), message),
                    "the database refused a dead letter; it is written again later"
                );
                let deferral = Deferral { due_in: REFUSED_WAIT, history };
                self.store.reschedule(&stored.claim, Some(deferral)).await.map(|_| ())
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
            return self.reroute(stored, message).await;
        }
        let Some(entry) = self.entry(&stored.handler) else {
            // Where the delivery has waited for the handler already, its time is over.
            let longest = if stored.awaited_for.is_some() { Duration::ZERO } else { KEEP_ORPHANED };
            return self
                .hand_over_stored(stored, message, stored.history.clone(), (None, longest))
                .await;
        };
        let mut run_history = RunHistory::of(stored.history.clone());
        let (source, mut disturbances) =
            (DeliverySource::Stored(&stored.claim), Disturbances::new(now()));
        let outcome = loop {
            match self.run_watched(entry, message, run_history.history.attempts + 1, &source).await
            {
                RunResult::Completed(outcome) => break outcome,
                RunResult::Duplicate => return Ok(()),
                RunResult::ClaimLost | RunResult::QueuedBehind => {
                    tracing::debug!("another instance has claimed the stored delivery");
                    return Ok(());
                }
                RunResult::Disturbed(error) => {
                    match self.disturbed(
                        &entry.name,
                        message,
                        &mut disturbances,
                        Duration::ZERO,
                        &error,
                    ) {
                        Again::RetryInline(pause) => tokio::time::sleep(jitter(pause)).await,
                        Again::Defer(pause) => {
                            let deferral =
                                Deferral { due_in: jitter(pause), history: &run_history.history };
                            return self
                                .store
                                .reschedule(&stored.claim, Some(deferral))
                                .await
                                .map(|_| ());
                        }
                        Again::Failed => break HandlerOutcome::Failed(full_text(&error)),
                    }
                }
                RunResult::StoreFailed(error) => return Err(error),
            }
        };
        run_history.note(&outcome);
        self.log_outcome(&entry.name, message, run_history.history.attempts, &outcome);
        let History { failures, failing_for, .. } = run_history.history;
        let state = RetryState { failures, failing_for, unacked_time_left: Duration::ZERO };
        match next_action(&outcome, state, &self.settings.retry) {
            NextAction::Done => {}
            NextAction::RetryInline(wait) | NextAction::Defer(wait) => {
                fault_point(FaultPoint::BeforeReschedule);
                let deferral = Deferral { due_in: wait.spread(), history: &run_history.history };
                if let Err(error) = self.store.reschedule(&stored.claim, Some(deferral)).await {
                    return self.give_up_refused(stored, message, run_history.history, error).await;
                }
                self.count(|s| s.retried += 1);
                self.stored.wake();
            }
            NextAction::HandOver => {
                let awaited = (outcome.awaited(), self.settings.keep_unknown);
                self.hand_over_stored(stored, message, run_history.history, awaited).await?;
            }
            NextAction::DeadLetter(reason) => {
                let text = text_of(&outcome);
                self.dead_letter_stored(stored, Some(message), reason, &run_history.history, text)
                    .await?;
            }
        }
        Ok(())
    }

    /// Stores a message that no handler took for the handlers that take it now.
    async fn reroute(&self, stored: &StoredDelivery, message: &Message) -> Result<(), StoreError> {
        let mut takers: Vec<&str> = self
            .handlers
            .iter()
            .filter(|entry| entry.takes(message))
            .map(|entry| self.stored_name(entry))
            .collect();
        let peers = self.peer_cache.peers();
        if takers.is_empty() {
            takers = peers.takers(message);
        }
        if takers.is_empty() && self.settings.unhandled == UnhandledPolicy::Defer {
            let awaited = Awaited::type_of(message);
            let awaited = (Some(&awaited), self.settings.keep_unknown);
            return self.hand_over_stored(stored, message, stored.history.clone(), awaited).await;
        }
        if takers.is_empty() {
            let text = format!("no handler takes the type `{}`", message.event_type);
            let mut history = stored.history.clone();
            history.errors.push(permanent(&text));
            return self
                .dead_letter_stored(stored, Some(message), DeadReason::UnknownType, &history, text)
                .await;
        }
        if let Err(error) =
            self.retry_while_busy(|| self.reroute_once(&stored.claim, message, &takers)).await
        {
            return self.give_up_refused(stored, message, stored.history.clone(), error).await;
        }
        self.stored.wake();
        Ok(())
    }

    /// Gives up a stored delivery that the database refuses to store again: it would be refused for ever.
    async fn give_up_refused(
        &self,
        stored: &StoredDelivery,
        message: &Message,
        mut history: History,
        error: StoreError,
    ) -> Result<(), StoreError> {
        let StoreError::Refused(cause) = error else { return Err(error) };
        let text = format!("the database refused to store it for later: {}", full_text(&*cause));
        tracing::error!(
            handler = &*stored.handler,
            error = loggable_text(&text, FailureClass::Permanent, Some(message)),
            "a stored delivery is given up"
        );
        history.errors.push(permanent(&text));
        self.dead_letter_stored(stored, Some(message), DeadReason::NotRetried, &history, text).await
    }

    async fn reroute_once(
        &self,
        claim: &DeliveryClaim,
        message: &Message,
        takers: &[&str],
    ) -> Result<(), StoreError> {
        let tx = self.store.begin_stored().await?;
        let rerouted = async {
            for handler in takers {
                let (consumer, due_in) = (&*self.consumer, Some(Duration::ZERO));
                let delivery = DeferredDelivery {
                    consumer,
                    handler,
                    message,
                    due_in,
                    history: History::default(),
                };
                self.store.defer(&tx, &delivery).await?;
            }
            self.store.finish(&tx, claim).await
        };
        match rerouted.await {
            Ok(true) => self.store.commit(tx).await,
            Ok(false) => {
                roll_back(&self.store, tx).await;
                Ok(())
            }
            Err(error) => {
                roll_back(&self.store, tx).await;
                Err(error)
            }
        }
    }
}
