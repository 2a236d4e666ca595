//! Why a deferred delivery waits.

use super::{
    Answer, DeferredFacts, Facts, InstanceFacts,
    route::resume,
    words::{because, clock, control, count, due, name},
};
use crate::{
    admin::ControlScope,
    outbox::{Awaited, DeclaredHandler},
};

/// Gives the delivery that the answer is about: one that nothing in the database moves comes first.
pub(super) fn first(facts: &Facts) -> Option<&DeferredFacts> {
    let stands = |d: &&DeferredFacts| {
        [paused, no_instance, unknown].iter().any(|check| check(facts, d).is_some())
    };
    facts.deferred.iter().find(stands).or_else(|| facts.deferred.first())
}

/// Explains a deferred delivery. The first of the checks decides that has something to say.
pub(super) fn deferred(facts: &Facts, delivery: &DeferredFacts) -> Answer {
    let checks = [paused, no_instance, unknown, claimed, behind, scheduled];
    let (text, command) = checks
        .iter()
        .find_map(|check| check(facts, delivery))
        .unwrap_or_else(|| ("its consumer claims it next".to_owned(), None));
    let view = &delivery.view;
    let handler = match view.handler.as_str() {
        "" => "a handler".to_owned(),
        handler => format!("handler `{}`", name(handler)),
    };
    let sentence = format!(
        "Message {} is deferred for {handler} of consumer `{}`: {text}.",
        view.message,
        name(&view.consumer)
    );
    command.into_iter().fold(Answer::new(sentence), Answer::command)
}

/// Why a delivery waits, and the command that ends it.
type Clause = (String, Option<String>);

fn paused(facts: &Facts, delivery: &DeferredFacts) -> Option<Clause> {
    let consumer = &delivery.view.consumer;
    let pause = facts.controls.pause(ControlScope::Consumer, consumer)?;
    let text = format!("its consumer is paused: {}", control(pause, facts.now));
    Some((text, Some(resume(ControlScope::Consumer, consumer))))
}

/// The live instances of its consumer.
fn live<'a>(
    facts: &'a Facts,
    delivery: &'a DeferredFacts,
) -> impl Iterator<Item = &'a InstanceFacts> {
    let of_consumer = move |instance: &&InstanceFacts| {
        instance.live && instance.consumer == delivery.view.consumer
    };
    facts.instances.iter().filter(of_consumer)
}

fn no_instance(facts: &Facts, delivery: &DeferredFacts) -> Option<Clause> {
    let runs = live(facts, delivery).next().is_some();
    (!runs).then(|| ("no instance of the consumer is running: start one".to_owned(), None))
}

/// No running instance has its handler, type or saga.
fn unknown(facts: &Facts, delivery: &DeferredFacts) -> Option<Clause> {
    let handler = delivery.view.handler.as_str();
    let awaited = delivery.awaits.as_ref().and_then(|(_, awaited)| awaited.as_ref());
    let has = |instance: &&InstanceFacts| {
        instance.handlers.iter().any(|declared| {
            let named =
                declared.name == handler || declared.renamed_from.as_deref() == Some(handler);
            (named || handler.is_empty()) && awaited.is_none_or(|awaited| knows(declared, awaited))
        })
    };
    let since = delivery.awaits.as_ref().map(|(since, _)| *since);
    if handler.is_empty() && awaited.is_none() && since.is_none() {
        return None;
    }
    let what = match awaited {
        Some(awaited) => name(&awaited.to_string()),
        None => format!("the handler `{}`", name(handler)),
    };
    match (live(facts, delivery).find(has), since) {
        (Some(_), None) => None,
        (Some(instance), Some(_)) => {
            let text = format!(
                "it waits for an instance that has {what}, and instance {} claims it within a minute",
                name(&instance.id)
            );
            Some((text, None))
        }
        (None, since) => {
            let since =
                since.map_or_else(String::new, |at| format!(" since {}", clock(at, facts.now)));
            let until = delivery.view.due_at.filter(|_| delivery.awaits.is_some());
            let until = until.map_or_else(String::new, |at| match at > facts.now {
                true => format!(", and any instance tries it at {}", clock(at, facts.now)),
                false => ", and any instance tries it now".to_owned(),
            });
            Some((format!("no running instance has {what}{since}: start one with it{until}"), None))
        }
    }
}

/// Tells whether a handler knows a type, or a saga. Which keys its instance has, no row tells; one
/// that has an awaited key claims the delivery within a second.
fn knows(declared: &DeclaredHandler, awaited: &Awaited) -> bool {
    match awaited {
        Awaited::Type { name, version } => {
            declared.types.iter().any(|known| known.name == *name && known.version >= *version)
        }
        Awaited::Saga { name, version } => {
            declared.sagas.iter().any(|known| known.name == *name && known.version == *version)
        }
        Awaited::Key { .. } => false,
    }
}

fn claimed(facts: &Facts, delivery: &DeferredFacts) -> Option<Clause> {
    let (by, until) = delivery.claimed.as_ref()?;
    let (by, at) = (name(by), clock(*until, facts.now));
    let text = match *until > facts.now {
        true => format!("instance {by} runs it now, and its claim lasts until {at}"),
        false => format!(
            "the claim of instance {by} ran out at {at}, and another instance claims it next"
        ),
    };
    Some((text, None))
}

fn behind(_: &Facts, delivery: &DeferredFacts) -> Option<Clause> {
    let key =
        delivery.view.key.as_deref().map_or_else(String::new, |key| format!(" {}", name(key)));
    match (delivery.ahead, delivery.view.due_at) {
        (Some(ahead), _) => Some((format!("it waits behind message {ahead} of key{key}"), None)),
        (None, None) => {
            Some((format!("it is the next of key{key}, and is due with the next claim"), None))
        }
        (None, Some(_)) => None,
    }
}

fn scheduled(facts: &Facts, delivery: &DeferredFacts) -> Option<Clause> {
    let view = &delivery.view;
    let error = because(view.last_error.as_deref());
    let next = due(view.due_at?, facts.now);
    let text = match view.failures {
        0 => format!("it is due {next}"),
        n => format!("{} failed{error}, and the next one is due {next}", count(n, "attempt")),
    };
    Some((text, None))
}
