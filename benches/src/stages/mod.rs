//! The benchmarks.

pub(crate) mod asks;
pub(crate) mod brokers;
pub(crate) mod consume;
pub(crate) mod costs;
pub(crate) mod drain;
pub(crate) mod idle;
pub(crate) mod kafka;
pub(crate) mod latency;
pub(crate) mod memory;
pub(crate) mod operate;
pub(crate) mod pages;
pub(crate) mod publish;
pub(crate) mod redrive;
pub(crate) mod sagas;
pub(crate) mod slow;
pub(crate) mod write;
