//! The pages that read. Each asks the databases for its view, and draws it.

pub(crate) mod frame;
pub(crate) mod follow;
pub(crate) mod overview;
pub(crate) mod routes;
pub(crate) mod letters;
pub(crate) mod letter;
pub(crate) mod sagas;
pub(crate) mod saga;
pub(crate) mod participants;
pub(crate) mod lists;

pub(crate) use frame::{
    asking::{ask_all, cut_to_page},
    assets, given, layout,
    layout::{Body, Layout, Notice, Tab, View, not_found, shell},
    text,
};
pub(crate) use lists::{audit, doctor, waiting};
