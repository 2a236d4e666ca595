//! Sagas: many steps, each of which is one transaction with its record; compensated in reverse
//! order where a step fails.
//!
//! A step is one [`OutboxTransaction`]: what it writes, the saga's state, its log, and the events
//! that it emits. A remote step, which another service does, is a command, which is written in that
//! transaction, and a reply, which is applied in the transaction of its inbox row: see
//! [`SagaBuilder::remote_step`](outbox_core::saga::SagaBuilder::remote_step), and
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
//!         Ok(()) // commits effect and record; an error is retried
//!     }
//!     async fn charge(&mut self, _cx: &StepContext) -> Result<Payment, StepError> {
//!         if self.total > 1_000 {
//!             return Err(StepError::abort("over the limit")); // starts compensating
//!         }
//!         Ok(Payment { id: 7 }) // stored, and passed to the compensation
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
//!     .step("reserve-stock", PlaceOrder::reserve_stock).compensate_without_output(PlaceOrder::release_stock).retries(5)
//!     .step("charge", PlaceOrder::charge).compensate(PlaceOrder::refund)
//!     .step("ship", PlaceOrder::ship).pivot()
//!     .build();
//! let sagas = Sagas::builder(&outbox).register(definition).start().await?;
//!
//! let tx = outbox.begin().await?; // in the transaction of the order itself
//! sagas.start(&tx, PlaceOrder { order_id: 7, total: 90 }).correlation("order-7").await?;
//! tx.commit().await?;
//! # sagas.shutdown(std::time::Duration::from_secs(5)).await?;
//! # Ok(()) }
//! ```

mod admin;
mod claims;
mod erasure;
mod locks;
mod names;
mod row;
mod store;

pub(crate) use names::definition_names;

pub use outbox_core::saga::{
    DONE, Instance, LogEntry, Operation, REJECTED, Record, SagaAdmin, SagaCounts, SagaData,
    SagaFilter, SagaState, SagaView, SagasError, SagasStats, Shape, Started, StepError, StepState,
    StuckSaga, UNDONE, draw, draw_instance,
};

// Met without having to be named: bounds that functions fulfil, fields of what an operator reads,
// and details of an error. The core documents them.
#[doc(hidden)]
pub use outbox_core::saga::{
    AppendOutput, BlockedOn, BranchFn, Branches, CommandHash, CommandHeadersError, CommandId,
    CommandPhase, CommandState, DefinitionId, InGroup, IntoStepError, InvalidLog, Json, Local,
    Operator, Remote, RemoteBranch, RemoteSpec, RemoteStep, Replies, SagaFault, SagaSource, Single,
    StepFn, StepProgress, StepShape, TakesFn,
};

use crate::{Outbox, OutboxTransaction};

/// The definition of a saga whose data are `D`.
pub type Saga<D> = outbox_core::saga::Saga<D, OutboxTransaction>;

/// The steps of a saga while it is defined.
///
/// ```
/// # use outbox_sea_orm::{prelude::*, saga::SagaBuilder};
/// # #[derive(serde::Serialize, serde::Deserialize)] struct PlaceOrder;
/// fn with_shipping(saga: SagaBuilder<PlaceOrder>) -> Saga<PlaceOrder> {
///     saga.step("ship", PlaceOrder::ship).pivot().build()
/// }
/// # impl PlaceOrder { async fn ship(&mut self, _: &StepContext) -> Result<(), StepError> { Ok(()) } }
/// ```
pub type SagaBuilder<D> = outbox_core::saga::SagaBuilder<D, OutboxTransaction>;

/// The step that was added last, to set how it is done and undone.
pub type StepBuilder<D, O, Place = Single> =
    outbox_core::saga::StepBuilder<D, OutboxTransaction, O, Place>;

/// A group of steps that run beside each other.
///
/// ```
/// # use outbox_sea_orm::prelude::*;
/// # #[derive(serde::Serialize, serde::Deserialize)] struct Trip;
/// # impl Trip {
/// #     async fn flight(&self, _: &StepContext) -> Result<i64, StepError> { Ok(200) }
/// #     async fn hotel(&self, _: &StepContext) -> Result<i64, StepError> { Ok(100) }
/// # }
/// let trip = Saga::<Trip>::builder("trip", 1)
///     .parallel("bookings")
///     .branch("flight", Trip::flight)
///     .branch("hotel", Trip::hotel)
///     .build();
/// assert!(trip.faults().is_empty());
/// ```
pub type GroupBuilder<D> = outbox_core::saga::GroupBuilder<D, OutboxTransaction>;

