use super::*;
use crate::failure::BoxError;
use std::sync::{Mutex, MutexGuard, PoisonError};

const PLAN: PlanId = PlanId(7);
const WATCH: Duration = Duration::from_secs(60);

/// A plan in memory, of letters that are all open, and what a test does in its chunks.
#[derive(Default)]
struct State {
    letters: u64,
    /// Letters of each chunk.
    chunks: Vec<u64>,
    applied: Applied,
    outcome: Option<AuditOutcome>,
    /// Letters that were resolved when a letter failed again.
    fails_from: Option<u64>,
    /// Letters that other operators have resolved, the first ones.
    skipped: u64,
    /// Counts of letters that failed again.
    watched: u64,
    /// Another caller ends the plan after so many chunks.
    ended_after: Option<(usize, AuditOutcome)>,
    cancels: Option<(usize, Shutdown)>,
}

#[derive(Default)]
struct InMemory(Mutex<State>);

impl InMemory {
    fn with(state: State) -> Self {
        Self(Mutex::new(state))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn refused(text: &str) -> StoreError {
    StoreError::Refused(BoxError::from(text))
}

#[async_trait]
impl ActStore for InMemory {
    async fn plan(&self, _: Act, _: &DeadLetterFilter, _: bool) -> Result<Plan, StoreError> {
        Err(refused("it has one plan"))
    }

    async fn apply_chunk(
        &self,
        plan: PlanId,
        limit: u32,
        _: &OperatorNote,
    ) -> Result<Applied, StoreError> {
        assert_eq!(plan, PLAN);
        let mut state = self.state();
        if let Some((chunks, outcome)) = state.ended_after
            && state.chunks.len() >= chunks
        {
            state.outcome = Some(outcome);
        }
        if state.outcome.is_some_and(|outcome| outcome != AuditOutcome::Running) {
            return Err(refused("it has ended"));
        }
        state.outcome = Some(AuditOutcome::Running);
        let looked_at = state.applied.done + state.applied.skipped;
        let letters = u64::from(limit).min(state.letters - looked_at);
        let skipped = letters.min(state.skipped - state.applied.skipped);
        state.chunks.push(letters);
        state.applied.done += letters - skipped;
        state.applied.skipped += skipped;
        state.applied.complete = looked_at + letters == state.letters;
        if let Some((chunks, cancel)) = &state.cancels
            && state.chunks.len() >= *chunks
        {
            cancel.request(Duration::ZERO);
        }
        Ok(state.applied)
    }

    async fn end_plan(&self, _: PlanId, outcome: AuditOutcome) -> Result<(), StoreError> {
        let mut state = self.state();
        if state.outcome == Some(AuditOutcome::Running) {
            state.outcome = Some(outcome);
        }
        Ok(())
    }

    async fn plan_outcome(&self, _: PlanId) -> Result<Option<AuditOutcome>, StoreError> {
        Ok(self.state().outcome)
    }

    async fn failed_again(&self, _: PlanId) -> Result<u64, StoreError> {
        let mut state = self.state();
        state.watched += 1;
        Ok(u64::from(state.fails_from.is_some_and(|done| state.applied.done >= done)))
    }

    async fn audit(&self, _: Option<i64>, _: u32) -> Result<Vec<AuditEntry>, StoreError> {
        Ok(Vec::new())
    }
}

async fn applied(store: &InMemory, canary: bool) -> Result<AuditOutcome, StoreError> {
    let canary = canary.then_some(Canary { watch: WATCH });
    let cancel = store.state().cancels.as_ref().map(|(_, cancel)| cancel.clone());
    let note = OperatorNote::new("ann", "the bank is back");
    apply(store, PLAN, &note, canary, &cancel.unwrap_or_default(), |_| {}).await
}

#[test]
fn a_canary_takes_1_then_10_then_100_then_the_rest_and_completes_a_step_that_was_cut() {
    let canary = Some(Canary { watch: WATCH });
    for (done, expected) in [
        (0, CanaryStep::Next(1)),
        (1, CanaryStep::Next(10)),
        (4, CanaryStep::Next(7)),
        (10, CanaryStep::Next(1)),
        (11, CanaryStep::Next(100)),
        (110, CanaryStep::Next(1)),
        (111, CanaryStep::Rest),
        (u64::MAX, CanaryStep::Rest),
    ] {
        assert_eq!(next_step(done, canary), expected, "after {done}");
        assert_eq!(next_step(done, None), CanaryStep::Rest, "after {done}, without a canary");
    }
    let complete = [0, 1, 10, 11, 110, 111, 999].map(steps_complete);
    assert_eq!(complete, [0, 1, 1, 2, 2, 3, 3]);
}

#[tokio::test(start_paused = true)]
async fn without_a_canary_chunks_of_200_go_through_without_waiting() {
    let store = InMemory::with(State { letters: 450, ..State::default() });
    let begin = tokio::time::Instant::now();
    assert_eq!(applied(&store, false).await.unwrap(), AuditOutcome::Done);
    assert_eq!(begin.elapsed(), Duration::ZERO);
    let state = store.state();
    assert_eq!((state.chunks.as_slice(), state.watched), (&[200, 200, 50][..], 0));
}

#[tokio::test(start_paused = true)]
async fn a_canary_watches_after_each_of_its_steps_and_not_when_nothing_is_left() {
    let store = InMemory::with(State { letters: 500, ..State::default() });
    let begin = tokio::time::Instant::now();
    assert_eq!(applied(&store, true).await.unwrap(), AuditOutcome::Done);
    assert_eq!(begin.elapsed(), WATCH * 3);
    assert_eq!(store.state().chunks, [1, 10, 100, 200, 189]);
}

#[tokio::test(start_paused = true)]
async fn a_letter_that_others_have_resolved_is_no_step_of_a_canary() {
    let store = InMemory::with(State { letters: 4, skipped: 2, ..State::default() });
    let begin = tokio::time::Instant::now();
    assert_eq!(applied(&store, true).await.unwrap(), AuditOutcome::Done);
    assert_eq!(store.state().chunks, [1, 1, 1, 1]);
    assert_eq!(begin.elapsed(), WATCH, "after the third letter, the first that it resolved");
}

#[tokio::test(start_paused = true)]
async fn a_canary_stops_when_a_letter_fails_again_in_a_step_and_in_the_rest() {
    for (fails_from, chunks) in
        [(1, &[1][..]), (11, &[1, 10]), (111, &[1, 10, 100]), (112, &[1, 10, 100, 200])]
    {
        let fails_from = Some(fails_from);
        let store = InMemory::with(State { letters: 5_000, fails_from, ..State::default() });
        assert_eq!(applied(&store, true).await.unwrap(), AuditOutcome::Stopped);
        let state = store.state();
        assert_eq!((&state.chunks[..], state.outcome), (chunks, Some(AuditOutcome::Stopped)));
    }
}

#[tokio::test(start_paused = true)]
async fn an_act_is_cancelled_between_chunks_and_in_a_watch() {
    let of = |canary: bool, chunks: usize| {
        let cancels = Some((chunks, Shutdown::default()));
        (InMemory::with(State { letters: 5_000, cancels, ..State::default() }), canary)
    };
    for ((store, canary), expected) in [(of(false, 2), &[200, 200][..]), (of(true, 2), &[1, 10])] {
        let begin = tokio::time::Instant::now();
        assert_eq!(applied(&store, canary).await.unwrap(), AuditOutcome::Cancelled);
        assert_eq!(store.state().chunks, expected);
        let waited = if canary { WATCH } else { Duration::ZERO };
        assert_eq!(begin.elapsed(), waited, "it does not wait for the second watch");
    }
    let (store, _) = of(false, 0);
    if let Some((_, cancel)) = &store.state().cancels {
        cancel.request(Duration::ZERO);
    }
    assert_eq!(applied(&store, false).await.unwrap(), AuditOutcome::Cancelled);
    let state = store.state();
    assert_eq!((state.chunks.len(), state.outcome), (0, None), "nothing is done");
}

#[tokio::test(start_paused = true)]
async fn who_shares_a_plan_gets_its_end_and_who_comes_after_it_an_error() {
    let ended_after = Some((2, AuditOutcome::Cancelled));
    let store = InMemory::with(State { letters: 5_000, ended_after, ..State::default() });
    assert_eq!(applied(&store, false).await.unwrap(), AuditOutcome::Cancelled);
    let error = applied(&store, false).await.unwrap_err();
    assert!(matches!(error, StoreError::Refused(_)), "{error}");
}
