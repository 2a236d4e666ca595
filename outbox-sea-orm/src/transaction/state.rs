//! What is known of a transaction: pure bookkeeping, changed under a lock that is never held across an await.

use super::phases::Hooks;
use crate::{
    error::{Effect, OutboxError},
    listener::Heard,
    outbox::Pending,
};
use outbox_core::event::Trail;
use sea_orm::{DbErr, IsolationLevel};

/// Number of a frame: 0 is the transaction itself, others are savepoints, never used twice.
pub(super) type FrameId = u32;

/// The transaction, or one savepoint: what belongs to it goes when it goes.
#[derive(Default)]
pub(super) struct Frame {
    id: FrameId,
    /// With their place among all events of the transaction.
    events: Vec<(u64, Pending)>,
    heard: Vec<(u64, Heard)>,
    pub(super) hooks: Hooks,
    /// What its events follow from.
    trail: Option<Trail>,
    /// A joined function that failed; the frame can only be rolled back.
    failed: Option<&'static str>,
    /// Its handle is gone without commit; its savepoint is undone before the next statement.
    abandoned: bool,
    /// A savepoint was set in it before the driver's own transaction was lent out.
    lent: bool,
}

/// Why nothing more can be done.
enum Doom {
    Over,
    Aborted(DbErr),
}

/// Everything known of one transaction.
pub(super) struct State {
    /// From the transaction itself to the innermost savepoint.
    frames: Vec<Frame>,
    next: FrameId,
    emitted: u64,
    doom: Option<Doom>,
    conflict: bool,
    suspect: bool,
    /// Whether events were written by now, so that the relay is to be woken.
    wrote: bool,
    /// Statements that write, by what they begin with.
    statements: u64,
    isolation: Option<IsolationLevel>,
    read_only: bool,
    /// What others, or a lost connection, have done to it.
    disturbance: Option<DbErr>,
}

impl State {
    pub(super) fn new(isolation: Option<IsolationLevel>, read_only: bool) -> Self {
        Self {
            frames: vec![Frame::default()],
            next: 1,
            emitted: 0,
            doom: None,
            conflict: false,
            suspect: false,
            wrote: false,
            statements: 0,
            isolation,
            read_only,
            disturbance: None,
        }
    }

    /// Notes a statement that writes.
    pub(super) const fn note_write(&mut self) {
        self.statements += 1;
    }

    /// Gives how often it was written to so far: statements and emitted events.
    pub(super) const fn writes(&self) -> u64 {
        self.statements + self.emitted
    }

    /// Whether it is only read in.
    pub(super) const fn is_read_only(&self) -> bool {
        self.read_only
    }

    /// The level that the transaction was opened with.
    pub(super) const fn isolation(&self) -> Option<IsolationLevel> {
        self.isolation
    }

    /// Tells whether a deadlock or the like was seen, so that repeating the whole transaction may help.
    pub(super) const fn conflict(&self) -> bool {
        self.conflict
    }

    /// Gives the failure by which others have disturbed it, or by which its connection was lost.
    pub(super) const fn disturbance(&self) -> Option<&DbErr> {
        self.disturbance.as_ref()
    }

    /// Tells whether a failed statement may have left the transaction unable to commit.
    pub(super) const fn suspect(&self) -> bool {
        self.suspect
    }

    /// Tells whether events were written.
    pub(super) const fn wrote(&self) -> bool {
        self.wrote
    }

    /// Notes that events were written.
    pub(super) fn note_written(&mut self) {
        self.wrote = true;
    }

    /// Notes that a statement is under way, of which nothing is known before [`note`](Self::note).
    pub(super) fn expect_answer(&mut self) {
        self.suspect = true;
    }

    /// Notes what a statement did.
    pub(super) fn note(&mut self, answer: Result<(), &DbErr>) {
        let Err(error) = answer else {
            self.suspect = false;
            return;
        };
        let effect = Effect::of(error);
        self.conflict |= matches!(effect, Effect::Conflict | Effect::Busy);
        if matches!(effect, Effect::Conflict | Effect::Busy | Effect::Lost) {
            self.disturbance.get_or_insert_with(|| error.clone());
        }
        if effect.ends_transaction() && self.doom.is_none() {
            self.doom = Some(Doom::Aborted(error.clone()));
        }
    }

    /// Notes that the database has lost the transaction.
    pub(super) fn abort(&mut self, error: &DbErr) {
        self.note(Err(error));
        self.doom.get_or_insert_with(|| Doom::Aborted(error.clone()));
    }

    /// Finds the frame of a handle.
    fn find(&self, id: FrameId) -> Result<usize, OutboxError> {
        match &self.doom {
            Some(Doom::Over) => return Err(OutboxError::Over),
            Some(Doom::Aborted(error)) => return Err(OutboxError::Aborted(error.clone())),
            None => {}
        }
        self.frames.iter().position(|f| f.id == id && !f.abandoned).ok_or(OutboxError::Over)
    }

    /// Adds an event to a frame, and who is to hear of it.
    pub(super) fn push(
        &mut self,
        id: FrameId,
        event: Pending,
        heard: Option<Heard>,
    ) -> Result<(), OutboxError> {
        let (at, place) = (self.find(id)?, self.emitted);
        self.emitted += 1;
        self.frames[at].events.push((place, event));
        self.frames[at].heard.extend(heard.map(|heard| (place, heard)));
        Ok(())
    }

    /// Sets what the events of a frame follow from.
    pub(super) fn follow(&mut self, id: FrameId, trail: Trail) {
        if let Some(frame) = self.frames.iter_mut().find(|f| f.id == id) {
            frame.trail = Some(trail);
        }
    }

