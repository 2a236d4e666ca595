//! The caller's transaction, on every database.

#[cfg(test)]
mod cancellation;
#[cfg(test)]
mod delivery;
#[cfg(test)]
mod entities;
#[cfg(test)]
mod forms;
#[cfg(test)]
mod hazards;
#[cfg(test)]
mod joining;
#[cfg(test)]
mod numbers;
#[cfg(test)]
mod once;
#[cfg(test)]
mod phases;
#[cfg(test)]
mod polls;
#[cfg(test)]
mod shop;
#[cfg(test)]
mod streams;
#[cfg(test)]
mod trials;
