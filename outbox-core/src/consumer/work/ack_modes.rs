//! The ack modes beside the default: the consumer acknowledges before the handlers run, or the handlers
//! acknowledge.

use super::reports::{Failing, FailureKind};
use super::{
    AckDecision, DeliveryResult, DeliverySource, HandlerOutcome, RunResult, Worker,
    dead_letter::rejection, permanent, text_of,
};
use crate::{
    consumer::handler::{DeliverySlot, HandlerEntry},
    event::Message,
    failure::{DeadReason, FailureClass, full_text, loggable_text},
    outbox::{ConsumerStore, History, StoreError},
    transport::Delivery,
};

impl<S: ConsumerStore> Worker<S> {
    /// At most once: acknowledges first, then runs each handler once.
    pub(super) async fn ack_before(&self, message: &Message, delivery: Delivery) -> DeliveryResult {
        if !self.handlers.iter().any(|entry| entry.takes(message)) {
            return match self.unhandled(message).await {
                Ok(decision) => self.acknowledge(delivery, decision).await,
                Err(error) => self.return_for(delivery, &error).await,
            };
        }
        let attempt = delivery.attempt;
        self.acknowledge(delivery, AckDecision::Ack).await;
        let mut result = DeliveryResult::Acknowledged;
        for entry in self.handlers.iter().filter(|entry| entry.takes(message)) {
            if let Err(error) = self.run_once(entry, message, attempt).await {
                tracing::error!(
                    handler = &*entry.name,
                    error = loggable_text(&full_text(&error), error.class(), Some(message)),
                    "a message is lost: the database failed"
                );
                result = DeliveryResult::StoreDown;
            }
        }
        result
    }

    async fn run_once(
        &self,
        entry: &HandlerEntry<S>,
        message: &Message,
        delivery: Option<u32>,
    ) -> Result<(), StoreError> {
        loop {
            let outcome = match self
                .run_watched(entry, message, 1, &DeliverySource::Transport(delivery))
                .await
            {
                RunResult::Completed(outcome) => outcome,
                RunResult::Duplicate | RunResult::ClaimLost => return Ok(()),
                RunResult::QueuedBehind => {
                    match self.defer(entry, message, None, &History::default()).await? {
                        Some(_) => return Ok(()),
                        None => continue,
                    }
                }
                // The handler may have run, and does not run twice.
                RunResult::Disturbed(error) => HandlerOutcome::Failed(full_text(&error)),
                RunResult::StoreFailed(error) => return Err(error),
            };
            self.log_outcome(&entry.name, message, 1, &outcome);
            let reason = match outcome {
                HandlerOutcome::Done => return Ok(()),
                HandlerOutcome::Failed(_) | HandlerOutcome::Snoozed(_) => DeadReason::NotRetried,
                HandlerOutcome::Rejected(_) => DeadReason::Rejected,
                HandlerOutcome::Undecodable(_) => DeadReason::Undecodable,
                // The handler has not run: an instance that knows the message may run it.
                HandlerOutcome::Unknown(awaited) => {
                    let history = History { attempts: 1, ..History::default() };
                    let handler = self.stored_name(entry);
                    return self
                        .hand_over(handler, message, &history, Some(&awaited))
                        .await
                        .map(|_| ());
                }
            };
            let text = text_of(&outcome);
            let history = History {
                attempts: 1,
                failures: 1,
                errors: vec![permanent(&text)],
                ..History::default()
            };
            let letter = self.letter(&entry.name, Ok(message), reason, &history);
            return self.give_up_stored(&letter, None, text).await.map(|_| ());
        }
    }

