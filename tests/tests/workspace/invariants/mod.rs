//! The invariants of absence of `ARCHITECTURE.md` that a test can check.

mod api;
mod boundaries;
mod code;
mod declaration;
mod dependencies;
mod exports;
mod lexer;
mod logs;
mod names;
mod order;
mod readme;
mod surface;
mod tree;
mod vocabulary;
