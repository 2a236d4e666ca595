//! The wire: what a transport must do, and what it may say.

mod batch;
mod config;
mod limits;
mod memory;
mod nearest;
mod publisher;
mod route;
mod subscriber;

pub use crate::event::cloudevents;
pub(crate) use batch::Outcomes;
pub use batch::{Batch, publish_all};
pub use config::{ConfigError, TransportFault};
pub use limits::{Encoding, LimitError, Limits, TopicRule};
pub use memory::{Memory, MemorySubscriber};
pub use publisher::{PublishError, Publisher, Receipt};
pub use route::{
    DEFAULT_MAX_IN_MEMORY, DEFAULT_PUBLISH_DEADLINE, Guarantee, Route, Selector, WhenDead,
    event_type, everything, route_set_hash, topic,
};
pub use subscriber::{AckDecision, Acknowledge, Delivery, SubscribeError, Subscriber};
