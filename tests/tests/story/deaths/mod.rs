//! Processes, connections and servers end at the worst moments, and no event is lost.

mod faults;
mod points;
mod shutdown;
mod takeover;
mod zombies;
