//! Why an event waits for a route.

use super::{
    EventFacts, Facts, RouteFacts,
    words::{argument, because, clock, control, count, due, name, span},
};
use crate::{
    admin::{ControlScope, RelayView, RouteLive},
    event::Timestamp,
    outbox::RouteState,
};
use std::time::Duration;

/// Why an event waits for a route.
pub(super) struct Cause {
    /// The route.
    pub(super) route: String,
    /// Why, and what ends it.
    pub(super) text: String,
    /// The command that ends it.
    pub(super) command: Option<String>,
    /// Whether the event is known to take the route.
    pub(super) certain: bool,
}

/// What is known of one route of an event.
struct Candidate<'a> {
    route: &'a str,
    row: Option<&'a RouteFacts>,
    live: Option<&'a RouteLive>,
    /// When the relay wrote about the route.
    written_at: Timestamp,
}

/// Why a route stands still, and the command that ends it.
type Clause = (String, Option<String>);

/// A check of one route; the owner of the partition is given where it is known.
type Check = fn(&Facts, Option<&RelayView>, &Candidate<'_>) -> Option<Clause>;

/// Gives the command that ends a pause.
pub(super) fn resume(scope: ControlScope, name: &str) -> String {
    format!("outbox resume {scope} {}", argument(name))
}

/// Lists the rows of routes that have not confirmed and not given up.
pub(super) fn waiting(rows: &[RouteFacts]) -> impl Iterator<Item = &RouteFacts> {
    rows.iter().filter(|row| row.state == RouteState::Waiting && !row.route.is_empty())
}

/// Finds a live relay with other routes that waits for another one: gives both.
pub(super) fn waiting_relay(facts: &Facts) -> Option<(&str, &str)> {
    facts
        .relays
        .iter()
        .filter(|relay| relay.live)
        .find_map(|relay| Some((relay.id.as_str(), relay.state.as_ref()?.waits_for.as_deref()?)))
}

/// Gives the strongest cause for which an event with these rows waits; `None` if its relay may
/// publish it at any moment.
pub(super) fn cause(facts: &Facts, event: &EventFacts, rows: &[RouteFacts]) -> Option<Cause> {
    let owner = facts.relays.iter().find(|relay| Some(&relay.id) == event.owner.as_ref());
    let candidates = candidates(owner, rows);
    // Selectors are the relay's: without a row it is certain only where there is no choice.
    let one = owner
        .and_then(|relay| relay.state.as_ref())
        .is_some_and(|state| state.routes.len() == 1 && state.omitted == 0);
    let checks: [Check; 6] = [paused, not_configured, breaker, limited, retrying, in_order];
    checks.iter().find_map(|check| {
        candidates.iter().find_map(|candidate| {
            let (text, command) = check(facts, owner, candidate)?;
            let certain = candidate.row.is_some() || one;
            Some(Cause { route: name(candidate.route), text, command, certain })
        })
    })
}

fn candidates<'a>(owner: Option<&'a RelayView>, rows: &'a [RouteFacts]) -> Vec<Candidate<'a>> {
    let state = owner.and_then(|relay| relay.state.as_ref());
    let live = state.map_or(&[][..], |state| &state.routes);
    let written_at =
        owner.and_then(|relay| relay.written_at).unwrap_or(Timestamp::from_micros(i64::MIN));
    let known = |name: &str| live.iter().find(|route| route.route == name);
    let of_row = |row: &'a RouteFacts| Candidate {
        route: &row.route,
        row: Some(row),
        live: known(&row.route),
        written_at,
    };
    if rows.iter().any(|row| !row.route.is_empty()) {
        return waiting(rows).map(of_row).collect();
    }
    let of_route = |live: &'a RouteLive| Candidate {
        route: &live.route,
        row: None,
        live: Some(live),
        written_at,
    };
    live.iter().map(of_route).collect()
}

fn paused(facts: &Facts, _: Option<&RelayView>, candidate: &Candidate<'_>) -> Option<Clause> {
    let route = candidate.route;
    if let Some(pause) = facts.controls.pause(ControlScope::Route, route) {
        let text = format!("it is paused: {}", control(pause, facts.now));
        return Some((text, Some(resume(ControlScope::Route, route))));
    }
    let obeys = candidate.live.is_some_and(|live| live.paused);
    obeys
        .then(|| ("its pause is over, and the relay resumes it with its next renewal".into(), None))
}

