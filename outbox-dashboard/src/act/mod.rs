//! What an operator does.

use crate::routes::Entry;

/// Plans that this process applies.
#[derive(Debug, Default)]
pub(crate) struct Running {}

/// The routes of acts.
pub(crate) fn entries() -> Vec<Entry> {
    Vec::new()
}
