//! The relay's own connections, apart from the application's, so that neither can starve the other.

mod connect;
mod fault;
mod lane;
mod link;

pub(crate) use connect::Opener;
pub(crate) use fault::{Fault, driver_error, fault_of, store_error};
pub(crate) use lane::{Lane, Tx};
pub(crate) use link::{Arg, Link};