fn not_configured(
    facts: &Facts,
    owner: Option<&RelayView>,
    candidate: &Candidate<'_>,
) -> Option<Clause> {
    // A relay that left routes out, or has written nothing, may have it.
    let knows_all = |relay: &&RelayView| relay.state.as_ref().is_some_and(|s| s.omitted == 0);
    let owner = owner.filter(knows_all)?;
    if candidate.live.is_some() {
        return None;
    }
    let has = |relay: &&RelayView| {
        let routes = relay.state.as_ref().map_or(&[][..], |state| &state.routes);
        routes.iter().any(|route| route.route == candidate.route)
    };
    let mut live = facts.relays.iter().filter(|relay| relay.live && relay.id != owner.id);
    if let Some(other) = live.clone().find(has) {
        let (other, owner) = (name(&other.id), name(&owner.id));
        let text = format!("relay {other}, which has it, waits for relay {owner} to end");
        return Some((text, None));
    }
    let text = match live.all(|relay| knows_all(&relay)) {
        true => {
            "it is not configured in any live relay: start one with it, or the event becomes a dead letter"
        }
        false => "the relay that owns its partition does not have it, and waits for one that has",
    };
    Some((text.to_owned(), None))
}

fn breaker(facts: &Facts, _: Option<&RelayView>, candidate: &Candidate<'_>) -> Option<Clause> {
    let live = candidate.live?;
    let error = because(live.last_failure.as_ref().map(|failure| failure.text.as_str()));
    match live.breaker.as_str() {
        "open" => {
            let since = live.open_for_ms.map_or_else(String::new, |ms| {
                format!(" since {}", clock(earlier(candidate.written_at, ms), facts.now))
            });
            let probe = live.probe_in_ms.map_or_else(
                || "and a probe follows".to_owned(),
                |ms| format!("next probe {}", due(later(candidate.written_at, ms), facts.now)),
            );
            Some((format!("its breaker is open{since}{error}, {probe}"), None))
        }
        "half_open" => {
            Some((format!("its breaker is half open{error}, and a probe is under way"), None))
        }
        _ => None,
    }
}

fn limited(facts: &Facts, _: Option<&RelayView>, candidate: &Candidate<'_>) -> Option<Clause> {
    let live = candidate.live?;
    // The limit holds up only what waits.
    let rate = live.limit.or_else(|| facts.controls.rate(candidate.route))?;
    let later = candidate.row.is_some_and(|row| row.due_at.is_some_and(|at| at > facts.now));
    if later || live.waiting == 0 {
        return None;
    }
    let lasts = if rate > 0.0 { live.waiting as f64 / rate } else { 0.0 };
    let lasts = Duration::try_from_secs_f64(lasts).unwrap_or(Duration::MAX);
    let text = format!(
        "it is limited to {rate} events a second, and {} in memory, which takes {}",
        match live.waiting {
            1 => "1 event waits".to_owned(),
            waiting => format!("{waiting} events wait"),
        },
        span(lasts)
    );
    Some((text, Some(resume(ControlScope::Route, candidate.route))))
}

fn retrying(facts: &Facts, _: Option<&RelayView>, candidate: &Candidate<'_>) -> Option<Clause> {
    let row = candidate.row?;
    let error = because(row.last_error.as_deref());
    let next = row.due_at.map(|at| due(at, facts.now));
    let unfinished = row.started > row.attempts;
    let text = match (row.attempts, next) {
        (_, Some(next)) if unfinished => format!(
            "{} started and {} ended, so its process may have died of it, and the next one is due {next}",
            count(row.started, "attempt"),
            row.attempts
        ),
        (0, Some(next)) if row.redriven => format!("an operator redrove it, and it is due {next}"),
        (0, Some(next)) => format!("no attempt at it has failed{error}, and it is due {next}"),
        (n, Some(next)) => {
            format!("{} failed{error}, the next one is due {next}", count(n, "attempt"))
        }
        (_, None) => return None,
    };
    Some((text, None))
}

/// A row without a due time: the relay had evicted it from its memory.
fn in_order(_: &Facts, _: Option<&RelayView>, candidate: &Candidate<'_>) -> Option<Clause> {
    let row = candidate.row?;
    let failed = match row.attempts {
        0 => String::new(),
        n => format!("{} failed{}, and ", count(n, "attempt"), because(row.last_error.as_deref())),
    };
    Some((format!("{failed}its relay reads it in order, behind events that came before it"), None))
}

fn earlier(at: Timestamp, ms: u64) -> Timestamp {
    let micros = i64::try_from(ms).unwrap_or(i64::MAX).saturating_mul(1_000);
    Timestamp::from_micros(at.as_micros().saturating_sub(micros))
}

fn later(at: Timestamp, ms: u64) -> Timestamp {
    let micros = i64::try_from(ms).unwrap_or(i64::MAX).saturating_mul(1_000);
    Timestamp::from_micros(at.as_micros().saturating_add(micros))
}
