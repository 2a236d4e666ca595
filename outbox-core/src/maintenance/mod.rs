//! What keeps the outbox clean: scheduled events that come due, and rows whose retention has
//! passed.

pub(crate) mod janitor;
