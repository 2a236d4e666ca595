//! Deferred deliveries: stored before their handlers run, or to run later.

use super::{AckDecision, Worker, permanent};
use crate::{
    consumer::handler::HandlerEntry,
    event::Message,
    failure::{DeadReason, FailureClass, full_text, loggable_text},
    outbox::{ConsumerStore, DeferredDelivery, History, StoreError, StoredDelivery, roll_back},
    runtime::fault::{FaultPoint, fault_point},
};
use std::time::Duration;

/// The result of storing a delivery before its handler runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StoredFirst {
    /// The delivery is stored, due now.
    Stored,
    /// The handler had the message already.
    Duplicate,
    /// The database refuses to store the delivery: its handler can only run at once.
    Refused,
}

impl<S: ConsumerStore> Worker<S> {
    /// Stores a delivery that may end the process before its handler runs: the database counts the runs
    /// of stored deliveries.
    ///
    /// `at_once` runs the handler here, unless stored deliveries of the key come first or the stored
    /// delivery was begun before: then a retrier runs it. The caller acknowledges the delivery.
    pub(super) async fn store_first(
        &self,
        entry: &HandlerEntry<S>,
        message: &Message,
        at_once: bool,
    ) -> Result<StoredFirst, StoreError> {
        if self.retry_while_busy(|| self.is_duplicate(entry, message)).await? {
            tracing::debug!(handler = &*entry.name, "a duplicate was suppressed");
            self.count(|s| s.duplicates += 1);
            return Ok(StoredFirst::Duplicate);
        }
        match self.store(entry, message, Some(Duration::ZERO), &History::default()).await {
            Ok(_) => {
                match at_once {
                    true => self.run_new(entry, message).await?,
                    false => self.stored.wake(),
                }
                Ok(StoredFirst::Stored)
            }
            Err(StoreError::Refused(cause)) => {
                let text = full_text(&*cause);
                tracing::warn!(
                    handler = &*entry.name,
                    error = loggable_text(&text, FailureClass::Permanent, Some(message)),
                    "the database refused to store a delivery before it is run; it is run without being counted"
                );
                Ok(StoredFirst::Refused)
            }
            Err(error) => Err(error),
        }
    }

    /// Runs a delivery that was stored a moment ago.
    async fn run_new(&self, entry: &HandlerEntry<S>, message: &Message) -> Result<(), StoreError> {
        let (key, lease) = (self.inbox_key(self.stored_name(entry), message), self.settings.lease);
        let Some(claim) =
            self.retry_while_busy(|| self.store.claim_new(key.clone(), &self.by, lease)).await?
        else {
            self.stored.wake();
            return Ok(());
        };
        let (handler, history) = (entry.name.clone(), History::default());
        let (message, awaited_for) = (Ok(message.clone()), None);
        let stored = StoredDelivery {
            claim,
            handler,
            message,
            started: 1,
            expired: false,
            awaited_for,
            history,
        };
        let done = tokio::select! {
            done = self.work_stored(&stored) => done,
            () = self.renew_claim(&stored) => Ok(()),
        };
        if done.is_err() {
            // Where the database fails here too, a retrier runs the delivery when the claim has expired.
            let _ = self.store.reschedule(&stored.claim, None).await;
        }
        done
    }

    async fn is_duplicate(
        &self,
        entry: &HandlerEntry<S>,
        message: &Message,
    ) -> Result<bool, StoreError> {
        for name in entry.names() {
            match self.store.is_received(self.inbox_key(name, message)).await {
                // The database refuses the run of the stored delivery as well, and that is counted.
                Ok(false) | Err(StoreError::Refused(_)) => {}
                known => return known,
            }
        }
        Ok(false)
    }

    /// Stores a delivery for one handler, due in that time, or behind stored deliveries of its key
    /// (`None`). Gives the ack decision; `None` where it should go behind deliveries that are gone.
    ///
    /// The consumer gives up a delivery that the database refuses: it would be refused for ever.
    pub(super) async fn defer(
        &self,
        entry: &HandlerEntry<S>,
        message: &Message,
        due_in: Option<Duration>,
        history: &History,
    ) -> Result<Option<AckDecision>, StoreError> {
        match self.store(entry, message, due_in, history).await {
            Ok(stored) => {
                if stored {
                    self.stored.wake();
                }
                Ok(stored.then_some(AckDecision::Ack))
            }
            Err(StoreError::Refused(cause)) => {
                let text =
                    format!("the database refused to store it for later: {}", full_text(&*cause));
                tracing::error!(
                    handler = &*entry.name,
                    error = loggable_text(&text, FailureClass::Permanent, Some(message)),
                    "a delivery is given up"
                );
                let mut history = history.clone();
                history.errors.push(permanent(&text));
                let letter =
                    self.letter(&entry.name, Ok(message), DeadReason::NotRetried, &history);
                self.give_up(&letter, None, text).await.map(Some)
            }
            Err(error) => Err(error),
        }
    }

    async fn store(
        &self,
        entry: &HandlerEntry<S>,
        message: &Message,
        due_in: Option<Duration>,
        history: &History,
    ) -> Result<bool, StoreError> {
        fault_point(FaultPoint::BeforeDefer);
        let mut stored = false;
        // Behind stored deliveries of its key, under whichever name these are stored.
        let names: Vec<&str> =
            if due_in.is_some() { vec![self.stored_name(entry)] } else { entry.names().collect() };
        for handler in names {
            let delivery = DeferredDelivery {
                consumer: &self.consumer,
                handler,
                message,
                due_in,
                history: history.clone(),
            };
            stored = self.retry_while_busy(|| self.store_once(&delivery)).await?;
            if stored {
                break;
            }
        }
        fault_point(FaultPoint::AfterDefer);
        if stored {
            tracing::debug!(handler = &*entry.name, ?due_in, "the delivery is stored for later");
            self.count(|s| s.stored += 1);
        }
        Ok(stored)
    }

    async fn store_once(&self, delivery: &DeferredDelivery<'_>) -> Result<bool, StoreError> {
        let tx = self.store.begin().await?;
        match self.store.defer(&tx, delivery).await {
            Ok(true) => self.store.commit(tx).await.map(|()| true),
            other => {
                roll_back(&self.store, tx).await;
                other
            }
        }
    }
}
