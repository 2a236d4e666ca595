//! The examples do what their documentation says: programs of the workspace, run as users run them.

mod operate;
mod programs;
mod shop;
