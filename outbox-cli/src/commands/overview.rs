//! `overview`.

use super::ask_all;
use crate::{
    args::Global,
    error::CliError,
    output::{Output, Table, ago, cut, shown, span},
};
use outbox_core::admin::{ControlAction, InspectStore, Overview, RouteLive};
use outbox_sea_orm::Outbox;
use std::{process::ExitCode, time::Duration};

/// Longest error in a table, in characters.
const LONGEST_ERROR: usize = 60;

/// Shows each database at a glance.
pub(super) async fn overview(global: &Global, output: &mut Output) -> Result<ExitCode, CliError> {
    let answers = ask_all(global, async |outbox: &Outbox| outbox.overview().await).await?;
    answers.write(output, |output, _, overview| write(output, overview))?;
    Ok(answers.exit_code(true))
}

/// How a line is shown on a terminal that is redrawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mood {
    /// The name of a database, or the heading of a table.
    Heading,
    /// All is well.
    Plain,
    /// Somebody has paused it, or it has no relay.
    Notice,
    /// It stands still, or failed.
    Alarm,
}

/// A line of an overview.
#[derive(Debug, Clone)]
pub(super) struct Line {
    pub(super) text: String,
    pub(super) mood: Mood,
}

fn line(mood: Mood, text: String) -> Line {
    Line { text, mood }
}

fn alarm_if(alarm: bool) -> Mood {
    if alarm { Mood::Alarm } else { Mood::Plain }
}

/// Writes an overview.
pub(super) fn write(output: &mut Output, overview: &Overview) -> Result<(), CliError> {
    lines(overview).into_iter().try_for_each(|line| output.line(line.text))
}

/// Gives an overview in lines.
pub(super) fn lines(overview: &Overview) -> Vec<Line> {
    let mut lines = Vec::new();
    let events = &overview.events;
    let oldest = match events.oldest_pending {
        Some(age) => format!(", the oldest for {}", span(age)),
        None => String::new(),
    };
    lines.push(line(
        Mood::Plain,
        format!("events    {} waiting{oldest}; {} retrying", events.pending, events.retrying),
    ));
    lines.push(line(
        alarm_if(events.dead > 0),
        format!(
            "          {} scheduled, {} deferred by consumers, {} open dead letters",
            overview.scheduled, overview.deferred, events.dead
        ),
    ));
    let sagas = &overview.sagas;
    lines.push(line(
        alarm_if(sagas.stuck > 0),
        format!(
            "sagas     {} running, {} compensating, {} stuck",
            sagas.running, sagas.compensating, sagas.stuck
        ),
    ));
    relays(&mut lines, overview);
    consumers(&mut lines, overview);
    for control in &overview.controls.0 {
        let does = match control.action {
            ControlAction::Pause => "is paused".to_owned(),
            ControlAction::Rate(rate) => format!("is limited to {rate} events/s"),
        };
        let until = match control.until {
            Some(until) => format!("until {until}"),
            None => "until somebody resumes it".to_owned(),
        };
        lines.push(line(
            Mood::Notice,
            format!(
                "control   {} {} {does} {until}, by {}: {}",
                control.scope,
                shown(&control.name),
                shown(&control.by),
                cut(&control.reason, LONGEST_ERROR)
            ),
        ));
    }
    lines
}

fn relays(lines: &mut Vec<Line>, overview: &Overview) {
    if overview.relays.is_empty() {
        let text = "relays    none is running: events wait until one does";
        return lines.push(line(Mood::Notice, text.to_owned()));
    }
    if overview.unowned > 0 {
        let text = format!("relays    {} partitions have no relay", overview.unowned);
        lines.push(line(Mood::Notice, text));
    }
    for relay in &overview.relays {
        let state = if relay.live { "live" } else { "gone, its lease has run out" };
        lines.push(line(
            alarm_if(!relay.live),
            format!(
                "relay     {}  {state}, {} partitions, started {}",
                shown(&relay.id),
                relay.partitions.len(),
                ago(relay.started_at, overview.now)
            ),
        ));
    }
    let mut table = Table::new(&[
        "route",
        "breaker",
        "#in flight",
        "#waiting",
        "#rate/s",
        "#delivered",
        "#retried",
        "last failure",
    ]);
    let mut moods = vec![Mood::Heading];
    for (relay, live) in
        overview.relays.iter().filter_map(|relay| Some((relay, relay.state.as_ref()?)))
    {
        for route in &live.routes {
            let written_ago = relay.written_at.map_or(Duration::ZERO, |at| overview.now.since(at));
            table.row(route_cells(route, written_ago));
            moods.push(match (&*route.breaker, route.paused) {
                (_, true) => Mood::Notice,
                (state, _) => alarm_if(state != "closed"),
            });
        }
    }
    if moods.len() > 1 {
        lines.extend(table.lines().into_iter().zip(moods).map(|(text, mood)| line(mood, text)));
    }
}

fn route_cells(route: &RouteLive, written_ago: Duration) -> [String; 8] {
    let breaker = match (&*route.breaker, route.paused) {
        (_, true) => "paused".to_owned(),
        ("closed", _) => "closed".to_owned(),
        (state, _) => match route.probe_in_ms {
            Some(ms) => {
                let left = Duration::from_millis(ms).saturating_sub(written_ago);
                format!("{state}, probe in {}", span(left))
            }
            None => state.to_owned(),
        },
    };
    let failure = route.last_failure.as_ref().map(|failure| {
        let before = span(Duration::from_millis(failure.ago_ms) + written_ago);
        format!("{} ({before} ago)", cut(&failure.text, LONGEST_ERROR))
    });
    [
        route.route.clone(),
        breaker,
        route.in_flight.to_string(),
        route.waiting.to_string(),
        format!("{:.1}", route.rate),
        route.delivered.to_string(),
        route.retried.to_string(),
        failure.unwrap_or_default(),
    ]
}

fn consumers(lines: &mut Vec<Line>, overview: &Overview) {
    for consumer in &overview.consumers {
        let live = &consumer.state;
        let paused = if live.paused { ", paused" } else { "" };
        let gone = if consumer.live { "" } else { ", not renewed for a minute" };
        let mood = if live.paused { Mood::Notice } else { alarm_if(!consumer.live) };
        lines.push(line(
            mood,
            format!(
                "consumer  {}  {} handlers, {} in flight, {} handled, {} failed{paused}{gone}",
                shown(&consumer.name),
                live.handlers.len() + live.omitted,
                live.in_flight,
                live.handled,
                live.failed
            ),
        ));
    }
    for coordinator in &overview.coordinators {
        let live = &coordinator.state;
        let paused = match live.paused.as_slice() {
            [] => String::new(),
            paused => format!(", paused: {}", shown(&paused.join(", "))),
        };
        lines.push(line(
            if live.paused.is_empty() { Mood::Plain } else { Mood::Notice },
            format!(
                "sagas by  {}  {} definitions, driving {}{paused}",
                shown(&coordinator.id),
                live.definitions.len() + live.omitted,
                live.driving
            ),
        ));
    }
}
