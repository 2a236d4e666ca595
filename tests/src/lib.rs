//! Tools of the tests: temporary databases, private servers, child processes, and waiting without
//! sleeping.
//!
//! It does not depend on the outbox, so that every crate's tests may use it (`tests.workspace =
//! true` under `[dev-dependencies]`). Its functions panic with a message that names what is
//! missing.

pub mod databases;
pub mod processes;
mod proxy;
pub mod servers;
mod wait;

pub use proxy::Proxy;
pub use wait::{Condition, above, equals, holds_within, in_time, wait_until};
