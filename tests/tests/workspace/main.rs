//! What holds for the whole tree, and the tools that all tests stand on.

#[cfg(test)]
mod invariants;
#[cfg(test)]
mod tools;
