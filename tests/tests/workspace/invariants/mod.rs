//! The invariants of absence of `ARCHITECTURE.md` that a test can check.

mod arrows;
mod boundaries;
mod code;
mod dependencies;
mod exports;
mod lexer;
mod licences;
mod logs;
mod names;
mod order;
mod readme;
mod sizes;
mod tree;
mod vocabulary;
