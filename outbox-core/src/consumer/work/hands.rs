//! Deliveries that are acknowledged before their handlers run, or by them.

use super::reports::{Failing, FailureKind};
use super::{Answer, Ended, Held, Run, Verdict, Worker, permanent, text_of};
use crate::{
    consumer::handler::{Hand, Route},
    event::Message,
    failure::{DeadReason, full_text},
    outbox::{ConsumerStore, History, StoreError},
    transport::Delivery,
};

impl<S: ConsumerStore> Worker<S> {
    /// At most once: the acknowledgement first, then one run of each handler.
    pub(super) async fn acknowledged_first(&self, message: &Message, delivery: Delivery) -> Ended {
        if !self.routes.iter().any(|route| route.takes(message)) {
            return match self.unhandled(message).await {
                Ok(answer) => self.answer(delivery, answer).await,
                Err(error) => self.return_for(delivery, &error).await,
            };
        }
        let attempt = delivery.attempt;
        self.answer(delivery, Answer::Ack).await;
        let mut ended = Ended::Answered;
        for route in self.routes.iter().filter(|route| route.takes(message)) {
            if let Err(error) = self.run_once(route, message, attempt).await {
                tracing::error!(
                    handler = &*route.name,
                    error = full_text(&error),
                    "a message is lost: the database failed"
                );
                ended = Ended::StoreDown;
            }
        }
        ended
    }

    async fn run_once(
        &self,
        route: &Route<S>,
        message: &Message,
        delivery: Option<u32>,
    ) -> Result<(), StoreError> {
        loop {
            let verdict = match self.run_watched(route, message, 1, &Held::Delivery(delivery)).await
            {
                Run::Ended(verdict) => verdict,
                Run::Repeat | Run::Lost => return Ok(()),
                Run::Behind => {
                    match self.put_by(route, message, None, &History::default()).await? {
                        Some(_) => return Ok(()),
                        None => continue,
                    }
                }
                // It may have run, and does not run twice.
                Run::Disturbed(error) => Verdict::Failed(full_text(&error)),
                Run::Store(error) => return Err(error),
            };
            self.log_verdict(&route.name, message, 1, &verdict);
            let reason = match verdict {
                Verdict::Done => return Ok(()),
                Verdict::Failed(_) | Verdict::Snoozed(_) => DeadReason::NotRetried,
                Verdict::Rejected(_) => DeadReason::Rejected,
                Verdict::Undecodable(_) => DeadReason::Undecodable,
                // It has not run: whoever knows it may.
                Verdict::Unknown(awaited) => {
                    let history = History { runs: 1, ..History::default() };
                    let handler = self.stored_name(route);
                    return self
                        .leave(handler, message, &history, Some(&awaited))
                        .await
                        .map(|_| ());
                }
            };
            let text = text_of(&verdict);
            let history = History {
                runs: 1,
                failures: 1,
                errors: vec![permanent(&text)],
                ..History::default()
            };
            let letter = self.letter(&route.name, Ok(message), reason, &history);
            return self.give_up_here(&letter, None, text).await.map(|_| ());
        }
    }

    /// By hand: one run of each handler; whoever takes the delivery answers for it.
    pub(super) async fn by_hand(&self, message: &Message, delivery: Delivery) -> Ended {
        let attempt = delivery.attempt;
        let slot = Hand::of(delivery);
        let mut answer = None;
        for route in self.routes.iter().filter(|route| route.takes(message)) {
            slot.open();
            let run = self.run_watched(route, message, 1, &Held::Hand(attempt, &slot)).await;
            let said = slot.close();
            if said.acknowledged {
                self.acknowledged_too_early(route, message, &run).await;
            }
            let verdict = match run {
                Run::Ended(verdict) => verdict,
                Run::Repeat | Run::Lost => {
                    answer = answer.max(Some(Answer::Ack));
                    continue;
                }
                Run::Behind => {
                    answer = Some(Answer::Nack);
                    continue;
                }
                Run::Disturbed(error) => {
                    self.count(|s| s.disturbed += 1);
                    self.report(Failing {
                        kind: FailureKind::Returned,
                        handler: &route.name,
                        message: Some(message),
                        attempt: 0,
                        error: &full_text(&error),
                    });
                    answer = Some(Answer::Nack);
                    continue;
                }
                Run::Store(error) => {
                    self.report(Failing::of(FailureKind::DatabaseFailed, &full_text(&error)));
                    if let Some(delivery) = slot.take() {
                        self.answer(delivery, Answer::Nack).await;
                    }
                    return Ended::StoreDown;
                }
            };
            self.log_verdict(&route.name, message, 1, &verdict);
            let told = match verdict {
                Verdict::Rejected(reason) | Verdict::Undecodable(reason) => Answer::Reject(reason),
                Verdict::Done if said.ack_after_commit => Answer::Ack,
                // A handler that succeeds and answers nothing is asked again, and then the inbox answers for it.
                // One that this instance does not know is another's.
                Verdict::Done | Verdict::Failed(_) | Verdict::Snoozed(_) | Verdict::Unknown(_) => {
                    Answer::Nack
                }
            };
            answer = answer.max(Some(told));
        }
        let Some(delivery) = slot.take() else { return Ended::Answered };
        if answer == Some(Answer::Nack) {
            self.before_a_return().await;
        }
        match answer {
            Some(answer) => self.answer(delivery, answer).await,
            None => match self.unhandled(message).await {
                Ok(answer) => self.answer(delivery, answer).await,
                Err(error) => self.return_for(delivery, &error).await,
            },
        }
    }

    /// A handler has told the broker that the message is handled, and its transaction was rolled back: nobody delivers it again, so
    /// it becomes a dead letter.
    async fn acknowledged_too_early(&self, route: &Route<S>, message: &Message, run: &Run) {
        let text = match run {
            Run::Ended(Verdict::Done) | Run::Repeat | Run::Behind => return,
            Run::Ended(verdict) => text_of(verdict),
            Run::Disturbed(error) | Run::Store(error) => full_text(error),
            Run::Lost => "the transaction was rolled back".to_owned(),
        };
        tracing::error!(
            consumer = &*self.consumer,
            handler = &*route.name,
            message_id = %message.id,
            error = text,
            "a handler acknowledged its delivery before its transaction was committed, and that was rolled back: the message \
             becomes a dead letter; let the handler call `ack_after_commit()`"
        );
        let history =
            History { runs: 1, failures: 1, errors: vec![permanent(&text)], ..History::default() };
        let letter = self.letter(&route.name, Ok(message), DeadReason::NotRetried, &history);
        if let Err(error) = self.give_up_here(&letter, None, text).await {
            tracing::error!(
                consumer = &*self.consumer,
                handler = &*route.name,
                message_id = %message.id,
                error = full_text(&error),
                "the dead letter could not be written: the message is lost"
            );
        }
    }
}
