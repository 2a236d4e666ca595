//! The Redis transport against real servers on loopback, a private one for each test.

mod configuration;
mod conformance;
mod failures;
mod groups;
mod outbox;
mod receiving;
mod restart;
mod secrets;
mod support;
mod tls;
mod wire;
