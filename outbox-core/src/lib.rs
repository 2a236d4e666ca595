//! Reliable events between services: saved in the transaction of the data, published by a relay, handled once.
//!
//! Each module is one stage of an event:
//!
//! ```text
//! domain code -> macros -> event -> outbox (caller's transaction) -> commit -> wake
//!    -> relay: reader -> dispatcher -> publisher -> transport -> settler
//!         failure -> retry -> dead letter -> redrive
//!    -> broker / HTTP -> subscriber -> inbox (handler's transaction) -> handler -> ack
//! ```
//!
//! This crate names no database, no broker and no HTTP. Applications depend on `outbox-saga-sea-orm`, which lists what they
//! need of it; stores and transports depend on this crate.

pub mod consumer;
pub mod event;
pub mod failure;
mod maintenance;
pub mod outbox;
pub mod admin;
pub mod relay;
pub mod saga;
pub mod runtime;
pub mod telemetry;
#[cfg(feature = "testing")]
pub mod testing;
pub mod transport;

#[cfg(feature = "macros")]
pub use outbox_macros::{OutboxEvent, event_handler};

// What the macros emit names the crate, in its own tests too.
#[cfg(all(test, feature = "macros"))]
extern crate self as outbox_core;

/// Paths for the code that the macros emit. Not part of the public API.
#[doc(hidden)]
pub mod __private {
    pub use crate::consumer::{
        ContextTx, EventHandler, EventHandlers, HandlerContext, HandlerError, HandlerOptions,
        HandlerSet,
    };
    pub use crate::event::emitted::{JsonWriter, VariantContent, empty_json, encode_with};
    pub use crate::event::{
        DecodeError, DecodeEvent, EncodeError, EventContract, EventMeta, EventType, KeyPart,
        Message, OutboxEvent, Upcast, encode_json,
    };
    pub use crate::failure::RetryPolicy;
    pub use crate::outbox::Store;
    pub use ::core;
    pub use bytes::Bytes;
    pub use serde;
    pub use serde_json;
    pub use std::sync::Arc;
}

/// The code of the README, which the doc tests compile.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct ReadmeExamples;
