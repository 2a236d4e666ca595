//! Sagas whose coordinators die: each ends, the ledger balances, nothing is done twice.

mod campaign;
mod deadly;
mod ledger;
pub(crate) mod orders;
mod points;