    /// Manual acknowledgement: runs each handler once; a handler that takes the delivery acknowledges it.
    pub(super) async fn manual(&self, message: &Message, delivery: Delivery) -> DeliveryResult {
        let attempt = delivery.attempt;
        let slot = DeliverySlot::of(delivery);
        let mut decision = None;
        for entry in self.handlers.iter().filter(|entry| entry.takes(message)) {
            slot.open();
            let run =
                self.run_watched(entry, message, 1, &DeliverySource::Manual(attempt, &slot)).await;
            let request = slot.close();
            if request.acknowledged {
                self.dead_letter_acked_early(entry, message, &run).await;
            }
            let outcome = match run {
                RunResult::Completed(outcome) => outcome,
                RunResult::Duplicate | RunResult::ClaimLost => {
                    decision = decision.max(Some(AckDecision::Ack));
                    continue;
                }
                RunResult::QueuedBehind => {
                    decision = Some(AckDecision::Nack);
                    continue;
                }
                RunResult::Disturbed(error) => {
                    self.count(|s| s.disturbed += 1);
                    self.report(Failing {
                        kind: FailureKind::Returned,
                        handler: &entry.name,
                        message: Some(message),
                        attempt: 0,
                        error: &full_text(&error),
                    });
                    decision = Some(AckDecision::Nack);
                    continue;
                }
                RunResult::StoreFailed(error) => {
                    self.report(Failing::of(FailureKind::DatabaseFailed, &full_text(&error)));
                    if let Some(delivery) = slot.take() {
                        self.acknowledge(delivery, AckDecision::Nack).await;
                    }
                    return DeliveryResult::StoreDown;
                }
            };
            self.log_outcome(&entry.name, message, 1, &outcome);
            let of_handler = match outcome {
                HandlerOutcome::Rejected(reason) | HandlerOutcome::Undecodable(reason) => {
                    rejection(&reason, Some(message))
                }
                HandlerOutcome::Done if request.ack_after_commit => AckDecision::Ack,
                // Where a handler succeeds without acknowledging, the broker delivers the message again, and
                // the inbox recognises it. A message that this instance does not know is another's.
                HandlerOutcome::Done
                | HandlerOutcome::Failed(_)
                | HandlerOutcome::Snoozed(_)
                | HandlerOutcome::Unknown(_) => AckDecision::Nack,
            };
            decision = decision.max(Some(of_handler));
        }
        let Some(delivery) = slot.take() else { return DeliveryResult::Acknowledged };
        if decision == Some(AckDecision::Nack) {
            self.pause_before_nack().await;
        }
        match decision {
            Some(decision) => self.acknowledge(delivery, decision).await,
            None => match self.unhandled(message).await {
                Ok(decision) => self.acknowledge(delivery, decision).await,
                Err(error) => self.return_for(delivery, &error).await,
            },
        }
    }

    /// Writes a dead letter where a handler acknowledged the delivery and its transaction was rolled back:
    /// the broker does not deliver the message again.
    async fn dead_letter_acked_early(
        &self,
        entry: &HandlerEntry<S>,
        message: &Message,
        run: &RunResult,
    ) {
        let text = match run {
            RunResult::Completed(HandlerOutcome::Done)
            | RunResult::Duplicate
            | RunResult::QueuedBehind => return,
            RunResult::Completed(outcome) => text_of(outcome),
            RunResult::Disturbed(error) | RunResult::StoreFailed(error) => full_text(error),
            RunResult::ClaimLost => "the transaction was rolled back".to_owned(),
        };
        tracing::error!(
            consumer = &*self.consumer,
            handler = &*entry.name,
            message_id = %message.id,
            error = loggable_text(&text, FailureClass::Permanent, Some(message)),
            "a handler acknowledged its delivery before its transaction was committed, and that was rolled back: the message \
             becomes a dead letter; let the handler call `ack_after_commit()`"
        );
        let history = History {
            attempts: 1,
            failures: 1,
            errors: vec![permanent(&text)],
            ..History::default()
        };
        let letter = self.letter(&entry.name, Ok(message), DeadReason::NotRetried, &history);
        if let Err(error) = self.give_up_stored(&letter, None, text).await {
            tracing::error!(
                consumer = &*self.consumer,
                handler = &*entry.name,
                message_id = %message.id,
                error = loggable_text(&full_text(&error), error.class(), Some(message)),
                "the dead letter could not be written: the message is lost"
            );
        }
    }
}
