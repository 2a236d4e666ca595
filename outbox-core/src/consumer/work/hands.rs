//! Deliveries that are acknowledged before their handlers run, or by them.

use super::{Answer, Ended, Held, Run, Verdict, Worker, log, permanent, text_of};
use crate::{
    consumer::handler::{Route, Slot},
    event::Message,
    failure::{DeadReason, full_text},
    outbox::{ConsumerStore, History, StoreError},
    transport::Delivery,
};
use std::sync::{Arc, Mutex, PoisonError};

impl<S: ConsumerStore> Worker<S> {
    /// At most once: the acknowledgement first, then one run of each handler.
    pub(super) async fn acknowledged_first(&self, message: &Message, delivery: Delivery) -> Ended {
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

    async fn run_once(&self, route: &Route<S>, message: &Message, delivery: Option<u32>) -> Result<(), StoreError> {
        loop {
            let verdict = match self.run(route, message, 1, &Held::Delivery(delivery)).await {
                Run::Ended(verdict) => verdict,
                Run::Repeat | Run::Lost => return Ok(()),
                Run::Behind if self.put_by(route, message, None, &History::default()).await? => return Ok(()),
                Run::Behind => continue,
                Run::Store(error) => return Err(error),
            };
            log(&route.name, 1, &verdict);
            let reason = match verdict {
                Verdict::Done => return Ok(()),
                Verdict::Failed(_) | Verdict::Snoozed(_) => DeadReason::NotRetried,
                Verdict::Rejected(_) => DeadReason::Rejected,
                Verdict::Undecodable(_) => DeadReason::Undecodable,
            };
            let text = text_of(&verdict);
            let history = History { runs: 1, failures: 1, errors: vec![permanent(&text)], ..History::default() };
            let letter = self.letter(&route.name, Ok(message), reason, &history);
            return self.give_up(&letter, None, text).await.map(|_| ());
        }
    }

    /// By hand: one run of each handler; whoever takes the delivery answers for it.
    pub(super) async fn by_hand(&self, message: &Message, delivery: Delivery) -> Ended {
        let attempt = delivery.attempt;
        let slot: Slot = Arc::new(Mutex::new(Some(delivery)));
        let mut answer = None;
        for route in self.routes.iter().filter(|route| route.takes(message)) {
            let verdict = match self.run(route, message, 1, &Held::Hand(attempt, &slot)).await {
                Run::Ended(verdict) => verdict,
                Run::Repeat | Run::Lost => {
                    answer = answer.max(Some(Answer::Ack));
                    continue;
                }
                Run::Behind => {
                    answer = Some(Answer::Nack);
                    continue;
                }
                Run::Store(error) => {
                    tracing::warn!(error = full_text(&error), "the database failed");
                    if let Some(delivery) = take(&slot) {
                        self.answer(delivery, Answer::Nack).await;
                    }
                    return Ended::StoreDown;
                }
            };
            log(&route.name, 1, &verdict);
            let told = match verdict {
                Verdict::Rejected(reason) | Verdict::Undecodable(reason) => Answer::Reject(reason),
                // A handler that succeeds and answers nothing is asked again, and then the inbox answers for it.
                Verdict::Done | Verdict::Failed(_) | Verdict::Snoozed(_) => Answer::Nack,
            };
            answer = answer.max(Some(told));
        }
        let Some(delivery) = take(&slot) else { return Ended::Answered };
        if answer == Some(Answer::Nack) {
            self.before_a_return().await;
        }
        match answer {
            Some(answer) => self.answer(delivery, answer).await,
            None => match self.unknown(message).await {
                Ok(answer) => self.answer(delivery, answer).await,
                Err(error) => self.return_for(delivery, &error).await,
            },
        }
    }
}

fn take(slot: &Slot) -> Option<Delivery> {
    slot.lock().unwrap_or_else(PoisonError::into_inner).take()
}
