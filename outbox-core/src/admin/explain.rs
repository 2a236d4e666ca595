//! Why something stands still, and what moves it. Pure.

use super::Facts;
use serde::Serialize;

/// Why a subject stands still, in a sentence, with the facts behind it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// Why it stands still, and what moves it.
    pub sentence: String,
    /// The facts, by name.
    pub facts: Vec<(String, String)>,
    /// Commands that move it, if nothing moves it by itself.
    pub commands: Vec<String>,
}

/// Explains why a subject stands still.
#[must_use]
pub fn explain(facts: &Facts) -> Explanation {
    Explanation {
        sentence: format!("The store has {}.", facts.subject),
        facts: Vec::new(),
        commands: Vec::new(),
    }
}
