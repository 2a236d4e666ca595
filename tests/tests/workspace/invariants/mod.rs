//! The invariants of absence of `ARCHITECTURE.md` that a test can check.

mod api;
mod arrows;
mod boundaries;
mod code;
mod declaration;
mod dependencies;
mod exports;
mod guide;
mod lexer;
mod licences;
mod links;
mod logs;
mod names;
mod needs;
mod order;
mod packages;
mod readme;
mod sizes;
mod surface;
mod tree;
mod vocabulary;
