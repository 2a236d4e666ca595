//! Several deliveries in one transaction without savepoints: all inbox rows in one statement, then the
//! handlers one after the other, then one commit.
//!
//! Where the database opens no transaction and is not just busy, all deliveries are returned, as single ones are.
//! If anything else fails, all of it is rolled back, and the dispatcher starts each delivery again by itself. What
//! the run did is not counted then: not as an attempt, not for the kill switch, not in statistics. So a
//! statement that failed ends the batch also where the handler has handled the error: the database may
//! have undone the neighbours' work with it.

use super::{AckDecision, Worked, Worker};
use crate::{
    consumer::{
        batch::{Candidate, STATEMENT_LIMIT, Sharing, TIME_LIMIT, may_share},
        handler::{HandlerContext, HandlerEntry, HandlerError, Next},
    },
    event::{CorrelationContext, Message},
    failure::{FailureClass, full_text, loggable_text},
    outbox::{ConsumerStore, InboxKey, StoreError, order_hash, roll_back},
    runtime::{
        catch_unwind,
        fault::{FaultPoint, fault_point},
        now,
    },
    telemetry::{attribute, handle_span, process_span},
    transport::{Delivery, cloudevents},
};
use futures_util::future::join_all;
use std::time::{Duration, Instant};
use tracing::{Instrument, Span};

/// A delivery of a batch.
struct Item<'a, S: ConsumerStore> {
    delivery: Delivery,
    message: Message,
    entry: &'a HandlerEntry<S>,
    span: Span,
    /// When its handler was started; `None` where it was not.
    begun: Option<Instant>,
    /// How long its handler ran; `None` where it has not ended.
    took: Option<Duration>,
    /// Whether the handler wrote something, where the store counts that.
    wrote: Option<bool>,
}

/// Why a batch was rolled back.
enum Broken {
    /// The handler of this item did not succeed, or a statement of it failed.
    By(usize, String),
    /// The database opened no transaction.
    NotBegun(StoreError),
    /// The database failed.
    Store(StoreError),
    /// It took too long.
    Late,
}

impl<S: ConsumerStore> Worker<S> {
    /// Tells how a delivery may share its transaction; `None` where it runs alone.
    pub(in crate::consumer) fn sharing(&self, delivery: &Delivery) -> Option<Sharing> {
        if !self.settings.batching.is_optimistic() {
            return None;
        }
        let message = delivery.message.as_ref().ok()?;
        let mut takers = self.handlers.iter().enumerate().filter(|(_, entry)| entry.takes(message));
        let (handler, entry) = takers.next()?;
        let shares = may_share(1 + takers.count(), delivery.attempt) && entry.may_share();
        (shares && cloudevents::check(message).is_ok() && self.decoding.can_read(message))
            .then(|| Sharing { handler, message: message.clone() })
    }

    /// Gives what a delivery would add to a batch.
    pub(in crate::consumer) fn candidate(&self, sharing: &Sharing) -> Candidate {
        let pace = self.handlers[sharing.handler].pace();
        Candidate {
            limit: pace.limit(self.settings.batching.is_eager()),
            time: pace.median(),
            bytes: sharing.message.payload.len(),
        }
    }

    /// Tells whether deliveries may share a transaction now: no delivery may have ended an instance, and no
    /// other writer waits for the database's only lock.
    pub(in crate::consumer) fn batches_now(&self) -> bool {
        !self.isolation.is_on() && !self.store.has_waiting_writer()
    }

    /// Handles deliveries of different keys in one transaction; gives what became of them, in their order.
    pub(in crate::consumer) async fn work_together(
        &self,
        batch: Vec<(Delivery, Option<Sharing>)>,
    ) -> Vec<Worked> {
        let mut worked: Vec<Option<Worked>> = Vec::with_capacity(batch.len());
        let mut items = Vec::with_capacity(batch.len());
        for (delivery, sharing) in batch {
            match sharing {
                Some(Sharing { handler, message }) => {
                    let span = process_span(&self.consumer, &message, delivery.attempt);
                    let entry = &self.handlers[handler];
                    let (begun, took, wrote) = (None, None, None);
                    items.push(Item { delivery, message, entry, span, begun, took, wrote });
                    worked.push(None);
                }
                None => worked.push(Some(Worked::RunsAlone(delivery))),
            }
        }
        let ended = match self.run_together(&mut items).await {
            Ok(()) => {
                self.note_committed(&items);
                join_all(items.into_iter().map(|item| self.end_committed(item))).await
            }
            // Each would find the same outage by itself, one after the other.
            Err(Broken::NotBegun(error)) if error.class() != FailureClass::Transient => {
                self.return_all(items, &error).await
            }
            Err(broken) => {
                self.note_rolled_back(&items, &broken);
                items.into_iter().map(|item| Worked::RunsAlone(item.delivery)).collect()
            }
        };
        let mut ended = ended.into_iter();
        worked.into_iter().filter_map(|worked| worked.or_else(|| ended.next())).collect()
    }

