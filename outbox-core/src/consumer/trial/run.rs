//! One try: the handler with its layers, without the inbox, the barrier and the retries.

use super::{LIMIT, LONGEST_TEXT, MOST_EVENTS, Trial, TrialEvent, TrialRefusal, TrialResult};
use crate::{
    consumer::{
        barrier::{Command, default_reply, provisional_outcome},
        commands::MessageRole,
        handler::{HandlerContext, HandlerEntry, HandlerError, Kind, Next, PendingReply},
        work::{HandlerOutcome, Worker},
    },
    event::{CorrelationContext, Message, NewEvent},
    failure::{DeadLetter, DeadReason, full_text},
    outbox::{Awaited, ConsumerStore, StoredReply, TrialEffects, TrialStore},
    runtime::{catch_unwind, now},
};
use async_trait::async_trait;
use std::{sync::Arc, time::Duration};
use tokio::time::timeout;

/// The note of every try.
const OUTSIDE: &str =
    "what the handler did by another connection or by the network is neither shown nor undone";

/// A consumer whose handlers can be tried.
#[async_trait]
pub(in crate::consumer) trait Tries: Send + Sync {
    /// Tries a letter's handler.
    async fn try_letter(self: Arc<Self>, letter: DeadLetter) -> Result<Trial, TrialRefusal>;
}

#[async_trait]
impl<S: ConsumerStore> Tries for Worker<S> {
    async fn try_letter(self: Arc<Self>, letter: DeadLetter) -> Result<Trial, TrialRefusal> {
        let entry = entry_of(&self.consumer, &self.handlers, &letter)?;
        let stored = letter.message.as_ref().ok_or(TrialRefusal::NoMessage)?;
        let trials = self.store.trials().ok_or(TrialRefusal::Unsupported)?;
        if self.shutdown.is_requested() {
            return Err(TrialRefusal::Ended);
        }
        let attempt = letter.attempts.saturating_add(1);
        let not_run = |ended| self.shown(entry, ended, TrialEffects::default(), Duration::ZERO);
        let message = match self.decoded(stored).await {
            Ok(message) => message,
            Err(outcome) => return Ok(not_run(not_decoded(outcome))),
        };
        match self.commands.role(entry, &message) {
            MessageRole::Event => self.try_handler(&*trials, entry, &message, None, attempt).await,
            MessageRole::Command(command) => {
                self.try_handler(&*trials, entry, &message, Some(command), attempt).await
            }
            MessageRole::Rejected(reason) => Ok(not_run((TrialResult::Rejected, reason))),
        }
    }
}

/// Finds the handler that a letter is tried with.
fn entry_of<'a, S: ConsumerStore>(
    consumer: &str,
    handlers: &'a [HandlerEntry<S>],
    letter: &DeadLetter,
) -> Result<&'a HandlerEntry<S>, TrialRefusal> {
    let Some(origin) = &letter.consumer_origin else {
        return Err(TrialRefusal::OfRoute { route: letter.route.clone() });
    };
    if origin.consumer != consumer {
        return Err(TrialRefusal::OtherConsumer { consumer: origin.consumer.clone() });
    }
    // Before anything else of the letter: what it does to a process is not to be tried.
    if letter.reason == DeadReason::Crashed {
        return Err(TrialRefusal::Crashed);
    }
    let named = |entry: &&HandlerEntry<S>| entry.names().any(|name| name == origin.handler);
    let Some(entry) = handlers.iter().find(named) else {
        return Err(TrialRefusal::NoHandler { handler: origin.handler.clone() });
    };
    match entry.options.no_try {
        Some(reason) => Err(TrialRefusal::NoTry { handler: entry.name.to_string(), reason }),
        None => Ok(entry),
    }
}

