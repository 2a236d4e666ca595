//! Events in the outbox.

use super::*;

fn paused_until(scope: &str) -> String {
    format!(
        "Event {X} waits, as {scope} is paused: ann paused it at 14:05 UTC (broker upgrade), until 15:00 UTC."
    )
}

#[test]
fn an_event_whose_relay_owns_its_partition() {
    let busy = RouteLive { in_flight: 2, waiting: 7, ..route("billing") };
    check(vec![
        (
            waiting(|facts, _| facts.relays = vec![relay("a", vec![busy])]),
            format!(
                "Event {X} waits for its turn: relay a owns its partition 3 and publishes it next \
                 (9 in memory, 2 in flight)."
            ),
        ),
        (
            waiting(|facts, _| facts.relays[0].state = None),
            format!(
                "Event {X} waits for its turn: relay a owns its partition 3 and has not written yet what it does."
            ),
        ),
        (
            waiting(|_, event| {
                event.routes =
                    vec![row("billing", RouteState::Done), row("mail", RouteState::Dead)];
            }),
            format!(
                "Event {X} is finished on every route, as a dead letter of route `mail`, and its relay deletes it \
                 with its next write."
            ),
        ),
        (
            waiting(|_, event| event.expires_at = Some(at("14:09:00"))),
            format!("Event {X} expired at 14:09 UTC, and its relay makes it a dead letter next."),
        ),
    ]);
}

#[test]
fn an_event_without_a_relay() {
    let waits = |id: &str| {
        let mut view = relay(id, vec![route("mail")]);
        view.state.as_mut().unwrap().waits_for = Some("a".to_owned());
        view
    };
    check(vec![
        (
            waiting(|facts, event| (facts.relays, event.owner) = (Vec::new(), None)),
            format!(
                "Event {X} waits: its partition 3 has no owner, and no relay is live: start one."
            ),
        ),
        (
            waiting(|_, event| event.owner = None),
            format!(
                "Event {X} waits: its partition 3 has no owner, and relay a is live and takes it with its next renewal."
            ),
        ),
        (
            waiting(|facts, _| {
                (facts.relays[0].live, facts.relays[0].lease_until) = (false, at("14:09:20"));
            }),
            format!(
                "Event {X} waits: its partition 3 is still owned by relay a, whose lease ran out at 14:09 UTC, \
                 and no relay is live: start one."
            ),
        ),
        (
            waiting(|facts, _| facts.relays = vec![relay("b", Vec::new())]),
            format!(
                "Event {X} waits: its partition 3 is still owned by relay a, which has no row any more, \
                 and relay b is live and takes it with its next renewal."
            ),
        ),
        (
            waiting(|facts, event| (facts.relays, event.owner) = (vec![waits("b")], None)),
            format!(
                "Event {X} waits: its partition 3 has no owner, and relay b takes it when relay a, \
                 which has other routes, is gone."
            ),
        ),
    ]);
}

#[test]
fn an_event_that_waits_for_a_route() {
    check(vec![
        (
            waiting(|facts, _| {
                facts.relays = vec![relay("a", vec![open_route("billing")])];
                facts.behind = Bounded { count: 2, or_more: false };
            }),
            format!(
                "Event {X} waits for route `billing`: its breaker is open since 14:03 UTC (connection refused), \
                 next probe in 12 s. 2 later events of key 7 wait behind it."
            ),
        ),
        (
            waiting(|facts, _| {
                facts.relays = vec![relay("a", vec![route("mail"), open_route("billing")])];
            }),
            format!(
                "Event {X} has no confirmation yet, and route `billing` of its relay stands still: its breaker is open \
                 since 14:03 UTC (connection refused), next probe in 12 s."
            ),
        ),
        (
            waiting(|facts, _| {
                let half = RouteLive { breaker: "half_open".to_owned(), ..route("billing") };
                facts.relays = vec![relay("a", vec![half])];
                facts.behind = Bounded { count: 1, or_more: false };
            }),
            format!(
                "Event {X} waits for route `billing`: its breaker is half open, and a probe is under way. \
                 1 later event of key 7 waits behind it."
            ),
        ),
    ]);
}

#[test]
fn an_event_that_is_retried_on_a_route() {
    let failed = |due: &str| RouteFacts {
        attempts: 3,
        due_at: Some(at(due)),
        last_error: Some("503".to_owned()),
        ..row("billing", RouteState::Waiting)
    };
    check(vec![
        (
            waiting(|_, event| event.routes = vec![failed("14:10:12")]),
            format!(
                "Event {X} waits for route `billing`: 3 attempts failed (503), the next one is due in 12 s."
            ),
        ),
        (
            waiting(|_, event| {
                event.routes = vec![row("mail", RouteState::Done), failed("14:09:00")]
            }),
            format!(
                "Event {X} is confirmed by route `mail` and waits for route `billing`: 3 attempts failed (503), \
                 the next one is due now."
            ),
        ),
        (
            waiting(|facts, event| {
                event.routes = vec![row("mail", RouteState::Dead), failed("14:09:00")];
                facts.letters = vec![LetterFacts { route: "mail".to_owned(), ..a_letter() }];
            }),
            format!(
                "Event {X} waits for route `billing`: 3 attempts failed (503), the next one is due now. \
                 It is a dead letter of route `mail` (letter 17)."
            ),
        ),
    ]);
}

