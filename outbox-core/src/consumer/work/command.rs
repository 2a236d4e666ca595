//! One run of a handler for a command of a saga: behind the barrier, with its answer.

use super::{Held, Run, Verdict, Worker};
use crate::{
    consumer::{
        barrier::{Command, Course, Ending, course, ending, noted, usual},
        handler::{Given, Route},
    },
    event::Message,
    failure::{FailureClass, full_text},
    outbox::{CallAnswer, CallKey, CallOutcome, ConsumerStore, StoreError},
    saga::Phase,
};

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
        if let Some(reason) = self.has_many_handlers(message) {
            return Ok((tx, Verdict::Rejected(reason)));
        }
        match self.course(&tx, &command).await {
            Ok(Course::Run) => {}
            Ok(Course::Answer(answer)) => {
                tracing::debug!(handler = &*route.name, call = ?command.call, "a command was answered without its handler");
                return match self.send(&tx, &command, answer).await {
                    Ok(()) => Ok((tx, Verdict::Done)),
                    Err(error) => self.failed(tx, error).await,
                };
            }
            Err(error) => return self.failed(tx, error).await,
        }
        // Behind a savepoint, so that a handler which says no leaves nothing but that.
        let inside = match self.store.nest(&tx).await {
            Ok(inside) => inside,
            Err(error) => return self.failed(tx, error).await,
        };
        let (inside, verdict, given) = self.call(inside, route, message, Some(command.clone()), attempt, held).await;
        if verdict != Verdict::Done {
            self.roll_back(inside).await;
            return Ok((tx, verdict));
        }
        let says_no = given.as_ref().is_some_and(|given| given.says_no);
        let ended = if says_no { self.store.rollback(inside).await } else { self.store.commit(inside).await };
        let settled = match ended {
            Ok(()) => self.settle(&tx, &command, given).await,
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

    /// Says why a command cannot be done where several handlers take it: which of their answers would count?
    fn has_many_handlers(&self, message: &Message) -> Option<String> {
        let takers = || self.routes.iter().filter(|route| route.takes(message));
        takers().nth(1)?;
        let names = takers().map(|route| format!("`{}`", route.name)).collect::<Vec<_>>().join(", ");
        Some(format!("a command of a saga has one handler; {names} take `{}`", message.event_type))
    }

    /// Notes a command in the barrier, and says what is done about it.
    async fn course(&self, tx: &S::Tx, command: &Command) -> Result<Course, StoreError> {
        let key = |phase| CallKey::of(&self.consumer, &command.call, phase);
        match command.call.phase {
            Phase::Do => {
                let doing = self.store.note_call(tx, key(Phase::Do), noted(Phase::Do)).await?;
                Ok(course(Phase::Do, doing, None))
            }
            Phase::Undo => {
                // First, as one that does it: of two, one waits here, and neither holds what the other waits for.
                let doing = self.store.note_call(tx, key(Phase::Do), CallOutcome::Blocked).await?;
                let undoing = self.store.note_call(tx, key(Phase::Undo), noted(Phase::Undo)).await?;
                Ok(course(Phase::Undo, doing, undoing))
            }
        }
    }

    /// Keeps and sends the answer of a handler that has run.
    async fn settle(&self, tx: &S::Tx, command: &Command, given: Option<Given>) -> Result<(), StoreError> {
        let phase = command.call.phase;
        let key = CallKey::of(&self.consumer, &command.call, phase);
        let (says_no, answer) = given.map(|given| (given.says_no, CallAnswer::from(given.event))).unzip();
        let answer = answer.unwrap_or_else(|| usual(noted(phase)));
        match ending(phase, says_no) {
            Ending::AsNoted => {}
            Ending::Keep(outcome) => self.store.keep_answer(tx, key, outcome, &answer).await?,
            Ending::TakeBack => self.store.unnote_call(tx, key).await?,
        }
        self.send(tx, command, answer).await
    }

    async fn send(&self, tx: &S::Tx, command: &Command, answer: CallAnswer) -> Result<(), StoreError> {
        self.store.append(tx, &[command.event(answer)]).await
    }
}
