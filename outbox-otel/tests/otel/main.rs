//! Spans and metrics of services, read back from a collector that the tests start.

#[cfg(test)]
mod collector;
#[cfg(test)]
mod metrics;
#[cfg(test)]
mod placement;
#[cfg(test)]
mod services;
#[cfg(test)]
mod trace;
// The shop of the tests of `outbox-metrics`, in which each metric happens.
#[cfg(test)]
#[path = "../../../outbox-metrics/tests/metrics/world.rs"]
mod world;
