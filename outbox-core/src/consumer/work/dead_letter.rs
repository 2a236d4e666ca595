//! Dead letters of the messages that a consumer gives up, in its own database.

use super::{
    AckDecision, DeliveryResult, Worker, permanent,
    reports::{Failing, FailureKind},
};
use crate::{
    consumer::settings::DeadLetters,
    event::{Message, MessageId},
    failure::{
        DeadLetter, DeadReason, FailureClass, full_text, log_letter, loggable_text,
        notify_dead_letter,
    },
    outbox::{
        ConsumerStore, DeliveryClaim, History, InboxKey, ReceivedLetter, StoreError, roll_back,
    },
    runtime::fault::{FaultPoint, fault_point},
    transport::Delivery,
};
use std::sync::Arc;

impl<S: ConsumerStore> Worker<S> {
    /// Gives a message up: writes a dead letter, or rejects the delivery, as the consumer is configured.
    ///
    /// Where the database refuses the letter's texts, the letter is written with the body alone. Where the
    /// database refuses that too, the delivery is rejected: the broker would deliver it for ever. Where
    /// the database takes no writes at all, the message is not given up.
    pub(super) async fn give_up(
        &self,
        letter: &ReceivedLetter<'_>,
        claim: Option<&DeliveryClaim>,
        text: String,
    ) -> Result<AckDecision, StoreError> {
        if self.settings.letters == DeadLetters::Transport && claim.is_none() {
            return Ok(rejection(&text, letter.message.ok()));
        }
        self.give_up_stored(letter, claim, text).await
    }

    /// Gives a message up as [`give_up`](Self::give_up) does, with a dead letter in any case: for a message
    /// that has no delivery to reject any more.
    pub(super) async fn give_up_stored(
        &self,
        letter: &ReceivedLetter<'_>,
        claim: Option<&DeliveryClaim>,
        text: String,
    ) -> Result<AckDecision, StoreError> {
        fault_point(FaultPoint::BeforeDeadLetter);
        // A COMMIT without a response counts as busy, is repeated, and may have succeeded. By this id the
        // repeat knows the letter of a message that has no id, or none that the database takes.
        let id = MessageId::generate();
        let mut written = self.retry_while_busy(|| self.write_dead_letter(letter, claim, id)).await;
        if let (Err(StoreError::Refused(cause)), Ok(message)) = (&written, letter.message) {
            tracing::error!(
                error = loggable_text(&full_text(&**cause), FailureClass::Permanent, Some(message)),
                "the database refused a dead letter; its body alone is kept"
            );
            // Without its headers nothing says that it is sensitive.
            let mut history = letter.history.clone();
            for error in &mut history.errors {
                error.text = loggable_text(&error.text, error.class, Some(message));
            }
            let raw = Err(Some(&message.payload));
            let bare = ReceivedLetter { message: raw, history: &history, ..letter.clone() };
            written = self.retry_while_busy(|| self.write_dead_letter(&bare, claim, id)).await;
        }
        match written {
            Ok(written) => {
                fault_point(FaultPoint::AfterDeadLetter);
                if let Some(letter) = written {
                    self.count(|s| s.dead_lettered += 1);
                    self.metrics.dead_letter(letter.reason);
                    log_letter(&letter);
                    let letter = Arc::new(letter);
                    for listener in &self.dead_letter_listeners {
                        notify_dead_letter(listener, &letter).await;
                    }
                }
                Ok(AckDecision::Ack)
            }
            Err(StoreError::Refused(cause)) if claim.is_none() => {
                let message = letter.message.ok();
                tracing::error!(
                    error = loggable_text(&full_text(&*cause), FailureClass::Permanent, message),
                    "the database refused a dead letter; the message is rejected"
                );
                Ok(rejection(&text, message))
            }
            Err(error) => Err(error),
        }
    }

    /// Writes the letter together with the inbox row, so that a duplicate changes nothing. A message that
    /// cannot be read has the id `otherwise`.
    async fn write_dead_letter(
        &self,
        letter: &ReceivedLetter<'_>,
        claim: Option<&DeliveryClaim>,
        otherwise: MessageId,
    ) -> Result<Option<DeadLetter>, StoreError> {
        let tx = self.begin(claim).await?;
        match self.write_dead_letter_in(&tx, letter, claim, otherwise).await {
            Ok(written) => self.store.commit(tx).await.map(|()| written),
            Err(error) => {
                roll_back(&self.store, tx).await;
                Err(error)
            }
        }
    }

    async fn write_dead_letter_in(
        &self,
        tx: &S::Tx,
        letter: &ReceivedLetter<'_>,
        claim: Option<&DeliveryClaim>,
        otherwise: MessageId,
    ) -> Result<Option<DeadLetter>, StoreError> {
        if let Some(claim) = claim
            && !self.store.finish(tx, claim).await?
        {
            return Ok(None);
        }
        match letter.message {
            Ok(message) => {
                for name in self.names_of(letter.handler) {
                    if !self.store.receive(tx, self.inbox_key(name, message)).await? {
                        return Ok(None);
                    }
                }
            }
            // The row waits for a COMMIT of the same letter that is still under way, and finds it then. It
            // says nothing of a later delivery, which is another attempt with a letter of its own.
            Err(_) if claim.is_none() => {
                let (consumer, handler) = (&*self.consumer, letter.handler);
                let key = InboxKey { consumer, handler, source: "", message_id: otherwise };
                if !self.store.receive(tx, key).await? {
                    return Ok(None);
                }
            }
            Err(_) => {}
        }
        self.store.write_dead_letter(tx, letter).await.map(Some)
    }

    /// Gives up a delivery that the consumer cannot read.
    pub(super) async fn unreadable(&self, delivery: Delivery, reason: String) -> DeliveryResult {
        self.report(Failing::of(FailureKind::Unreadable, &reason));
        let history = History { errors: vec![permanent(&reason)], ..History::default() };
        let raw = delivery
            .raw
            .clone()
            .or_else(|| delivery.message.as_ref().ok().map(|m| m.payload.clone()));
        let letter = self.letter("", Err(raw.as_ref()), DeadReason::Undecodable, &history);
        match self.give_up(&letter, None, reason).await {
            Ok(decision) => self.acknowledge(delivery, decision).await,
            Err(error) => self.return_for(delivery, &error).await,
        }
    }
}

/// Rejects a delivery in place of a letter, with the reason as brokers may keep and log it.
pub(super) fn rejection(reason: &str, message: Option<&Message>) -> AckDecision {
    AckDecision::Reject(loggable_text(reason, FailureClass::Permanent, message))
}
