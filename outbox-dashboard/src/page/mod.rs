//! The pages that read.

pub(crate) mod layout;
pub(crate) mod text;
pub(crate) mod assets;
pub(crate) mod follow;
pub(crate) mod overview;
pub(crate) mod routes;
pub(crate) mod letters;
pub(crate) mod letter;
pub(crate) mod sagas;
pub(crate) mod saga;
pub(crate) mod waiting;
pub(crate) mod audit;
pub(crate) mod doctor;

pub(crate) use layout::{Layout, Tab, html, not_found};
