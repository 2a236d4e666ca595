//! The tools of the tests, tried on the real thing.

mod databases;
mod processes;
mod servers;
mod waiting;
