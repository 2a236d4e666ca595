//! The MQTT transport against real Mosquittos, a private one for each test.

mod configuration;
mod conformance;
mod failures;
mod fake;
mod faults;
mod groups;
mod outbox;
mod receiving;
mod restart;
mod secrets;
mod support;
mod tls;
mod wire;
