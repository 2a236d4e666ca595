//! Runs that last for longer than they should: told once, and counted while they do.

use super::{Held, Worker, reports::FailureKind, run::Run};
use crate::{
    consumer::handler::Route, event::Message, outbox::ConsumerStore, telemetry::handle_span,
};
use std::{pin::pin, time::Duration};
use tracing::Instrument;

/// How long a run may last before it is told, at least: locks that other instances leave behind are gone by then.
const AT_LEAST: Duration = Duration::from_secs(10);

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
    /// [Runs](Self::run) a handler once, and tells when that takes long.
    pub(super) async fn run_watched(
        &self,
        route: &Route<S>,
        message: &Message,
        attempt: u32,
        held: &Held<'_>,
    ) -> Run {
        let span = handle_span(&route.name, message);
        self.watched(route, message, self.run(route, message, attempt, held).instrument(span)).await
    }

    /// Waits for a run, and tells when it takes long: never the key, which may be a secret, but the hash of source and key.
    pub(super) async fn watched<T>(
        &self,
        route: &Route<S>,
        message: &Message,
        run: impl Future<Output = T> + Send,
    ) -> T {
        let mut run = pin!(run);
        let long = self.settings.hold.max(AT_LEAST);
        tokio::select! {
            biased;
            done = &mut run => return done,
            () = tokio::time::sleep(long) => {}
        }
        let _overdue = Overdue::count(self);
        if self.tells(FailureKind::Overdue, &route.name, &format!("for {long:?} and more")) {
            tracing::warn!(
                handler = &*route.name,
                key_hash = message.key_hash(),
                "a delivery has been in hand for {long:?}: its handler is slow, or waits for a lock; what comes of its key waits too"
            );
        }
        run.await
    }
}