    /// Returns deliveries since the database opens no transaction, as single runs do.
    async fn return_all(&self, items: Vec<Item<'_, S>>, error: &StoreError) -> Vec<Worked> {
        let returned = items
            .into_iter()
            .map(|item| self.return_for(item.delivery, error).instrument(item.span));
        join_all(returned).await.into_iter().map(Worked::Ended).collect()
    }

    /// Acknowledges a delivery that was committed; one that the inbox did not take runs alone.
    async fn end_committed(&self, item: Item<'_, S>) -> Worked {
        let Some(took) = item.took else { return Worked::RunsAlone(item.delivery) };
        item.span.record(attribute::PROCESS_SECONDS, took.as_secs_f64());
        let acked = self.acknowledge(item.delivery, AckDecision::Ack).instrument(item.span);
        Worked::Ended(acked.await)
    }

    /// Runs the handlers in one transaction and commits it.
    async fn run_together(&self, items: &mut [Item<'_, S>]) -> Result<(), Broken> {
        // Before its time begins: a batch that waits for a connection says nothing of its handlers.
        let tx = self.store.begin_shared(STATEMENT_LIMIT).await.map_err(Broken::NotBegun)?;
        let begun = now();
        // Dropped, the transaction rolls back on its own, behind a statement that is under way,
        // whose time the store has limited.
        match tokio::time::timeout(TIME_LIMIT, self.run_all(tx, items)).await {
            // What comes before COMMIT has the time that is left: a hook may wait as a handler may.
            // Not COMMIT itself: one that is dropped half-way may have succeeded all the same.
            Ok(Ok(Some(tx))) => {
                let left = TIME_LIMIT.saturating_sub(now().duration_since(begun));
                self.store.commit_shared(tx, left).await.map_err(Broken::Store)
            }
            Ok(Ok(None)) => Ok(()),
            Ok(Err(broken)) => Err(broken),
            Err(_) => Err(Broken::Late),
        }
    }

    /// Runs the handlers of those whose inbox rows are new; gives the transaction, unless none is.
    async fn run_all(
        &self,
        mut tx: S::Tx,
        items: &mut [Item<'_, S>],
    ) -> Result<Option<S::Tx>, Broken> {
        fault_point(FaultPoint::BeforeInbox);
        let new = match self.admit_together(&tx, items).await {
            Ok(new) => new,
            Err(error) => {
                roll_back(&self.store, tx).await;
                return Err(Broken::Store(error));
            }
        };
        if !new.contains(&true) {
            roll_back(&self.store, tx).await;
            return Ok(None);
        }
        for (at, item) in items.iter_mut().enumerate().filter(|(at, _)| new[*at]) {
            let span = item.span.clone();
            let (after, ran) = self.run_shared(tx, item).instrument(span).await;
            if let Err(reason) = ran {
                roll_back(&self.store, after).await;
                return Err(Broken::By(at, reason));
            }
            tx = after;
        }
        Ok(Some(tx))
    }

    /// Writes the inbox rows; tells of each item whether its handler runs.
    async fn admit_together(
        &self,
        tx: &S::Tx,
        items: &[Item<'_, S>],
    ) -> Result<Vec<bool>, StoreError> {
        let key = |item: &Item<'_, S>| {
            (item.entry.name.clone(), item.message.source.clone(), item.message.id)
        };
        // In the order of the primary key: two batches with messages in common wait for each other in one order.
        let mut order: Vec<usize> = (0..items.len()).collect();
        order.sort_by_cached_key(|at| key(&items[*at]));
        let keys: Vec<(InboxKey<'_>, Option<i64>)> = order
            .iter()
            .map(|at| {
                let Item { entry, message, .. } = &items[*at];
                (self.inbox_key(&entry.name, message), order_hash(message))
            })
            .collect();
        let admitted = self.store.admit_all(tx, &keys).await?;
        let mut new = vec![false; items.len()];
        for (at, is_new) in order.into_iter().zip(admitted) {
            new[at] = is_new;
        }
        Ok(new)
    }

    /// Runs one handler with its layers; gives the transaction back, with the reason why the batch cannot be
    /// committed, if there is one.
    async fn run_shared(&self, tx: S::Tx, item: &mut Item<'_, S>) -> (S::Tx, Result<(), String>) {
        let entry = item.entry;
        self.store.correlate(&tx, CorrelationContext::of(&item.message));
        // Run alone, it waits for its key or becomes a dead letter.
        let Ok(message) = self.decoded(&item.message).await else {
            return (tx, Err("its payload is not decoded".to_owned()));
        };
        let writes = self.store.writes(&tx);
        let handling = handle_span(&entry.name, &message);
        let cx = HandlerContext::new(tx, message, entry.name.clone(), 1, item.delivery.attempt);
        let next = Next { layers: &self.layers, handler: entry.handle(&cx) };
        let handler = catch_unwind(self.store.within(&cx.tx, Box::pin(next.run(&cx))));
        let handling = handler.instrument(handling);
        let begun = now();
        item.begun = Some(begun);
        let ended = match entry.options.timeout.unwrap_or(self.settings.timeout) {
            Some(limit) => tokio::time::timeout(limit, handling).await.ok(),
            None => Some(handling.await),
        };
        item.took = Some(now().duration_since(begun));
        fault_point(FaultPoint::AfterHandler);
        let (tx, pending) = cx.into_parts();
        if let Err(reason) = succeeded(ended) {
            return (tx, Err(reason));
        }
        if let Some(pending) = &pending {
            self.commands.warn_of_reply_to_event(&self.consumer, entry, &item.message);
            if let Err(error) = self.store.append(&tx, std::slice::from_ref(&pending.event)).await {
                return (tx, Err(full_text(&error)));
            }
        }
        if let Err(error) = self.store.check_intact(&tx).await {
            return (tx, Err(full_text(&error)));
        }
        let wrote = |before| self.store.writes(&tx).is_none_or(|after| after > before);
        item.wrote = writes.map(|before| pending.is_some() || wrote(before));
        (tx, Ok(()))
    }

    /// Counts what was committed, as single runs are counted.
    fn note_committed(&self, items: &[Item<'_, S>]) {
        let mut handled = 0;
        for item in items {
            let Some(took) = item.took else { continue };
            handled += 1;
            // Isolation may have begun meanwhile, and none of these was stored first.
            self.settle(item.delivery.attempt, false);
            self.feed_kill_switch(false);
            self.count_tombstone(&item.message);
            self.metrics.ran(&item.entry.name, &item.message, "", now() - took);
            if let Some(wrote) = item.wrote {
                self.watch_writes(item.entry, wrote);
            }
            let mut pace = item.entry.pace();
            pace.note_time(took);
            pace.note_committed(1);
            let handler = &*item.entry.name;
            item.span.in_scope(|| tracing::debug!(handler, attempt = 1, "handled"));
        }
        if handled > 0 {
            self.count(|s| (s.handled, s.batches) = (s.handled + handled, s.batches + 1));
        }
    }

    /// Lets the next batches be smaller, those of the handler that failed where it is known.
    fn note_rolled_back(&self, items: &[Item<'_, S>], broken: &Broken) {
        let (culprit, reason) = match broken {
            Broken::NotBegun(error) => {
                tracing::debug!(
                    error = full_text(error),
                    "a transaction of several deliveries was not begun"
                );
                return;
            }
            Broken::By(at, reason) => (Some(*at), reason.clone()),
            Broken::Store(error) => (None, full_text(error)),
            Broken::Late => {
                let running = |item: &Item<'_, S>| item.begun.is_some() && item.took.is_none();
                (items.iter().position(running), format!("it did not end within {TIME_LIMIT:?}"))
            }
        };
        self.count(|s| s.batches_rolled_back += 1);
        for (at, item) in items.iter().enumerate() {
            item.span.record(attribute::ERROR_TYPE, "batch");
            let time = item.took.or_else(|| Some(now().duration_since(item.begun?)));
            let mut pace = item.entry.pace();
            if let Some(time) = time {
                pace.note_time(time);
            }
            if culprit.is_none_or(|culprit| culprit == at) {
                pace.note_rolled_back(items.len());
            }
        }
        let handler = culprit.map(|at| &*items[at].entry.name);
        // The database's error may be about any of them.
        let about = items.iter().map(|item| &item.message).find(|message| message.is_sensitive());
        let about = culprit.map_or(about, |at| Some(&items[at].message));
        let reason = loggable_text(&reason, FailureClass::Transient, about);
        tracing::debug!(
            consumer = &*self.consumer,
            handler,
            deliveries = items.len(),
            reason,
            "a transaction of several deliveries was rolled back; each of them runs by itself"
        );
    }
}

/// Gives the reason where a handler did not succeed; `None` is one that was dropped at its time limit.
fn succeeded(ended: Option<Result<Result<(), HandlerError>, String>>) -> Result<(), String> {
    match ended {
        Some(Ok(Ok(()))) => Ok(()),
        Some(Ok(Err(error))) => Err(error.to_string()),
        Some(Err(panic)) => Err(format!("a panic: {panic}")),
        None => Err("it did not end within its time limit".to_owned()),
    }
}
