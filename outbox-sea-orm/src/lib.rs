//! The transactional outbox on SeaORM: events are saved in the transaction of the data that they
//! speak of, and a relay carries them to where they are wanted. SQLite, PostgreSQL, MySQL and
//! MariaDB.
//!
//! ```
//! use outbox_sea_orm::prelude::*;
//! # use outbox_sea_orm::event::{EncodeError, EventMeta};
//! # struct OrderPlaced { order_id: i64 }
//! # impl OutboxEvent for OrderPlaced {
//! #     fn meta(&self) -> EventMeta<'_> { EventMeta::new("order.placed").key(Some(self.order_id.to_string())) }
//! #     fn payload(&self) -> Result<bytes::Bytes, EncodeError> { Ok(bytes::Bytes::from_static(b"{}")) }
//! # }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let db = sea_orm::Database::connect("sqlite::memory:").await?;
//! let outbox = Outbox::builder(db).source("orders").install().await?;
//!
//! let tx = outbox.begin().await?;
//! // .. any SeaORM call with `&tx` ..
//! tx.emit(OrderPlaced { order_id: 7 })?;
//! tx.commit().await?; // data and event, or neither
//! # Ok(()) }
//! ```
//!
//! Follow one event; every module is one stage of its life. This crate lists what a program needs of
//! [`outbox_core`]: depend on it alone. The author of a store or a transport depends on
//! [`outbox_core`] as well.
#![cfg_attr(
    not(all(feature = "sqlx-postgres", feature = "sqlx-mysql")),
    expect(dead_code, reason = "what belongs to the databases that are left out")
)]

mod admin_store;
mod chunks;
mod control;
mod dialect;
mod doctor;
pub mod entity;
mod error;
mod inspect;
pub mod listener;
mod migration;
mod namespace;
mod notify;
mod outbox;
mod pool;
pub mod prelude;
pub mod saga;
#[doc(hidden)]
#[path = "private.rs"]
pub mod __private;
mod schema;
mod store;
mod transaction;

pub use dialect::Dialect;
pub use error::{BoxError, OutboxError};
pub(crate) use migration::MAX_PARTITIONS;
pub use migration::OutboxMigration;
pub use namespace::Namespace;
pub use outbox::{EnqueueOptions, OnDuplicate, Outbox, OutboxBuilder, Responded, RouteLimits};
#[cfg(feature = "testing")]
pub use outbox_core::testing;
pub use outbox_core::{event::OutboxEvent, outbox::StoreError};
pub use outbox_macros::{OutboxEvent, event_handler, saga, transactional_outbox};
pub use pool::TransactionLimits;
pub use schema::Schema;
pub use store::Retention;
pub use transaction::{OutboxTransaction, Outcome, Phase, Transactional};

// What a program meets without having to name it: a bound that SeaORM's transactions fulfil, details
// of an error, the rows of a stream.
#[doc(hidden)]
pub use namespace::NamespaceError;
#[doc(hidden)]
pub use outbox::InTransaction;
#[doc(hidden)]
pub use transaction::TransactionRows;

// For tests of the statements and for benchmarks: a program gets all of this from `Outbox`.
#[doc(hidden)]
pub use migration::install;
#[cfg(feature = "testing")]
#[doc(hidden)]
pub use migration::next;
#[doc(hidden)]
pub use notify::Notifier;
#[doc(hidden)]
pub use schema::{DedupConflict, DedupReservation, DeliverAt};
#[doc(hidden)]
pub use store::{StoreOptions, open_relay_store};

// The modules below list what a program needs of the core. What it meets without having to name it
// is hidden: bounds that closures fulfil, fields of what it reads, details of an error. The core
// documents these.

/// What an operator sees of events and dead letters, and does with them.
pub mod admin {
    pub use outbox_core::{
        admin::{AdminStore, DeadLetterFilter, OperatorNote, purge_all, redrive_all},
        outbox::OutboxStats,
    };

    #[doc(hidden)]
    pub use outbox_core::admin::{
        Control, ControlAction, ControlFault, ControlScope, ControlStore, Controls, Live,
        LiveStore, OperatorRows, Progress,
    };
}

/// The consumer: handlers whose effects commit with the inbox row.
pub mod consumer {
    pub use outbox_core::consumer::{
        AckMode, ConcurrencyLimit, Consumer, ConsumerBuilder, ConsumerError, ConsumerStats,
        DeadLetters, EventHandler, HandlerContext, HandlerError, HandlerLayer, HandlerOptions,
        KillSwitch, Next, Timeout, Tombstone, UnhandledPolicy, capturing,
    };

    #[doc(hidden)]
    pub use outbox_core::{
        consumer::{
            ConsumerFault, EventHandlers, HandlerFn, HandlerSet, HandlerTrials, ReplyError, Trial,
            TrialEvent, TrialRefusal, TrialResult,
        },
        outbox::{ConsumerStore, Store, TableChange},
    };
}

/// Events, and the messages that carry them.
pub mod event {
    pub use outbox_core::event::{
        CorrelationContext, EncodeError, EventMeta, Headers, KeyPart, LetterId, Message, MessageId,
        OutboxEvent, PayloadCodec, SagaId, Timestamp,
    };

    #[doc(hidden)]
    pub use outbox_core::event::{
        CodecContext, CodecFault, CorrelationError, DecodeError, DecodeEvent, EncodedPayload,
        EventContract, EventId, EventType, HeaderError, JsonError, MessageParts, NewEvent,
        NoInstant, PAYLOAD_CODEC, PAYLOAD_KEY, PayloadEncoding, Upcast, UpcastError, encode_json,
    };
}

/// Failures: retry policies, and the dead letters that are left when a policy gives up.
pub mod failure {
    pub use outbox_core::failure::{DeadLetter, DeadReason, FailureClass, RetryPolicy};

    #[doc(hidden)]
    pub use outbox_core::failure::{AttemptError, ConsumerOrigin, Decision, Resolution};
}

/// The relay, which publishes the events of the outbox.
pub mod relay {
    pub use outbox_core::relay::{Relay, RelayBuilder, RelayError, RelayStats};

    #[doc(hidden)]
    pub use outbox_core::relay::{RelayFault, RelaySettings, RelaySource};
}

/// The end of a process: relays, consumers and sagas stop in time.
pub mod runtime {
    pub use outbox_core::runtime::{Running, Shutdown, run_until_signal};

    #[doc(hidden)]
    pub use outbox_core::runtime::{ExitCounts, ProcessError, Restarts, SupervisorError, Wake};
}

/// Routes, publishers and subscribers.
pub mod transport {
    pub use outbox_core::transport::{
        Batch, Delivery, LimitError, Limits, Memory, PublishError, Publisher, Receipt, Route,
        Selector, Subscriber, event_type, everything, topic,
    };

    #[doc(hidden)]
    pub use outbox_core::transport::{
        Acknowledge, Decoded, Encoding, MemorySubscriber, SubscribeError, TopicRule, publish_all,
    };
}

/// The code of the README, which the doc tests compile.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct ReadmeExamples;
