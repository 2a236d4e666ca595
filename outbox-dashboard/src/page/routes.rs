//! Routes and relays, consumers, coordinators, and what is paused or limited.

use super::{
    Body, Layout, Notice, Tab, View, ask_all,
    given::Asked,
    overview::age,
    shell,
    text::{Markup, Tone, ago, cell, number, rate, state, text},
};
use crate::{
    access::Refusal,
    act::forms,
    builder::{App, Shared},
    visit::Visit,
};
use askama::Template;
use axum::{extract::State, response::Response};
use outbox_core::{
    admin::{
        Control, ControlAction, ControlScope, Controls, LastFailure, Overview, RouteLive, span_text,
    },
    outbox::PartitionNo,
};
use std::time::Duration;

/// Longest error in a cell, in characters.
const LONGEST_ERROR: usize = 90;

/// A route of a relay.
struct RouteRow {
    name: Markup,
    relay: Markup,
    breaker: Markup,
    note: String,
    in_flight: String,
    waiting: String,
    rate: String,
    limit: String,
    delivered: String,
    retried: String,
    failure: Markup,
    control: Markup,
}

struct RelayRow {
    id: Markup,
    state: Markup,
    partitions: String,
    in_memory: String,
    started: Markup,
    lease: Markup,
    waits_for: Markup,
}

struct ConsumerRow {
    name: Markup,
    id: Markup,
    state: Markup,
    handlers: Markup,
    in_flight: String,
    handled: String,
    failed: String,
    failure: Markup,
    control: Markup,
}

struct CoordinatorRow {
    id: Markup,
    state: Markup,
    definitions: Markup,
    driving: String,
}

struct ControlRow {
    what: Markup,
    does: Markup,
    until: Markup,
    by: Markup,
    why: Markup,
    since: Markup,
    control: Markup,
}

/// One database.
struct Part {
    name: String,
    routes: Vec<RouteRow>,
    omitted: usize,
    relays: Vec<RelayRow>,
    unowned: u16,
    consumers: Vec<ConsumerRow>,
    coordinators: Vec<CoordinatorRow>,
    controls: Vec<ControlRow>,
    any_control: Markup,
}

#[derive(Template)]
#[template(path = "routes.html")]
struct RoutesBody {
    notices: Vec<Notice>,
    parts: Vec<Part>,
    /// The control that the address names, to be done at once.
    asked: Option<AskedControl>,
}

/// A control that a link of another page names.
struct AskedControl {
    what: Markup,
    form: Markup,
}

/// Shows the page.
pub(crate) async fn page(
    State(app): State<Shared>,
    visit: Visit,
    asked: Asked,
) -> Result<Response, Refusal> {
    let body = body(&app, &View::of(&visit), &asked).await?;
    let layout = Layout::new(&app, &visit, Tab::Routes, body.title.clone())
        .choose_db(&app, asked.get("db"), &[])
        .live("routes", &asked.parts(&["db", "scope", "name"]));
    Ok(shell(&layout, &body))
}

/// Draws the body.
pub(crate) async fn body(app: &App, view: &View, asked: &Asked) -> Result<Body, Refusal> {
    let databases = asked.databases(app)?;
    let answers = ask_all(&databases, |store| async move { store.overview().await }).await;
    let scope = asked.read::<ControlScope>("scope", "what can be paused")?;
    let control = asked.get("name").zip(scope).and_then(|(name, scope)| {
        let (database, overview) = answers.list.first()?;
        let form = forms::control(view, &database.name, scope, name, &overview.controls);
        let what = text(&format!("{scope} {name} of {}", database.name));
        (!form.is_empty()).then_some(AskedControl { what, form })
    });
    let part = |(database, overview): &(crate::store::Database, Overview)| {
        part(view, &database.name, overview)
    };
    let body = RoutesBody {
        parts: answers.list.iter().map(part).collect(),
        notices: answers.notices,
        asked: control,
    };
    Ok(Body::draw("Routes", &body))
}

fn part(view: &View, name: &str, overview: &Overview) -> Part {
    let (now, controls) = (overview.now, &overview.controls);
    let of_relays = overview.relays.iter().filter_map(|relay| {
        let written_ago = age(relay.written_at, now);
        Some((relay, relay.state.as_ref()?, written_ago))
    });
    let mut routes = Vec::new();
    for (relay, state, written_ago) in of_relays.clone() {
        for route in &state.routes {
            let control = forms::control(view, name, ControlScope::Route, &route.route, controls);
            routes.push(route_row(route, &relay.id, relay.live, written_ago, control));
        }
    }
    Part {
        omitted: of_relays.map(|(_, state, _)| state.omitted).sum(),
        routes,
        relays: overview.relays.iter().map(|relay| relay_row(relay, overview)).collect(),
        unowned: overview.unowned,
        consumers: overview
            .consumers
            .iter()
            .map(|consumer| {
                let scope = ControlScope::Consumer;
                let control = forms::control(view, name, scope, &consumer.name, controls);
                let live = &consumer.state;
                let handlers = live.handlers.len() + live.omitted;
                ConsumerRow {
                    name: cell(&consumer.name, 60),
                    id: cell(&consumer.id, 16),
                    state: match (consumer.live, live.paused) {
                        (false, _) => state(Tone::Bad, "not renewed"),
                        (true, true) => state(Tone::Warn, "paused"),
                        (true, false) if live.isolating => state(Tone::Warn, "isolates"),
                        (true, false) => state(Tone::Good, "live"),
                    },
                    handlers: match live.handlers.as_slice() {
                        [only] => cell(only, 40),
                        several => {
                            cell(&format!("{handlers}: {}", several.join(", ")), LONGEST_ERROR)
                        }
                    },
                    in_flight: number(live.in_flight),
                    handled: number(live.handled),
                    failed: number(live.failed),
                    failure: failure(live.last_failure.as_ref(), now.since(consumer.written_at)),
                    control,
                }
            })
            .collect(),
        coordinators: overview
            .coordinators
            .iter()
            .map(|coordinator| {
                let live = &coordinator.state;
                let names = live.definitions.iter().map(|(name, v)| format!("{name} v{v}"));
                let more = match live.omitted {
                    0 => String::new(),
                    omitted => format!(" and {omitted} more"),
                };
                let all = names.collect::<Vec<_>>().join(", ") + &more;
                CoordinatorRow {
                    id: cell(&coordinator.id, 16),
                    state: match (coordinator.live, live.paused.as_slice()) {
                        (false, _) => state(Tone::Bad, "not renewed"),
                        (true, []) => state(Tone::Good, "live"),
                        (true, paused) => {
                            state(Tone::Warn, &format!("paused: {}", paused.join(", ")))
                        }
                    },
                    definitions: cell(&all, 200),
                    driving: number(live.driving),
                }
            })
            .collect(),
        controls: controls.0.iter().map(|c| control_row(view, name, c, overview)).collect(),
        any_control: forms::any_control(view, name),
        name: name.to_owned(),
    }
}

