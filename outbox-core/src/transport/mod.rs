//! The wire: what a transport must do, and what it may say.

pub mod cloudevents;
mod config;
mod limits;
mod memory;
mod publisher;
mod route;
mod subscriber;

pub use config::{ConfigError, TransportFault};
pub use limits::{LimitError, Limits, TopicRule};
pub use memory::{Memory, MemorySubscriber};
pub use publisher::{PublishError, Publisher, Receipt};
pub use route::{
    DEFAULT_PUBLISH_DEADLINE, Guarantee, Route, Selector, WhenDead, event_type, everything, route_set_hash, topic,
};
pub use subscriber::{Acknowledge, Delivery, SubscribeError, Subscriber};