/// Starts sagas that other processes drive.
///
/// ```
/// # use outbox_sea_orm::{prelude::*, saga::SagaClient};
/// # #[derive(serde::Serialize, serde::Deserialize)] struct PlaceOrder { order_id: i64 }
/// async fn web_process(outbox: &Outbox, order: Saga<PlaceOrder>) -> Result<SagaClient, SagasError> {
///     Sagas::builder(outbox).register(order).client() // another process drives them
/// }
/// ```
pub type SagaClient = outbox_core::saga::SagaClient<Outbox>;

/// A start that is awaited.
pub type Start<'a, D> = outbox_core::saga::Start<'a, Outbox, D>;

/// The sagas of a service.
///
/// ```
/// # use outbox_sea_orm::prelude::*;
/// # use std::time::Duration;
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// #[derive(serde::Serialize, serde::Deserialize)]
/// struct PlaceOrder { order_id: i64 }
///
/// #[saga(name = "place-order")]
/// impl PlaceOrder {
///     #[step]
///     async fn ship(&mut self, _cx: &StepContext) -> Result<(), StepError> { Ok(()) }
/// }
/// # let outbox = Outbox::builder(sea_orm::Database::connect("sqlite::memory:").await?).install().await?;
/// let sagas = Sagas::builder(&outbox).register(PlaceOrder::saga()).start().await?;
/// sagas.shutdown(Duration::from_secs(10)).await?;
/// # Ok(()) }
/// ```
pub type Sagas = outbox_core::saga::Sagas<Outbox>;

/// Configures the sagas of a service.
///
/// ```
/// # use outbox_sea_orm::{prelude::*, saga::SagasBuilder};
/// fn configured(outbox: &Outbox) -> SagasBuilder {
///     Sagas::builder(outbox).concurrency(4).on_stuck(|saga| println!("stuck: {}", saga.reason))
/// }
/// ```
pub type SagasBuilder = outbox_core::saga::SagasBuilder<Outbox>;

/// The context of a step: its transaction, its saga and its attempt.
///
/// ```
/// # use outbox_sea_orm::prelude::*;
/// # use sea_orm::ConnectionTrait;
/// # struct PlaceOrder { order_id: i64 }
/// # impl PlaceOrder {
/// async fn reserve(&mut self, cx: &StepContext) -> Result<(), StepError> {
///     cx.tx.execute_unprepared("UPDATE stock SET reserved = reserved + 1").await?; // any SeaORM call
///     Ok(())
/// }
/// # }
/// ```
pub type StepContext = outbox_core::saga::StepContext<OutboxTransaction>;

impl OutboxTransaction {
    /// Starts a saga with the transaction: it is there when that commits, and begins then. Await
    /// what this gives, or name what the saga is known by first.
    ///
    /// Its definition is one that [`Sagas::builder`](Sagas) or a
    /// [`client`](SagaClient) of this process has registered on this outbox; of one
    /// type of data the newest version.
    ///
    /// ```
    /// # use outbox_sea_orm::{prelude::*, saga::{SagasError, Started}};
    /// # #[derive(serde::Serialize)] struct PlaceOrder { order_id: i64 }
    /// # async fn example(tx: &OutboxTransaction) -> Result<(), SagasError> {
    /// match tx.start_saga(PlaceOrder { order_id: 7 }).correlation("order-7").await? {
    ///     Started::New { id } => println!("{id} begins when this commits"),
    ///     Started::Running { id } => println!("{id} is at it"),
    ///     Started::AlreadyEnded { outcome, ended_at, .. } => println!("{outcome} at {ended_at}"),
    ///     _ => {}
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// Awaited: [`SagasError::NotRegistered`] and the other
    /// ones of a start, and what the database said.
    pub fn start_saga<D: 'static>(&self, data: D) -> Start<'_, D> {
        Start::by_store(self.outbox(), self, data)
    }
}
