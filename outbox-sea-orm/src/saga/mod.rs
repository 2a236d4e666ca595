//! Sagas: many steps, each one a transaction with its record, compensated in reverse order when one cannot be done.
//!
//! A step is one [`OutboxTransaction`]: what it writes, where the saga stands, its log, and the events that it emits. One
//! that another service does is a command, which goes out in that transaction, and its answer, which is taken in the one of
//! its inbox row: see [`SagaBuilder::ask`](outbox_core::saga::SagaBuilder::ask), and
//! [`HandlerContext::reply`](crate::consumer::HandlerContext::reply) for the other side.
//!
//! ```
//! use outbox_sea_orm::prelude::*;
//! use serde::{Deserialize, Serialize};
//! # use sea_orm::{ConnectionTrait, DbErr};
//!
//! #[derive(Serialize, Deserialize)]
//! struct PlaceOrder { order_id: i64, total: i64 } // the saga's data, saved after each step
//!
//! #[derive(Serialize, Deserialize)]
//! struct Payment { id: i64 }
//!
//! impl PlaceOrder {
//!     async fn reserve_stock(&mut self, cx: &StepContext) -> Result<(), StepError> {
//!         cx.tx.execute_unprepared("UPDATE stock SET reserved = reserved + 1").await?; // any SeaORM call
//!         Ok(()) // commits effect and record; an error is tried again
//!     }
//!     async fn charge(&mut self, _cx: &StepContext) -> Result<Payment, StepError> {
//!         if self.total > 1_000 {
//!             return Err(StepError::abort("over the limit")); // undoes what was done
//!         }
//!         Ok(Payment { id: 7 }) // stored, and handed to the compensation
//!     }
//!     async fn ship(&mut self, _cx: &StepContext) -> Result<(), StepError> { Ok(()) }
//!     async fn release_stock(&mut self, cx: &StepContext) -> Result<(), DbErr> {
//!         cx.tx.execute_unprepared("UPDATE stock SET reserved = reserved - 1").await.map(drop)
//!     }
//!     async fn refund(&mut self, payment: Payment, _cx: &StepContext) -> Result<(), StepError> {
//!         drop(payment);
//!         Ok(())
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let outbox = Outbox::builder(sea_orm::Database::connect("sqlite::memory:").await?).install().await?;
//! # outbox.connection().execute_unprepared("CREATE TABLE stock (reserved INT)").await?;
//! let definition = Saga::builder("place-order", 1)
//!     .step("reserve-stock", PlaceOrder::reserve_stock).compensate_plain(PlaceOrder::release_stock).retries(5)
//!     .step("charge", PlaceOrder::charge).compensate(PlaceOrder::refund)
//!     .step("ship", PlaceOrder::ship).pivot()
//!     .build();
//! let sagas = Sagas::builder(&outbox).register(definition).start().await?;
//!
//! let tx = outbox.begin().await?; // in the transaction of the data that it speaks of
//! sagas.start(&tx, PlaceOrder { order_id: 7, total: 90 }).correlation("order-7").await?;
//! tx.commit().await?;
//! # sagas.shutdown(std::time::Duration::from_secs(5)).await?;
//! # Ok(()) }
//! ```

mod admin;
mod claims;
mod locks;
mod row;
mod store;

pub use outbox_core::saga::{
    Asked, Asks, By, Call, CallFault, DONE, Held, Json, LogEntry, Operation, Phase, REJECTED,
    Record, SagaAdmin, SagaCounts, SagaData, SagaFault, SagaFilter, SagaStarts, SagaState,
    SagaView, SagasError, SagasStats, Shape, Started, StepError, StepProgress, StepState,
    StuckSaga, UNDONE, draw, draw_instance, is_answer, rebuild, reply_to,
};
pub(crate) use row::SagaTexts;

use crate::{Outbox, OutboxTransaction};

/// The definition of a saga whose data are `D`.
pub type Saga<D> = outbox_core::saga::Saga<D, OutboxTransaction>;

/// Starts sagas that other processes carry.
pub type SagaClient = outbox_core::saga::SagaClient<Outbox>;

/// A start that is awaited.
pub type Start<'a, D> = outbox_core::saga::Start<'a, Outbox, D>;

/// The sagas of a service.
pub type Sagas = outbox_core::saga::Sagas<Outbox>;

/// What a step works in: the transaction, and which saga and attempt it is.
pub type StepContext = outbox_core::saga::StepContext<OutboxTransaction>;
