//! Times, counts and texts, as pages show them.
