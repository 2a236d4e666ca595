//! The HTTP transport against real sockets on loopback.

mod configuration;
mod conformance;
mod failures;
mod guard;
mod requests;
mod round_trip;
mod secrets;
mod signing;
mod support;
mod tls;
mod wire;
