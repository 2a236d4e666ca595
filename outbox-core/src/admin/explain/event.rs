//! Why an event waits in the outbox.

use super::{
    Answer, EventFacts, Facts, LetterFacts, RouteFacts,
    route::{self, Cause},
    words::{cause, clock, control, due, name},
};
use crate::{
    admin::{ControlScope, RelayView, ScheduledView},
    outbox::RouteState,
};

/// Explains an event in the outbox. The first of the checks decides that has something to say: what
/// stops everything comes before what stops one route.
pub(super) fn event(facts: &Facts, event: &EventFacts) -> Answer {
    let checks =
        [finished, no_relay, paused, unrouted, parked, behind_another, expired, waits_for_route];
    let mut answer = checks.iter().find_map(|check| check(facts, event)).unwrap_or_else(|| {
        Answer::new(format!("Event {} waits for its relay to read it.", event.message))
    });
    for letter in facts.letters.iter().filter(|letter| letter.resolution.is_none()) {
        if letter.message == event.message && letter.consumer.is_none() && is_open(event) {
            answer.sentence += &format!(
                " It is a dead letter of route `{}` (letter {}).",
                name(&letter.route),
                letter.id
            );
        }
    }
    answer.sentence += &behind(facts, event.key.as_deref());
    answer
}

/// Explains an event that is scheduled for later.
pub(super) fn scheduled(facts: &Facts, scheduled: &ScheduledView) -> Answer {
    let at = scheduled.deliver_at;
    let when = match at > facts.now {
        true => format!("is scheduled for {}, {}", clock(at, facts.now), due(at, facts.now)),
        false => format!("was scheduled for {}", clock(at, facts.now)),
    };
    let live = facts.relays.iter().any(|relay| relay.live);
    let moves = match (at > facts.now, live) {
        (_, false) => "; no relay is live to put it into the outbox then: start one",
        (true, true) => "; a relay puts it into the outbox then",
        (false, true) => ", and a relay puts it into the outbox now",
    };
    Answer::new(format!("Event {} {when}{moves}.", scheduled.message))
}

/// Writes how many events wait behind it.
pub(super) fn behind(facts: &Facts, key: Option<&str>) -> String {
    let (Some(key), false) = (key, facts.behind.count == 0) else { return String::new() };
    let (noun, verb) = match (facts.behind.count, facts.behind.or_more) {
        (1, false) => ("event", "waits"),
        _ => ("events", "wait"),
    };
    format!(" {} later {noun} of key {} {verb} behind it.", facts.behind, name(key))
}

fn is_open(event: &EventFacts) -> bool {
    event.routes.is_empty() || event.routes.iter().any(|row| !row.state.is_final())
}

/// Every route has its result already: the next write of the relay deletes the event.
fn finished(_: &Facts, event: &EventFacts) -> Option<Answer> {
    if is_open(event) {
        return None;
    }
    let dead: Vec<&RouteFacts> =
        event.routes.iter().filter(|row| row.state == RouteState::Dead).collect();
    let dead = match dead.as_slice() {
        [] => String::new(),
        dead => format!(", as a dead letter of {}", listed(dead)),
    };
    Some(Answer::new(format!(
        "Event {} is finished on every route{dead}, and its relay deletes it with its next write.",
        event.message
    )))
}

/// Nobody publishes the events of its partition.
fn no_relay(facts: &Facts, event: &EventFacts) -> Option<Answer> {
    let live: Vec<&RelayView> = facts.relays.iter().filter(|relay| relay.live).collect();
    let owner = event.owner.as_deref();
    if owner.is_some_and(|owner| live.iter().any(|relay| relay.id == owner)) {
        return None;
    }
    let partition = event.partition;
    let waits_for =
        |relay: &&&RelayView| relay.state.as_ref().is_some_and(|s| s.waits_for.is_some());
    let next = match (live.iter().find(|relay| !waits_for(relay)), live.first()) {
        (Some(relay), _) => {
            format!("relay {} is live and takes it with its next renewal", name(&relay.id))
        }
        (None, Some(relay)) => {
            let other = relay.state.as_ref().and_then(|state| state.waits_for.as_deref());
            let (relay, other) = (name(&relay.id), name(other.unwrap_or_default()));
            format!("relay {relay} takes it when relay {other}, which has other routes, is gone")
        }
        (None, None) => "no relay is live: start one".to_owned(),
    };
    let owned = match owner {
        None => "has no owner".to_owned(),
        Some(owner) => {
            let lease = facts.relays.iter().find(|relay| relay.id == owner);
            let ended = lease.map_or_else(
                || "which has no row any more".to_owned(),
                |r| format!("whose lease ran out at {}", clock(r.lease_until, facts.now)),
            );
            format!("is still owned by relay {}, {ended}", name(owner))
        }
    };
    Some(Answer::new(format!(
        "Event {} waits: its partition {partition} {owned}, and {next}.",
        event.message
    )))
}

