//! What the tests share: temporary databases, private servers, child processes, and waiting without sleeping.
//!
//! It knows nothing of the outbox, so that every crate's tests may use it (`tests.workspace = true` under
//! `[dev-dependencies]`). What it cannot do it says by a panic that names what is missing: in a test, that is the message.

pub mod databases;
pub mod processes;
mod proxy;
pub mod servers;
mod wait;

pub use proxy::Proxy;
pub use wait::{Look, above, equals, holds_within, in_time, wait_until};
