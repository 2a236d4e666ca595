//! A count that stops at a limit: no question walks a whole table.

use serde::{Deserialize, Serialize};
use std::fmt;

/// A count that stops at a limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bounded {
    /// The count.
    pub count: u64,
    /// Whether there may be more.
    pub or_more: bool,
}

impl fmt::Display for Bounded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.count, if self.or_more { "+" } else { "" })
    }
}
