//! The examples do what they say: programs of the workspace, run as people run them.

mod programs;
mod shop;
