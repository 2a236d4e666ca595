//! The core's own story, on a store and a transport in memory.
#![cfg(feature = "testing")]

mod consumer_answers;
mod consumer_commands;
mod consumer_deaths;
mod consumer_flow;
mod consumer_forms;
mod consumer_limits;
mod consumer_metrics;
mod consumer_options;
mod consumer_pauses;
mod consumer_renames;
mod consumer_stored;
mod consumer_trials;
mod consumer_versions;
mod consumer_tombstones;
mod support;
