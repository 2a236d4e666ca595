//! Every branch with its exact sentence, and a walk over every state that the stores' CHECKs allow.

mod commands;
mod events;
mod others;
mod sagas;
mod walk;

use super::*;
use crate::{
    admin::{
        Bounded, Control, ControlAction, ControlScope, Controls, DeferredView, LastFailure,
        RelayLive, RelayView, RouteLive,
    },
    event::{LetterId, MessageId, SagaId, Timestamp},
    failure::DeadReason,
    outbox::{DeclaredHandler, DeclaredType, PartitionNo, RouteState},
    saga::Instance,
};
use std::time::Duration;

/// An instant of the day of all tests.
fn at(hour: &str) -> Timestamp {
    format!("2026-11-30T{hour}Z").parse().unwrap()
}

fn now() -> Timestamp {
    at("14:10:00")
}

fn message(n: u128) -> MessageId {
    MessageId::from_uuid(uuid::Uuid::from_u128(n))
}

/// The id of the message as sentences write it.
const X: &str = "00000000-0000-0000-0000-000000000001";
const AHEAD: &str = "00000000-0000-0000-0000-000000000002";

fn row(route: &str, state: RouteState) -> RouteFacts {
    RouteFacts {
        route: route.to_owned(),
        state,
        started: 0,
        attempts: 0,
        due_at: None,
        last_error: None,
        redriven: false,
    }
}

fn relay(id: &str, routes: Vec<RouteLive>) -> RelayView {
    RelayView {
        id: id.to_owned(),
        live: true,
        started_at: at("08:00:00"),
        lease_until: at("14:10:10"),
        partitions: vec![PartitionNo(3)],
        state: Some(RelayLive { routes, in_memory: 9, ..RelayLive::default() }),
        written_at: Some(now()),
    }
}

fn route(name: &str) -> RouteLive {
    RouteLive { route: name.to_owned(), breaker: "closed".to_owned(), ..RouteLive::default() }
}

fn open_route(name: &str) -> RouteLive {
    let text = "connection refused".to_owned();
    RouteLive {
        breaker: "open".to_owned(),
        probe_in_ms: Some(12_000),
        open_for_ms: Some(420_000),
        last_failure: Some(LastFailure { text, class: "unavailable".to_owned(), ago_ms: 3_000 }),
        ..route(name)
    }
}

fn an_event() -> EventFacts {
    EventFacts {
        message: message(1),
        partition: PartitionNo(3),
        owner: Some("a".to_owned()),
        topic: "orders".to_owned(),
        event_type: "order.placed".to_owned(),
        key: Some("7".to_owned()),
        created_at: at("14:00:00"),
        expires_at: None,
        routes: Vec::new(),
        ahead: None,
        parked_by: None,
    }
}

/// An event whose partition the live relay `a` with the route `billing` owns.
fn waiting(change: impl FnOnce(&mut Facts, &mut EventFacts)) -> Facts {
    let mut facts = Facts::nothing(Subject::Message(message(1)), now());
    facts.relays = vec![relay("a", vec![route("billing")])];
    let mut event = an_event();
    change(&mut facts, &mut event);
    facts.event = Some(event);
    facts
}

fn pause(scope: ControlScope, name: &str) -> Control {
    Control {
        scope,
        name: name.to_owned(),
        action: ControlAction::Pause,
        by: "ann".to_owned(),
        reason: "broker upgrade".to_owned(),
        set_at: at("14:05:00"),
        until: Some(at("15:00:00")),
        ends_in: Some(Duration::from_mins(50)),
    }
}

fn a_letter() -> LetterFacts {
    LetterFacts {
        id: LetterId(17),
        message: message(1),
        event_type: "order.placed".to_owned(),
        key: Some("7".to_owned()),
        route: "billing".to_owned(),
        consumer: None,
        reason: DeadReason::Exhausted,
        attempts: 10,
        last_error: Some("503".to_owned()),
        parks: false,
        dead_at: at("14:03:00"),
        resolution: None,
    }
}

fn a_delivery() -> DeferredFacts {
    DeferredFacts {
        view: DeferredView {
            id: 5,
            consumer: "mail".to_owned(),
            handler: "send".to_owned(),
            message: message(1),
            topic: "orders".to_owned(),
            event_type: "order.placed".to_owned(),
            key: Some("7".to_owned()),
            due_at: Some(at("14:11:00")),
            failures: 0,
            last_error: None,
            awaits: None,
        },
        stored_at: at("14:00:00"),
        claimed: None,
        ahead: None,
        awaits: None,
    }
}

fn an_instance(handler: &str) -> InstanceFacts {
    let types = vec![DeclaredType { name: "order.placed".to_owned(), version: 1 }];
    InstanceFacts {
        id: "i".to_owned(),
        consumer: "mail".to_owned(),
        live: true,
        handlers: vec![DeclaredHandler {
            name: handler.to_owned(),
            types,
            ..DeclaredHandler::default()
        }],
        state: None,
    }
}

/// A deferred delivery of a consumer with one live instance.
fn delivered(change: impl FnOnce(&mut Facts, &mut DeferredFacts)) -> Facts {
    let mut facts = Facts::nothing(Subject::Message(message(1)), now());
    facts.instances = vec![an_instance("send")];
    let mut delivery = a_delivery();
    change(&mut facts, &mut delivery);
    facts.deferred = vec![delivery];
    facts
}

fn a_saga(instance: Instance) -> SagaFacts {
    SagaFacts {
        id: SagaId::from_uuid(uuid::Uuid::from_u128(9)),
        definition: ("place-order".into(), 2),
        correlation: "order-7".to_owned(),
        instance,
        due_at: Some(at("14:10:12")),
        claimed: false,
        deadline_at: None,
        changed_at: at("14:03:00"),
        ended_at: None,
        last_error: None,
    }
}

fn check(cases: Vec<(Facts, String)>) {
    for (facts, sentence) in cases {
        assert_eq!(explain(&facts).sentence, sentence, "{facts:#?}");
    }
}
