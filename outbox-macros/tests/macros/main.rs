//! The macros as their users meet them: what they print, and what the printed code does. What they say of mistakes is in the
//! test `compile`. `SNAPSHOTS=overwrite` accepts new expansions.

// The macros' own sources: a procedural macro exports nothing else that tests could call.
#[path = "../../src/attr.rs"]
mod attr;
#[path = "../../src/event/mod.rs"]
mod event;
#[path = "../../src/fallback.rs"]
mod fallback;
#[path = "../../src/handler/mod.rs"]
mod handler;
#[path = "../../src/paths.rs"]
mod paths;
#[path = "../../src/saga/mod.rs"]
mod saga;
#[path = "../../src/transactional/mod.rs"]
mod transactional;

mod decoding;
mod manifests;
mod rules;
mod serde_attributes;
mod snapshots;