/// An operator has paused its topic or its key.
fn paused(facts: &Facts, event: &EventFacts) -> Option<Answer> {
    let scopes =
        [(ControlScope::Topic, Some(&event.topic)), (ControlScope::Key, event.key.as_ref())];
    let (scope, text, pause) = scopes.into_iter().find_map(|(scope, text)| {
        let text = text?;
        Some((scope, text, facts.controls.pause(scope, text)?))
    })?;
    let by = control(pause, facts.now);
    let (id, shown) = (event.message, name(text));
    let sentence = format!("Event {id} waits, as {scope} `{shown}` is paused: {by}.");
    Some(Answer::new(sentence).command(route::resume(scope, text)))
}

/// No route of the relay takes it, or only routes that it has not.
fn unrouted(facts: &Facts, event: &EventFacts) -> Option<Answer> {
    let row = event.routes.iter().find(|row| row.route.is_empty() && !row.state.is_final())?;
    let missing: Vec<&RouteFacts> = route::waiting(&event.routes).collect();
    let missing = match missing.as_slice() {
        [] => format!(
            "no route takes topic `{}` and type `{}`",
            name(&event.topic),
            name(&event.event_type)
        ),
        routes => format!("no live relay has {}", listed(routes)),
    };
    let until = row.due_at.map_or_else(String::new, |at| match at > facts.now {
        true => format!(" at {}", clock(at, facts.now)),
        false => " now".to_owned(),
    });
    let other = route::waiting_relay(facts).map_or_else(
        || "start one with such a route, or it becomes a dead letter".to_owned(),
        |(relay, owner)| {
            format!(
                "relay {} waits for relay {} to end and may have it; else it becomes a dead letter",
                name(relay),
                name(owner)
            )
        },
    );
    Some(Answer::new(format!("Event {} waits: {missing}; {other}{until}.", event.message)))
}

/// A dead letter of its key has to be resolved first.
fn parked(facts: &Facts, event: &EventFacts) -> Option<Answer> {
    let letter = event.parked_by.as_ref()?;
    let key = event.key.as_deref().unwrap_or_default();
    let LetterFacts { id, message, reason, .. } = letter;
    let error = cause(letter.last_error.as_deref());
    let sentence = format!(
        "Event {} waits for route `{}`: event {message}, which comes before it in key {}, is a dead letter there \
         since {} (letter {id}, {reason}{error}), and parks the key until somebody redrives or discards it.",
        event.message,
        name(&letter.route),
        name(key),
        clock(letter.dead_at, facts.now),
    );
    Some(super::letter::resolving(Answer::new(sentence), *id))
}

/// An earlier event of its key is not finished.
fn behind_another(facts: &Facts, event: &EventFacts) -> Option<Answer> {
    let ahead = event.ahead.as_ref()?;
    let key = name(event.key.as_deref().unwrap_or_default());
    let start =
        format!("Event {} waits behind event {} of key {key}", event.message, ahead.message);
    let Some(cause) = route::cause(facts, event, &ahead.routes) else {
        let text = format!("{start}, which its relay publishes first.");
        return Some(Answer::new(text));
    };
    let Cause { route, text, command, .. } = cause;
    let answer = Answer::new(format!("{start}, which waits for route `{route}`: {text}."));
    Some(command.into_iter().fold(answer, Answer::command))
}

/// Its time to live has passed.
fn expired(facts: &Facts, event: &EventFacts) -> Option<Answer> {
    let at = event.expires_at.filter(|at| *at <= facts.now)?;
    Some(Answer::new(format!(
        "Event {} expired at {}, and its relay makes it a dead letter next.",
        event.message,
        clock(at, facts.now)
    )))
}

/// It waits for one of its routes, or for its relay to come to it.
fn waits_for_route(facts: &Facts, event: &EventFacts) -> Option<Answer> {
    let confirmed: Vec<&RouteFacts> =
        event.routes.iter().filter(|row| row.state == RouteState::Done).collect();
    let confirmed = match confirmed.as_slice() {
        [] => String::new(),
        routes => format!("is confirmed by {} and ", listed(routes)),
    };
    let id = event.message;
    if let Some(Cause { route, text, command, certain }) = route::cause(facts, event, &event.routes)
    {
        let sentence = match certain {
            true => format!("Event {id} {confirmed}waits for route `{route}`: {text}."),
            false => format!(
                "Event {id} has no confirmation yet, and route `{route}` of its relay stands still: {text}."
            ),
        };
        let answer = Answer::new(sentence);
        return Some(command.into_iter().fold(answer, Answer::command));
    }
    let owner = event.owner.as_deref()?;
    let relay = facts.relays.iter().find(|relay| relay.id == owner)?;
    let busy = relay.state.as_ref().map_or_else(
        || "has not written yet what it does".to_owned(),
        |state| {
            let in_flight: u64 = state.routes.iter().map(|route| route.in_flight).sum();
            format!("publishes it next ({} in memory, {in_flight} in flight)", state.in_memory)
        },
    );
    Some(Answer::new(format!(
        "Event {id} {confirmed}waits for its turn: relay {} owns its partition {} and {busy}.",
        name(owner),
        event.partition
    )))
}

/// Writes the names of routes.
fn listed(routes: &[&RouteFacts]) -> String {
    let names = routes.iter().map(|row| format!("`{}`", name(&row.route)));
    format!("route {}", names.collect::<Vec<_>>().join(", "))
}
