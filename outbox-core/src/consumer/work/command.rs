//! One run of a handler for a command of a saga: behind the barrier, with its reply.

use super::{DeliverySource, HandlerOutcome, RunResult, Worker};
use crate::{
    consumer::{
        barrier::{
            Command, CommandAction, RowUpdate, decide, default_reply, provisional_outcome,
            row_update,
        },
        commands::{CommandSources, MessageRole},
        handler::{HandlerEntry, PendingReply},
    },
    event::{Message, SagaId},
    failure::{FailureClass, full_text},
    outbox::{
        CommandKey, CommandOutcome, ConsumerStore, RecordedCommand, StoreError, StoredReply,
        roll_back,
    },
    saga::{CommandHash, CommandPhase, reply_to},
};
use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
};

/// Why the consumer rejects a command whose content is not that of the command which its saga sent first.
const CHANGED: &str = "its content is not that of the command which its saga sent first (the header `sagacommand`), and that one \
                       has not arrived: a step makes the same command each time, from the saga's data alone; a message that only \
                       has a command's headers is none";

/// The services whose commands the consumer takes, and the handlers that it has warned of.
pub(in crate::consumer) struct Commands {
    sources: CommandSources,
    warned: Mutex<BTreeSet<Arc<str>>>,
}

impl Commands {
    pub(in crate::consumer) fn new(sources: CommandSources) -> Self {
        Self { sources, warned: Mutex::default() }
    }

    /// Tells whether a handler takes a message as an event or as a command, or rejects it.
    pub(in crate::consumer) fn role<S: ConsumerStore>(
        &self,
        entry: &HandlerEntry<S>,
        message: &Message,
    ) -> MessageRole {
        self.sources.role(entry.handles_commands, message)
    }

    /// Warns, once, of a handler that replies to a command which it takes as an event.
    pub(super) fn warn_of_reply_to_event<S: ConsumerStore>(
        &self,
        consumer: &str,
        entry: &HandlerEntry<S>,
        message: &Message,
    ) {
        if reply_to(&message.headers).is_none()
            || !self
                .warned
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .insert(entry.name.clone())
        {
            return;
        }
        tracing::warn!(
            consumer,
            handler = &*entry.name,
            event_type = message.event_type,
            "a handler replied to a command of a saga that it takes as an event: the reply is emitted, and the saga does not \
             receive it; add the handler with `on_command` where this consumer is to reply"
        );
    }
}

impl<S: ConsumerStore> Worker<S> {
    /// Runs or answers a command in an open transaction; gives the transaction back with the outcome.
    pub(super) async fn run_command(
        &self,
        tx: S::Tx,
        entry: &HandlerEntry<S>,
        message: &Message,
        command: Command,
        attempt: u32,
        source: &DeliverySource<'_>,
    ) -> Result<(S::Tx, HandlerOutcome), RunResult> {
        let saga = match self.decide(&tx, &command).await {
            Ok((CommandAction::Run, _)) if command.is_changed => {
                return Ok((tx, HandlerOutcome::Rejected(CHANGED.to_owned())));
            }
            Ok((CommandAction::Run, saga)) => saga,
            Ok((CommandAction::Reply(reply), _)) => {
                tracing::debug!(handler = &*entry.name, command = ?command.id, "a command got its reply without its handler");
                return match self.send(&tx, &command, reply).await {
                    Ok(()) => Ok((tx, HandlerOutcome::Done)),
                    Err(error) => self.failed(tx, error).await,
                };
            }
            Err(error) => return self.failed(tx, error).await,
        };
        // Behind a savepoint, so that a handler which rejects the command leaves nothing but its reply.
        let inside = match self.store.begin_nested(&tx).await {
            Ok(inside) => inside,
            Err(error) => return self.failed(tx, error).await,
        };
        let called =
            self.call(inside, entry, message, Some(command.clone()), attempt, source).await;
        let (inside, outcome, pending) = match called {
            Ok(called) => called,
            Err(run) => {
                roll_back(&self.store, tx).await;
                return Err(run);
            }
        };
        if outcome != HandlerOutcome::Done {
            roll_back(&self.store, inside).await;
            return Ok((tx, outcome));
        }
        let is_rejection = pending.as_ref().is_some_and(|pending| pending.is_rejection);
        let ended = if is_rejection {
            self.store.rollback(inside).await
        } else {
            self.store.commit(inside).await
        };
        let settled = match ended {
            Ok(()) => self.send_reply(&tx, &command, saga, pending).await,
            // The database refuses to release the savepoint because of the handler's work.
            Err(error) if error.class() == FailureClass::Permanent => {
                return Ok((tx, HandlerOutcome::Failed(full_text(&error))));
            }
            Err(error) => Err(error),
        };
        match settled {
            Ok(()) => Ok((tx, HandlerOutcome::Done)),
            Err(error) => self.failed(tx, error).await,
        }
    }

