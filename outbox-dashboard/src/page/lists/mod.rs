//! Pages that are lists alone.

pub(crate) mod waiting;
pub(crate) mod audit;
pub(crate) mod doctor;
