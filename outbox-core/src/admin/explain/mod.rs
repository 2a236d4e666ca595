//! Why something stands still, and what moves it. Pure.

mod facts;
mod words;
mod event;
mod route;
mod letter;
mod deferred;
mod command;
mod saga;
mod listed;

#[cfg(test)]
mod tests;

pub use facts::{
    AheadFacts, CommandFacts, DeferredFacts, EventFacts, Facts, HandledCommand, InstanceFacts,
    LetterFacts, RouteFacts, SagaFacts,
};
pub use words::safe_text;

use super::Subject;
use serde::Serialize;

/// Why a subject stands still, in a sentence, with the facts behind it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// Why it stands still, and what moves it.
    pub sentence: String,
    /// The facts, by name.
    pub facts: Vec<(String, String)>,
    /// Commands that move it, if nothing moves it by itself.
    pub commands: Vec<String>,
    /// The database that the commands are for, by its name, where it is not the one that was asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub database: Option<String>,
}

/// A sentence, and the commands that move its subject.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Answer {
    sentence: String,
    commands: Vec<String>,
    /// The database that the commands are for, where it is not the one that was asked.
    database: Option<String>,
}

impl Answer {
    fn new(sentence: impl Into<String>) -> Self {
        Self { sentence: sentence.into(), commands: Vec::new(), database: None }
    }

    fn command(mut self, command: impl Into<String>) -> Self {
        self.commands.push(command.into());
        self
    }
}

/// Explains why a subject stands still. Where several things are known of it, the first of these
/// decides: the event waits in the outbox; it is scheduled; it is an open dead letter; it is a
/// deferred delivery; it is finished, or resolved.
#[must_use]
pub fn explain(facts: &Facts) -> Explanation {
    let Answer { mut sentence, commands, database } = answer(facts);
    if facts.is_empty() {
        sentence.extend(facts.not_searched.iter().map(|left_out| format!(" {left_out}")));
    }
    Explanation { sentence, facts: listed::listed(facts), commands, database }
}

fn answer(facts: &Facts) -> Answer {
    if let Some(saga) = &facts.saga {
        return saga::saga(facts, saga);
    }
    let known = waiting(facts).or_else(|| letter::finished(facts));
    known.unwrap_or_else(|| nothing(&facts.subject))
}

/// Explains what waits of a message or of a key; `None` where nothing does.
fn waiting(facts: &Facts) -> Option<Answer> {
    if let Some(event) = &facts.event {
        return Some(event::event(facts, event));
    }
    if let Some(scheduled) = &facts.scheduled {
        return Some(event::scheduled(facts, scheduled));
    }
    if let Some(open) = facts.letters.iter().find(|letter| letter.resolution.is_none()) {
        return Some(letter::open(facts, open));
    }
    deferred::first(facts).map(|first| deferred::deferred(facts, first))
}

fn nothing(subject: &Subject) -> Answer {
    Answer::new(match subject {
        Subject::Message(id) => format!(
            "Nothing is stored of message {id}: it was never saved here, or it is finished and its \
             rows are deleted, which relays do at once unless they keep finished events, and \
             consumers when the retention of the inbox is over."
        ),
        Subject::Key(key) => format!(
            "Nothing of key {} waits: no event, no open dead letter and no deferred delivery has it.",
            words::name(key)
        ),
        Subject::Saga(id) => format!(
            "Nothing is stored of saga {id}: it was never started here, or it has ended and its \
             retention has removed it."
        ),
    })
}
