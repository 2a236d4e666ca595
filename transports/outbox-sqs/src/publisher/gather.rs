//! Messages that are published one by one at the same time, in requests that they share: the service
//! takes ten at the price of one.

use super::{Outcome, Sending, unanswered};
use crate::classify::Failure;
use outbox_core::{event::Message, runtime::spawn};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{Semaphore, oneshot};

/// Requests for messages that came one by one. Messages that come meanwhile gather.
const MAX_REQUESTS: usize = 8;
/// Messages that are taken at once: as many as a request has entries.
const MAX_TAKEN: usize = 10;

/// A message, and where its outcome goes.
type Waiting = (Message, oneshot::Sender<Outcome>);

/// What waits for a request.
pub(super) struct Gather {
    waiting: Mutex<Vec<Waiting>>,
    permits: Arc<Semaphore>,
}

impl Gather {
    pub(super) fn new() -> Self {
        Self { waiting: Mutex::default(), permits: Arc::new(Semaphore::new(MAX_REQUESTS)) }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Waiting>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the oldest messages whose callers still wait.
    fn take(&self) -> (Vec<Message>, Vec<oneshot::Sender<Outcome>>) {
        let mut waiting = self.lock();
        waiting.retain(|(_, caller)| !caller.is_closed());
        let some = waiting.len().min(MAX_TAKEN);
        waiting.drain(..some).unzip()
    }
}

/// Publishes a message together with others that wait. A call that is dropped takes its message
/// back, or lets its request end: it may carry messages of others.
pub(super) async fn publish(sending: &Arc<Sending>, message: &Message) -> Outcome {
    let (caller, mut outcome) = oneshot::channel();
    sending.gather.lock().push((message.clone(), caller));
    tokio::select! {
        biased;
        outcome = &mut outcome => return outcome.unwrap_or_else(|_| unanswered()),
        permit = sending.gather.permits.clone().acquire_owned() => {
            let permit = permit.map_err(|_| Failure::unavailable("the publisher is closed"))?;
            let (messages, callers) = sending.gather.take();
            let sending = sending.clone();
            spawn(async move {
                let mut callers: Vec<_> = callers.into_iter().map(Some).collect();
                let report = |index: usize, outcome| {
                    if let Some(caller) = callers.get_mut(index).and_then(Option::take) {
                        // It may wait no longer.
                        let _ = caller.send(outcome);
                    }
                };
                sending.send(&messages, report).await;
                drop(permit);
            })
            .detach();
        }
    }
    outcome.await.unwrap_or_else(|_| unanswered())
}
