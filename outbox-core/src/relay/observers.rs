//! Those who watch: what users register to be told.

use crate::{
    event::{LetterId, Message},
    failure::{LetterListener, full_text, log_letter, tell_of_letter},
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

/// Everybody who wants to be told. They run in the relay's tasks: quick ones only, and their panics are caught.
#[derive(Default)]
pub(crate) struct Observers {
    pub(crate) delivered: Vec<Delivered>,
    pub(crate) failed: Vec<Failed>,
    pub(crate) dead: Vec<LetterListener>,
}

impl Observers {
    pub(crate) fn delivered(&self, message: &Message, receipt: &Receipt) {
        for tell in &self.delivered {
            guard("on_delivered", || tell(message, receipt));
        }
    }

    pub(crate) fn failed(&self, message: &Message, error: &PublishError, attempt: u32) {
        for tell in &self.failed {
            guard("on_failed", || tell(message, error, attempt));
        }
    }
}

fn guard(name: &'static str, call: impl FnOnce()) {
    if catch_unwind(AssertUnwindSafe(call)).is_err() {
        tracing::error!(listener = name, "a listener panicked");
    }
}

/// The dead-letter actor: logs each letter after it was written, then tells its listeners, one after the other.
pub(crate) async fn tell_of_letters(
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
                for tell in &observers.dead {
                    tell_of_letter(tell, &letter).await;
                }
            }
        }
    }
}
