//! The dispatcher: the one actor that owns the board. It tells the others what to do and never waits for any of them.

use super::{
    board::{Board, Notice, ReadJob, RelayStats, RouteBatch, Timer, Writes},
    messages::{Gained, Gone, Handback, Lease, Note},
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

/// Notes taken in one turn, so that plans are made for many at once.
const NOTES: usize = 64;
/// How often the counters are shown at most.
const SHOW_EVERY: Duration = Duration::from_millis(50);

/// What the dispatcher works with.
pub(crate) struct Dispatcher {
    pub(crate) board: Board,
    pub(crate) routes: Arc<[Route]>,
    pub(crate) notes: mpsc::Receiver<Note>,
    pub(crate) wake: watch::Receiver<u64>,
    /// As the keeper told it last, behind what was lost.
    pub(crate) lease: Lease,
    pub(crate) shutdown: Shutdown,
    pub(crate) reader: mpsc::Sender<ReadJob>,
    /// Each batch goes with the term of the lease that it was made under.
    pub(crate) publishers: Vec<mpsc::Sender<(u64, RouteBatch)>>,
    pub(crate) settler: mpsc::Sender<Writes>,
    pub(crate) retrier: mpsc::Sender<Vec<Timer>>,
    pub(crate) keeper: mpsc::Sender<Handback>,
    pub(crate) stats: watch::Sender<RelayStats>,
    pub(crate) work: BackgroundWork,
}

impl Dispatcher {
    /// Dispatches until the shutdown has drained everything.
    pub(crate) async fn run(mut self) -> Result<(), Gone> {
        let mut notes = Vec::with_capacity(NOTES);
        let mut writes = Writes::default();
        let mut timers = Vec::new();
        let mut stopping = false;
        let mut shown = now();
        let mut returned = Vec::new();
        let (settler, retrier, keeper) =
            (self.settler.clone(), self.retrier.clone(), self.keeper.clone());
        loop {
            let time = now();
            self.plan(stopping, time)?;
            let drained = stopping && self.board.is_drained(time);
            if !self.shutdown.is_requested() {
                returned.extend(self.board.take_released(time));
            }
            writes.extend(self.board.take_writes());
            timers.extend(self.board.take_timers());
            self.board.report_due(time);
            self.log_notices();
            if !writes.is_empty() {
                writes = offer(&settler, writes)?.unwrap_or_default();
            }
            if !timers.is_empty() {
                timers = offer(&retrier, timers)?.unwrap_or_default();
            }
            if !returned.is_empty()
                && let Some(Handback::These(list)) =
                    offer(&keeper, Handback::These(std::mem::take(&mut returned)))?
            {
                // The keeper is busy with the database.
                returned = list;
            }
            let over = drained && writes.is_empty() && returned.is_empty();
            if over {
                self.show();
                if offer(&keeper, Handback::Everything)?.is_none() {
                    return Ok(());
                }
            }
            if time.saturating_duration_since(shown) >= SHOW_EVERY {
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
                n = self.notes.recv_many(&mut notes, NOTES) => {
                    if n == 0 {
                        return Err(Gone);
                    }
                    let time = now();
                    for note in notes.drain(..) {
                        self.take(note, stopping, time);
                    }
                }
                Ok(()) = self.wake.changed() => self.board.wake(),
                permit = settler.reserve(), if !writes.is_empty() => {
                    permit.map_err(|_| Gone)?.send(std::mem::take(&mut writes));
                }
                permit = retrier.reserve(), if !timers.is_empty() => {
                    permit.map_err(|_| Gone)?.send(std::mem::take(&mut timers));
                }
                // There is room: what is to be handed back is offered once more.
                permit = keeper.reserve(), if over || !returned.is_empty() => drop(permit.map_err(|_| Gone)?),
                () = sleep_until(next.into()) => {}
            }
        }
    }

    /// Makes what can be done now.
    fn plan(&mut self, stopping: bool, time: Instant) -> Result<(), Gone> {
        self.board.write_halfway(time);
        if !self.lease.is_valid() {
            return Ok(());
        }
        // While stopping the board starts nothing but what it has claimed already.
        for batch in self.board.next_batches(time) {
            // The board never has more batches of a route on their way than its mailbox holds.
            self.publishers[batch.route].try_send((self.lease.term, batch)).map_err(|_| Gone)?;
        }
        if !stopping && let Some(job) = self.board.next_read(time) {
            self.reader.try_send(job).map_err(|_| Gone)?;
        }
        Ok(())
    }

    fn take(&mut self, note: Note, stopping: bool, time: Instant) {
        match note {
            Note::Lost(partitions) => {
                for (no, epoch) in partitions {
                    self.board.lost(no, epoch);
                }
            }
            Note::Release(partitions) => {
                partitions.into_iter().for_each(|no| self.board.release(no))
            }
            Note::Renewed { lease, due, decided, others_wait } => {
                self.lease = lease;
                self.board.renewed(due, decided, others_wait);
            }
            Note::Gained(gained) => {
                for Gained { partition, epoch, crashed, parks } in gained {
                    self.board.gain(partition, epoch, crashed);
                    // Parked keys are known before the first read of what was gained.
                    self.board.parked(partition, &parks);
                    if stopping {
                        self.board.release(partition);
                    }
                }
            }
            Note::Read(Ok(answer)) => {
                self.work.succeeded("read events");
                self.board.read_done(answer, time);
            }
            Note::Read(Err(error)) => {
                self.work.failed("read events", &error);
                self.board.read_failed(error.class(), time);
            }
            Note::Published { route, answers, over } => {
                self.board.published(route, answers, over, time)
            }
            Note::Finished(places) => self.board.finished(&places),
            Note::Buried(letters) => self.board.buried(&letters),
            Note::Recorded(places) => self.board.recorded(&places, time),
            Note::Rang(timers) => self.board.ring(&timers, time),
        }
    }

    /// When to look again though nothing was told.
    fn next_turn(&self, stopping: bool, shown: Instant) -> Instant {
        // Without a lease nothing is planned, however long it has been due: the renewal wakes.
        let leased = self.lease.is_valid();
        let reading = if stopping || !leased { None } else { self.board.next_read_at() };
        let moving = if leased { self.board.next_instant() } else { self.board.next_halfway() };
        let show = Some(shown + SHOW_EVERY).filter(|_| *self.stats.borrow() != self.board.stats());
        let idle = now() + Duration::from_mins(1);
        let report = self.board.next_report();
        reading
            .into_iter()
            .chain(moving)
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
        self.stats.send_if_modified(|shown| {
            let changed = *shown != stats;
            *shown = stats;
            changed
        });
    }
}

/// Sends if there is room; else gives the message back.
fn offer<T>(address: &mpsc::Sender<T>, message: T) -> Result<Option<T>, Gone> {
    match address.try_send(message) {
        Ok(()) => Ok(None),
        Err(TrySendError::Full(message)) => Ok(Some(message)),
        Err(TrySendError::Closed(_)) => Err(Gone),
    }
}

#[cfg(test)]
mod tests;