#[test]
fn an_event_whose_row_says_more() {
    let due = |redriven, started| RouteFacts {
        redriven,
        started,
        due_at: Some(at("14:00:00")),
        ..row("billing", RouteState::Waiting)
    };
    let waits = format!("Event {X} waits for route `billing`:");
    check(vec![
        (
            waiting(|_, event| event.routes = vec![due(true, 0)]),
            format!("{waits} an operator redrove it, and it is due now."),
        ),
        (
            waiting(|_, event| event.routes = vec![due(false, 0)]),
            format!("{waits} no attempt at it has failed, and it is due now."),
        ),
        (
            waiting(|_, event| event.routes = vec![due(false, 2)]),
            format!(
                "{waits} 2 attempts started and 0 ended, so its process may have died of it, and the next one is due now."
            ),
        ),
        (
            waiting(|_, event| event.routes = vec![row("billing", RouteState::Waiting)]),
            format!("{waits} its relay reads it in order, behind events that came before it."),
        ),
        (
            waiting(|_, event| {
                let failed = row("billing", RouteState::Waiting);
                event.routes = vec![RouteFacts { attempts: 1, ..failed }];
            }),
            format!(
                "{waits} 1 attempt failed, and its relay reads it in order, behind events that came before it."
            ),
        ),
    ]);
}

#[test]
fn an_event_that_an_operator_holds_up() {
    let paused = |scope, name: &'static str| {
        waiting(move |facts, _| facts.controls = Controls(vec![pause(scope, name)]))
    };
    let limited = |waiting_events| {
        waiting(move |facts, _| {
            let route = RouteLive { limit: Some(0.5), waiting: waiting_events, ..route("billing") };
            facts.relays = vec![relay("a", vec![route])];
        })
    };
    check(vec![
        (paused(ControlScope::Topic, "orders"), paused_until("topic `orders`")),
        (paused(ControlScope::Key, "7"), paused_until("key `7`")),
        (
            paused(ControlScope::Route, "billing"),
            format!(
                "Event {X} waits for route `billing`: it is paused: ann paused it at 14:05 UTC (broker upgrade), \
                 until 15:00 UTC."
            ),
        ),
        (
            waiting(|facts, _| {
                facts.relays =
                    vec![relay("a", vec![RouteLive { paused: true, ..route("billing") }])];
            }),
            format!(
                "Event {X} waits for route `billing`: its pause is over, and the relay resumes it with its next renewal."
            ),
        ),
        (
            limited(60),
            format!(
                "Event {X} waits for route `billing`: it is limited to 0.5 events a second, and 60 events wait in memory, \
                 which takes 2 min."
            ),
        ),
        (
            limited(1),
            format!(
                "Event {X} waits for route `billing`: it is limited to 0.5 events a second, and 1 event waits in memory, \
                 which takes 2 s."
            ),
        ),
    ]);
    let resumed = explain(&paused(ControlScope::Topic, "orders")).commands;
    assert_eq!(resumed, ["outbox resume topic orders"]);
}

#[test]
fn an_event_behind_another_one_of_its_key() {
    let ahead = |routes| {
        let event_type = "order.placed".to_owned();
        Some(AheadFacts { message: message(2), event_type, routes })
    };
    let parking = LetterFacts { message: message(2), parks: true, ..a_letter() };
    let parked = waiting(|_, event| event.parked_by = Some(parking));
    assert_eq!(
        explain(&parked).commands,
        ["outbox dead-letters redrive 17", "outbox dead-letters discard 17"]
    );
    check(vec![
        (
            parked,
            format!(
                "Event {X} waits for route `billing`: event {AHEAD}, which comes before it in key 7, is a dead letter there \
                 since 14:03 UTC (letter 17, exhausted: 503), and parks the key until somebody redrives or discards it."
            ),
        ),
        (
            waiting(|_, event| event.ahead = ahead(Vec::new())),
            format!(
                "Event {X} waits behind event {AHEAD} of key 7, which its relay publishes first."
            ),
        ),
        (
            waiting(|_, event| {
                event.ahead = ahead(vec![RouteFacts {
                    attempts: 1,
                    due_at: Some(at("14:10:30")),
                    ..row("billing", RouteState::Waiting)
                }]);
            }),
            format!(
                "Event {X} waits behind event {AHEAD} of key 7, which waits for route `billing`: 1 attempt failed, \
                 the next one is due in 30 s."
            ),
        ),
    ]);
}

#[test]
fn an_event_without_a_route() {
    let unrouted = RouteFacts { due_at: Some(at("14:19:00")), ..row("", RouteState::Waiting) };
    let other = || {
        let mut view = relay("b", vec![route("mail")]);
        view.state.as_mut().unwrap().waits_for = Some("a".to_owned());
        view
    };
    check(vec![
        (
            waiting(|_, event| event.routes = vec![unrouted.clone()]),
            format!(
                "Event {X} waits: no route takes topic `orders` and type `order.placed`; start one with such a route, \
                 or it becomes a dead letter at 14:19 UTC."
            ),
        ),
        (
            waiting(|facts, event| {
                event.routes = vec![unrouted.clone(), row("mail", RouteState::Waiting)];
                facts.relays.push(other());
            }),
            format!(
                "Event {X} waits: no live relay has route `mail`; relay b waits for relay a to end and may have it; \
                 else it becomes a dead letter at 14:19 UTC."
            ),
        ),
        (
            waiting(|_, event| event.routes = vec![row("mail", RouteState::Waiting)]),
            format!(
                "Event {X} waits for route `mail`: it is not configured in any live relay: start one with it, \
                 or the event becomes a dead letter."
            ),
        ),
        (
            waiting(|facts, event| {
                event.routes = vec![row("mail", RouteState::Waiting)];
                facts.relays.push(other());
            }),
            format!(
                "Event {X} waits for route `mail`: relay b, which has it, waits for relay a to end."
            ),
        ),
    ]);
}
