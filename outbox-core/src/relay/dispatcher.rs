//! The dispatcher: the actor that owns the board. It sends work to the other actors and never waits
//! for any of them.

use super::{
    board::{Board, Notice, ReadJob, RelayStats, RouteBatch, Timer, Writes},
    messages::{DispatcherMsg, DispatcherStopped, Gained, Lease, ReleaseMsg},
    metrics::BoardMetrics,
};
use crate::{
    failure::{BackgroundWork, Report},
    runtime::{Shutdown, now},
    transport::Route,
};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{
    sync::{
        mpsc::{self, error::TrySendError},
        watch,
    },
    time::sleep_until,
};

/// Messages taken in one turn: the board plans once for all of them.
const MAX_MESSAGES: usize = 64;
/// Shortest pause between two updates of the shown counters.
const SHOW_INTERVAL: Duration = Duration::from_millis(50);

/// The dispatcher with its channels.
pub(crate) struct Dispatcher {
    pub(crate) board: Board,
    pub(crate) routes: Arc<[Route]>,
    pub(crate) mailbox: mpsc::Receiver<DispatcherMsg>,
    pub(crate) wake: watch::Receiver<u64>,
    /// The lease by the keeper's last message. It comes in the same mailbox as lost partitions,
    /// behind them: in a channel of its own it overtook them, and events of lost partitions were
    /// published.
    pub(crate) lease: Lease,
    pub(crate) shutdown: Shutdown,
    pub(crate) reader: mpsc::Sender<ReadJob>,
    /// Batches, each with the term of the lease under which it was made.
    pub(crate) publishers: Vec<mpsc::Sender<(u64, RouteBatch)>>,
    pub(crate) settler: mpsc::Sender<Writes>,
    pub(crate) timer_actor: mpsc::Sender<Vec<Timer>>,
    pub(crate) keeper: mpsc::Sender<ReleaseMsg>,
    pub(crate) stats: watch::Sender<RelayStats>,
    pub(crate) metrics: BoardMetrics,
    pub(crate) work: BackgroundWork,
}

impl Dispatcher {
    /// Dispatches until the shutdown has drained everything.
    pub(crate) async fn run(mut self) -> Result<(), DispatcherStopped> {
        let mut messages = Vec::with_capacity(MAX_MESSAGES);
        let mut writes = Writes::default();
        let mut timers = Vec::new();
        let mut stopping = false;
        let mut shown = now();
        let mut released = Vec::new();
        let (settler, timer_actor, keeper) =
            (self.settler.clone(), self.timer_actor.clone(), self.keeper.clone());
        loop {
            let time = now();
            self.plan(stopping, time)?;
            let drained = stopping && self.board.is_drained(time);
            if !self.shutdown.is_requested() {
                released.extend(self.board.take_released(time));
            }
            writes.extend(self.board.take_writes());
            timers.extend(self.board.take_timers());
            self.board.report_due(time);
            self.log_notices();
            if !writes.is_empty() {
                writes = offer(&settler, writes)?.unwrap_or_default();
            }
            if !timers.is_empty() {
                timers = offer(&timer_actor, timers)?.unwrap_or_default();
            }
            if !released.is_empty()
                && let Some(ReleaseMsg::Partitions(list)) =
                    offer(&keeper, ReleaseMsg::Partitions(std::mem::take(&mut released)))?
            {
                // The keeper's mailbox is full while it waits for the database.
                released = list;
            }
            let is_over = drained && writes.is_empty() && released.is_empty();
            if is_over {
                self.show();
                if offer(&keeper, ReleaseMsg::All)?.is_none() {
                    return Ok(());
                }
            }
            if time.saturating_duration_since(shown) >= SHOW_INTERVAL {
                shown = time;
                self.show();
            }

            let next = self.next_turn(stopping, shown);
            tokio::select! {
                biased;
                () = self.shutdown.requested(), if !stopping => {
                    stopping = true;
                    self.board.release_all();
                }
                n = self.mailbox.recv_many(&mut messages, MAX_MESSAGES) => {
                    if n == 0 {
                        return Err(DispatcherStopped);
                    }
                    let time = now();
                    for message in messages.drain(..) {
                        self.handle(message, stopping, time);
                    }
                }
                Ok(()) = self.wake.changed() => self.board.wake(),
                permit = settler.reserve(), if !writes.is_empty() => {
                    permit.map_err(|_| DispatcherStopped)?.send(std::mem::take(&mut writes));
                }
                permit = timer_actor.reserve(), if !timers.is_empty() => {
                    permit.map_err(|_| DispatcherStopped)?.send(std::mem::take(&mut timers));
                }
                // The keeper has room: the released partitions are offered again.
                permit = keeper.reserve(), if is_over || !released.is_empty() => {
                    drop(permit.map_err(|_| DispatcherStopped)?);
                }
                () = sleep_until(next.into()) => {}
            }
        }
    }

    /// Sends the batches and the read that can start now.
    fn plan(&mut self, stopping: bool, time: Instant) -> Result<(), DispatcherStopped> {
        self.board.record_partially_confirmed(time);
        if !self.lease.is_valid() {
            return Ok(());
        }
        // While the relay stops, the board starts only at-most-once events that are marked as done
        // already.
        for batch in self.board.next_batches(time) {
            // It has room: a route has at most as many batches in flight as its channel holds.
            self.publishers[batch.route]
                .try_send((self.lease.term, batch))
                .map_err(|_| DispatcherStopped)?;
        }
        if !stopping && let Some(job) = self.board.next_read(time) {
            self.reader.try_send(job).map_err(|_| DispatcherStopped)?;
        }
        Ok(())
    }

