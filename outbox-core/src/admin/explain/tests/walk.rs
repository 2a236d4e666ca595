//! Every state that the CHECKs of the tables allow, in every company, has an explanation.

use super::{
    sagas::{command, coordinator, step},
    *,
};
use crate::{
    admin::{ConsumerView, SagasLive},
    failure::{ConsumerOrigin, Resolution},
    outbox::Awaited,
    saga::{BlockedOn, SagaState, StepProgress, StepState},
};

/// A stored text at its worst.
const EVIL: &str = "\u{1b}[2J\u{202e}\n'`$(rm)";

/// Fails where an explanation says nothing of its own, or could harm a terminal.
pub(super) fn explained(facts: &Facts) {
    let Explanation { sentence, facts: listed, commands, .. } = explain(facts);
    let texts = listed.iter().flat_map(|(name, value)| [name, value]).chain(&commands);
    for text in texts.chain([&sentence]) {
        assert!(!text.is_empty() && !text.chars().any(char::is_control), "{text:?} of {facts:#?}");
        assert!(!text.contains('\u{202e}') && text.len() < 4_096, "{text:?}");
    }
    assert!(sentence.ends_with('.') && !sentence.contains("  waits"), "{sentence}");
    // The last resorts of the code, which no state may need.
    for defect in ["to read it.", "its consumer claims it next", "coordinator to claim it."] {
        assert!(!sentence.contains(defect), "{sentence} of {facts:#?}");
    }
}

/// Rows of one route, as `outbox_retries` can hold them.
fn rows(route: &str) -> Vec<RouteFacts> {
    let mut rows = Vec::new();
    for state in [RouteState::Waiting, RouteState::Done, RouteState::Dead] {
        for due_at in [None, Some(at("14:00:00")), Some(at("23:00:00"))] {
            // CHECK (state = 'waiting' OR due_at IS NULL)
            if state != RouteState::Waiting && due_at.is_some() {
                continue;
            }
            for (started, attempts, redriven) in
                [(0, 0, false), (2, 1, false), (0, 3, false), (0, 0, true)]
            {
                let last_error = (attempts > 0).then(|| EVIL.repeat(200));
                rows.push(RouteFacts {
                    started,
                    attempts,
                    due_at,
                    last_error,
                    redriven,
                    ..row(route, state)
                });
            }
        }
    }
    rows
}

/// Relays as `outbox_relays` and `outbox_live` can show them.
fn companies() -> Vec<Vec<RelayView>> {
    let dead = RelayView { live: false, ..relay("a", vec![route("billing")]) };
    let silent = RelayView { state: None, written_at: None, ..relay("a", Vec::new()) };
    let mut waits = relay("b", vec![route("mail")]);
    waits.state.as_mut().unwrap().waits_for = Some("a".to_owned());
    let limited = RouteLive { limit: Some(f64::MIN_POSITIVE), paused: true, ..route("billing") };
    let unlimited = RouteLive { limit: Some(0.0), waiting: u64::MAX, ..route("billing") };
    vec![
        Vec::new(),
        vec![relay("a", vec![route("billing")])],
        vec![relay("a", vec![open_route("billing"), route("mail")])],
        vec![relay("a", vec![limited])],
        vec![relay("a", vec![unlimited])],
        vec![relay("a", Vec::new())],
        vec![dead.clone()],
        vec![silent],
        vec![dead, waits.clone()],
        vec![relay("a", vec![route("billing")]), waits],
    ]
}

fn controls() -> Vec<Controls> {
    let scopes = [
        (ControlScope::Topic, "orders"),
        (ControlScope::Key, "7"),
        (ControlScope::Route, "billing"),
        (ControlScope::Consumer, "mail"),
        (ControlScope::Saga, "place-order"),
    ];
    let rate =
        Control { action: ControlAction::Rate(2.0), ..pause(ControlScope::Route, "billing") };
    let one = |(scope, name)| {
        let until = None;
        Controls(vec![Control { until, reason: EVIL.to_owned(), ..pause(scope, name) }])
    };
    let mut all: Vec<Controls> = scopes.into_iter().map(one).collect();
    all.extend([Controls::default(), Controls(vec![rate])]);
    all
}

#[test]
fn every_state_of_an_event_has_an_explanation() {
    let mut sets = vec![Vec::new()];
    for first in rows("billing").into_iter().chain(rows("")).chain(rows("gone")) {
        sets.push(vec![first.clone()]);
        sets.extend(rows("mail").into_iter().step_by(3).map(|second| vec![first.clone(), second]));
    }
    let mut seen = 0;
    for relays in companies() {
        for controls in controls() {
            for (n, routes) in sets.iter().enumerate() {
                let facts = waiting(|facts, event| {
                    (facts.relays, facts.controls) = (relays.clone(), controls.clone());
                    event.owner = (n % 3 != 0).then(|| "a".to_owned());
                    event.key = (n % 2 == 0).then(|| EVIL.to_owned());
                    event.routes.clone_from(routes);
                    if n % 5 == 0 {
                        let routes = rows("billing").swap_remove(n % 6);
                        event.ahead = Some(AheadFacts {
                            message: message(2),
                            event_type: "order.placed".to_owned(),
                            routes: vec![routes],
                        });
                    }
                    event.expires_at = (n % 7 == 0).then_some(now());
                });
                explained(&facts);
                seen += 1;
            }
        }
    }
    assert!(seen > 10_000, "{seen}");
}

