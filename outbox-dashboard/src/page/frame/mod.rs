//! What all pages are made of.

pub(crate) mod text;
pub(crate) mod json;
pub(crate) mod given;
pub(crate) mod asking;
pub(crate) mod assets;
pub(crate) mod layout;
