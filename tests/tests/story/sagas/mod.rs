//! Sagas whose coordinators crash: each ends, the ledger balances, nothing is done twice.

mod campaign;
mod crashing;
mod ledger;
pub(crate) mod orders;
mod points;
