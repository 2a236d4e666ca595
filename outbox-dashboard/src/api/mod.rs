//! The documents for programs.

use crate::routes::Entry;

/// The routes of the API.
pub(crate) fn entries() -> Vec<Entry> {
    Vec::new()
}
