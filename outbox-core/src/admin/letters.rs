//! Dead letters: how an operator selects them, and what the operator does with them.

use crate::{
    event::{LetterId, MessageId, Timestamp},
    failure::{DeadLetter, DeadReason},
    outbox::{OperatorNote, OutboxStats, StoreError},
};
use async_trait::async_trait;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::{fmt, ops::Range, time::Duration};

/// Selects dead letters. All conditions that are set must hold.
///
/// ```
/// # use outbox_core::{admin::DeadLetterFilter, failure::DeadReason};
/// # use std::time::Duration;
/// let filter = DeadLetterFilter::all()
///     .topic("orders")
///     .route("billing")
///     .reason(DeadReason::Exhausted)
///     .older_than(Duration::from_hours(1));
/// assert!(!filter.include_resolved, "open letters only");
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DeadLetterFilter {
    /// This letter alone.
    pub letter: Option<LetterId>,
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
    /// Given up by this handler of the consumer; matches nothing without a consumer.
    pub handler: Option<String>,
    /// For this reason.
    pub reason: Option<DeadReason>,
    /// Given up in this time.
    pub dead_at: Option<Range<Timestamp>>,
    /// Given up at least so long ago, by the database's clock.
    pub older_than: Option<Duration>,
    /// Up to this letter, by identity.
    pub up_to: Option<LetterId>,
    /// Whether resolved letters are selected too.
    pub include_resolved: bool,
}

impl DeadLetterFilter {
    /// Selects every open letter. A call of its own, so that an operator does not redrive all letters by omitting a
    /// condition.
    ///
    /// ```
    /// # use outbox_core::admin::DeadLetterFilter;
    /// let every_letter = DeadLetterFilter { include_resolved: true, ..DeadLetterFilter::all() };
    /// ```
    #[must_use]
    pub fn all() -> Self {
        Self::default()
    }

    /// This letter alone.
    #[must_use]
    pub fn letter(mut self, letter: LetterId) -> Self {
        self.letter = Some(letter);
        self
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
    ///
    /// ```
    /// # use outbox_core::admin::DeadLetterFilter;
    /// let of_handler = DeadLetterFilter::all().handler("receipts", "send-receipt");
    /// ```
    #[must_use]
    pub fn handler(mut self, consumer: impl Into<String>, handler: impl Into<String>) -> Self {
        (self.consumer, self.handler) = (Some(consumer.into()), Some(handler.into()));
        self
    }

    /// Only letters that were given up at least so long ago, by the database's clock.
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

    /// Tells whether no condition is set: it selects every letter up to its bound, if it has one.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let unbounded = Self { up_to: None, include_resolved: false, ..self.clone() };
        unbounded == Self::default()
    }
}

impl fmt::Display for DeadLetterFilter {
    /// Writes the selection in words: `open letters on topic "orders", up to letter 9`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let texts = [
            ("on topic", self.topic.as_deref()),
            ("of type", self.event_type.as_deref()),
            ("of key", self.key.as_deref()),
            ("of route", self.route.as_deref()),
            ("of consumer", self.consumer.as_deref()),
            ("of handler", self.handler.as_deref()),
            ("for the reason", self.reason.map(|reason| reason.as_str())),
        ];
        let texts = texts.into_iter().filter_map(|(what, text)| Some((what, text?)));
        let mut parts: Vec<String> = texts.map(|(what, text)| format!("{what} {text:?}")).collect();
        let times = self.dead_at.as_ref();
        parts.extend(times.map(|times| format!("given up from {} to {}", times.start, times.end)));
        parts.extend(self.older_than.map(|age| format!("given up {age:?} ago or earlier")));
        parts.extend(self.letter.map(|letter| format!("with the id {letter}")));
        parts.extend(self.up_to.map(|last| format!("up to letter {last}")));
        let all = if self.is_empty() { "all " } else { "" };
        let open = if self.include_resolved { "" } else { "open " };
        let space = if parts.is_empty() { "" } else { " " };
        write!(f, "{all}{open}letters{space}{}", parts.join(", "))
    }
}

