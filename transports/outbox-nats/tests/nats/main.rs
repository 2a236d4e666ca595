//! The NATS transport against real servers, a private one for each test.

mod configuration;
mod conformance;
mod failures;
mod faults;
mod receiving;
mod secrets;
mod support;
mod tls;
mod wire;
