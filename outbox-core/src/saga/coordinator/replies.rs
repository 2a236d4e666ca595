//! Answers of others, taken in the transaction of their consumer.

use super::{
    strangers::Strangers,
    worker::Worker,
    writing::{Composed, Looks, compose},
};
use crate::{
    consumer::HandlerError,
    event::{EventType, Message},
    outbox::{Awaited, DeclaredSaga, DeclaredType},
    saga::{
        answer::{Answer, Heard, after_answer},
        call::{Call, DONE, Phase, REJECTED, answered_by},
        definition::{AnswerFault, Steps},
        record::Record,
        store::{Change, Due, SagaSource},
    },
};
use serde::Deserialize;
use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

/// Takes the answers of others to the commands of a service's sagas.
pub struct Replies<S: SagaSource> {
    worker: Arc<Worker<S>>,
    strangers: Strangers,
}

/// What a plain refusal says.
#[derive(Deserialize)]
struct Refusal {
    reason: String,
}

impl<S: SagaSource> Replies<S> {
    pub(crate) fn of(worker: Arc<Worker<S>>) -> Self {
        Self { worker, strangers: Strangers::default() }
    }

    /// Lists the sagas whose answers are understood here.
    pub(crate) fn sagas(&self) -> Vec<DeclaredSaga> {
        let known = self.worker.registry.known().into_iter();
        known.map(|(name, version)| DeclaredSaga { name: name.to_string(), version }).collect()
    }

    /// Lists the types of answers that are awaited here, each in its newest version.
    pub(crate) fn types(&self) -> Vec<DeclaredType> {
        let asks = self
            .worker
            .registry
            .that_ask()
            .flat_map(|shape| shape.steps.iter().filter_map(|step| step.asks));
        let mut types: BTreeMap<&str, u16> = BTreeMap::new();
        for EventType { name, version, .. } in
            asks.flat_map(|asks| asks.replies.iter().chain(asks.rejects))
        {
            let newest = types.entry(*name).or_default();
            *newest = (*newest).max(*version);
        }
        types
            .into_iter()
            .map(|(name, version)| DeclaredType { name: name.to_owned(), version })
            .collect()
    }

    /// Notes an answer in a transaction; what follows from it is done after the commit. An answer that was known changes
    /// nothing.
    ///
    /// # Errors
    /// Says that it is unknown where it is for another instance: one that has the saga's version, or a newer version of the
    /// answer's type. A rejection with the reason for one that belongs to no saga or step, or does not decode; else what the
    /// database said.
    pub(crate) async fn take(&self, tx: &S::Tx, message: &Message) -> Result<(), HandlerError> {
        let Self { worker, strangers } = self;
        let reject = |reason: String| Err(HandlerError::reject(reason));
        let call = match Call::read(&message.headers) {
            Ok(Some(call)) => call,
            Ok(None) => {
                return reject(
                    "it is no answer to a saga: the header `sagaid` is missing".to_owned(),
                );
            }
            Err(fault) => return reject(fault.to_string()),
        };
        let Some((known, mut open)) = worker.store.open_any(tx, call.saga).await? else {
            return reject(format!("there is no saga {}", call.saga));
        };
        open.when.now_us += worker.ahead_us.load(Relaxed);
        let Some(steps) = worker.registry.get(&known) else {
            return Err(HandlerError::unknown(Awaited::Saga {
                name: known.0.to_string(),
                version: known.1,
            }));
        };
        let Some(number) = steps.shape().number(&call.step) else {
            return reject(format!(
                "version {} of the saga `{}` has no step `{}`",
                known.1, known.0, call.step
            ));
        };
        let (asks, by) = (steps.shape().steps[number].asks, answered_by(&message.headers));
        if !asks.is_none_or(|asks| asks.takes_from(by, &message.source)) {
            strangers.warn_once(&known.0, &call, asks, message);
            return Ok(());
        }
        let answer = match read(&**steps, number, call.phase, message) {
            Ok(answer) => answer,
            Err(_) if self.is_newer(message) => {
                return Err(HandlerError::unknown(Awaited::type_of(message)));
            }
            Err(AnswerFault(fault)) => {
                return reject(format!("the answer to `{}` cannot be read: {fault}", call.step));
            }
        };
        let step = &steps.shape().steps[number];
        let (is, now_us) = (&message.event_type, open.when.now_us);
        let record = match after_answer(
            step,
            &open.instance,
            &call,
            answer,
            is,
            now_us,
            worker.jitter,
        ) {
            Heard::Write(record) => record,
            Heard::Nothing => {
                tracing::debug!(saga = %call.saga, step = call.step, answer = message.event_type, "an answer was known");
                return Ok(());
            }
            Heard::Unasked => {
                return reject(format!("the saga {} has not asked for `{}`", call.saga, call.step));
            }
        };
        if matches!(record, Record::Late { .. }) {
            tracing::warn!(saga = %call.saga, step = call.step, answer = message.event_type, "an answer came late");
        }
        let looks = Looks::default();
        let Ok(Composed { instance, records, due }) =
            compose(steps.shape(), &open, vec![record], &looks, Duration::ZERO, |hook| {
                steps.has(hook)
            })
        else {
            tracing::debug!(saga = %call.saga, step = call.step, "an answer means nothing where the saga stands");
            return Ok(());
        };
        // A coordinator goes on with it, whoever held it before.
        let due = if let Due::Held(_) = due { Due::After(Duration::ZERO) } else { due };
        let data = records.iter().rev().find_map(Record::data);
        let (before, seq) = (&open.instance, open.seq);
        let change = Change {
            id: call.saga,
            before,
            instance: &instance,
            data,
            seq,
            records: &records,
            due,
        };
        worker.tell_if_stuck(tx, (call.saga, &known), &open, &instance);
        worker.store.record(tx, &change).await?;
        worker.store.wake_after(tx);
        Ok(())
    }

    /// Tells whether a message is of a newer version of a type that is awaited here.
    fn is_newer(&self, message: &Message) -> bool {
        self.types()
            .iter()
            .any(|t| t.name == message.event_type && t.version < message.event_version)
    }
}

/// Reads what was answered.
fn read<Tx: 'static>(
    steps: &dyn Steps<Tx>,
    step: usize,
    phase: Phase,
    message: &Message,
) -> Result<Answer, AnswerFault> {
    let shape = &steps.shape().steps[step];
    let Some(asks) = &shape.asks else {
        return Err(AnswerFault("nobody is asked to do it".to_owned()));
    };
    let is = |types: &[crate::event::EventType]| types.iter().any(|t| t.name == message.event_type);
    if message.event_type == REJECTED || is(asks.rejects) {
        let reason =
            serde_json::from_slice::<Refusal>(&message.payload).ok().map(|refusal| refusal.reason);
        return Ok(Answer::Refused(match reason {
            Some(reason) if message.event_type == REJECTED => reason,
            Some(reason) => format!("{}: {reason}", message.event_type),
            None => message.event_type.clone(),
        }));
    }
    if phase == Phase::Undo {
        return Ok(Answer::Undone);
    }
    if !asks.replies.is_empty() && !is(asks.replies) {
        let awaited: Vec<&str> = asks.replies.iter().chain(asks.rejects).map(|t| t.name).collect();
        let (is, awaited) = (&message.event_type, awaited.join(" or "));
        return Err(AnswerFault(if is == DONE {
            format!(
                "the handler gave no answer of its own (`cx.reply(..)`), so `{is}` was sent for it; awaited is {awaited}"
            )
        } else {
            format!("its type is `{is}`, awaited is {awaited}")
        }));
    }
    steps.answer(step, message).map(Answer::Done)
}
