//! One run of a handler for a command of a saga: behind the barrier, with its answer.

use super::{Held, Run, Verdict, Worker};
use crate::{
    consumer::{
        barrier::{Command, Course, Ending, course, ending, noted, usual},
        commands::{CommandSources, Meaning},
        handler::{Given, Route},
    },
    event::{Message, SagaId},
    failure::{FailureClass, full_text},
    outbox::{CallAnswer, CallKey, CallOutcome, ConsumerStore, KnownCall, StoreError},
    saga::{CommandHash, Phase, reply_to},
};
use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
};

/// Why a command is not taken that is not the one which its saga has sent first.
const CHANGED: &str = "its content is not what its saga says that it has sent first (the header `sagacommand`), and that has not come: \
                       a step makes the same command each time, from the saga's data alone; a message that only has a command's \
                       headers is none";

/// Whose commands are taken, and which handlers were warned of.
pub(in crate::consumer) struct Commands {
    sources: CommandSources,
    warned: Mutex<BTreeSet<Arc<str>>>,
}

impl Commands {
    pub(in crate::consumer) fn new(sources: CommandSources) -> Self {
        Self { sources, warned: Mutex::default() }
    }

    /// Says what a message is to a handler.
    pub(super) fn meaning<S: ConsumerStore>(&self, route: &Route<S>, message: &Message) -> Meaning {
        self.sources.meaning(route.answers, message)
    }

    /// Warns, once, of a handler that answers a command which it sees as an event.
    pub(super) fn warn_of_an_answer<S: ConsumerStore>(
        &self,
        consumer: &str,
        route: &Route<S>,
        message: &Message,
    ) {
        if reply_to(&message.headers).is_none()
            || !self
                .warned
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .insert(route.name.clone())
        {
            return;
        }
        tracing::warn!(
            consumer,
            handler = &*route.name,
            event_type = message.event_type,
            "a handler answered a command of a saga that it sees as an event: the answer is emitted, and the saga is not told; add \
             the handler with `on_command` where this consumer is to answer"
        );
    }
}

impl<S: ConsumerStore> Worker<S> {
    /// Does what is to be done about a command in an open transaction; gives that back with the verdict.
    pub(super) async fn run_command(
        &self,
        tx: S::Tx,
        route: &Route<S>,
        message: &Message,
        command: Command,
        attempt: u32,
        held: &Held<'_>,
    ) -> Result<(S::Tx, Verdict), Run> {
        let saga = match self.course(&tx, &command).await {
            Ok((Course::Run, _)) if command.is_changed => {
                return Ok((tx, Verdict::Rejected(CHANGED.to_owned())));
            }
            Ok((Course::Run, saga)) => saga,
            Ok((Course::Answer(answer), _)) => {
                tracing::debug!(handler = &*route.name, call = ?command.call, "a command was answered without its handler");
                return match self.send(&tx, &command, answer).await {
                    Ok(()) => Ok((tx, Verdict::Done)),
                    Err(error) => self.failed(tx, error).await,
                };
            }
            Err(error) => return self.failed(tx, error).await,
        };
        // Behind a savepoint, so that a handler which says no leaves nothing but that.
        let inside = match self.store.nest(&tx).await {
            Ok(inside) => inside,
            Err(error) => return self.failed(tx, error).await,
        };
        let called = self.call(inside, route, message, Some(command.clone()), attempt, held).await;
        let (inside, verdict, given) = match called {
            Ok(called) => called,
            Err(run) => {
                self.roll_back(tx).await;
                return Err(run);
            }
        };
        if verdict != Verdict::Done {
            self.roll_back(inside).await;
            return Ok((tx, verdict));
        }
        let says_no = given.as_ref().is_some_and(|given| given.says_no);
        let ended = if says_no {
            self.store.rollback(inside).await
        } else {
            self.store.commit(inside).await
        };
        let settled = match ended {
            Ok(()) => self.settle(&tx, &command, saga, given).await,
            // What the handler did keeps its savepoint from being released.
            Err(error) if error.class() == FailureClass::Permanent => {
                return Ok((tx, Verdict::Failed(full_text(&error))));
            }
            Err(error) => Err(error),
        };
        match settled {
            Ok(()) => Ok((tx, Verdict::Done)),
            Err(error) => self.failed(tx, error).await,
        }
    }

    /// Notes a command in the barrier, and says what is done about it, and under which saga the command's own row stands.
    async fn course(&self, tx: &S::Tx, command: &Command) -> Result<(Course, SagaId), StoreError> {
        let doing = command.doing.as_ref();
        match command.call.phase {
            Phase::Do => {
                let (saga, known) =
                    self.note_command(tx, command, Phase::Do, doing, noted(Phase::Do)).await?;
                Ok((course(Phase::Do, known, None), saga))
            }
            Phase::Undo => {
                // First, as one that does it: of two, one waits here, and neither holds what the other waits for.
                let (_, done) =
                    self.note_command(tx, command, Phase::Do, doing, CallOutcome::Blocked).await?;
                let undoing = Some(&command.undoing);
                let (saga, undone) = self
                    .note_command(tx, command, Phase::Undo, undoing, noted(Phase::Undo))
                    .await?;
                Ok((course(Phase::Undo, done, undone), saga))
            }
        }
    }

    /// Notes a command in its place, or apart where that is another message's. Gives the saga under which it stands, and what was
    /// known.
    async fn note_command(
        &self,
        tx: &S::Tx,
        command: &Command,
        phase: Phase,
        hash: Option<&CommandHash>,
        outcome: CallOutcome,
    ) -> Result<(SagaId, Option<KnownCall>), StoreError> {
        let key = CallKey::of(&self.consumer, &command.call, phase);
        let known = self.store.note_call(tx, key, hash.copied(), outcome).await?;
        match (known, hash) {
            (Some(known), Some(hash)) if !known.is_of(Some(hash)) => {
                let key = key.apart(hash);
                tracing::warn!(call = ?command.call, "another message came under the headers of this command; each is handled for itself");
                Ok((key.saga, self.store.note_call(tx, key, Some(*hash), outcome).await?))
            }
            (known, _) => Ok((key.saga, known)),
        }
    }

    /// Keeps and sends the answer of a handler that has run.
    async fn settle(
        &self,
        tx: &S::Tx,
        command: &Command,
        saga: SagaId,
        given: Option<Given>,
    ) -> Result<(), StoreError> {
        let phase = command.call.phase;
        let key = CallKey { saga, ..CallKey::of(&self.consumer, &command.call, phase) };
        let (says_no, answer) =
            given.map(|given| (given.says_no, CallAnswer::from(given.event))).unzip();
        let answer = answer.unwrap_or_else(|| usual(noted(phase)));
        match ending(phase, says_no) {
            Ending::AsNoted => {}
            Ending::Keep(outcome) => self.store.keep_answer(tx, key, outcome, &answer).await?,
            Ending::TakeBack => self.store.unnote_call(tx, key).await?,
        }
        self.send(tx, command, answer).await
    }

    async fn send(
        &self,
        tx: &S::Tx,
        command: &Command,
        answer: CallAnswer,
    ) -> Result<(), StoreError> {
        self.store.append(tx, &[command.event(&self.consumer, answer)]).await
    }
}
