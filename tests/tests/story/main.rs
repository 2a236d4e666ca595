//! The system's own story: what is promised of the whole, against real databases, processes and their deaths.

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
mod stage;
#[cfg(test)]
mod trial;
#[cfg(test)]
mod trips;

#[cfg(test)]
use stage::event;
