//! Options of one event when it is saved.

use outbox_core::event::Timestamp;
use std::time::Duration;

/// Options of one saved event, given to `emit_with` and `enqueue_with`.
///
/// ```
/// # use outbox_sea_orm::EnqueueOptions;
/// # use std::time::Duration;
/// let once_tomorrow = EnqueueOptions::new().dedup_key("reminder-7").deliver_in(Duration::from_hours(24));
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[must_use]
pub struct EnqueueOptions {
    pub(crate) dedup_key: Option<String>,
    pub(crate) on_duplicate: OnDuplicate,
    pub(crate) deliver_when: DeliverWhen,
    pub(crate) headers: Vec<(String, String)>,
}

/// What happens when a dedup key is used a second time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OnDuplicate {
    /// The transaction fails with [`OutboxError::Duplicate`](crate::OutboxError::Duplicate).
    #[default]
    Fail,
    /// The event alone is left out; the rest of the transaction goes on.
    Ignore,
}

/// When an event may be delivered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum DeliverWhen {
    /// As soon as it is committed.
    #[default]
    Now,
    /// Not before an instant.
    At(Timestamp),
    /// Not before a delay from its writing, by the database's clock.
    In(Duration),
}

impl EnqueueOptions {
    /// Makes options that change nothing.
    pub const fn new() -> Self {
        Self {
            dedup_key: None,
            on_duplicate: OnDuplicate::Fail,
            deliver_when: DeliverWhen::Now,
            headers: Vec::new(),
        }
    }

    /// Saves the event once a key: a second use within the retention (7 days by default) is a
    /// duplicate.
    ///
    /// `key` has 1 to 255 bytes; it is kept apart for each outbox, not for each event type.
    pub fn dedup_key(mut self, key: impl Into<String>) -> Self {
        self.dedup_key = Some(key.into());
        self
    }

    /// Says what a second use of the dedup key does.
    pub const fn on_duplicate(mut self, on_duplicate: OnDuplicate) -> Self {
        self.on_duplicate = on_duplicate;
        self
    }

    /// Adds a header to this event, beside those of its type; of one name the last one counts. The
    /// outbox checks names and values when it saves the event.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// Delivers the event not before an instant. Its place in the order of its key is given then.
    pub const fn deliver_at(mut self, at: Timestamp) -> Self {
        self.deliver_when = DeliverWhen::At(at);
        self
    }

    /// Delivers the event not before a delay from its writing, by the database's clock.
    pub const fn deliver_in(mut self, delay: Duration) -> Self {
        self.deliver_when = DeliverWhen::In(delay);
        self
    }
}