    /// Gives what the events of a frame follow from.
    pub(super) fn trail(&self, id: FrameId) -> Option<Trail> {
        self.frames.iter().find(|f| f.id == id)?.trail.clone()
    }

    /// Gives the hooks of a frame; `None` when it has ended.
    pub(super) fn hooks(&mut self, id: FrameId) -> Option<&mut Hooks> {
        self.frames.iter_mut().find(|f| f.id == id && !f.abandoned).map(|f| &mut f.hooks)
    }

    /// Gives the frame of a handle that may run statements: no frame inside it is open.
    pub(super) fn frame(&mut self, id: FrameId) -> Result<&mut Frame, OutboxError> {
        let at = self.find(id)?;
        if self.frames.get(at + 1).is_some_and(|inner| !inner.abandoned) {
            return Err(OutboxError::NestedOpen);
        }
        Ok(&mut self.frames[at])
    }

    /// Notes that a function which had joined a frame failed.
    pub(super) fn fail(&mut self, id: FrameId, function: &'static str) {
        if let Some(frame) = self.frames.iter_mut().find(|f| f.id == id) {
            frame.failed.get_or_insert(function);
        }
    }

    /// Opens a frame inside the given one.
    pub(super) fn open(&mut self, outer: FrameId) -> Result<FrameId, OutboxError> {
        let trail = self.frame(outer)?.trail.clone();
        let id = self.next;
        self.next += 1;
        self.frames.push(Frame { id, trail, ..Frame::default() });
        Ok(id)
    }

    /// Forgets a frame whose savepoint could not be set.
    pub(super) fn never_opened(&mut self, id: FrameId) {
        self.frames.retain(|f| f.id != id);
    }

    /// Gives up a frame and all inside it. What was registered there is to be run as rolled back.
    pub(super) fn abandon(&mut self, id: FrameId) -> Leftover {
        let mut left = Leftover::default();
        let Some(at) = self.frames.iter().position(|f| f.id == id) else { return left };
        for frame in &mut self.frames[at..] {
            frame.abandoned = true;
            left.add(std::mem::take(&mut frame.hooks), std::mem::take(&mut frame.heard));
            frame.events.clear();
        }
        if at == 0 {
            self.doom.get_or_insert(Doom::Over);
        }
        left
    }

    /// Gives the outermost savepoint that must be undone before anything else.
    pub(super) fn to_undo(&self) -> Option<FrameId> {
        if self.doom.is_some() {
            return None;
        }
        self.frames.iter().skip(1).find(|f| f.abandoned).map(|f| f.id)
    }

    /// Notes that a savepoint, and all inside it, was undone.
    pub(super) fn undone(&mut self, id: FrameId) {
        if let Some(at) = self.frames.iter().position(|f| f.id == id) {
            self.frames.truncate(at);
        }
        // What failed was undone with it.
        (self.suspect, self.conflict, self.disturbance) = (false, false, None);
    }

    /// Merges a committed savepoint into the frame around it.
    pub(super) fn released(&mut self, id: FrameId) {
        let Some(at) = self.frames.iter().position(|f| f.id == id).filter(|at| *at > 0) else {
            return;
        };
        for inner in self.frames.split_off(at) {
            let outer = &mut self.frames[at - 1];
            outer.events.extend(inner.events);
            outer.heard.extend(inner.heard);
            outer.hooks.absorb(inner.hooks);
        }
    }

    /// Ends the bookkeeping: what was registered, to be run with the outcome.
    pub(super) fn end(&mut self) -> Leftover {
        let mut left = Leftover::default();
        for frame in std::mem::take(&mut self.frames) {
            left.add(frame.hooks, frame.heard);
        }
        self.doom.get_or_insert(Doom::Over);
        left
    }
}

impl Frame {
    /// Takes the events that are not written yet, in the order in which they were emitted.
    pub(super) fn take_events(&mut self) -> Vec<Pending> {
        let mut events = std::mem::take(&mut self.events);
        events.sort_by_key(|(place, _)| *place);
        events.into_iter().map(|(_, event)| event).collect()
    }

    /// Gives the events from a place on of which listeners are to hear, in order, and the place behind them.
    pub(super) fn heard_from(&mut self, place: u64) -> (Vec<Heard>, u64) {
        self.heard.sort_by_key(|(place, _)| *place);
        let behind = self.heard.last().map_or(place, |(last, _)| place.max(last + 1));
        let news = self
            .heard
            .iter()
            .filter(|(at, _)| *at >= place)
            .map(|(_, heard)| heard.clone())
            .collect();
        (news, behind)
    }

    /// Tells which joined function failed.
    pub(super) fn check(&self) -> Result<(), OutboxError> {
        self.failed.map_or(Ok(()), |function| Err(OutboxError::RollbackOnly { function }))
    }

    /// Tells whether the driver's transaction was lent out in it.
    pub(super) fn lent(&mut self) -> &mut bool {
        &mut self.lent
    }
}

/// Hooks and events of frames that have ended.
#[derive(Default)]
pub(super) struct Leftover {
    hooks: Hooks,
    heard: Vec<(u64, Heard)>,
}

impl Leftover {
    fn add(&mut self, hooks: Hooks, heard: Vec<(u64, Heard)>) {
        self.hooks.absorb(hooks);
        self.heard.extend(heard);
    }

    /// Runs the hooks and gives the events for the listeners.
    pub(super) fn run_hooks(mut self, outcome: super::Outcome) -> Vec<Heard> {
        self.hooks.run(outcome);
        self.heard.sort_by_key(|(place, _)| *place);
        self.heard.into_iter().map(|(_, heard)| heard).collect()
    }
}
