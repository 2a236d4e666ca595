//! The macros as their users meet them: what they print, what the printed code does, what they say of mistakes.
//!
//! `TRYBUILD=overwrite` accepts new compiler messages, `SNAPSHOTS=overwrite` new expansions. To run a part of the cases:
//! `cargo test -p outbox-macros --test macros -- ui trybuild=event/fail/ttl`.

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
mod snapshots;

/// Each case in `ui/<macro>/pass` compiles and runs; each in `ui/<macro>/fail` fails with the messages beside it.
#[test]
fn ui() {
    let cases = trybuild::TestCases::new();
    cases.pass("tests/ui/*/pass/*.rs");
    cases.compile_fail("tests/ui/*/fail/*.rs");
}
