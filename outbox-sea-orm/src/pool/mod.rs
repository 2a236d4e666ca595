//! The framework's own connections, apart from the application's, so that neither can starve the
//! other: those of relays, and those of handlers, steps and operators.

mod connector;
mod relay_connection;
mod run_to_completion;
mod open_pool;
mod single_statement;
mod work_pool;
mod pooler;
mod error_class;

pub use crate::dialect::TransactionLimits;
pub(crate) use crate::dialect::{Arg, DriverConnection};
pub(crate) use connector::Connector;
pub(crate) use error_class::{
    DbErrorClass, classify, driver_error, is_denied, is_missing_savepoint, response_timeout,
    store_error,
};
pub(crate) use pooler::{POOLER_REQUIREMENT, check as check_pooler, is_mixed_statement_error};
pub(crate) use relay_connection::{RelayConnection, Tx};
pub(crate) use run_to_completion::RunToCompletion;
pub(crate) use work_pool::{Begun, ResponseDeadline, WorkPool};