    /// Handles a message.
    fn handle(&mut self, message: DispatcherMsg, stopping: bool, time: Instant) {
        match message {
            DispatcherMsg::Lost(partitions) => {
                for (no, epoch) in partitions {
                    self.board.lost(no, epoch);
                }
            }
            DispatcherMsg::Release(partitions) => {
                partitions.into_iter().for_each(|no| self.board.release(no))
            }
            DispatcherMsg::Renewed { lease, due, unparked, other_routes_wait } => {
                self.lease = lease;
                self.board.renewed(due, unparked, other_routes_wait);
            }
            DispatcherMsg::Gained(gained) => {
                for Gained { partition, epoch, crashed, parked } in gained {
                    self.board.gain(partition, epoch, crashed);
                    // Before the first read of the partition, or events of parked keys would be
                    // published.
                    self.board.park_gained(partition, &parked);
                    if stopping {
                        self.board.release(partition);
                    }
                }
            }
            DispatcherMsg::Read(Ok(answer)) => {
                self.work.succeeded("read events");
                self.board.read_done(answer, time);
            }
            DispatcherMsg::Read(Err(error)) => {
                self.work.failed("read events", &error);
                self.board.read_failed(error.class(), time);
            }
            DispatcherMsg::Published { route, results, is_last } => {
                self.board.published(route, results, is_last, time)
            }
            DispatcherMsg::Finished(events) => self.board.finished(&events),
            DispatcherMsg::LettersWritten(letters) => self.board.letters_written(&letters),
            DispatcherMsg::Recorded(events) => self.board.recorded(&events, time),
            DispatcherMsg::TimersFired(timers) => self.board.timers_fired(&timers, time),
            DispatcherMsg::Controls(controls) => self.board.set_controls(&controls, time),
            DispatcherMsg::Unparked(keys) => self.board.unparked(keys),
            // The operator actor may have ended meanwhile.
            DispatcherMsg::Describe(to) => _ = to.send(self.board.live(time)),
        }
    }

    /// Gives the instant of the next turn if no message comes.
    fn next_turn(&self, stopping: bool, shown: Instant) -> Instant {
        // Without a lease nothing is planned, however long it has been due: the message of the
        // renewal begins a turn.
        let leased = self.lease.is_valid();
        let reading = if stopping || !leased { None } else { self.board.next_read_at() };
        let publishing = match leased {
            true => self.board.next_instant(),
            false => self.board.next_partial_record(),
        };
        let show =
            Some(shown + SHOW_INTERVAL).filter(|_| *self.stats.borrow() != self.board.stats());
        let idle = now() + Duration::from_mins(1);
        let report = self.board.next_report();
        reading
            .into_iter()
            .chain(publishing)
            .chain(show)
            .chain(report)
            .min()
            .map_or(idle, |at| at.max(now()))
    }

    fn log_notices(&mut self) {
        for notice in self.board.take_notices() {
            match notice {
                Notice::RouteDown { route, class, text } => tracing::warn!(
                    route = &*self.routes[route].name,
                    destination = self.routes[route].publisher.destination(),
                    %class,
                    error = text,
                    "the destination of a route is down or rejects every event (breaker open): its events wait in order, no \
                     attempt is counted, and the relay probes it"
                ),
                Notice::RouteUp { route, after } => tracing::info!(
                    route = &*self.routes[route].name,
                    destination = self.routes[route].publisher.destination(),
                    down_for = ?after,
                    "the destination of a route confirms again (breaker closed)"
                ),
                Notice::PublishFailed {
                    route,
                    report: Report::Repeated { failures, within },
                    class,
                    text,
                    next,
                } => {
                    tracing::warn!(
                        route = &*self.routes[route].name,
                        destination = self.routes[route].publisher.destination(),
                        %class,
                        error = text,
                        failures,
                        ?within,
                        next,
                        "further publishes of a route have failed"
                    );
                }
                Notice::PublishFailed { route, class, text, next, .. } => tracing::warn!(
                    route = &*self.routes[route].name,
                    destination = self.routes[route].publisher.destination(),
                    %class,
                    error = text,
                    next,
                    "a publish has failed; further failures of the route are summed up once a minute"
                ),
                Notice::Unrouted { id, text, wait } => tracing::warn!(
                    event = %id,
                    what = text,
                    ?wait,
                    "an event waits for a route that this relay does not have: for a relay that has it, as a deployment \
                     starts one, and it becomes a dead letter then; add the route, or mend the topic where it is saved"
                ),
                Notice::StaysRejected { route, id, text } => tracing::warn!(
                    route = &*self.routes[route].name,
                    event = %id,
                    answer = text,
                    "the destination has rejected an event for long and its retry policy has no end: it stays, and the later \
                     events of its key wait behind it; end its policy, or mend the destination"
                ),
            }
        }
    }

    fn show(&self) {
        let stats = self.board.stats();
        self.metrics.show(&stats, |route| self.board.breaker_is_open(route));
        self.stats.send_if_modified(|shown| {
            let changed = *shown != stats;
            *shown = stats;
            changed
        });
    }
}

/// Sends if there is room; else gives the message back.
fn offer<T>(sender: &mpsc::Sender<T>, message: T) -> Result<Option<T>, DispatcherStopped> {
    match sender.try_send(message) {
        Ok(()) => Ok(None),
        Err(TrySendError::Full(message)) => Ok(Some(message)),
        Err(TrySendError::Closed(_)) => Err(DispatcherStopped),
    }
}

#[cfg(test)]
mod tests;
