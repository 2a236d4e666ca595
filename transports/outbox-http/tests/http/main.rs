//! The HTTP transport against real sockets on loopback.

mod attributes;
mod configuration;
mod conformance;
mod failures;
mod guard;
mod requests;
mod round_trip;
mod secrets;
mod signing;
mod slow;
mod support;
mod tls;
mod wire;