fn route_row(
    route: &RouteLive,
    relay: &str,
    is_live: bool,
    written_ago: Duration,
    control: Markup,
) -> RouteRow {
    let ms = Duration::from_millis;
    let breaker = match (&*route.breaker, route.paused) {
        _ if !is_live => state(Tone::Idle, "relay is gone"),
        (_, true) => state(Tone::Warn, "paused"),
        ("closed" | "", _) => state(Tone::Good, "closed"),
        ("half_open", _) => state(Tone::Warn, "half open"),
        (other, _) => state(Tone::Bad, other),
    };
    let note = match (route.probe_in_ms, route.open_for_ms) {
        _ if !is_live || route.paused => String::new(),
        (Some(probe), _) => match ms(probe).saturating_sub(written_ago) {
            Duration::ZERO => "probes now".to_owned(),
            left => format!("probe in {}", span_text(left)),
        },
        (None, Some(open)) => format!("for {}", span_text(ms(open) + written_ago)),
        (None, None) => String::new(),
    };
    RouteRow {
        name: cell(&route.route, 60),
        relay: cell(relay, 12),
        breaker,
        note,
        in_flight: number(route.in_flight),
        waiting: number(route.waiting),
        rate: rate(if is_live { route.rate } else { 0.0 }),
        limit: route.limit.map(|limit| format!("limit {limit}")).unwrap_or_default(),
        delivered: number(route.delivered),
        retried: number(route.retried),
        failure: failure(route.last_failure.as_ref(), written_ago),
        control,
    }
}

/// Writes the last failure, and how long ago it was.
fn failure(failure: Option<&LastFailure>, written_ago: Duration) -> Markup {
    let Some(failure) = failure else { return Markup::default() };
    let before = span_text(Duration::from_millis(failure.ago_ms) + written_ago);
    let told =
        format!("{} ({before} ago)", outbox_core::admin::cut_text(&failure.text, LONGEST_ERROR));
    cell(&told, LONGEST_ERROR + 30)
}

fn relay_row(relay: &outbox_core::admin::RelayView, overview: &Overview) -> RelayRow {
    let live = relay.state.as_ref();
    RelayRow {
        id: cell(&relay.id, 40),
        state: match relay.live {
            true => state(Tone::Good, "live"),
            false => state(Tone::Bad, "gone"),
        },
        partitions: ranges(&relay.partitions),
        in_memory: live.map(|live| number(live.in_memory)).unwrap_or_default(),
        started: ago(relay.started_at, overview.now),
        lease: ago(relay.lease_until, overview.now),
        waits_for: live
            .and_then(|live| live.waits_for.as_deref())
            .map(|other| cell(other, 40))
            .unwrap_or_default(),
    }
}

fn control_row(view: &View, db: &str, control: &Control, overview: &Overview) -> ControlRow {
    let Control { scope, name, action, by, reason, set_at, until, .. } = control;
    ControlRow {
        what: cell(&format!("{scope} {name}"), 80),
        does: match action {
            ControlAction::Pause => state(Tone::Warn, "paused"),
            ControlAction::Rate(rate) => state(Tone::Idle, &format!("at most {rate}/s")),
        },
        until: until.map_or_else(|| text("until resumed"), |until| ago(until, overview.now)),
        by: cell(by, 40),
        why: cell(reason, 120),
        since: ago(*set_at, overview.now),
        control: forms::control(view, db, *scope, name, &Controls(vec![control.clone()])),
    }
}

/// Writes partitions as ranges: `0-15, 17`.
fn ranges(partitions: &[PartitionNo]) -> String {
    let mut numbers: Vec<u32> = partitions.iter().map(|partition| u32::from(partition.0)).collect();
    numbers.sort_unstable();
    let mut ranges: Vec<(u32, u32)> = Vec::new();
    for number in numbers {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == number => *last = number,
            _ => ranges.push((number, number)),
        }
    }
    let range = |(first, last): (u32, u32)| match first == last {
        true => first.to_string(),
        false => format!("{first}-{last}"),
    };
    ranges.into_iter().map(range).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_are_written_as_ranges() {
        let written =
            |numbers: &[u16]| ranges(&numbers.iter().copied().map(PartitionNo).collect::<Vec<_>>());
        for (numbers, text) in
            [(&[][..], ""), (&[3], "3"), (&[0, 1, 2, 3], "0-3"), (&[5, 1, 0, 4, 9], "0-1, 4-5, 9")]
        {
            assert_eq!(written(numbers), text);
        }
    }
}
