//! The RabbitMQ transport against a real server on loopback: the shared one, under names of each
//! test's own, or a private one where the server is to suffer.

mod configuration;
mod conformance;
mod failures;
mod faults;
mod outbox;
mod receiving;
mod sagas;
mod secrets;
mod strange;
mod support;
mod tls;
mod wire;
