//! Refuses new events of the application while too many wait: a broker that is away for days must
//! not fill the database's disk.

use super::Outbox;
use crate::{error::OutboxError, transaction::is_in_work};
use outbox_core::runtime::now;
use sea_orm::{ConnectionTrait, DbErr};
use std::{
    error::Error,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};
use tokio::runtime::Handle;

/// The shortest pause between two counts.
const COUNT_EVERY: Duration = Duration::from_secs(1);
/// The pause after a count, by how long the count took: it costs at most a twentieth of a
/// connection.
const PAUSE_BY_COUNT: u32 = 20;

/// How many events may wait, and what the last count said.
#[derive(Debug)]
pub(super) struct WaitingLimit {
    limit: u64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Whether the last count reached the limit.
    is_reached: bool,
    /// Whether a count runs.
    is_counting: bool,
    /// When the next one is due; `None` for at once.
    next_count: Option<Instant>,
}

impl WaitingLimit {
    pub(super) fn new(limit: u64) -> Self {
        Self { limit, state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells whether a count is due, and then counts as running.
    fn begin_count(&self, at: Instant) -> bool {
        let mut state = self.state();
        let is_due = !state.is_counting && state.next_count.is_none_or(|next| next <= at);
        state.is_counting |= is_due;
        is_due
    }

    /// Notes a count; gives whether the limit is reached, where that has changed.
    fn end_count(&self, begun: Instant, ended: Instant, counted: Option<u64>) -> Option<bool> {
        let mut state = self.state();
        let pause = COUNT_EVERY.max(ended.duration_since(begun) * PAUSE_BY_COUNT);
        (state.is_counting, state.next_count) = (false, Some(ended + pause));
        let is_reached = counted? >= self.limit;
        (std::mem::replace(&mut state.is_reached, is_reached) != is_reached).then_some(is_reached)
    }
}

impl Outbox {
    /// Refuses an event of the application while the limit is reached. What handlers and steps
    /// emit is not refused: they go on with what was accepted before.
    pub(crate) fn check_waiting(&self, is_work: bool) -> Result<(), OutboxError> {
        let Some(waiting) = &self.0.waiting_limit else { return Ok(()) };
        if is_work || is_in_work(self) {
            return Ok(());
        }
        if let Ok(runtime) = Handle::try_current()
            && waiting.begin_count(now())
        {
            let inner = std::sync::Arc::clone(&self.0);
            runtime.spawn(async move { Self(inner).count_for_limit().await });
        }
        if waiting.state().is_reached {
            return Err(OutboxError::TooManyWaiting { limit: waiting.limit });
        }
        Ok(())
    }

    /// Counts the waiting events, up to the limit, and says when it is reached and when no longer.
    async fn count_for_limit(&self) {
        let Some(waiting) = &self.0.waiting_limit else { return };
        let begun = now();
        let counted = self.count_up_to(waiting.limit).await;
        if let Err(error) = &counted {
            tracing::debug!(
                error = error as &dyn Error,
                "the waiting events could not be counted for their limit"
            );
        }
        let (source, limit) = (self.source(), waiting.limit);
        match waiting.end_count(begun, now(), counted.ok()) {
            Some(true) => tracing::warn!(
                source,
                limit,
                "as many events wait as `max_waiting` allows: new ones of the application are refused until relays have published \
                 some; `outbox explain` says why they wait"
            ),
            Some(false) => {
                tracing::info!(source, limit, "fewer events wait than `max_waiting` allows again");
            }
            None => {}
        }
    }

    async fn count_up_to(&self, limit: u64) -> Result<u64, DbErr> {
        let schema = self.schema();
        let sql = schema.filled(&format!(
            "SELECT COUNT(*) AS waiting FROM (SELECT 1 AS one FROM {{events}} LIMIT {limit}) AS w"
        ));
        let row = self.work().query_one_raw(schema.statement(&sql, Vec::new())).await?;
        let counted: i64 = row.map_or(Ok(0), |row| row.try_get("", "waiting"))?;
        Ok(counted.unsigned_abs())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_runs_once_at_a_time_and_a_second_after_the_last_or_later_where_it_is_slow() {
        let limit = WaitingLimit::new(10);
        let start = now();
        let at = |ms| start + Duration::from_millis(ms);
        assert!(limit.begin_count(at(0)) && !limit.begin_count(at(5_000)), "one runs");
        assert_eq!(limit.end_count(at(0), at(10), Some(3)), None);
        assert!(!limit.begin_count(at(1_009)) && limit.begin_count(at(1_010)));
        limit.end_count(at(1_010), at(1_210), Some(3));
        assert!(!limit.begin_count(at(5_209)) && limit.begin_count(at(5_210)), "twenty times 200");
    }

    #[test]
    fn the_limit_is_reached_and_left_once_each_and_a_count_that_fails_changes_nothing() {
        let limit = WaitingLimit::new(10);
        let told = |counted| {
            assert!(limit.begin_count(now() + Duration::from_hours(1)));
            limit.end_count(now(), now(), counted)
        };
        for (counted, expected, reached) in [
            (Some(9), None, false),
            (Some(10), Some(true), true),
            (Some(10), None, true),
            (None, None, true),
            (Some(9), Some(false), false),
            (None, None, false),
        ] {
            assert_eq!((told(counted), limit.state().is_reached), (expected, reached));
        }
    }
}
