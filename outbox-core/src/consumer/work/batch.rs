//! Many deliveries in one transaction: a savepoint for each handler of each delivery, one commit, then the
//! acknowledgements.
//!
//! A delivery that does not succeed at once leaves the batch; the worker handles it by itself afterwards,
//! with its failure counted. So it does with all deliveries when the database refuses the commit.

use super::{
    AckDecision, DeliveryResult, DeliverySource, HandlerOutcome, RunResult, Worker, readable,
};
use crate::{
    event::Message,
    failure::{FailureClass, full_text, loggable_text},
    outbox::{ConsumerStore, StoreError, roll_back},
    runtime::{
        fault::{FaultPoint, fault_point},
        now,
    },
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
    failed: Vec<(Arc<str>, HandlerOutcome)>,
    /// Whether the delivery is done when the batch is committed.
    done: bool,
}

impl<S: ConsumerStore> Worker<S> {
    /// Handles deliveries of different keys; gives their results, in their order.
    pub(in crate::consumer) async fn work_batch(
        &self,
        deliveries: Vec<Delivery>,
    ) -> Vec<DeliveryResult> {
        let mut results: Vec<Option<DeliveryResult>> = Vec::with_capacity(deliveries.len());
        let mut items = Vec::with_capacity(deliveries.len());
        for delivery in deliveries {
            match readable(&delivery) {
                Ok(message) => {
                    self.count_tombstone(&message);
                    results.push(None);
                    items.push(Item { delivery, message, failed: Vec::new(), done: false });
                }
                Err(reason) => results.push(Some(self.unreadable(delivery, reason).await)),
            }
        }
        // Whether the transaction began: where it did not, the database is down.
        let mut begun = false;
        let outcome = self.handle_together(&mut items, &mut begun).await;
        let down = match outcome {
            Ok(()) => false,
            Err(error) => {
                // It may be about any of them.
                let about = items.iter().map(|item| &item.message).find(|it| it.is_sensitive());
                let text = loggable_text(&full_text(&error), error.class(), about);
                tracing::debug!(error = text, "a batch was not committed");
                items.iter_mut().for_each(|item| (item.done, item.failed) = (false, Vec::new()));
                !begun && error.class() == FailureClass::Unavailable
            }
        };
        let finished = join_all(items.into_iter().map(|item| self.finish(item, down))).await;
        let mut finished = finished.into_iter();
        results
            .into_iter()
            .map(|result| result.or_else(|| finished.next()).unwrap_or(DeliveryResult::Returned))
            .collect()
    }

    async fn finish(&self, item: Item, down: bool) -> DeliveryResult {
        if down {
            self.acknowledge(item.delivery, AckDecision::Nack).await;
            return DeliveryResult::StoreDown;
        }
        if item.done {
            return self.acknowledge(item.delivery, AckDecision::Ack).await;
        }
        let span = process_span(&self.consumer, &item.message, item.delivery.attempt);
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
            let span = process_span(&self.consumer, &item.message, item.delivery.attempt);
            match self.handle_inside(&tx, item).instrument(span).await {
                Ok(n) => handled += n,
                Err(error) => {
                    roll_back(&self.store, tx).await;
                    return Err(error);
                }
            }
        }
        self.store.commit(tx).await?;
        self.count(|s| s.handled += handled);
        Ok(())
    }

    /// Runs the handlers of one message, each behind a savepoint; gives how many succeeded.
    async fn handle_inside(&self, tx: &S::Tx, item: &mut Item) -> Result<u64, StoreError> {
        let (mut handled, mut taken, attempt) = (0, false, item.delivery.attempt);
        item.done =
            attempt.is_none_or(|n| n < super::CRASH_SUSPECT_ATTEMPT) && !self.isolates(attempt);
        if !item.done {
            return Ok(0);
        }
        for entry in self.handlers.iter().filter(|entry| entry.takes(&item.message)) {
            taken = true;
            let nested = self.store.begin_nested(tx).await?;
            fault_point(FaultPoint::BeforeInbox);
            let source = DeliverySource::Transport(attempt);
            let (span, begun) = (handle_span(&entry.name, &item.message), now());
            let run = self.run_in(nested, entry, &item.message, 1, &source, None).instrument(span);
            let ran = self.watched(entry, &item.message, run).await;
            let outcome = match &ran {
                Ok((_, outcome)) => outcome.error_type(),
                Err(run) => run.error_type(),
            };
            if let Some(outcome) = outcome {
                self.metrics.ran(&entry.name, &item.message, outcome, begun);
            }
            match ran {
                Ok((nested, HandlerOutcome::Done)) => {
                    self.store.commit(nested).await?;
                    self.feed_kill_switch(false);
                    handled += 1;
                }
                Ok((nested, outcome)) => {
                    self.store.rollback(nested).await?;
                    self.feed_kill_switch(matches!(outcome, HandlerOutcome::Failed(_)));
                    item.failed.push((entry.name.clone(), outcome));
                    item.done = false;
                }
                Err(RunResult::Duplicate | RunResult::ClaimLost) => {}
                // Handled by itself, it is stored behind those of its key.
                Err(RunResult::QueuedBehind | RunResult::Completed(_)) => item.done = false,
                Err(RunResult::Disturbed(error) | RunResult::StoreFailed(error)) => {
                    return Err(error);
                }
            }
        }
        item.done &= taken;
        Ok(handled)
    }
}
