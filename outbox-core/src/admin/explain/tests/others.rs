//! Scheduled events, dead letters, deferred deliveries, and what is over.

use super::*;
use crate::{
    admin::{InboxView, ScheduledView},
    failure::{ConsumerOrigin, Resolution},
    outbox::Awaited,
};

fn nothing() -> Facts {
    Facts::nothing(Subject::Message(message(1)), now())
}

fn scheduled(hour: &str) -> Facts {
    let mut facts = nothing();
    facts.scheduled = Some(ScheduledView {
        id: 1,
        message: message(1),
        topic: "orders".to_owned(),
        event_type: "order.placed".to_owned(),
        key: None,
        deliver_at: at(hour),
    });
    facts
}

fn with_relay(mut facts: Facts) -> Facts {
    facts.relays = vec![relay("a", Vec::new())];
    facts
}

#[test]
fn an_event_that_is_scheduled() {
    check(vec![
        (
            with_relay(scheduled("15:10:00")),
            format!(
                "Event {X} is scheduled for 15:10 UTC, in 60 min; a relay puts it into the outbox then."
            ),
        ),
        (
            scheduled("15:10:00"),
            format!(
                "Event {X} is scheduled for 15:10 UTC, in 60 min; no relay is live to put it into the outbox then: start one."
            ),
        ),
        (
            with_relay(scheduled("14:09:00")),
            format!(
                "Event {X} was scheduled for 14:09 UTC, and a relay puts it into the outbox now."
            ),
        ),
    ]);
}

fn resolution(action: &str) -> Option<Resolution> {
    let (action, by) = (action.to_owned(), "ann".to_owned());
    Some(Resolution { action, at: at("14:06:00"), by, reason: "not wanted".to_owned() })
}

fn letter(change: impl FnOnce(&mut Facts, &mut LetterFacts)) -> Facts {
    let (mut facts, mut letter) = (nothing(), a_letter());
    change(&mut facts, &mut letter);
    facts.letters = vec![letter];
    facts
}

#[test]
fn a_dead_letter() {
    let of_consumer =
        |handler: &str| ConsumerOrigin { consumer: "mail".to_owned(), handler: handler.to_owned() };
    let (send, none) = (of_consumer("send"), of_consumer(""));
    check(vec![
        (
            letter(|facts, letter| {
                letter.parks = true;
                facts.behind = Bounded { count: 10_000, or_more: true };
            }),
            format!(
                "Event {X} is a dead letter of route `billing` since 14:03 UTC (letter 17, exhausted after 10 attempts: 503), \
                 and waits until somebody redrives or discards it. 10000+ later events of key 7 wait behind it."
            ),
        ),
        (
            letter(|_, letter| {
                (letter.route, letter.reason) = (String::new(), DeadReason::Unroutable);
                (letter.attempts, letter.last_error) = (0, None);
            }),
            format!(
                "Event {X} is a dead letter since 14:03 UTC (letter 17, unroutable), and waits until somebody redrives \
                 or discards it."
            ),
        ),
        (
            letter(|_, letter| (letter.consumer, letter.attempts) = (Some(send), 1)),
            format!(
                "Message {X} is a dead letter of handler `send` of consumer `mail` since 14:03 UTC (letter 17, exhausted \
                 after 1 attempt: 503), and waits until somebody redrives or discards it."
            ),
        ),
        (
            letter(|_, letter| {
                (letter.consumer, letter.attempts, letter.last_error) = (Some(none), 0, None);
                letter.reason = DeadReason::UnknownType;
            }),
            format!(
                "Message {X} is a dead letter of consumer `mail` since 14:03 UTC (letter 17, unknown_type), \
                 and waits until somebody redrives or discards it."
            ),
        ),
    ]);
    assert_eq!(
        explain(&letter(|_, _| ())).commands,
        ["outbox dead-letters redrive 17", "outbox dead-letters discard 17"]
    );
}

#[test]
fn a_letter_that_is_resolved() {
    let resolved = |action: &'static str| letter(move |_, l| l.resolution = resolution(action));
    let was = format!(
        "Event {X} waits for nothing: it was a dead letter of route `billing` (letter 17, exhausted), which"
    );
    check(vec![
        (
            resolved("discarded"),
            format!("{was} ann discarded at 14:06 UTC (not wanted): it is not delivered."),
        ),
        (
            resolved("redriven"),
            format!(
                "{was} ann redrove at 14:06 UTC (not wanted): it was delivered since, or its consumer's retention has \
                 removed it."
            ),
        ),
        (
            resolved("resent"),
            format!(
                "{was} ann resent at 14:06 UTC (not wanted): a new event with other content took its place."
            ),
        ),
    ]);
}

