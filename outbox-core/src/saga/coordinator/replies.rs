//! Takes the replies of participants, in the transaction of the consumer that receives them.

use super::{
    transition::{LockPolls, Transition, transition},
    unexpected_senders::UnexpectedSenders,
    worker::Worker,
};
use crate::{
    event::{
        EventType, Message,
        command::{CommandId, CommandPhase, DONE, REJECTED, replied_by},
    },
    failure::{FailureClass, loggable_text},
    outbox::{Awaited, DeclaredSaga, DeclaredType, StoreError},
    saga::{
        definition::{InvalidReply, Steps},
        record::Record,
        reply::{Reply, ReplyEffect, after_reply},
        store::{Change, DefinitionId, Due, OpenSaga, SagaSource},
    },
};
use serde::Deserialize;
use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

/// Takes the replies of participants to the commands of a service's sagas.
pub struct Replies<S: SagaSource> {
    worker: Arc<Worker<S>>,
    unexpected: UnexpectedSenders,
}

/// Why a reply was not applied to its saga.
#[derive(Debug)]
pub(crate) enum ReplyFailure {
    /// It belongs to no saga or step, or does not decode.
    Rejected(String),
    /// Only another instance can take it: one that knows this.
    Awaits(Awaited),
    /// The store has failed.
    Store(StoreError),
}

impl From<StoreError> for ReplyFailure {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// The content of a standard rejection.
#[derive(Deserialize)]
struct Rejection {
    reason: String,
}

impl<S: SagaSource> Replies<S> {
    pub(crate) fn of(worker: Arc<Worker<S>>) -> Self {
        Self { worker, unexpected: UnexpectedSenders::default() }
    }

    /// Lists the sagas whose replies this instance can take.
    pub(crate) fn sagas(&self) -> Vec<DeclaredSaga> {
        let ids = self.worker.registry.definition_ids().into_iter();
        ids.map(|(name, version)| DeclaredSaga { name: name.to_string(), version }).collect()
    }

    /// Lists the types of replies that this instance knows, each in its newest version.
    pub(crate) fn types(&self) -> Vec<DeclaredType> {
        let remotes = self
            .worker
            .registry
            .with_remote_steps()
            .flat_map(|shape| shape.steps.iter().filter_map(|step| step.remote));
        let mut types: BTreeMap<&str, u16> = BTreeMap::new();
        for EventType { name, version, .. } in
            remotes.flat_map(|remote| remote.replies.iter().chain(remote.rejects))
        {
            let newest = types.entry(*name).or_default();
            *newest = (*newest).max(*version);
        }
        types
            .into_iter()
            .map(|(name, version)| DeclaredType { name: name.to_owned(), version })
            .collect()
    }

    /// Applies a reply to its saga in a transaction; a coordinator goes on with the saga after the
    /// commit. A repeated reply changes nothing.
    ///
    /// # Errors
    /// [`ReplyFailure::Awaits`] for a reply that only another instance can take: one that has the
    /// saga's version, or a newer version of the reply's type. [`ReplyFailure::Rejected`] for a
    /// reply that belongs to no saga or step, or does not decode; else the database's error.
    pub(crate) async fn take(&self, tx: &S::Tx, message: &Message) -> Result<(), ReplyFailure> {
        let Self { worker, unexpected } = self;
        let reject = |reason: String| Err(ReplyFailure::Rejected(reason));
        let id = command_of(message)?;
        let Some((definition, mut open)) = worker.store.open_for_reply(tx, id.saga).await? else {
            return reject(format!("there is no saga {}", id.saga));
        };
        open.when.now_us += worker.ahead_us.load(Relaxed);
        let Some(steps) = worker.registry.get(&definition) else {
            return Err(ReplyFailure::Awaits(Awaited::Saga {
                name: definition.0.to_string(),
                version: definition.1,
            }));
        };
        let Some(number) = steps.shape().number(&id.step) else {
            return reject(format!(
                "version {} of the saga `{}` has no step `{}`",
                definition.1, definition.0, id.step
            ));
        };
        let (remote, by) = (steps.shape().steps[number].remote, replied_by(&message.headers));
        if !remote.is_none_or(|remote| remote.accepts_from(by, &message.source)) {
            unexpected.warn_once(&definition.0, &id, remote, message);
            return Ok(());
        }
        let reply = match decode(&**steps, number, id.phase, message) {
            Ok(reply) => reply,
            Err(_) if self.is_newer(message) => {
                return Err(ReplyFailure::Awaits(Awaited::type_of(message)));
            }
            Err(InvalidReply(fault)) => {
                return reject(format!("the reply to `{}` cannot be decoded: {fault}", id.step));
            }
        };
        let step = &steps.shape().steps[number];
        let (reply_type, now_us, jitter) = (&message.event_type, open.when.now_us, worker.jitter);
        let effect = after_reply(step, &open.instance, &id, reply, reply_type, now_us, jitter);
        let record = match effect {
            ReplyEffect::Append(record) => record,
            ReplyEffect::Nothing => {
                tracing::debug!(saga = %id.saga, step = id.step, reply = message.event_type, "a repeated reply was ignored");
                return Ok(());
            }
            ReplyEffect::Unexpected => {
                return reject(format!(
                    "the saga {} has sent no such command for `{}`",
                    id.saga, id.step
                ));
            }
        };
        if matches!(record, Record::LateReply { .. }) {
            tracing::warn!(saga = %id.saga, step = id.step, reply = message.event_type, "a reply came late");
        }
        self.apply(tx, (&id, &definition), &**steps, &open, record).await
    }

