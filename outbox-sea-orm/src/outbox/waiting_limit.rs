//! Refuses new events of the application while too many wait: a broker that is away for days must
//! not fill the database's disk.

use super::Outbox;
use crate::{error::OutboxError, transaction::is_in_work};
use outbox_core::runtime::now;
use sea_orm::{ConnectionTrait, DbErr};
use std::{
    error::Error,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};
use tokio::runtime::Handle;

/// The shortest pause between two counts.
const COUNT_EVERY: Duration = Duration::from_secs(1);
/// The pause after a count, by how long the count took: it costs at most a twentieth of a
/// connection.
const PAUSE_BY_COUNT: u32 = 20;
/// The longest pause between two counts: relays publish much in it.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// How long after its next one was due a count says nothing any more.
const OUTDATED_AFTER: Duration = Duration::from_secs(60);

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
    /// Whether counts fail since one was warned of.
    is_failing: bool,
    /// When the next one is due; `None` for at once.
    next_count: Option<Instant>,
}

/// What a count has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Change {
    Reached,
    Left,
    /// The first count that fails since one succeeded.
    Fails,
}

/// A count that runs; dropped, it does no more, however it ended.
#[derive(Debug)]
struct RunningCount(Arc<WaitingLimit>);

impl Drop for RunningCount {
    fn drop(&mut self) {
        self.0.state().is_counting = false;
    }
}

impl RunningCount {
    /// Notes how many events wait, or that the count failed; gives what has changed.
    fn end(self, took: Duration, ended: Instant, counted: Option<u64>) -> Option<Change> {
        let mut state = self.0.state();
        let pause = match counted {
            Some(_) => took.saturating_mul(PAUSE_BY_COUNT).clamp(COUNT_EVERY, LONGEST_PAUSE),
            None => COUNT_EVERY,
        };
        state.next_count = Some(ended + pause);
        let was_failing = std::mem::replace(&mut state.is_failing, counted.is_none());
        let Some(counted) = counted else { return (!was_failing).then_some(Change::Fails) };
        let is_reached = counted >= self.0.limit;
        let was_reached = std::mem::replace(&mut state.is_reached, is_reached);
        (was_reached != is_reached).then_some(match is_reached {
            true => Change::Reached,
            false => Change::Left,
        })
    }
}

impl WaitingLimit {
    pub(super) fn new(limit: u64) -> Arc<Self> {
        Arc::new(Self { limit, state: Mutex::default() })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a count where one is due. Where it was due for long, what the last one said is
    /// forgotten.
    fn begin_count(self: &Arc<Self>, at: Instant) -> Option<RunningCount> {
        let mut state = self.state();
        if state.is_counting || state.next_count.is_some_and(|next| next > at) {
            return None;
        }
        state.is_counting = true;
        state.is_reached &= state.next_count.is_none_or(|next| at < next + OUTDATED_AFTER);
        Some(RunningCount(Arc::clone(self)))
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
            && let Some(count) = waiting.begin_count(now())
        {
            let inner = Arc::clone(&self.0);
            runtime.spawn(async move { Self(inner).count_for_limit(count).await });
        }
        if waiting.state().is_reached {
            return Err(OutboxError::TooManyWaiting { limit: waiting.limit });
        }
        Ok(())
    }

    /// Counts the waiting events, up to the limit, and says when it is reached and when no longer.
    async fn count_for_limit(&self, count: RunningCount) {
        let (source, limit) = (self.source(), count.0.limit);
        let begun = now();
        let counted = self.count_up_to(limit).await;
        let ended = now();
        match count.end(ended.duration_since(begun), ended, counted.as_ref().ok().copied()) {
            Some(Change::Reached) => tracing::warn!(
                source,
                limit,
                "as many events wait as `max_waiting` allows: new ones of the application are refused until relays have published \
                 some; `outbox explain` says why they wait"
            ),
            Some(Change::Left) => {
                tracing::info!(source, limit, "fewer events wait than `max_waiting` allows again");
            }
            Some(Change::Fails) => tracing::warn!(
                source,
                limit,
                error = counted.as_ref().err().map(|error| error as &dyn Error),
                "the waiting events could not be counted for `max_waiting`: what the last count said holds until one succeeds"
            ),
            None => {}
        }
    }

    /// Counts over the connections of reads: a slow count takes none of those of handlers.
    async fn count_up_to(&self, limit: u64) -> Result<u64, DbErr> {
        let schema = self.schema();
        let sql = schema.filled(&format!(
            "SELECT COUNT(*) AS waiting FROM (SELECT 1 AS one FROM {{events}} LIMIT {limit}) AS w"
        ));
        let row = self.reads().query_one_raw(schema.statement(&sql, Vec::new())).await?;
        let counted: i64 = row.map_or(Ok(0), |row| row.try_get("", "waiting"))?;
        Ok(counted.unsigned_abs())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_hours(1);

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn a_count_runs_once_at_a_time_and_pauses_by_how_slow_it_was_up_to_half_a_minute() {
        for (took, counted, pause) in [
            (ms(10), Some(3), ms(1_000)),
            (ms(200), Some(3), ms(4_000)),
            (ms(9_000), Some(3), ms(30_000)),
            (Duration::MAX, Some(3), ms(30_000)),
            (ms(46_000), None, ms(1_000)),
        ] {
            let (limit, at) = (WaitingLimit::new(10), now());
            let count = limit.begin_count(at).expect("the first one is due");
            assert!(limit.begin_count(at + HOUR).is_none(), "one runs");
            count.end(took, at, counted);
            assert!(limit.begin_count(at + pause - ms(1)).is_none(), "after {took:?}");
            assert!(limit.begin_count(at + pause).is_some(), "after {took:?}");
        }
    }

    #[test]
    fn a_count_that_is_dropped_half_way_makes_room_for_the_next() {
        let limit = WaitingLimit::new(10);
        drop(limit.begin_count(now()));
        assert!(limit.begin_count(now()).is_some());
    }

    #[test]
    fn the_limit_is_reached_and_left_once_each_and_a_count_that_fails_is_told_once() {
        let (limit, mut at) = (WaitingLimit::new(10), now());
        for (counted, expected, reached) in [
            (Some(9), None, false),
            (Some(10), Some(Change::Reached), true),
            (Some(10), None, true),
            (None, Some(Change::Fails), true),
            (None, None, true),
            (Some(9), Some(Change::Left), false),
            (None, Some(Change::Fails), false),
        ] {
            at += ms(2_000);
            let count = limit.begin_count(at).expect("it is due");
            assert_eq!(count.end(ms(1), at, counted), expected, "{counted:?}");
            assert_eq!(limit.state().is_reached, reached, "{counted:?}");
        }
    }

    #[test]
    fn what_a_count_said_is_forgotten_when_nobody_has_counted_for_a_minute() {
        let (limit, at) = (WaitingLimit::new(10), now());
        let reached = |limit: &Arc<WaitingLimit>| limit.state().is_reached;
        limit.begin_count(at).expect("it is due").end(ms(1), at, Some(10));
        drop(limit.begin_count(at + ms(60_999)));
        assert!(reached(&limit), "a minute after the next one was due");
        drop(limit.begin_count(at + ms(61_000)));
        assert!(!reached(&limit));
    }
}
