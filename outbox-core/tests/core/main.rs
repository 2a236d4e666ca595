//! The core's own story, on a store and a transport in memory.
#![cfg(feature = "testing")]

mod consumer_answers;
mod consumer_commands;
mod consumer_flow;
mod consumer_options;
mod consumer_stored;
mod support;
