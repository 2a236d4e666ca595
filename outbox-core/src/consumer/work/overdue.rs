//! Overdue runs: logged once, and counted while they last.

use super::{DeliverySource, HandlerOutcome, Worker, reports::FailureKind, run::RunResult};
use crate::{
    consumer::handler::HandlerEntry, event::Message, outbox::ConsumerStore, runtime::now,
    telemetry::handle_span,
};
use std::{pin::pin, time::Duration};
use tracing::Instrument;

/// How long a run may last at least before it is logged: locks of ended instances are gone by then.
const MIN_OVERDUE: Duration = Duration::from_secs(10);

/// Counts a run as overdue while it lives.
struct Overdue<'a, S: ConsumerStore>(&'a Worker<S>);

impl<'a, S: ConsumerStore> Overdue<'a, S> {
    fn count(worker: &'a Worker<S>) -> Self {
        worker.count(|s| s.overdue += 1);
        Self(worker)
    }
}

impl<S: ConsumerStore> Drop for Overdue<'_, S> {
    fn drop(&mut self) {
        self.0.count(|s| s.overdue -= 1);
    }
}

impl<S: ConsumerStore> Worker<S> {
    /// [Runs](Self::run) a handler once, and logs a run that takes long.
    pub(super) async fn run_watched(
        &self,
        entry: &HandlerEntry<S>,
        message: &Message,
        attempt: u32,
        source: &DeliverySource<'_>,
    ) -> RunResult {
        let (span, begun) = (handle_span(&entry.name, message), now());
        let run = self.run(entry, message, attempt, source).instrument(span);
        let ran = self.watched(entry, message, run).await;
        if let RunResult::Completed(outcome) = &ran {
            entry.pace().note_alone(*outcome == HandlerOutcome::Done);
        }
        if let Some(outcome) = ran.error_type() {
            self.metrics.ran(&entry.name, message, outcome, begun);
        }
        ran
    }

    /// Waits for a run, and logs one that takes long: with the hash of source and key, never the key, which
    /// may be a secret.
    pub(super) async fn watched<T>(
        &self,
        entry: &HandlerEntry<S>,
        message: &Message,
        run: impl Future<Output = T> + Send,
    ) -> T {
        let mut run = pin!(run);
        let long = self.settings.max_unacked_time.max(MIN_OVERDUE);
        tokio::select! {
            biased;
            done = &mut run => return done,
            () = tokio::time::sleep(long) => {}
        }
        let _overdue = Overdue::count(self);
        if self.starts_report(FailureKind::Overdue, &entry.name, &format!("for {long:?} and more"))
        {
            tracing::warn!(
                handler = &*entry.name,
                key_hash = message.key_hash(),
                "a delivery is overdue after {long:?}: its handler is slow or waits for a lock"
            );
        }
        run.await
    }
}
