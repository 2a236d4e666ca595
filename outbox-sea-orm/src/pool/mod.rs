//! The framework's own connections, apart from the application's, so that neither can starve the other: those of relays, and
//! those of handlers, steps and operators.

mod connect;
mod fault;
mod lane;
mod link;
mod pooler;
mod size;
mod work;

pub(crate) use connect::Opener;
pub(crate) use fault::{Fault, driver_error, fault_of, is_denied, overdue, store_error};
pub(crate) use lane::{Lane, Tx};
pub(crate) use link::{Arg, Link};
pub(crate) use pooler::{NEEDED as NEEDED_OF_POOLER, check as check_pooler, mixes_statements};
pub use work::TransactionLimits;
pub(crate) use work::{Bound, WorkPool};
