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
///
/// ```
/// # use outbox_sea_orm::{admin::AdminStore, prelude::*};
/// # #[derive(Clone, serde::Serialize, serde::Deserialize, OutboxEvent)]
/// # #[outbox(type = "order.placed", topic = "orders")]
/// # struct OrderPlaced { #[outbox(key)] order_id: i64 }
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let outbox = Outbox::builder(sea_orm::Database::connect("sqlite::memory:").await?).install().await?;
/// for _ in 0..2 {
///     let tx = outbox.begin().await?;
///     let once = EnqueueOptions::new().dedup_key("order-7").on_duplicate(OnDuplicate::Ignore);
///     tx.emit_with(OrderPlaced { order_id: 7 }, once)?;
///     tx.commit().await?;
/// }
/// assert_eq!(outbox.stats().await?.pending, 1);
/// # Ok(()) }
/// ```
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
    ///
    /// ```
    /// # use outbox_sea_orm::prelude::*;
    /// # #[derive(Clone, serde::Serialize, serde::Deserialize, OutboxEvent)]
    /// # #[outbox(type = "order.placed", topic = "orders")]
    /// # struct OrderPlaced { #[outbox(key)] order_id: i64 }
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let outbox = Outbox::builder(sea_orm::Database::connect("sqlite::memory:").await?).install().await?;
    /// for attempt in 1..=2 {
    ///     let tx = outbox.begin().await?;
    ///     tx.emit_with(OrderPlaced { order_id: 7 }, EnqueueOptions::new().dedup_key("order-7"))?;
    ///     match tx.commit().await {
    ///         Err(OutboxError::Duplicate { .. }) => println!("attempt {attempt}: saved before"),
    ///         other => other?,
    ///     }
    /// }
    /// # Ok(()) }
    /// ```
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
    ///
    /// ```
    /// # use outbox_sea_orm::prelude::*;
    /// # fn example(tx: &OutboxTransaction, event: impl OutboxEvent) -> Result<(), OutboxError> {
    /// tx.emit_with(event, EnqueueOptions::new().header("tenant", "acme"))?;
    /// # Ok(()) }
    /// ```
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// Delivers the event not before an instant. Its place in the order of its key is given then.
    ///
    /// ```
    /// # use outbox_sea_orm::{event::Timestamp, prelude::*};
    /// # fn example(tx: &OutboxTransaction, event: impl OutboxEvent) -> Result<(), Box<dyn std::error::Error>> {
    /// let new_year: Timestamp = "2027-01-01T00:00:00Z".parse()?;
    /// tx.emit_with(event, EnqueueOptions::new().deliver_at(new_year))?;
    /// # Ok(()) }
    /// ```
    pub const fn deliver_at(mut self, at: Timestamp) -> Self {
        self.deliver_when = DeliverWhen::At(at);
        self
    }

    /// Delivers the event not before a delay from its writing, by the database's clock.
    ///
    /// ```
    /// # use outbox_sea_orm::{admin::AdminStore, entity::scheduled, prelude::*};
    /// # use sea_orm::{EntityTrait, PaginatorTrait};
    /// # use std::time::Duration;
    /// # #[derive(Clone, serde::Serialize, serde::Deserialize, OutboxEvent)]
    /// # #[outbox(type = "order.placed", topic = "orders")]
    /// # struct OrderPlaced { #[outbox(key)] order_id: i64 }
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let outbox = Outbox::builder(sea_orm::Database::connect("sqlite::memory:").await?).install().await?;
    /// let tx = outbox.begin().await?;
    /// let tomorrow = EnqueueOptions::new().deliver_in(Duration::from_hours(24));
    /// tx.emit_with(OrderPlaced { order_id: 7 }, tomorrow)?;
    /// tx.commit().await?;
    /// assert_eq!(outbox.stats().await?.pending, 0);
    /// assert_eq!(scheduled::Entity::find().count(outbox.connection()).await?, 1);
    /// # Ok(()) }
    /// ```
    pub const fn deliver_in(mut self, delay: Duration) -> Self {
        self.deliver_when = DeliverWhen::In(delay);
        self
    }
}
