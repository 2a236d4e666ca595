//! The rollback of a transaction that is of no use any more.

use super::Store;
use crate::failure::full_text;

/// Rolls a transaction back; a failure is only logged, since nothing depends on it.
pub(crate) async fn roll_back<S: Store>(store: &S, tx: S::Tx) {
    if let Err(error) = store.rollback(tx).await {
        tracing::debug!(
            error = full_text(&error),
            "a rollback failed; the database rolls back when the connection ends"
        );
    }
}