/// The operator's operations. Implemented by stores. A call that changes something has one row of the
/// [audit](super::ActStore::audit), written in its transactions.
#[async_trait]
pub trait AdminStore: Send + Sync + 'static {
    /// Gives statistics; no count scans a whole table.
    ///
    /// ```
    /// # use outbox_core::{admin::AdminStore, outbox::StoreError};
    /// # async fn example(outbox: &dyn AdminStore) -> Result<(), StoreError> {
    /// let stats = outbox.stats().await?;
    /// println!("{} events wait, {} dead letters are open", stats.pending, stats.dead);
    /// # Ok(()) }
    /// ```
    async fn stats(&self) -> Result<OutboxStats, StoreError>;

    /// Gives the identity of the newest letter; `None` when there never was one, or all are deleted.
    async fn newest_letter(&self) -> Result<Option<LetterId>, StoreError>;

    /// Gives letters by identity, from the one after `after`, at most `limit` and as many as fit one result by their
    /// bytes (4 MiB here). So fewer than `limit` letters do not mean that there are no more; an empty result does.
    ///
    /// ```
    /// # use outbox_core::{admin::{AdminStore, DeadLetterFilter}, outbox::StoreError};
    /// # async fn example(outbox: &dyn AdminStore) -> Result<(), StoreError> {
    /// let mut after = None;
    /// loop {
    ///     let page = outbox.dead_letters(&DeadLetterFilter::all().topic("orders"), after, 100).await?;
    ///     let Some(last) = page.last() else { break };
    ///     after = Some(last.id);
    ///     for letter in &page {
    ///         println!("{} {} after {} attempts", letter.id, letter.reason, letter.attempts);
    ///     }
    /// }
    /// # Ok(()) }
    /// ```
    async fn dead_letters(
        &self,
        filter: &DeadLetterFilter,
        after: Option<LetterId>,
        limit: u32,
    ) -> Result<Vec<DeadLetter>, StoreError>;

    /// Redrives open letters: one transaction stores each event again under its old id, due now on the letter's route and
    /// without attempts, and marks the letter. Gives the letters that this call redrove.
    ///
    /// The message of a consumer's letter is stored for its handler, due now; a message that cannot be read is left out. A
    /// consumer's letter that is older than the inbox retention is refused unless forced: the inbox no longer shows whether
    /// the handler has had the same message since, by another letter or delivery.
    ///
    /// ```
    /// # use outbox_core::{admin::{AdminStore, OperatorNote}, event::LetterId, outbox::StoreError};
    /// # async fn example(outbox: &dyn AdminStore) -> Result<(), StoreError> {
    /// let redriven = outbox.redrive(&[LetterId(7)], &OperatorNote::new("ann", "billing is repaired")).await?;
    /// assert!(redriven.len() <= 1, "empty where another operator was faster");
    /// # Ok(()) }
    /// ```
    async fn redrive(
        &self,
        letters: &[LetterId],
        note: &OperatorNote,
    ) -> Result<Vec<LetterId>, StoreError>;

    /// Discards open letters: marks them, and unparks keys that wait behind them. Gives the letters that this call
    /// discarded.
    ///
    /// ```
    /// # use outbox_core::{admin::{AdminStore, OperatorNote}, event::LetterId, outbox::StoreError};
    /// # async fn example(outbox: &dyn AdminStore) -> Result<(), StoreError> {
    /// let note = OperatorNote::new("ann", "the order was a test");
    /// let discarded = outbox.discard(&[LetterId(7), LetterId(8)], &note).await?;
    /// # let _ = discarded;
    /// # Ok(()) }
    /// ```
    async fn discard(
        &self,
        letters: &[LetterId],
        note: &OperatorNote,
    ) -> Result<Vec<LetterId>, StoreError>;

    /// Discards open letters as [`discard`](Self::discard) does, and deletes the content of these and of resolved ones:
    /// payload, headers and errors. The letters stay, with operator and reason, until their retention is over; keys that
    /// wait behind them are unparked. Gives the letters that this call discarded.
    ///
    /// ```
    /// # use outbox_core::{admin::{AdminStore, OperatorNote}, event::LetterId, outbox::StoreError};
    /// # async fn example(outbox: &dyn AdminStore) -> Result<(), StoreError> {
    /// let note = OperatorNote::new("ann", "the customer asked to be forgotten");
    /// outbox.purge(&[LetterId(7)], &note).await?; // the row stays, its content is deleted
    /// # Ok(()) }
    /// ```
    async fn purge(
        &self,
        letters: &[LetterId],
        note: &OperatorNote,
    ) -> Result<Vec<LetterId>, StoreError>;

    /// Sends the event of a letter again with other content, as a new event with a new message id and the header
    /// `causationid` naming the old one, and marks the letter. The message of a consumer's letter is stored for its handler
    /// under a new message id. `None` for a letter that was resolved already.
    ///
    /// ```
    /// # use outbox_core::{admin::{AdminStore, OperatorNote}, event::LetterId, outbox::StoreError};
    /// # async fn example(outbox: &dyn AdminStore) -> Result<(), StoreError> {
    /// let corrected = bytes::Bytes::from_static(br#"{"order_id":7,"total":90}"#);
    /// let note = OperatorNote::new("ann", "the total was negative");
    /// match outbox.resend(LetterId(7), corrected, &note).await? {
    ///     Some(id) => println!("sent again as {id}"),
    ///     None => println!("another operator has resolved the letter"),
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`StoreError::Refused`] for content that could not be saved as an event either; the letter stays open.
    async fn resend(
        &self,
        letter: LetterId,
        payload: Bytes,
        note: &OperatorNote,
    ) -> Result<Option<MessageId>, StoreError>;

    /// Gives a letter with its content to an operator who may see it and says why. The row of the audit, `show content`,
    /// is committed before the content is given. `None`, and no row, for a letter that does not exist. A store without
    /// this refuses, and gives nothing.
    ///
    /// ```
    /// # use outbox_core::{admin::{AdminStore, OperatorNote}, event::LetterId, outbox::StoreError};
    /// # async fn example(outbox: &dyn AdminStore) -> Result<(), StoreError> {
    /// let note = OperatorNote::new("ann", "the customer asks which card was charged");
    /// let letter = outbox.show_content(LetterId(7), &note).await?; // the audit says so by now
    /// # let _ = letter;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`StoreError::Refused`] for a reason that [`checked_reason`](super::checked_reason) refuses; [`StoreError`] of the
    /// read or of the row of the audit. Nothing is given then.
    ///
    /// # Cancel safety
    /// Dropped, it may have written the row.
    async fn show_content(
        &self,
        letter: LetterId,
        note: &OperatorNote,
    ) -> Result<Option<DeadLetter>, StoreError> {
        let _ = (letter, note);
        Err(StoreError::Refused("this store does not audit who sees a content".into()))
    }
}

