//! The one operator surface, behind command line and dashboard: what waits, what is dead, and what can be done about it.
//!
//! Everything that changes something is conditional (it does nothing where somebody else was faster), idempotent, and
//! noted with who did it and why.

use crate::{
    event::{LetterId, MessageId, Timestamp},
    failure::{DeadLetter, DeadReason},
    outbox::{OutboxStats, StoreError},
};
use async_trait::async_trait;
use bytes::Bytes;
use std::{ops::Range, time::Duration};

/// Which dead letters are meant. Everything that is set must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LetterFilter {
    /// On this topic.
    pub topic: Option<String>,
    /// Of this event type.
    pub event_type: Option<String>,
    /// Of this key.
    pub key: Option<String>,
    /// Given up by this route.
    pub route: Option<String>,
    /// Given up by this consumer.
    pub consumer: Option<String>,
    /// Given up by this handler of the consumer; nothing without one.
    pub handler: Option<String>,
    /// For this reason.
    pub reason: Option<DeadReason>,
    /// Put aside in this time.
    pub dead_at: Option<Range<Timestamp>>,
    /// Put aside at least so long ago, by the database's clock.
    pub older_than: Option<Duration>,
    /// Up to this one, by identity.
    pub up_to: Option<LetterId>,
    /// Also those about which something was decided.
    pub decided_too: bool,
}

impl LetterFilter {
    /// Means every letter about which nothing was decided. Said explicitly, so that nobody redrives all by leaving
    /// something out.
    #[must_use]
    pub fn all() -> Self {
        Self::default()
    }

    /// Only on this topic.
    #[must_use]
    pub fn topic(mut self, topic: impl Into<String>) -> Self {
        self.topic = Some(topic.into());
        self
    }

    /// Only of this event type.
    #[must_use]
    pub fn event_type(mut self, event_type: impl Into<String>) -> Self {
        self.event_type = Some(event_type.into());
        self
    }

    /// Only of this key.
    #[must_use]
    pub fn key(mut self, key: impl Into<String>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// Only of this route.
    #[must_use]
    pub fn route(mut self, route: impl Into<String>) -> Self {
        self.route = Some(route.into());
        self
    }

    /// Only of this consumer.
    #[must_use]
    pub fn consumer(mut self, consumer: impl Into<String>) -> Self {
        self.consumer = Some(consumer.into());
        self
    }

    /// Only of this consumer's handler.
    #[must_use]
    pub fn handler(mut self, consumer: impl Into<String>, handler: impl Into<String>) -> Self {
        (self.consumer, self.handler) = (Some(consumer.into()), Some(handler.into()));
        self
    }

    /// Only those that were put aside at least so long ago, by the database's clock.
    #[must_use]
    pub fn older_than(mut self, age: Duration) -> Self {
        self.older_than = Some(age);
        self
    }

    /// Only for this reason.
    #[must_use]
    pub fn reason(mut self, reason: DeadReason) -> Self {
        self.reason = Some(reason);
        self
    }
}

/// Who decides, and why; stored with the decision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// Who, such as a login name.
    pub by: String,
    /// Why, in their words.
    pub why: String,
    /// Whether also that is done which is refused unless somebody insists; see [`AdminStore::redrive`].
    pub force: bool,
}

impl Decision {
    /// Names who decides, and why.
    pub fn new(by: impl Into<String>, why: impl Into<String>) -> Self {
        Self { by: by.into(), why: why.into(), force: false }
    }

    /// Insists.
    #[must_use]
    pub fn force(mut self) -> Self {
        self.force = true;
        self
    }
}

