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
pub type HandlerContext = outbox_core::consumer::HandlerContext<OutboxTransaction>;
