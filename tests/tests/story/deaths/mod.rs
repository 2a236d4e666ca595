//! Processes, connections and servers end when it hurts most, and nothing is lost by it.

mod faults;
mod points;
mod shutdown;
mod takeover;
mod zombies;
