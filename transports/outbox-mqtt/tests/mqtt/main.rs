//! The MQTT transport against real Mosquittos, a private one for each test.

mod conformance;
mod restart;
mod support;
