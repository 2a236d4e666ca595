//! Many deliveries in one transaction: a savepoint for each handler of each, verdicts for each, one commit, then the
//! acknowledgements.
//!
//! What does not succeed at once is taken out of the batch and handled by itself afterwards, with its failure counted; so
//! is everything when the commit is refused.

use super::{Answer, Ended, Held, Run, Verdict, Worker, readable};
use crate::{
    event::Message,
    failure::{FailureClass, full_text},
    outbox::{ConsumerStore, StoreError},
    runtime::fault::{FaultPoint, reach},
    telemetry::{handle_span, process_span},
    transport::Delivery,
};
use futures_util::future::join_all;
use std::sync::Arc;
use tracing::Instrument;

/// A delivery of a batch.
struct Item {
    delivery: Delivery,
    message: Message,
    /// Handlers that did not succeed in the batch.
    failed: Vec<(Arc<str>, Verdict)>,
    /// Whether everything is done when the batch is committed.
    done: bool,
}

impl<S: ConsumerStore> Worker<S> {
    /// Handles deliveries of different keys; gives how each ended, in their order.
    pub(in crate::consumer) async fn work_batch(&self, deliveries: Vec<Delivery>) -> Vec<Ended> {
        let mut ended: Vec<Option<Ended>> = Vec::with_capacity(deliveries.len());
        let mut items = Vec::with_capacity(deliveries.len());
        for delivery in deliveries {
            match readable(&delivery) {
                Ok(message) => {
                    self.note(&message);
                    ended.push(None);
                    items.push(Item { delivery, message, failed: Vec::new(), done: false });
                }
                Err(reason) => ended.push(Some(self.unreadable(delivery, reason).await)),
            }
        }
        // Whether the transaction was opened: where it was not, the database is down.
        let mut begun = false;
        let outcome = self.handle_together(&mut items, &mut begun).await;
        let down = match outcome {
            Ok(()) => false,
            Err(error) => {
                tracing::debug!(error = full_text(&error), "a batch was not committed");
                items.iter_mut().for_each(|item| (item.done, item.failed) = (false, Vec::new()));
                !begun && error.class() == FailureClass::Unavailable
            }
        };
        let answers = join_all(items.into_iter().map(|item| self.answer_for(item, down))).await;
        let mut answers = answers.into_iter();
        ended
            .into_iter()
            .map(|ended| ended.or_else(|| answers.next()).unwrap_or(Ended::Returned))
            .collect()
    }

    async fn answer_for(&self, item: Item, down: bool) -> Ended {
        if down {
            self.answer(item.delivery, Answer::Nack).await;
            return Ended::StoreDown;
        }
        if item.done {
            return self.answer(item.delivery, Answer::Ack).await;
        }
        let span = process_span(&self.consumer, &item.message);
        self.process(item.message, item.delivery, item.failed).instrument(span).await
    }

    async fn handle_together(
        &self,
        items: &mut [Item],
        begun: &mut bool,
    ) -> Result<(), StoreError> {
        let tx = self.store.begin().await?;
        *begun = true;
        let mut handled = 0;
        for item in items.iter_mut() {
            let span = process_span(&self.consumer, &item.message);
            match self.handle_inside(&tx, item).instrument(span).await {
                Ok(n) => handled += n,
                Err(error) => {
                    self.roll_back(tx).await;
                    return Err(error);
                }
            }
        }
        self.store.commit(tx).await?;
        self.count(|s| s.handled += handled);
        Ok(())
    }

    /// Runs the handlers of one message, each behind a savepoint; gives how many did their work.
    async fn handle_inside(&self, tx: &S::Tx, item: &mut Item) -> Result<u64, StoreError> {
        let (mut handled, mut taken, attempt) = (0, false, item.delivery.attempt);
        item.done = attempt.is_none_or(|n| n < super::SUSPECT) && !self.isolates(attempt);
        if !item.done {
            return Ok(0);
        }
        for route in self.routes.iter().filter(|route| route.takes(&item.message)) {
            taken = true;
            let nested = self.store.nest(tx).await?;
            reach(FaultPoint::BeforeInbox);
            let held = Held::Delivery(attempt);
            let span = handle_span(&route.name, &item.message);
            let run = self.run_in(nested, route, &item.message, 1, &held, None).instrument(span);
            match self.watched(route, &item.message, run).await {
                Ok((nested, Verdict::Done)) => {
                    self.store.commit(nested).await?;
                    self.watch(false);
                    handled += 1;
                }
                Ok((nested, verdict)) => {
                    self.store.rollback(nested).await?;
                    self.watch(matches!(verdict, Verdict::Failed(_)));
                    item.failed.push((route.name.clone(), verdict));
                    item.done = false;
                }
                Err(Run::Repeat | Run::Lost) => {}
                // By itself it is stored behind the others.
                Err(Run::Behind | Run::Ended(_)) => item.done = false,
                Err(Run::Disturbed(error) | Run::Store(error)) => return Err(error),
            }
        }
        item.done &= taken;
        Ok(handled)
    }
}
