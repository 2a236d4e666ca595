//! The consumer with real brokers: a redelivered message has its effect once.

mod deaths;
#[cfg(feature = "kafka")]
mod kafka;
mod mqtt;
mod once;
