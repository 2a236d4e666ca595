//! The load of the benchmarks: the events, both sides, and the checks.

pub(crate) mod broker;
pub(crate) mod checker;
pub(crate) mod fill;
pub(crate) mod floor;
pub(crate) mod kafka;
pub(crate) mod mqtt;
pub(crate) mod nats;
pub(crate) mod ours;
pub(crate) mod processes;
pub(crate) mod published;
pub(crate) mod rabbit;
pub(crate) mod receive;
pub(crate) mod redis;