    /// Writes the record of a reply to its saga, where it applies to the saga's state.
    async fn apply(
        &self,
        tx: &S::Tx,
        (id, definition): (&CommandId, &DefinitionId),
        steps: &dyn Steps<S::Tx>,
        open: &OpenSaga,
        record: Record,
    ) -> Result<(), ReplyFailure> {
        let worker = &self.worker;
        let polls = LockPolls::default();
        let Ok(Transition { instance, records, due }) =
            transition(steps.shape(), open, vec![record], &polls, Duration::ZERO, |hook| {
                steps.has(hook)
            })
        else {
            tracing::debug!(saga = %id.saga, step = id.step, "a reply does not apply to the saga's state");
            return Ok(());
        };
        // Any coordinator may go on with the saga: this ends the claim on it.
        let due = if let Due::Leased(_) = due { Due::After(Duration::ZERO) } else { due };
        let data = records.iter().rev().find_map(Record::data);
        let (before, seq) = (&open.instance, open.seq);
        let change =
            Change { id: id.saga, before, instance: &instance, data, seq, records: &records, due };
        worker.notify_if_stuck(tx, (id.saga, definition), open, &instance);
        worker.count_change(tx, &definition.0, open, (&instance, records.len()));
        worker.store.record(tx, &change).await?;
        worker.store.wake_after_commit(tx);
        Ok(())
    }

    /// Tells whether a message has a type that this instance knows, in a newer version.
    fn is_newer(&self, message: &Message) -> bool {
        self.types()
            .iter()
            .any(|t| t.name == message.event_type && t.version < message.event_version)
    }
}

/// Reads which command a message replies to.
fn command_of(message: &Message) -> Result<CommandId, ReplyFailure> {
    let missing = "it is no reply to a saga: the header `sagaid` is missing";
    let id = CommandId::read(&message.headers)
        .map_err(|fault| ReplyFailure::Rejected(fault.to_string()))?;
    id.ok_or_else(|| ReplyFailure::Rejected(missing.to_owned()))
}

/// Decodes a participant's reply.
fn decode<Tx: 'static>(
    steps: &dyn Steps<Tx>,
    step: usize,
    phase: CommandPhase,
    message: &Message,
) -> Result<Reply, InvalidReply> {
    let shape = &steps.shape().steps[step];
    let Some(remote) = &shape.remote else {
        return Err(InvalidReply("it is no remote step".to_owned()));
    };
    let is = |types: &[crate::event::EventType]| types.iter().any(|t| t.name == message.event_type);
    if message.event_type == REJECTED || is(remote.rejects) {
        let reason =
            serde_json::from_slice::<Rejection>(&message.payload).ok().map(|body| body.reason);
        // The saga's records and log lines keep it.
        let hidden =
            |reason: String| loggable_text(&reason, FailureClass::Permanent, Some(message));
        return Ok(Reply::Rejected(match reason.map(hidden) {
            Some(reason) if message.event_type == REJECTED => reason,
            Some(reason) => format!("{}: {reason}", message.event_type),
            None => message.event_type.clone(),
        }));
    }
    if phase == CommandPhase::Undo {
        return Ok(Reply::Undone);
    }
    if !remote.replies.is_empty() && !is(remote.replies) {
        let awaited: Vec<&str> =
            remote.replies.iter().chain(remote.rejects).map(|t| t.name).collect();
        let (is, awaited) = (&message.event_type, awaited.join(" or "));
        return Err(InvalidReply(if is == DONE {
            format!(
                "the handler gave no reply of its own (`cx.reply(..)`), so `{is}` was sent for it; awaited is {awaited}"
            )
        } else {
            format!("its type is `{is}`, awaited is {awaited}")
        }));
    }
    steps.decode_reply(step, message).map(Reply::Done)
}
