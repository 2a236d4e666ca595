//! Amazon SQS and SNS, as two emulators stand for them: what the transport promises, what the
//! service refuses, and what becomes of it when the service is gone. Neither emulator is Amazon's
//! own, and both forget everything when they end.

mod fake;
mod support;

mod configuration;
mod conformance;
mod extending;
mod failures;
mod faults;
mod fifo;
mod receiving;
mod secrets;
mod topics;
mod wire;