/// Progress of an operation on many letters.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// Letters that were read.
    pub seen: u64,
    /// Letters redriven by this call.
    pub redriven: u64,
    /// Letters discarded by this call, with their content.
    pub purged: u64,
}

/// Letters of one page of an operation on many: short transactions, which do not delay relays and producers.
const PAGE: u32 = 200;

/// Redrives all letters of a filter in short transactions, and reports the progress after each.
///
/// Letters that are written after the start are left alone: an event that its destination rejects again is not redriven
/// again.
///
/// ```
/// # use outbox_core::{admin::{AdminStore, DeadLetterFilter, OperatorNote, redrive_all}, outbox::StoreError};
/// # async fn example(outbox: &dyn AdminStore) -> Result<(), StoreError> {
/// let filter = DeadLetterFilter::all().route("billing");
/// let note = OperatorNote::new("ann", "billing is repaired");
/// let done = redrive_all(outbox, &filter, &note, |progress| println!("{progress:?}")).await?;
/// println!("{} of {} letters were redriven", done.redriven, done.seen);
/// # Ok(()) }
/// ```
///
/// # Errors
/// [`StoreError`] of the first batch that failed; those before it are redriven, and calling again goes on.
///
/// # Cancel safety
/// Dropped, it has redriven whole batches.
pub async fn redrive_all(
    store: &dyn AdminStore,
    filter: &DeadLetterFilter,
    note: &OperatorNote,
    mut on_progress: impl FnMut(Progress) + Send,
) -> Result<Progress, StoreError> {
    let mut progress = Progress::default();
    let Some(filter) = up_to_newest(store, filter).await? else { return Ok(progress) };
    let mut after = None;
    loop {
        let letters = store.dead_letters(&filter, after, PAGE).await?;
        let Some(last) = letters.last().map(|l| l.id) else { return Ok(progress) };
        after = Some(last);
        let ids: Vec<LetterId> =
            letters.iter().filter(|l| l.resolution.is_none()).map(|l| l.id).collect();
        progress.seen += letters.len() as u64;
        progress.redriven += store.redrive(&ids, note).await?.len() as u64;
        on_progress(progress);
    }
}