impl<S: ConsumerStore> Worker<S> {
    async fn try_handler(
        &self,
        trials: &dyn TrialStore<S::Tx>,
        entry: &HandlerEntry<S>,
        message: &Message,
        command: Option<Command>,
        attempt: u32,
    ) -> Result<Trial, TrialRefusal> {
        let tx = trials.begin_trial(LIMIT).await?;
        self.store.correlate(&tx, CorrelationContext::of(message));
        let is_command = command.is_some();
        let cx = HandlerContext::new(tx, message.clone(), entry.name.clone(), attempt, None);
        let cx = cx.for_command(command.clone());
        let next = Next { layers: &self.layers, handler: entry.handle(&cx) };
        let begun = now();
        let handling = self.store.within(&cx.tx, Box::pin(next.run(&cx)));
        let (mut result, mut text) = match timeout(LIMIT, catch_unwind(handling)).await {
            Ok(Ok(Ok(()))) => (TrialResult::Done, String::new()),
            Ok(Ok(Err(error))) => returned(error),
            Ok(Err(panic)) => (TrialResult::Failed, format!("a panic: {panic}")),
            Err(_) => (TrialResult::TimedOut, format!("it did not end within {LIMIT:?}")),
        };
        let took = now().saturating_duration_since(begun);
        let (tx, pending) = cx.into_parts();
        let is_done = result == TrialResult::Done;
        let is_rejection = pending.as_ref().is_some_and(|pending| pending.is_rejection);
        let reply = match command {
            _ if !is_done => None,
            Some(command) => Some(self.reply_to(&command, pending)),
            None => pending.map(|pending| pending.event),
        };
        if is_done && is_rejection && is_command {
            // The savepoint around the handler is rolled back, and the rejection alone goes out.
            let TrialEffects { refused, notes, .. } = trials.end_trial(tx, false).await?;
            let ended = (TrialResult::Rejected, "it rejects the command".to_owned());
            let events = reply.into_iter().collect();
            let effects = TrialEffects { events, refused, notes, ..TrialEffects::default() };
            return Ok(self.shown(entry, ended, effects, took));
        }
        let appended = match &reply {
            Some(reply) => self.store.append(&tx, std::slice::from_ref(reply)).await,
            None => Ok(()),
        };
        let effects = trials.end_trial(tx, is_done && appended.is_ok()).await?;
        let failure = appended.err().map(|error| full_text(&error));
        // What a handler says that fails by itself says more.
        if let Some(cause) = failure.or_else(|| effects.not_committable.clone())
            && is_done
        {
            (result, text) = (TrialResult::Failed, cause);
        }
        Ok(self.shown(entry, (result, text), effects, took))
    }

    /// Makes the event that a handler's reply to a command is sent as.
    fn reply_to(&self, command: &Command, pending: Option<PendingReply>) -> NewEvent {
        let reply = pending.map(|pending| StoredReply::from(pending.event));
        let usual = || default_reply(provisional_outcome(command.id.phase));
        command.reply_event(&self.consumer, reply.unwrap_or_else(usual))
    }

    fn shown(
        &self,
        entry: &HandlerEntry<S>,
        (result, mut text): (TrialResult, String),
        effects: TrialEffects,
        took: Duration,
    ) -> Trial {
        let mut notes = vec![OUTSIDE.to_owned()];
        if entry.handles_commands {
            notes.push(
                "the barrier of sagas was not asked: a redrive of a command that was answered before sends that reply again, and \
                 runs no handler"
                    .to_owned(),
            );
        }
        notes.extend(effects.notes);
        text.truncate(text.floor_char_boundary(LONGEST_TEXT));
        let event = |event: &NewEvent| TrialEvent {
            topic: event.topic.clone(),
            event_type: event.event_type.clone(),
            key: event.key.clone(),
        };
        Trial {
            consumer: self.consumer.to_string(),
            handler: entry.name.to_string(),
            result,
            text,
            tables: effects.tables,
            events: effects.events.iter().take(MOST_EVENTS).map(event).collect(),
            emitted: effects.events.len() as u64,
            refused: effects.refused,
            took_ms: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
            notes,
        }
    }
}

/// Says why a message whose payload is not decoded is not tried.
fn not_decoded(outcome: HandlerOutcome) -> (TrialResult, String) {
    match outcome {
        HandlerOutcome::Unknown(awaited) => (TrialResult::Unknown, not_known(&awaited)),
        HandlerOutcome::Undecodable(reason) => (TrialResult::Undecodable, reason),
        HandlerOutcome::Failed(text) => (TrialResult::Failed, text),
        other => (TrialResult::Failed, format!("its payload was not decoded: {other:?}")),
    }
}

fn not_known(awaited: &Awaited) -> String {
    format!("{awaited} is not known to this instance")
}

/// Says what a handler's error means.
fn returned(error: HandlerError) -> (TrialResult, String) {
    match error.into_kind() {
        Kind::Retry(error) => (TrialResult::Failed, full_text(&*error)),
        Kind::Reject(reason) => (TrialResult::Rejected, reason),
        Kind::Undecodable(reason) => (TrialResult::Undecodable, reason),
        Kind::Snooze(wait) => (TrialResult::Snoozed, format!("it asks to run again in {wait:?}")),
        Kind::Unknown(awaited) => (TrialResult::Unknown, not_known(&awaited)),
    }
}