#[test]
fn every_letter_has_an_explanation() {
    let reasons = [
        "rejected",
        "exhausted",
        "expired",
        "unroutable",
        "crashed",
        "undecodable",
        "not_retried",
        "unknown_type",
    ];
    for reason in reasons {
        for action in [None, Some("redriven"), Some("discarded"), Some("resent")] {
            for handler in [None, Some(""), Some(EVIL)] {
                for parks in [false, true] {
                    let resolution = action.map(|action| Resolution {
                        action: action.to_owned(),
                        at: now(),
                        by: EVIL.to_owned(),
                        reason: EVIL.to_owned(),
                    });
                    let consumer = handler.map(|handler| ConsumerOrigin {
                        consumer: EVIL.to_owned(),
                        handler: handler.to_owned(),
                    });
                    let reason = reason.parse().unwrap();
                    let mut facts = Facts::nothing(Subject::Key(EVIL.to_owned()), now());
                    facts.letters =
                        vec![LetterFacts { reason, resolution, consumer, parks, ..a_letter() }];
                    explained(&facts);
                }
            }
        }
    }
}

#[test]
fn every_state_of_a_deferred_delivery_has_an_explanation() {
    let instances = [
        Vec::new(),
        vec![an_instance("send")],
        vec![an_instance("other")],
        vec![InstanceFacts { live: false, ..an_instance("send") }],
    ];
    let awaited = [
        None,
        Some(None),
        Some(Some(Awaited::Type { name: EVIL.to_owned(), version: 2 })),
        Some(Some(Awaited::Type { name: "order.placed".to_owned(), version: 1 })),
        Some(Some(Awaited::Saga { name: EVIL.to_owned(), version: 2 })),
        Some(Some(Awaited::key("aead", EVIL))),
    ];
    for instances in &instances {
        for awaited in &awaited {
            for due_at in [None, Some(at("14:00:00")), Some(at("23:00:00"))] {
                for claimed in [None, Some(at("14:00:00")), Some(at("23:00:00"))] {
                    for (handler, controls) in [("send", 0), ("", 0), ("send", 3)] {
                        let facts = delivered(|facts, d| {
                            facts.instances.clone_from(instances);
                            facts.controls = self::controls().swap_remove(controls);
                            (d.view.due_at, d.view.handler) = (due_at, handler.to_owned());
                            d.awaits = awaited.clone().map(|what| (at("14:00:00"), what));
                            d.claimed = claimed.map(|until| (EVIL.to_owned(), until));
                        });
                        explained(&facts);
                    }
                }
            }
        }
    }
}

fn steps() -> Vec<StepProgress> {
    let states = [
        StepState::Pending,
        StepState::Waiting,
        StepState::Rejected,
        StepState::Unknown,
        StepState::Done,
        StepState::Skipped,
        StepState::CompensationFailing,
        StepState::Cancelling,
        StepState::Undone,
    ];
    let blocked_on =
        || Some(BlockedOn { entity: EVIL.to_owned(), holder: EVIL.to_owned(), since_us: 0 });
    let mut steps = Vec::new();
    for state in states {
        let plain = step(EVIL, state);
        steps.extend([
            StepProgress { failures: 2, retry_at_us: now().as_micros(), ..plain.clone() },
            StepProgress { unfinished_attempts: 2, ..plain.clone() },
            StepProgress { command: Some(command(0, i64::MAX)), pivot: true, ..plain.clone() },
            StepProgress { command: Some(command(3, 0)), ..plain.clone() },
            StepProgress { blocked_on: blocked_on(), ..plain.clone() },
            plain,
        ]);
    }
    steps
}

#[test]
fn every_state_of_a_saga_has_an_explanation() {
    let coordinators: [Vec<ConsumerView<SagasLive>>; 3] =
        [Vec::new(), vec![coordinator(2)], vec![coordinator(1)]];
    for state in SagaState::ALL {
        for backward in [false, true] {
            for step in [None].into_iter().chain(steps().into_iter().map(Some)) {
                for coordinators in &coordinators {
                    for (claimed, due) in [
                        (false, "14:00:00"),
                        (true, "14:00:00"),
                        (true, "23:00:00"),
                        (false, "23:00:00"),
                    ] {
                        let reason = backward.then(|| EVIL.to_owned());
                        let stuck_at = step.as_ref().map(|step| step.step.clone());
                        let steps = step.clone().into_iter().collect();
                        let mut saga = a_saga(Instance {
                            state,
                            backward,
                            reason,
                            stuck_at,
                            steps,
                            ..Instance::default()
                        });
                        // CHECK ((due_at IS NOT NULL) = (state IN ('running', 'compensating')))
                        (saga.due_at, saga.claimed) = (state.is_active().then(|| at(due)), claimed);
                        saga.ended_at = state.is_final().then(now);
                        let mut facts = Facts::nothing(Subject::Saga(saga.id), now());
                        facts.coordinators.clone_from(coordinators);
                        facts.saga = Some(saga);
                        explained(&facts);
                    }
                }
            }
        }
    }
}