/// Discards all letters of a filter that were given up at least so long ago, and deletes their content, in short
/// transactions; reports the progress after each. Resolved letters are left to their retention, unless the filter has
/// [`include_resolved`](DeadLetterFilter::include_resolved).
///
/// Letters that are written after the start are left alone.
///
/// ```
/// # use outbox_core::{admin::{AdminStore, DeadLetterFilter, OperatorNote, purge_all}, outbox::StoreError};
/// # use std::time::Duration;
/// # async fn example(outbox: &dyn AdminStore) -> Result<(), StoreError> {
/// let a_year = Duration::from_hours(365 * 24);
/// let note = OperatorNote::new("nightly-cleanup", "content is kept for a year");
/// purge_all(outbox, &DeadLetterFilter::all(), a_year, &note, |_| {}).await?;
/// # Ok(()) }
/// ```
///
/// # Errors
/// [`StoreError`] of the first batch that failed; those before it are purged, and calling again goes on.
///
/// # Cancel safety
/// Dropped, it has purged whole batches.
pub async fn purge_all(
    store: &dyn AdminStore,
    filter: &DeadLetterFilter,
    older_than: Duration,
    note: &OperatorNote,
    mut on_progress: impl FnMut(Progress) + Send,
) -> Result<Progress, StoreError> {
    let mut progress = Progress::default();
    let Some(filter) = up_to_newest(store, filter).await? else { return Ok(progress) };
    let filter = filter.older_than(older_than);
    let mut after = None;
    loop {
        let letters = store.dead_letters(&filter, after, PAGE).await?;
        let Some(last) = letters.last().map(|l| l.id) else { return Ok(progress) };
        after = Some(last);
        let ids: Vec<LetterId> = letters.iter().map(|l| l.id).collect();
        progress.seen += letters.len() as u64;
        progress.purged += store.purge(&ids, note).await?.len() as u64;
        on_progress(progress);
    }
}

/// Narrows a filter to the letters that exist now; `None` when there is none.
async fn up_to_newest(
    store: &dyn AdminStore,
    filter: &DeadLetterFilter,
) -> Result<Option<DeadLetterFilter>, StoreError> {
    let newest = store.newest_letter().await?;
    Ok(newest.map(|newest| {
        let up_to = filter.up_to.map_or(newest, |up_to| up_to.min(newest));
        DeadLetterFilter { up_to: Some(up_to), ..filter.clone() }
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_is_said_in_words_and_comes_back_from_its_json() {
        let hour = Duration::from_hours(1);
        let at = |seconds: i64| Timestamp::from_micros(seconds * 1_000_000);
        let every = DeadLetterFilter {
            dead_at: Some(at(0)..at(1)),
            route: Some("billing".into()),
            up_to: Some(LetterId(9)),
            letter: Some(LetterId(8)),
            include_resolved: true,
            ..DeadLetterFilter::all()
                .topic("orders")
                .event_type("order.placed")
                .key("7")
                .handler("mail", "on \"paid\"")
                .older_than(hour)
                .reason(DeadReason::Rejected)
        };
        let bounded = DeadLetterFilter { up_to: Some(LetterId(9)), ..DeadLetterFilter::all() };
        for (filter, is_empty, words) in [
            (DeadLetterFilter::all(), true, "all open letters"),
            (bounded.clone(), true, "all open letters up to letter 9"),
            (bounded.topic("orders"), false, "open letters on topic \"orders\", up to letter 9"),
            (DeadLetterFilter::all().letter(LetterId(8)), false, "open letters with the id 8"),
            (
                DeadLetterFilter::all().older_than(hour),
                false,
                "open letters given up 3600s ago or earlier",
            ),
            (
                every,
                false,
                "letters on topic \"orders\", of type \"order.placed\", of key \"7\", of route \"billing\", \
                 of consumer \"mail\", of handler \"on \\\"paid\\\"\", for the reason \"rejected\", given up from \
                 1970-01-01T00:00:00Z to 1970-01-01T00:00:01Z, given up 3600s ago or earlier, with the id 8, up to letter 9",
            ),
        ] {
            assert_eq!((filter.is_empty(), filter.to_string().as_str()), (is_empty, words));
            let json = serde_json::to_string(&filter).unwrap();
            assert_eq!(serde_json::from_str::<DeadLetterFilter>(&json).unwrap(), filter, "{json}");
        }
        let earlier: DeadLetterFilter = serde_json::from_str("{\"topic\":\"orders\"}").unwrap();
        assert_eq!(earlier, DeadLetterFilter::all().topic("orders"), "fields may be added");
    }
}