#[test]
fn what_is_over_and_what_is_unknown() {
    let received = || InboxView {
        consumer: "mail".to_owned(),
        handler: "send".to_owned(),
        source: "/shop".to_owned(),
        message: message(1),
        keep_until: at("20:00:00"),
    };
    let with = |finished_at, received| Facts { finished_at, received, ..nothing() };
    let handled = "handler `send` of consumer `mail` handled it";
    let archived = "every route confirmed it, and it is in the archive since 14:03 UTC";
    check(vec![
        (
            with(Some(at("14:03:00")), Vec::new()),
            format!("Message {X} waits for nothing here: {archived}."),
        ),
        (
            with(None, vec![received()]),
            format!("Message {X} waits for nothing here: {handled}."),
        ),
        (
            with(Some(at("14:03:00")), vec![received()]),
            format!("Message {X} waits for nothing here: {archived}, and {handled}."),
        ),
        (
            nothing(),
            format!(
                "Nothing is stored of message {X}: it was never saved here, or it is finished and its rows are deleted, \
                 which relays do at once unless they keep finished events, and consumers when the retention of the inbox \
                 is over."
            ),
        ),
        (
            Facts {
                not_searched: vec!["Dead letters before the newest 10,000 were not searched.".into()],
                ..Facts::nothing(Subject::Key("7".to_owned()), now())
            },
            "Nothing of key 7 waits: no event, no open dead letter and no deferred delivery has it. \
             Dead letters before the newest 10,000 were not searched."
                .to_owned(),
        ),
    ]);
}

#[test]
fn a_deferred_delivery() {
    let is = format!("Message {X} is deferred for handler `send` of consumer `mail`:");
    check(vec![
        (delivered(|_, _| ()), format!("{is} it is due in 60 s.")),
        (
            delivered(|_, d| (d.view.failures, d.view.last_error) = (2, Some("locked".to_owned()))),
            format!("{is} 2 attempts failed (locked), and the next one is due in 60 s."),
        ),
        (
            delivered(|_, d| d.claimed = Some(("i".to_owned(), at("14:10:30")))),
            format!("{is} instance i runs it now, and its claim lasts until 14:10 UTC."),
        ),
        (
            delivered(|_, d| d.claimed = Some(("i".to_owned(), at("14:08:30")))),
            format!(
                "{is} the claim of instance i ran out at 14:08 UTC, and another instance claims it next."
            ),
        ),
        (
            delivered(|_, d| (d.view.due_at, d.ahead) = (None, Some(message(2)))),
            format!("{is} it waits behind message {AHEAD} of key 7."),
        ),
        (
            delivered(|_, d| d.view.due_at = None),
            format!("{is} it is the next of key 7, and is due with the next claim."),
        ),
    ]);
}

#[test]
fn a_deferred_delivery_that_nobody_runs() {
    let is = format!("Message {X} is deferred for handler `send` of consumer `mail`:");
    let version_2 = || Awaited::Type { name: "order.placed".to_owned(), version: 2 };
    check(vec![
        (
            delivered(|facts, _| {
                facts.controls = Controls(vec![pause(ControlScope::Consumer, "mail")]);
            }),
            format!(
                "{is} its consumer is paused: ann paused it at 14:05 UTC (broker upgrade), until 15:00 UTC."
            ),
        ),
        (
            delivered(|facts, _| facts.instances[0].live = false),
            format!("{is} no instance of the consumer is running: start one."),
        ),
        (
            delivered(|facts, _| facts.instances = vec![an_instance("other")]),
            format!("{is} no running instance has the handler `send`: start one with it."),
        ),
        (
            delivered(|_, d| d.awaits = Some((at("14:01:00"), Some(version_2())))),
            format!(
                "{is} no running instance has version 2 of the type `order.placed` since 14:01 UTC: start one with it, \
                 and any instance tries it at 14:11 UTC."
            ),
        ),
        (
            delivered(|_, d| d.awaits = Some((at("14:01:00"), Some(Awaited::key("aead", "k1"))))),
            format!(
                "{is} no running instance has the key `k1` of the payload codec `aead` since 14:01 UTC: start one with it, \
                 and any instance tries it at 14:11 UTC."
            ),
        ),
        (
            delivered(|facts, d| {
                facts.instances[0].handlers[0].types[0].version = 2;
                d.awaits = Some((at("14:01:00"), Some(version_2())));
            }),
            format!(
                "{is} it waits for an instance that has version 2 of the type `order.placed`, and instance i claims it \
                 within a minute."
            ),
        ),
    ]);
}
