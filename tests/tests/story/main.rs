//! The promises of the whole system, tested with real databases and with processes that crash.

#[cfg(test)]
mod broker;
#[cfg(test)]
mod deaths;
#[cfg(test)]
mod examples;
#[cfg(test)]
mod failures;
#[cfg(test)]
mod logs;
#[cfg(test)]
mod order;
#[cfg(test)]
mod received;
#[cfg(test)]
mod rollouts;
#[cfg(test)]
mod sagas;
#[cfg(test)]
mod support;
#[cfg(test)]
mod trial;
#[cfg(test)]
mod trips;

#[cfg(test)]
use support::event;
