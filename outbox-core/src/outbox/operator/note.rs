//! Who operates, and why.

/// The operator and the reason of an operation; stored with it.
///
/// ```
/// # use outbox_core::admin::OperatorNote;
/// let note = OperatorNote::new("ann", "billing is repaired");
/// assert_eq!((note.by.as_str(), note.force), ("ann", false));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OperatorNote {
    /// The operator, such as a login name.
    pub by: String,
    /// The reason, in the operator's words.
    pub reason: String,
    /// Whether to do also what is refused otherwise; see
    /// [`AdminStore::redrive`](crate::admin::AdminStore::redrive).
    pub force: bool,
}

impl OperatorNote {
    /// Makes a note with the operator and the reason.
    pub fn new(by: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { by: by.into(), reason: reason.into(), force: false }
    }

    /// Forces the operation.
    #[must_use]
    pub fn force(mut self) -> Self {
        self.force = true;
        self
    }
}
