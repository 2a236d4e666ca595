//! The wire: what a transport must do, and what it may say.

mod ack_handle;
mod batch;
mod config;
mod decoded;
mod limits;
mod loopback;
mod memory;
mod nearest;
mod publisher;
mod route;
mod subscriber;

pub use crate::event::cloudevents;
#[doc(hidden)]
pub use crate::event::{one_line, printable};
#[doc(hidden)]
pub use ack_handle::AckHandle;
pub(crate) use batch::Outcomes;
pub use batch::{Batch, publish_all};
pub use config::{ConfigError, TransportFault};
pub use decoded::Decoded;
pub use limits::{Encoding, LimitError, Limits, TopicRule};
#[doc(hidden)]
pub use loopback::is_loopback;
pub use memory::{Memory, MemorySubscriber};
pub use publisher::{PublishError, Publisher, Receipt};
pub use route::{
    DEFAULT_MAX_IN_MEMORY, DEFAULT_PUBLISH_DEADLINE, Guarantee, Route, Selector, WhenDead,
    event_type, everything, route_set_hash, topic,
};
pub use subscriber::{AckDecision, Acknowledge, Delivery, SubscribeError, Subscriber};
