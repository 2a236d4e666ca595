//! What most programs use.

pub use crate::{
    BoxError, EnqueueOptions, OnDuplicate, Outbox, OutboxError, OutboxEvent, OutboxTransaction,
    Outcome, Phase, Transactional, event_handler, saga,
    saga::{Saga, SagaData, Sagas, SagasError, Started, StepContext, StepError},
    transactional_outbox,
};
pub use outbox_core::{
    consumer::{Consumer, ConsumerBuilder, HandlerError},
    event::{Message, MessageId},
    failure::RetryPolicy,
    relay::Relay,
    transport::{Memory, Route, event_type, everything, topic},
};

/// What a handler works in: the inbox's transaction, and the message.
///
/// ```
/// # use outbox_sea_orm::prelude::*;
/// # #[derive(Clone, serde::Serialize, serde::Deserialize, OutboxEvent)]
/// # #[outbox(type = "order.placed", topic = "orders")]
/// # struct OrderPlaced { #[outbox(key)] order_id: i64 }
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let outbox = Outbox::builder(sea_orm::Database::connect("sqlite::memory:").await?).install().await?;
/// async fn bill(order: OrderPlaced, cx: &HandlerContext) -> Result<(), OutboxError> {
///     cx.tx.emit(OrderPlaced { order_id: order.order_id + 1 })?; // with the inbox row, or not at all
///     Ok(())
/// }
/// let order = OrderPlaced { order_id: 7 };
/// let cx = HandlerContext::for_test(outbox.begin().await?, Message::for_test(&order)?);
/// bill(order, &cx).await?;
/// cx.tx.commit().await?;
/// # Ok(()) }
/// ```
pub type HandlerContext = outbox_core::consumer::HandlerContext<OutboxTransaction>;
