//! The keys that an erasure is about.

use crate::outbox::Outbox;
use outbox_core::{event::SagaId, outbox::StoreError};
use std::collections::BTreeSet;

/// Keys of one statement.
const CHUNK: usize = 500;

/// A key, and what belongs to it.
pub(super) struct Keys {
    /// The key of the erasure: also the correlation id of its sagas, and a dedup key.
    pub(super) own: String,
    /// Its sagas that have ended. The replies that they had have their ids as keys.
    pub(super) ended: BTreeSet<SagaId>,
    /// Its sagas that have not: they are left, and the replies that they still need with them.
    pub(super) running: u64,
    /// The keys of messages: its own, then the ids of the sagas.
    all: Vec<String>,
}

impl Keys {
    /// Gives the keys of messages, in parts for one statement each.
    pub(super) fn chunks(&self) -> impl Iterator<Item = &[String]> {
        self.all.chunks(CHUNK)
    }

    fn new(own: &str, ended: BTreeSet<SagaId>, running: u64) -> Self {
        let ids = ended.iter().map(SagaId::to_string);
        let all = std::iter::once(own.to_owned()).chain(ids).collect();
        Self { own: own.to_owned(), ended, running, all }
    }
}

impl Outbox {
    /// Finds the sagas of a key.
    pub(super) async fn keys_of(&self, own: &str) -> Result<Keys, StoreError> {
        let (mut ended, mut running, mut after) = (BTreeSet::new(), 0, None);
        loop {
            let found = self.sagas_of(own, after).await?;
            for (saga, has_ended) in found.sagas {
                if has_ended {
                    ended.insert(saga);
                } else {
                    running += 1;
                }
            }
            after = found.last;
            if after.is_none() {
                return Ok(Keys::new(own, ended, running));
            }
        }
    }
}

#[cfg(test)]
impl Keys {
    /// Makes keys without a database.
    pub(super) fn for_test(own: &str, ended: impl IntoIterator<Item = SagaId>) -> Self {
        Self::new(own, ended.into_iter().collect(), 0)
    }
}
