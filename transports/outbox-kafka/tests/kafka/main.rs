//! The Kafka transport against a real broker on loopback: the shared one, under topics and groups
//! of each test's own, or a private one where the broker is to suffer.

mod configuration;
mod conformance;
mod failures;
mod groups;
mod mocks;
mod outbox;
mod receiving;
mod restart;
mod support;
