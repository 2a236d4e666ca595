//! The examples do what their documentation says: programs of the workspace, run as users run them.

mod programs;
mod shop;
