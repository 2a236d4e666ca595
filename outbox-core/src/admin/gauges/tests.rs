use super::*;
use crate::{
    admin::{DeadLetterFilter, OperatorNote},
    event::{LetterId, MessageId},
    failure::DeadLetter,
    outbox::StoreError,
    telemetry::SeriesValue,
};
use async_trait::async_trait;
use bytes::Bytes;
use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

/// A database that answers every other time, and counts how often it is asked.
#[derive(Default)]
struct EveryOther(Arc<AtomicUsize>);

#[async_trait]
impl AdminStore for EveryOther {
    async fn stats(&self) -> Result<OutboxStats, StoreError> {
        let oldest_pending = Some(Duration::from_millis(2_500));
        let stats = OutboxStats { pending: 7, oldest_pending, retrying: 2, dead: 1 };
        match self.0.fetch_add(1, Relaxed) % 2 {
            0 => Ok(stats),
            _ => Err(StoreError::Unavailable("down".into())),
        }
    }

    async fn newest_letter(&self) -> Result<Option<LetterId>, StoreError> {
        Ok(None)
    }

    async fn dead_letters(
        &self,
        _: &DeadLetterFilter,
        _: Option<LetterId>,
        _: u32,
    ) -> Result<Vec<DeadLetter>, StoreError> {
        Ok(Vec::new())
    }

    async fn redrive(&self, _: &[LetterId], _: &OperatorNote) -> Result<Vec<LetterId>, StoreError> {
        Ok(Vec::new())
    }

    async fn discard(&self, _: &[LetterId], _: &OperatorNote) -> Result<Vec<LetterId>, StoreError> {
        Ok(Vec::new())
    }

    async fn purge(&self, _: &[LetterId], _: &OperatorNote) -> Result<Vec<LetterId>, StoreError> {
        Ok(Vec::new())
    }

    async fn resend(
        &self,
        _: LetterId,
        _: Bytes,
        _: &OperatorNote,
    ) -> Result<Option<MessageId>, StoreError> {
        Ok(None)
    }
}

#[tokio::test(start_paused = true)]
async fn a_database_is_asked_every_fifteen_seconds_at_most_and_left_out_while_it_fails() {
    let (metrics, asked) = (Metrics::new(), Arc::new(AtomicUsize::new(0)));
    let database = DatabaseGauges::new("shop", EveryOther(asked.clone()));
    let value = |metric: &str| {
        let snapshot = metrics.snapshot();
        snapshot.value(metric, &[(metric_label(), "shop")]).map(SeriesValue::number)
    };
    let names = [
        metric::PENDING.description().name,
        metric::RETRYING.description().name,
        metric::DEAD.description().name,
        metric::OLDEST_PENDING_AGE.description().name,
    ];
    let shown = [Some(7.0), Some(2.0), Some(1.0), Some(2.5)];
    for (times, expected) in [(1, shown), (2, [None; 4]), (3, shown)] {
        for _ in 0..3 {
            database.refresh(&metrics).await;
            assert_eq!((names.map(value), asked.load(Relaxed)), (expected, times));
            tokio::time::advance(READ_INTERVAL / 4).await;
        }
        tokio::time::advance(READ_INTERVAL / 4).await;
    }
}

fn metric_label() -> &'static str {
    metric::PENDING.description().labels[0]
}
