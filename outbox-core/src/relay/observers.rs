//! Observers: the listeners that users register with a relay.

use crate::{
    event::{LetterId, Message},
    failure::{DeadLetterListener, full_text, log_letter, notify_dead_letter},
    outbox::SettleStore,
    transport::{PublishError, Receipt},
};
use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};
use tokio::sync::mpsc;

pub(crate) type Delivered = Box<dyn Fn(&Message, &Receipt) + Send + Sync>;
pub(crate) type Failed = Box<dyn Fn(&Message, &PublishError, u32) + Send + Sync>;

/// The listeners of a relay. They run in its tasks, so they have to be quick; their panics are
/// caught.
#[derive(Default)]
pub(crate) struct Observers {
    pub(crate) delivered: Vec<Delivered>,
    pub(crate) failed: Vec<Failed>,
    pub(crate) dead_letters: Vec<DeadLetterListener>,
}

impl Observers {
    pub(crate) fn delivered(&self, message: &Message, receipt: &Receipt) {
        for listener in &self.delivered {
            guard("on_delivered", || listener(message, receipt));
        }
    }

    pub(crate) fn failed(&self, message: &Message, error: &PublishError, attempt: u32) {
        for listener in &self.failed {
            guard("on_failed", || listener(message, error, attempt));
        }
    }
}

fn guard(name: &'static str, call: impl FnOnce()) {
    if catch_unwind(AssertUnwindSafe(call)).is_err() {
        tracing::error!(listener = name, "a listener panicked");
    }
}

/// The dead-letter actor: logs each dead letter after it was written, then notifies its listeners
/// one after the other.
pub(crate) async fn notify_dead_letters(
    store: Arc<dyn SettleStore>,
    mut written: mpsc::Receiver<Vec<LetterId>>,
    observers: Arc<Observers>,
) {
    while let Some(mut ids) = written.recv().await {
        while !ids.is_empty() {
            let letters = match store.letters(&ids).await {
                Ok(letters) => letters,
                Err(error) => {
                    let letters: Vec<i64> = ids.iter().map(|id| id.0).collect();
                    let error = full_text(&error);
                    tracing::warn!(
                        ?letters,
                        error,
                        "dead letters were written, and could not be read for the log and the listeners"
                    );
                    break;
                }
            };
            let Some(last) = letters.last().map(|letter| letter.id) else { break };
            ids.retain(|id| *id > last);
            letters.iter().for_each(log_letter);
            for letter in letters.into_iter().map(Arc::new) {
                for listener in &observers.dead_letters {
                    notify_dead_letter(listener, &letter).await;
                }
            }
        }
    }
}
