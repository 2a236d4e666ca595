//! The invariants of absence of `ARCHITECTURE.md` that a program can check.

mod code;
mod dependencies;
mod lexer;
mod logs;
mod names;
mod order;
mod readme;
mod rooms;
mod tree;
