//! Samples of the last day: a row a minute and route, which one relay of the database writes.

use super::Sample;
use crate::{event::Timestamp, outbox::StoreError};
use async_trait::async_trait;

/// Reads the samples that a relay has written. They are kept for a day.
///
/// ```
/// # use outbox_core::{admin::{Sample, SampleStore}, event::Timestamp, outbox::StoreError};
/// # async fn example(store: &dyn SampleStore, since: Timestamp) -> Result<(), StoreError> {
/// for Sample { at, route, figures } in store.samples(since, 10_000).await? {
///     println!("{at} {route}: {:.1} events a second, {} wait", figures.rate(), figures.backlog);
/// }
/// # Ok(()) }
/// ```
#[async_trait]
pub trait SampleStore: Send + Sync + 'static {
    /// Lists the samples from an instant on, by minute and route, at most `limit` and at most
    /// 10,000. Where it gives as many, the last minute may lack routes: ask again from that minute.
    async fn samples(&self, since: Timestamp, limit: u32) -> Result<Vec<Sample>, StoreError>;
}
