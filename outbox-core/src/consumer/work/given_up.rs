//! What is given up: letters in the consumer's own database.

use super::{
    Answer, Ended, Worker, permanent,
    reports::{Failing, FailureKind},
};
use crate::{
    consumer::settings::DeadLetters,
    failure::{DeadLetter, DeadReason, full_text, log_letter, tell_of_letter},
    outbox::{Claim, ConsumerStore, History, ReceivedLetter, StoreError},
    runtime::fault::{FaultPoint, reach},
    transport::Delivery,
};
use std::sync::Arc;

impl<S: ConsumerStore> Worker<S> {
    /// Gives a message up: a letter is written, or the transport told to do with it what it does.
    ///
    /// A letter whose texts the database does not hold is written with the body alone. One that it refuses even so goes
    /// to the transport: what cannot be stored here would come for ever. Where the database refuses everything, nothing is
    /// given up.
    pub(super) async fn give_up(
        &self,
        letter: &ReceivedLetter<'_>,
        claim: Option<&Claim>,
        text: String,
    ) -> Result<Answer, StoreError> {
        if self.settings.letters == DeadLetters::Transport && claim.is_none() {
            return Ok(Answer::Reject(text));
        }
        self.give_up_here(letter, claim, text).await
    }

    /// Gives a message up as [`give_up`](Self::give_up) does, where no delivery is left that the transport could be told of.
    pub(super) async fn give_up_here(
        &self,
        letter: &ReceivedLetter<'_>,
        claim: Option<&Claim>,
        text: String,
    ) -> Result<Answer, StoreError> {
        reach(FaultPoint::BeforeBury);
        let mut buried = self.with_patience(|| self.bury(letter, claim)).await;
        if let (Err(StoreError::Refused(cause)), Ok(message)) = (&buried, letter.message) {
            tracing::error!(
                error = full_text(&**cause),
                "the database refused a dead letter; its body alone is kept"
            );
            let bare = ReceivedLetter { message: Err(Some(&message.payload)), ..letter.clone() };
            buried = self.with_patience(|| self.bury(&bare, claim)).await;
        }
        match buried {
            Ok(written) => {
                reach(FaultPoint::AfterBury);
                if let Some(letter) = written {
                    self.count(|s| s.buried += 1);
                    log_letter(&letter);
                    let letter = Arc::new(letter);
                    for listener in &self.dead {
                        tell_of_letter(listener, &letter).await;
                    }
                }
                Ok(Answer::Ack)
            }
            Err(StoreError::Refused(cause)) if claim.is_none() => {
                tracing::error!(
                    error = full_text(&*cause),
                    "the database refused a dead letter; the message is rejected"
                );
                Ok(Answer::Reject(text))
            }
            Err(error) => Err(error),
        }
    }

    /// Writes the letter together with the inbox row, so that a repeat changes nothing.
    async fn bury(
        &self,
        letter: &ReceivedLetter<'_>,
        claim: Option<&Claim>,
    ) -> Result<Option<DeadLetter>, StoreError> {
        let tx = self.begin(claim).await?;
        match self.bury_in(&tx, letter, claim).await {
            Ok(written) => self.store.commit(tx).await.map(|()| written),
            Err(error) => {
                self.roll_back(tx).await;
                Err(error)
            }
        }
    }

    async fn bury_in(
        &self,
        tx: &S::Tx,
        letter: &ReceivedLetter<'_>,
        claim: Option<&Claim>,
    ) -> Result<Option<DeadLetter>, StoreError> {
        if let Some(claim) = claim
            && !self.store.finish(tx, claim).await?
        {
            return Ok(None);
        }
        if let Ok(message) = letter.message {
            for name in self.names_of(letter.handler) {
                if !self.store.receive(tx, self.inbox_key(name, message)).await? {
                    return Ok(None);
                }
            }
        }
        self.store.bury(tx, letter).await.map(Some)
    }

    /// Gives up what cannot be read.
    pub(super) async fn unreadable(&self, delivery: Delivery, reason: String) -> Ended {
        self.report(Failing::of(FailureKind::Unreadable, &reason));
        let history = History { errors: vec![permanent(&reason)], ..History::default() };
        let raw = delivery
            .raw
            .clone()
            .or_else(|| delivery.message.as_ref().ok().map(|m| m.payload.clone()));
        let letter = self.letter("", Err(raw.as_ref()), DeadReason::Undecodable, &history);
        match self.give_up(&letter, None, reason).await {
            Ok(answer) => self.answer(delivery, answer).await,
            Err(error) => self.return_for(delivery, &error).await,
        }
    }
}
