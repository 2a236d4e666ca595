//! The facts behind a sentence, as names with values.

use super::{
    CommandFacts, DeferredFacts, EventFacts, Facts, LetterFacts, RouteFacts, SagaFacts,
    words::{error, name},
};
use crate::admin::RelayView;

/// Lists the facts.
pub(super) fn listed(facts: &Facts) -> Vec<(String, String)> {
    let mut list = List(Vec::new());
    list.add("read at", facts.now);
    if let Some(event) = &facts.event {
        list.event(event);
        if let Some(relay) = facts.relays.iter().find(|r| Some(&r.id) == event.owner.as_ref()) {
            list.relay(relay);
        }
    }
    if facts.behind.count > 0 {
        list.add("later events of the key", facts.behind);
    }
    if let Some(at) = facts.finished_at {
        list.add("in the archive since", at);
    }
    if let Some(scheduled) = &facts.scheduled {
        list.add("scheduled for", scheduled.deliver_at);
    }
    facts.letters.iter().for_each(|letter| list.letter(letter));
    facts.deferred.iter().for_each(|delivery| list.deferred(delivery));
    for row in &facts.received {
        let handler = format!("{}/{}", name(&row.consumer), name(&row.handler));
        list.add(
            "handled by",
            format!("{handler}, repeats are recognised until {}", row.keep_until),
        );
    }
    if let Some(saga) = &facts.saga {
        list.saga(saga);
    }
    facts.commands.iter().for_each(|known| list.command(None, known));
    for (database, known) in &facts.elsewhere {
        list.command(Some(database), known);
    }
    for control in &facts.controls.0 {
        let by = name(&control.by);
        list.add("control", format!("{} {} by {by}", control.scope, name(&control.name)));
    }
    for left_out in &facts.not_searched {
        list.add("not searched", left_out);
    }
    list.0
}

struct List(Vec<(String, String)>);

impl List {
    fn add(&mut self, name: impl Into<String>, value: impl ToString) {
        self.0.push((name.into(), value.to_string()));
    }

    fn event(&mut self, event: &EventFacts) {
        self.add("event", event.message);
        self.add("topic", name(&event.topic));
        self.add("type", name(&event.event_type));
        if let Some(key) = &event.key {
            self.add("key", name(key));
        }
        self.add("saved at", event.created_at);
        if let Some(at) = event.expires_at {
            self.add("expires at", at);
        }
        self.add("partition", event.partition);
        self.add("owner", event.owner.as_deref().map_or_else(|| "none".to_owned(), name));
        event.routes.iter().for_each(|row| self.route(row));
        if let Some(ahead) = &event.ahead {
            self.add("first event of the key", ahead.message);
            ahead.routes.iter().for_each(|row| self.route(row));
        }
        if let Some(letter) = &event.parked_by {
            self.letter(letter);
        }
    }

    fn route(&mut self, row: &RouteFacts) {
        let due = row.due_at.map_or_else(String::new, |at| format!(", due {at}"));
        let last =
            row.last_error.as_deref().map_or_else(String::new, |e| format!(", {}", error(e)));
        let route = if row.route.is_empty() { "no route".to_owned() } else { name(&row.route) };
        let value = format!("{}, {} counted{due}{last}", row.state, row.attempts);
        self.add(format!("route {route}"), value);
    }

    fn relay(&mut self, relay: &RelayView) {
        let live = if relay.live { "live" } else { "not live" };
        self.add(
            "relay",
            format!("{}, {live}, lease until {}", name(&relay.id), relay.lease_until),
        );
        let Some(state) = &relay.state else { return };
        if let Some(at) = relay.written_at {
            self.add("relay wrote at", at);
        }
        for route in state.routes.iter().take(20) {
            let failed = route.last_failure.as_ref().map_or_else(String::new, |failure| {
                format!(", last failure: {}", error(&failure.text))
            });
            let value = format!(
                "breaker {}, {} in flight, {} waiting{failed}",
                name(&route.breaker),
                route.in_flight,
                route.waiting
            );
            self.add(format!("relay's route {}", name(&route.route)), value);
        }
    }

    fn letter(&mut self, letter: &LetterFacts) {
        let by = match &letter.consumer {
            Some(by) => format!("{}/{}", name(&by.consumer), name(&by.handler)),
            None => name(&letter.route),
        };
        let state = letter.resolution.as_ref().map_or_else(
            || "open".to_owned(),
            |r| format!("{} by {} at {}", name(&r.action), name(&r.by), r.at),
        );
        let last =
            letter.last_error.as_deref().map_or_else(String::new, |e| format!(", {}", error(e)));
        let value = format!(
            "{by}, {}, {} attempts, {}, {state}{last}",
            letter.reason, letter.attempts, letter.dead_at
        );
        self.add(format!("dead letter {}", letter.id), value);
    }

    fn deferred(&mut self, delivery: &DeferredFacts) {
        let view = &delivery.view;
        let due = view.due_at.map_or_else(|| "behind others".to_owned(), |at| format!("due {at}"));
        let claimed = delivery.claimed.as_ref().map_or_else(String::new, |(by, until)| {
            format!(", claimed by {} until {until}", name(by))
        });
        let awaits = view
            .awaits
            .as_deref()
            .map_or_else(String::new, |what| format!(", awaits {}", name(what)));
        let value = format!(
            "{}/{}, stored {}, {due}, {} failures{claimed}{awaits}",
            name(&view.consumer),
            name(&view.handler),
            delivery.stored_at,
            view.failures
        );
        self.add(format!("deferred delivery {}", view.id), value);
    }

    /// Lists what a database has of a command and of its reply; another database with its name.
    fn command(&mut self, database: Option<&str>, known: &CommandFacts) {
        let begun = self.0.len();
        for part in [&known.sent, &known.reply] {
            part.event.iter().for_each(|event| self.event(event));
            part.letters.iter().for_each(|letter| self.letter(letter));
            part.deferred.iter().for_each(|delivery| self.deferred(delivery));
        }
        let step = name(&known.command.step);
        if let Some(handled) = &known.handled {
            let value = format!(
                "{} at {}, {}",
                name(&handled.consumer),
                handled.at,
                handled.outcome.as_str()
            );
            self.add(format!("command of step {step} handled by"), value);
        }
        known.sent.not_searched.iter().for_each(|left_out| self.add("not searched", left_out));
        let Some(database) = database.map(name) else { return };
        for (fact, _) in self.0.iter_mut().skip(begun) {
            *fact = format!("{database}: {fact}");
        }
    }

    fn saga(&mut self, saga: &SagaFacts) {
        self.add("saga", format!("{} version {}", name(&saga.definition.0), saga.definition.1));
        self.add("correlation id", name(&saga.correlation));
        self.add("state", saga.instance.state);
        if let Some(reason) = &saga.instance.reason {
            self.add("reason", error(reason));
        }
        if let Some(at) = saga.due_at {
            self.add(if saga.claimed { "claimed until" } else { "due at" }, at);
        }
        if let Some(at) = saga.deadline_at {
            self.add("deadline", at);
        }
        self.add("last record at", saga.changed_at);
        for step in saga.instance.steps.iter().take(50) {
            let value = format!("{:?}, {} failures in a row", step.state, step.failures);
            self.add(format!("step {}", name(&step.step)), value.to_lowercase());
        }
        if let Some(last) = &saga.last_error {
            self.add("last failure", error(last));
        }
    }
}
