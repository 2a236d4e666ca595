//! Those who watch: what users register to be told.

use crate::{
    event::{LetterId, Message},
    failure::{LetterListener, tell_of_letter},
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

/// The dead-letter actor: tells the listeners of each letter, one after the other, after it was written.
pub(crate) async fn tell_of_letters(
    store: Arc<dyn SettleStore>,
    mut written: mpsc::Receiver<Vec<LetterId>>,
    observers: Arc<Observers>,
) {
    while let Some(ids) = written.recv().await {
        if observers.dead.is_empty() {
            continue;
        }
        let letters = match store.letters(&ids).await {
            Ok(letters) => letters,
            Err(error) => {
                tracing::warn!(%error, letters = ids.len(), "dead letters were written, but could not be read for their listeners");
                continue;
            }
        };
        for letter in letters.into_iter().map(Arc::new) {
            for tell in &observers.dead {
                tell_of_letter(tell, &letter).await;
            }
        }
    }
}