    /// Records a command in the barrier, and gives the action that follows and the saga under which
    /// the command's own row stands.
    async fn decide(
        &self,
        tx: &S::Tx,
        command: &Command,
    ) -> Result<(CommandAction, SagaId), StoreError> {
        let doing = command.doing.as_ref();
        match command.id.phase {
            CommandPhase::Do => {
                let (saga, known) = self
                    .record(
                        tx,
                        command,
                        CommandPhase::Do,
                        doing,
                        provisional_outcome(CommandPhase::Do),
                    )
                    .await?;
                Ok((decide(CommandPhase::Do, known, None), saga))
            }
            CommandPhase::Undo => {
                // First the row of the command that does the step, as that command's transaction does: of
                // two transactions, one waits here, and neither has locked a row that the other waits for.
                let (_, done) = self
                    .record(tx, command, CommandPhase::Do, doing, CommandOutcome::Blocked)
                    .await?;
                let undoing = Some(&command.undoing);
                let (saga, undone) = self
                    .record(
                        tx,
                        command,
                        CommandPhase::Undo,
                        undoing,
                        provisional_outcome(CommandPhase::Undo),
                    )
                    .await?;
                Ok((decide(CommandPhase::Undo, done, undone), saga))
            }
        }
    }

    /// Records a command under its key, or under a key of its own where another message has taken that
    /// one. Gives the saga under which it stands, and the command that was recorded before.
    async fn record(
        &self,
        tx: &S::Tx,
        command: &Command,
        phase: CommandPhase,
        hash: Option<&CommandHash>,
        outcome: CommandOutcome,
    ) -> Result<(SagaId, Option<RecordedCommand>), StoreError> {
        let key = CommandKey::of(&self.consumer, &command.id, phase);
        let known = self.store.record_command(tx, key, hash.copied(), outcome).await?;
        match (known, hash) {
            (Some(known), Some(hash)) if !known.is_of(Some(hash)) => {
                let key = key.disambiguated(hash);
                tracing::warn!(command = ?command.id, "another message has the headers of this command; each is handled for itself");
                Ok((key.saga, self.store.record_command(tx, key, Some(*hash), outcome).await?))
            }
            (known, _) => Ok((key.saga, known)),
        }
    }

    /// Stores and sends the reply of a handler that has run.
    async fn send_reply(
        &self,
        tx: &S::Tx,
        command: &Command,
        saga: SagaId,
        pending: Option<PendingReply>,
    ) -> Result<(), StoreError> {
        let phase = command.id.phase;
        let key = CommandKey { saga, ..CommandKey::of(&self.consumer, &command.id, phase) };
        let (is_rejection, reply) =
            pending.map(|pending| (pending.is_rejection, StoredReply::from(pending.event))).unzip();
        let reply = reply.unwrap_or_else(|| default_reply(provisional_outcome(phase)));
        match row_update(phase, is_rejection) {
            RowUpdate::Keep => {}
            RowUpdate::Store(outcome) => self.store.store_reply(tx, key, outcome, &reply).await?,
            RowUpdate::Remove => self.store.remove_command(tx, key).await?,
        }
        self.send(tx, command, reply).await
    }

    async fn send(
        &self,
        tx: &S::Tx,
        command: &Command,
        reply: StoredReply,
    ) -> Result<(), StoreError> {
        self.store.append(tx, &[command.reply_event(&self.consumer, reply)]).await
    }
}
