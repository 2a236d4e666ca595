//! What is carried, by whom, and who checks it.

pub(crate) mod checker;
pub(crate) mod fill;
pub(crate) mod floor;
pub(crate) mod kafka;
pub(crate) mod ours;
pub(crate) mod rabbit;
pub(crate) mod receive;
