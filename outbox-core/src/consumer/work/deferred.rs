//! Deliveries that are stored before they are run, or to be run later.

use super::{Answer, Worker, permanent};
use crate::{
    consumer::handler::Route,
    event::Message,
    failure::{DeadReason, full_text},
    outbox::{ConsumerStore, History, PutBy, StoreError, StoredDelivery},
    runtime::fault::{FaultPoint, reach},
};
use std::time::Duration;

/// What became of a delivery that was to be stored before its handler ran.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Deferred {
    /// It is stored, due now.
    Stored,
    /// The handler had the message already.
    Repeat,
    /// The database refuses to store it: it can only be run at once.
    Refused,
}

impl<S: ConsumerStore> Worker<S> {
    /// Stores a delivery that may end the process before its handler runs: the runs of stored deliveries are counted.
    ///
    /// `at_once` runs it with this delivery, unless others of its key come first or it was begun before: then whoever runs
    /// stored deliveries does, and the delivery is acknowledged.
    pub(super) async fn defer(
        &self,
        route: &Route<S>,
        message: &Message,
        at_once: bool,
    ) -> Result<Deferred, StoreError> {
        if self.with_patience(|| self.is_repeat(route, message)).await? {
            tracing::debug!(handler = &*route.name, "a repeat was suppressed");
            self.count(|s| s.duplicates += 1);
            return Ok(Deferred::Repeat);
        }
        match self.store(route, message, Some(Duration::ZERO), &History::default()).await {
            Ok(_) => {
                match at_once {
                    true => self.run_new(route, message).await?,
                    false => self.stored.wake(),
                }
                Ok(Deferred::Stored)
            }
            Err(StoreError::Refused(cause)) => {
                tracing::warn!(
                    handler = &*route.name,
                    error = full_text(&*cause),
                    "the database refused to store a delivery before it is run; it is run without being counted"
                );
                Ok(Deferred::Refused)
            }
            Err(error) => Err(error),
        }
    }

    /// Runs what was stored a moment ago.
    async fn run_new(&self, route: &Route<S>, message: &Message) -> Result<(), StoreError> {
        let (key, lease) = (self.inbox_key(self.stored_name(route), message), self.settings.lease);
        let Some(claim) =
            self.with_patience(|| self.store.claim_new(key.clone(), &self.by, lease)).await?
        else {
            self.stored.wake();
            return Ok(());
        };
        let (handler, history) = (route.name.clone(), History::default());
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
            () = self.keep_claim(&stored) => Ok(()),
        };
        if done.is_err() {
            // It is run again when its claim has run out, where this cannot be said either.
            let _ = self.store.postpone(&stored.claim, None).await;
        }
        done
    }

    async fn is_repeat(&self, route: &Route<S>, message: &Message) -> Result<bool, StoreError> {
        for name in route.names() {
            match self.store.is_received(self.inbox_key(name, message)).await {
                // The run of the stored delivery is refused as well, and counted.
                Ok(false) | Err(StoreError::Refused(_)) => {}
                known => return known,
            }
        }
        Ok(false)
    }

    /// Stores a delivery for one handler, to be run in that time, or behind others of its key (`None`). Gives the answer for
    /// the transport; nothing when it should go behind others that are gone.
    ///
    /// A delivery that the database refuses is given up: it would be refused for ever.
    pub(super) async fn put_by(
        &self,
        route: &Route<S>,
        message: &Message,
        due_in: Option<Duration>,
        history: &History,
    ) -> Result<Option<Answer>, StoreError> {
        match self.store(route, message, due_in, history).await {
            Ok(stored) => {
                if stored {
                    self.stored.wake();
                }
                Ok(stored.then_some(Answer::Ack))
            }
            Err(StoreError::Refused(cause)) => {
                let text =
                    format!("the database refused to store it for later: {}", full_text(&*cause));
                tracing::error!(handler = &*route.name, error = text, "a delivery is given up");
                let mut history = history.clone();
                history.errors.push(permanent(&text));
                let letter =
                    self.letter(&route.name, Ok(message), DeadReason::NotRetried, &history);
                self.give_up(&letter, None, text).await.map(Some)
            }
            Err(error) => Err(error),
        }
    }

    async fn store(
        &self,
        route: &Route<S>,
        message: &Message,
        due_in: Option<Duration>,
        history: &History,
    ) -> Result<bool, StoreError> {
        reach(FaultPoint::BeforePutBy);
        let mut stored = false;
        // Behind others of its key, under whichever name these are stored.
        let names: Vec<&str> =
            if due_in.is_some() { vec![self.stored_name(route)] } else { route.names().collect() };
        for handler in names {
            let delivery = PutBy {
                consumer: &self.consumer,
                handler,
                message,
                due_in,
                history: history.clone(),
            };
            stored = self.with_patience(|| self.store_once(&delivery)).await?;
            if stored {
                break;
            }
        }
        reach(FaultPoint::AfterPutBy);
        if stored {
            tracing::debug!(handler = &*route.name, ?due_in, "the delivery is stored for later");
            self.count(|s| s.stored += 1);
        }
        Ok(stored)
    }

    async fn store_once(&self, delivery: &PutBy<'_>) -> Result<bool, StoreError> {
        let tx = self.store.begin().await?;
        match self.store.put_by(&tx, delivery).await {
            Ok(true) => self.store.commit(tx).await.map(|()| true),
            other => {
                self.roll_back(tx).await;
                other
            }
        }
    }
}
