//! Emitted code under every lint.

#![deny(warnings, missing_docs, unused, unreachable_pub, rust_2018_idioms, unused_qualifications)]
#![deny(unused_results, single_use_lifetimes, elided_lifetimes_in_paths)]

use crate::support::*;

/// A documented function, with other attributes.
#[must_use = "it does nothing until it is awaited"]
#[transactional_outbox(isolation = Serializable, retry = 2, emit = |id| OrderPlaced::from(id))]
#[inline]
async fn place(tx: &OutboxTransaction, id: i64) -> Result<i64, AppError> {
    let _ = tx.execute_unprepared("SELECT 1").await?;
    Ok(id)
}

#[transactional_outbox]
#[cfg(all())]
async fn never(_tx: &OutboxTransaction, id: i64) -> Result<i64, AppError> {
    match id {
        0 => return Ok(0),
        _ => Err(AppError::Refused),
    }
}

pub(crate) fn main() {
    run(async {
        let outbox = outbox().await;
        assert_eq!(place(&outbox, 1).await.unwrap(), 1);
        assert_eq!(never(&outbox, 0).await.unwrap(), 0);
        assert_eq!(events(&outbox).await, 1);
    });
}
