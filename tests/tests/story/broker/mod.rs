//! The consumer before real brokers: what is delivered again has its effect once.

mod deaths;
mod kafka;
mod once;
