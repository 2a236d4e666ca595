//! A dead letter, and an event that is finished.

use super::{
    Answer, Facts, LetterFacts,
    event::behind,
    words::{cause, clock, count, error, name},
};
use crate::{
    admin::{InboxView, Subject},
    event::LetterId,
};

/// Explains a dead letter that nobody has resolved.
pub(super) fn open(facts: &Facts, letter: &LetterFacts) -> Answer {
    let LetterFacts { id, message, reason, attempts, .. } = letter;
    let attempts = match attempts {
        0 => String::new(),
        n => format!(" after {}", count(*n, "attempt")),
    };
    let noun = if letter.consumer.is_some() { "Message" } else { "Event" };
    let sentence = format!(
        "{noun} {message} is a dead letter{} since {} (letter {id}, {reason}{attempts}{}), and waits until somebody \
         redrives or discards it.",
        given_up_by(letter),
        clock(letter.dead_at, facts.now),
        cause(letter.last_error.as_deref()),
    );
    let mut answer = resolving(Answer::new(sentence), *id);
    if letter.parks {
        answer.sentence += &behind(facts, letter.key.as_deref());
    }
    answer
}

/// Adds the commands that resolve a letter.
pub(super) fn resolving(answer: Answer, letter: LetterId) -> Answer {
    answer
        .command(format!("outbox dead-letters redrive {letter}"))
        .command(format!("outbox dead-letters discard {letter}"))
}

/// Explains an event of which nothing waits any more; `None` where nothing is known of it.
pub(super) fn finished(facts: &Facts) -> Option<Answer> {
    let handled = match facts.received.as_slice() {
        [] => None,
        received => Some(format!("{} handled it", handlers(received))),
    };
    let archived = facts.finished_at.map(|at| {
        format!("every route confirmed it, and it is in the archive since {}", clock(at, facts.now))
    });
    let done: Vec<String> = [archived, handled].into_iter().flatten().collect();
    if let Some(letter) = facts.letters.last() {
        let resolved = resolved(facts, letter)?;
        let then = match done.is_empty() {
            true => String::new(),
            false => format!(" Since then or before, {}.", done.join(", and ")),
        };
        return Some(Answer::new(format!("Event {}{resolved}{then}", letter.message)));
    }
    (!done.is_empty()).then(|| {
        let subject = match &facts.subject {
            Subject::Message(id) => format!("Message {id}"),
            other => name(&other.to_string()),
        };
        Answer::new(format!("{subject} waits for nothing here: {}.", done.join(", and ")))
    })
}

/// Writes how the last letter of an event was resolved.
fn resolved(facts: &Facts, letter: &LetterFacts) -> Option<String> {
    let resolution = letter.resolution.as_ref()?;
    let reason = error(&resolution.reason);
    let reason = if reason.is_empty() { String::new() } else { format!(" ({reason})") };
    let then = match resolution.action.as_str() {
        "redriven" => ": it was delivered since, or its consumer's retention has removed it.",
        "resent" => ": a new event with other content took its place.",
        _ => ": it is not delivered.",
    };
    Some(format!(
        " waits for nothing: it was a dead letter{} (letter {}, {}), which {} {} at {}{reason}{then}",
        given_up_by(letter),
        letter.id,
        letter.reason,
        name(&resolution.by),
        past(&resolution.action),
        clock(resolution.at, facts.now),
    ))
}

/// Writes what an operator did.
fn past(action: &str) -> String {
    match action {
        "redriven" => "redrove".to_owned(),
        other => name(other),
    }
}

/// Writes which route or handler gave an event up.
fn given_up_by(letter: &LetterFacts) -> String {
    match &letter.consumer {
        Some(by) if by.handler.is_empty() => format!(" of consumer `{}`", name(&by.consumer)),
        Some(by) => {
            format!(" of handler `{}` of consumer `{}`", name(&by.handler), name(&by.consumer))
        }
        None if letter.route.is_empty() => String::new(),
        None => format!(" of route `{}`", name(&letter.route)),
    }
}

/// Writes handlers, at most three by name.
fn handlers(received: &[InboxView]) -> String {
    let some = received.iter().take(3).map(|row| {
        format!("handler `{}` of consumer `{}`", name(&row.handler), name(&row.consumer))
    });
    let some = some.collect::<Vec<_>>().join(" and ");
    match received.len() {
        0..=3 => some,
        n => format!("{some} and {} more", n - 3),
    }
}
