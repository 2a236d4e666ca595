//! Saves events in a transaction of SeaORM.

use super::{EnqueueOptions, Outbox, Pending};
use crate::error::OutboxError;
use futures_util::future::BoxFuture;
use outbox_core::event::{MessageId, OutboxEvent};
use sea_orm::{ConnectionTrait, TransactionSession};

/// A transaction of SeaORM or one like it: it commits data and events together.
///
/// Implemented for everything that is both a `ConnectionTrait` and a `TransactionSession`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a transaction, so an event saved through it would not be atomic with the data",
    label = "not a transaction",
    note = "open one with `let txn = db.begin().await?`, write the data with `&txn`, and save the event with `&txn` too"
)]
pub trait InTransaction: ConnectionTrait {}

impl<C: ConnectionTrait + TransactionSession> InTransaction for C {}

impl Outbox {
    /// Saves an event in an ordinary SeaORM transaction, at once.
    ///
    /// Gives the message's id. The event is delivered after the transaction is committed; call
    /// [`wake`](Self::wake) then to save the wait for the relay's next poll. There are no phases
    /// here, and no listeners.
    ///
    /// ```
    /// # use outbox_sea_orm::prelude::*;
    /// # use sea_orm::{DatabaseConnection, TransactionTrait};
    /// # async fn example(db: &DatabaseConnection, outbox: &Outbox, event: impl OutboxEvent) -> Result<(), OutboxError> {
    /// let txn = db.begin().await?;
    /// // .. any SeaORM call with `&txn` ..
    /// outbox.enqueue(&txn, &event).await?;
    /// txn.commit().await?;
    /// outbox.wake();
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`OutboxError::Encode`] or [`OutboxError::Limit`] when the event could not travel,
    /// [`OutboxError::TooManyWaiting`], and [`OutboxError::Database`] when the database refused.
    ///
    /// # Cancel safety
    /// As SeaORM's own: whether the event was written is unknown then, so roll back.
    // The future is boxed, here and below, so that its type does not name `C`: for an opaque type
    // the compiler reports three times that a connection is no transaction.
    pub fn enqueue<'a, C, E>(
        &'a self,
        txn: &'a C,
        event: &E,
    ) -> BoxFuture<'a, Result<MessageId, OutboxError>>
    where
        C: InTransaction,
        E: OutboxEvent + ?Sized,
    {
        self.enqueue_with(txn, event, EnqueueOptions::new())
    }

    /// Saves an event as [`enqueue`](Self::enqueue) does, with options.
    ///
    /// ```
    /// # use outbox_sea_orm::prelude::*;
    /// # use sea_orm::DatabaseTransaction;
    /// # use std::time::Duration;
    /// # async fn example(outbox: &Outbox, txn: &DatabaseTransaction, reminder: impl OutboxEvent) -> Result<(), OutboxError> {
    /// let tomorrow = EnqueueOptions::new().deliver_in(Duration::from_hours(24));
    /// let scheduled: MessageId = outbox.enqueue_with(txn, &reminder, tomorrow).await?;
    /// # let _ = scheduled;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// Those of [`enqueue`](Self::enqueue), and [`OutboxError::Duplicate`]; roll back then.
    ///
    /// # Cancel safety
    /// That of [`enqueue`](Self::enqueue).
    pub fn enqueue_with<'a, C, E>(
        &'a self,
        txn: &'a C,
        event: &E,
        options: EnqueueOptions,
    ) -> BoxFuture<'a, Result<MessageId, OutboxError>>
    where
        C: InTransaction,
        E: OutboxEvent + ?Sized,
    {
        let pending = Pending::new(event, options, self);
        Box::pin(async move {
            let pending = pending?;
            let id = pending.message_id();
            self.write(txn, vec![pending]).await?;
            Ok(id)
        })
    }

    /// Saves several events in an ordinary SeaORM transaction, in one INSERT, in their order.
    ///
    /// ```
    /// # use outbox_sea_orm::prelude::*;
    /// # use sea_orm::TransactionTrait;
    /// # #[derive(Clone, serde::Serialize, serde::Deserialize, OutboxEvent)]
    /// # #[outbox(type = "order.placed", topic = "orders")]
    /// # struct OrderPlaced { #[outbox(key)] order_id: i64 }
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let outbox = Outbox::builder(sea_orm::Database::connect("sqlite::memory:").await?).install().await?;
    /// let orders = [OrderPlaced { order_id: 7 }, OrderPlaced { order_id: 8 }];
    /// let txn = outbox.connection().begin().await?;
    /// let ids = outbox.enqueue_many(&txn, &orders).await?;
    /// txn.commit().await?;
    /// assert_eq!(ids.len(), 2);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// Those of [`enqueue`](Self::enqueue); nothing is written when one event cannot travel.
    ///
    /// # Cancel safety
    /// That of [`enqueue`](Self::enqueue).
    pub fn enqueue_many<'a, 'e, C, E>(
        &'a self,
        txn: &'a C,
        events: impl IntoIterator<Item = &'e E>,
    ) -> BoxFuture<'a, Result<Vec<MessageId>, OutboxError>>
    where
        C: InTransaction,
        E: OutboxEvent + 'e,
    {
        let pending: Result<Vec<_>, _> = events
            .into_iter()
            .map(|event| Pending::new(event, EnqueueOptions::new(), self))
            .collect();
        Box::pin(async move {
            let pending = pending?;
            let ids = pending.iter().map(Pending::message_id).collect();
            self.write(txn, pending).await?;
            Ok(ids)
        })
    }

    /// Cancels a scheduled event; `false` when it has entered the outbox, or was never scheduled.
    ///
    /// ```
    /// # use outbox_sea_orm::prelude::*;
    /// # use sea_orm::DatabaseTransaction;
    /// # async fn example(outbox: &Outbox, txn: &DatabaseTransaction, reminder: MessageId) -> Result<(), OutboxError> {
    /// if !outbox.cancel(txn, reminder).await? {
    ///     println!("the reminder is on its way");
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`OutboxError::Database`] when the database refused.
    ///
    /// # Cancel safety
    /// As SeaORM's own: whether it was cancelled is unknown then, so roll back.
    pub fn cancel<'a, C: InTransaction>(
        &'a self,
        txn: &'a C,
        message: MessageId,
    ) -> BoxFuture<'a, Result<bool, OutboxError>> {
        Box::pin(async move { Ok(self.schema().cancel_scheduled(txn, message).await?) })
    }

    /// Saves an event through any connection, without knowing whether a transaction is open.
    ///
    /// For hooks such as `ActiveModelBehavior::after_save`, which get a connection and cannot say
    /// more of it. Where it is no transaction, data and event are not atomic: prefer
    /// [`enqueue`](Self::enqueue).
    ///
    /// ```
    /// # use outbox_sea_orm::prelude::*;
    /// # use sea_orm::{ConnectionTrait, DbErr};
    /// # #[derive(Clone, serde::Serialize, serde::Deserialize, OutboxEvent)]
    /// # #[outbox(type = "order.placed", topic = "orders")]
    /// # struct OrderPlaced { #[outbox(key)] order_id: i64 }
    /// # static OUTBOX: std::sync::OnceLock<Outbox> = std::sync::OnceLock::new();
    /// async fn after_save<C: ConnectionTrait>(order_id: i64, db: &C) -> Result<(), DbErr> {
    ///     let Some(outbox) = OUTBOX.get() else { return Ok(()) };
    ///     let saved = outbox.enqueue_unchecked(db, &OrderPlaced { order_id }).await;
    ///     saved.map(drop).map_err(|error| DbErr::Custom(error.to_string()))
    /// }
    /// ```
    ///
    /// # Errors
    /// Those of [`enqueue`](Self::enqueue).
    ///
    /// # Cancel safety
    /// That of [`enqueue`](Self::enqueue).
    pub async fn enqueue_unchecked<C, E>(
        &self,
        connection: &C,
        event: &E,
    ) -> Result<MessageId, OutboxError>
    where
        C: ConnectionTrait,
        E: OutboxEvent + ?Sized,
    {
        let pending = Pending::new(event, EnqueueOptions::new(), self)?;
        let id = pending.message_id();
        self.write(connection, vec![pending]).await?;
        Ok(id)
    }
}