/// What an operator can see and do. Implemented by stores.
#[async_trait]
pub trait AdminStore: Send + Sync + 'static {
    /// Gives figures; no count walks a whole table.
    async fn stats(&self) -> Result<OutboxStats, StoreError>;

    /// Gives the identity of the newest letter; `None` when there never was one, or all are deleted.
    async fn newest_letter(&self) -> Result<Option<LetterId>, StoreError>;

    /// Gives letters by identity, from the one after `after`, at most `limit` and as many as one answer takes by their
    /// bytes (4 MiB with us). Fewer than `limit` are therefore no sign that there are no more; none at all is.
    async fn dead_letters(
        &self,
        filter: &LetterFilter,
        after: Option<LetterId>,
        limit: u32,
    ) -> Result<Vec<DeadLetter>, StoreError>;

    /// Redrives letters about which nothing was decided: in one transaction each event is put back under its old id and
    /// due now on the letter's route, with no attempts, and the letter is marked. Gives those that this call redrove.
    ///
    /// The message of a consumer's letter is stored for its handler, due now; one that cannot be read is left out. A letter
    /// of a consumer that is older than what the inbox remembers is refused unless forced: whether the same message was
    /// handled since, under another letter or delivery, is not known any more.
    async fn redrive(
        &self,
        letters: &[LetterId],
        decision: &Decision,
    ) -> Result<Vec<LetterId>, StoreError>;

    /// Discards letters about which nothing was decided: they are marked, and a key that is parked behind one opens. Gives
    /// those that this call discarded.
    async fn discard(
        &self,
        letters: &[LetterId],
        decision: &Decision,
    ) -> Result<Vec<LetterId>, StoreError>;

    /// Discards letters about which nothing was decided as [`discard`](Self::discard) does, and deletes the content of these
    /// and of those that were decided about before: payload, headers and errors. The letters stay, with who decided and why,
    /// until their retention is over; a key that is parked behind one opens. Gives those that this call discarded.
    async fn purge(
        &self,
        letters: &[LetterId],
        decision: &Decision,
    ) -> Result<Vec<LetterId>, StoreError>;

    /// Sends the event of a letter again with other content, as a new event with a new message id and the header
    /// `causationid` naming the old one, and marks the letter. The message of a consumer's letter is stored for its handler
    /// under a new message id. `None` when something was decided about it already.
    ///
    /// # Errors
    /// [`StoreError::Refused`] for content that could not be saved as an event either, which decides nothing.
    async fn resend(
        &self,
        letter: LetterId,
        payload: Bytes,
        decision: &Decision,
    ) -> Result<Option<MessageId>, StoreError>;
}

/// How far an operation on many letters has come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// Letters looked at.
    pub seen: u64,
    /// Letters redriven by this call.
    pub redriven: u64,
    /// Letters discarded by this call, with their content.
    pub purged: u64,
}

/// Letters of one page when many are decided about: short transactions, so that relays and producers go on.
const PAGE: u32 = 200;

/// Redrives all letters of a filter in short transactions, telling the progress after each.
///
/// Letters that are written after it began are left alone: what a destination refuses again is not redriven again.
///
/// # Errors
/// [`StoreError`] of the first batch that failed; those before it are redriven, and calling again goes on.
///
/// # Cancel safety
/// Dropped, it has redriven whole batches.
pub async fn redrive_all(
    store: &dyn AdminStore,
    filter: &LetterFilter,
    decision: &Decision,
    mut tell: impl FnMut(Progress) + Send,
) -> Result<Progress, StoreError> {
    let mut progress = Progress::default();
    let Some(filter) = those_of_now(store, filter).await? else { return Ok(progress) };
    let mut after = None;
    loop {
        let letters = store.dead_letters(&filter, after, PAGE).await?;
        let Some(last) = letters.last().map(|l| l.id) else { return Ok(progress) };
        after = Some(last);
        let ids: Vec<LetterId> =
            letters.iter().filter(|l| l.fate.is_none()).map(|l| l.id).collect();
        progress.seen += letters.len() as u64;
        progress.redriven += store.redrive(&ids, decision).await?.len() as u64;
        tell(progress);
    }
}

/// Discards all letters of a filter that were put aside at least so long ago, and deletes their content, in short
/// transactions, telling the progress after each. Letters about which something was decided are left to their retention,
/// unless the filter says [`decided_too`](LetterFilter::decided_too).
///
/// Letters that are written after it began are left alone.
///
/// # Errors
/// [`StoreError`] of the first batch that failed; those before it are purged, and calling again goes on.
///
/// # Cancel safety
/// Dropped, it has purged whole batches.
pub async fn purge_all(
    store: &dyn AdminStore,
    filter: &LetterFilter,
    older_than: Duration,
    decision: &Decision,
    mut tell: impl FnMut(Progress) + Send,
) -> Result<Progress, StoreError> {
    let mut progress = Progress::default();
    let Some(filter) = those_of_now(store, filter).await? else { return Ok(progress) };
    let filter = filter.older_than(older_than);
    let mut after = None;
    loop {
        let letters = store.dead_letters(&filter, after, PAGE).await?;
        let Some(last) = letters.last().map(|l| l.id) else { return Ok(progress) };
        after = Some(last);
        let ids: Vec<LetterId> = letters.iter().map(|l| l.id).collect();
        progress.seen += letters.len() as u64;
        progress.purged += store.purge(&ids, decision).await?.len() as u64;
        tell(progress);
    }
}

/// Narrows a filter to the letters that are there now; `None` when there is none.
async fn those_of_now(
    store: &dyn AdminStore,
    filter: &LetterFilter,
) -> Result<Option<LetterFilter>, StoreError> {
    let newest = store.newest_letter().await?;
    Ok(newest.map(|newest| {
        let up_to = filter.up_to.map_or(newest, |up_to| up_to.min(newest));
        LetterFilter { up_to: Some(up_to), ..filter.clone() }
    }))
}
