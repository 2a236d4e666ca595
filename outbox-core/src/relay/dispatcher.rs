//! The dispatcher: the one actor that owns the board. It tells the others what to do and never waits for any of them.

use super::{
    board::{Batch, Board, ReadJob, RelayStats, Timer, Writes},
    messages::{Gone, Handback, Lease, Note},
};
use crate::runtime::{Shutdown, now};
use std::time::{Duration, Instant};
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
    pub(crate) notes: mpsc::Receiver<Note>,
    pub(crate) wake: watch::Receiver<u64>,
    /// As the keeper told it last, behind what was lost.
    pub(crate) lease: Lease,
    pub(crate) shutdown: Shutdown,
    pub(crate) reader: mpsc::Sender<ReadJob>,
    /// Each batch goes with the term of the lease that it was made under.
    pub(crate) publishers: Vec<mpsc::Sender<(u64, Batch)>>,
    pub(crate) settler: mpsc::Sender<Writes>,
    pub(crate) retrier: mpsc::Sender<Vec<Timer>>,
    pub(crate) keeper: mpsc::Sender<Handback>,
    pub(crate) stats: watch::Sender<RelayStats>,
}

impl Dispatcher {
    /// Dispatches until the shutdown has drained everything.
    pub(crate) async fn run(mut self) -> Result<(), Gone> {
        let mut notes = Vec::with_capacity(NOTES);
        let mut writes = Writes::default();
        let mut timers = Vec::new();
        let mut stopping = false;
        let mut shown = now();
        let (settler, retrier) = (self.settler.clone(), self.retrier.clone());
        loop {
            let time = now();
            self.plan(stopping, time)?;
            writes.extend(self.board.take_writes());
            timers.extend(self.board.take_timers());
            if !writes.is_empty() {
                writes = offer(&settler, writes)?.unwrap_or_default();
            }
            if !timers.is_empty() {
                timers = offer(&retrier, timers)?.unwrap_or_default();
            }
            self.hand_back()?;
            if stopping && writes.is_empty() && self.board.is_quiet() {
                self.show();
                self.keeper.try_send(Handback::Everything).map_err(|_| Gone)?;
                return Ok(());
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
            Note::Release(partitions) => partitions.into_iter().for_each(|no| self.board.release(no)),
            Note::Renewed { lease, gained, crashed, due, parks, begun } => {
                self.lease = lease;
                for (no, epoch) in gained {
                    self.board.gain(no, epoch, crashed.contains(&no));
                    if stopping {
                        self.board.release(no);
                    }
                }
                // Parked keys are known before the first read of what was gained.
                self.board.renewed(due, &parks, begun);
            }
            Note::Read(Ok(answer)) => self.board.read_done(answer, time),
            Note::Read(Err(error)) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "a read failed and is made again");
                self.board.read_failed(time);
            }
            Note::Published { route, answers } => self.board.published(route, answers, time),
            Note::Finished(places) => self.board.finished(&places),
            Note::Recorded(places) => self.board.recorded(&places, time),
            Note::Rang(timers) => self.board.ring(&timers, time),
        }
    }

    fn hand_back(&mut self) -> Result<(), Gone> {
        if self.shutdown.is_requested() {
            return Ok(());
        }
        let released = self.board.take_released();
        if released.is_empty() {
            return Ok(());
        }
        self.keeper.try_send(Handback::These(released)).map_err(|_| Gone)
    }

    /// When to look again though nothing was told.
    fn next_turn(&self, stopping: bool, shown: Instant) -> Instant {
        // Without a lease nothing is planned, however long it has been due: the renewal wakes.
        let leased = self.lease.is_valid();
        let reading = if stopping || !leased { None } else { self.board.next_read_at() };
        let moving = if leased { self.board.next_instant() } else { self.board.next_halfway() };
        let show = Some(shown + SHOW_EVERY).filter(|_| *self.stats.borrow() != self.board.stats());
        let idle = now() + Duration::from_mins(1);
        reading.into_iter().chain(moving).chain(show).min().map_or(idle, |at| at.max(now()))
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
