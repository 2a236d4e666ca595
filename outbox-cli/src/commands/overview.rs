//! `overview` and `top`.

use super::ask_all;
use crate::{
    args::{Global, Top},
    config::Target,
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

/// Shows the overview again and again.
pub(super) async fn top(
    global: &Global,
    top: &Top,
    output: &mut Output,
) -> Result<ExitCode, CliError> {
    let mut looks = 0;
    loop {
        let answers = ask_all(global, async |outbox: &Outbox| outbox.overview().await).await?;
        output.next_screen()?;
        let write_one = |output: &mut Output, target: &Target, overview: &Overview| {
            output.line(format!("{target}  {}", overview.now))?;
            write(output, overview)
        };
        for (target, overview) in &answers.list {
            write_one(output, target, overview)?;
        }
        looks += 1;
        if top.times.is_some_and(|times| looks >= times) {
            return Ok(answers.exit_code(true));
        }
        tokio::select! {
            () = tokio::time::sleep(top.every) => {}
            _ = tokio::signal::ctrl_c() => return Ok(answers.exit_code(true)),
        }
    }
}

fn write(output: &mut Output, overview: &Overview) -> Result<(), CliError> {
    let events = &overview.events;
    let oldest = match events.oldest_pending {
        Some(age) => format!(", the oldest for {}", span(age)),
        None => String::new(),
    };
    output.line(format!(
        "events    {} waiting{oldest}; {} retrying",
        events.pending, events.retrying
    ))?;
    output.line(format!(
        "          {} scheduled, {} deferred by consumers, {} open dead letters",
        overview.scheduled, overview.deferred, events.dead
    ))?;
    let sagas = &overview.sagas;
    output.line(format!(
        "sagas     {} running, {} compensating, {} stuck",
        sagas.running, sagas.compensating, sagas.stuck
    ))?;
    write_relays(output, overview)?;
    write_consumers(output, overview)?;
    for control in &overview.controls.0 {
        let does = match control.action {
            ControlAction::Pause => "is paused".to_owned(),
            ControlAction::Rate(rate) => format!("is limited to {rate} events/s"),
        };
        let until = match control.until {
            Some(until) => format!("until {until}"),
            None => "until somebody resumes it".to_owned(),
        };
        output.line(format!(
            "control   {} {} {does} {until}, by {}: {}",
            control.scope,
            shown(&control.name),
            shown(&control.by),
            cut(&control.reason, LONGEST_ERROR)
        ))?;
    }
    Ok(())
}

fn write_relays(output: &mut Output, overview: &Overview) -> Result<(), CliError> {
    if overview.relays.is_empty() {
        return output.line("relays    none is running: events wait until one does");
    }
    if overview.unowned > 0 {
        output.line(format!("relays    {} partitions have no relay", overview.unowned))?;
    }
    for relay in &overview.relays {
        let state = if relay.live { "live" } else { "gone, its lease has run out" };
        output.line(format!(
            "relay     {}  {state}, {} partitions, started {}",
            shown(&relay.id),
            relay.partitions.len(),
            ago(relay.started_at, overview.now)
        ))?;
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
    let mut routes = 0;
    for (relay, live) in
        overview.relays.iter().filter_map(|relay| Some((relay, relay.state.as_ref()?)))
    {
        for route in &live.routes {
            let written_ago = relay.written_at.map_or(Duration::ZERO, |at| overview.now.since(at));
            table.row(route_cells(route, written_ago));
            routes += 1;
        }
    }
    if routes > 0 { table.write(output, "") } else { Ok(()) }
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

fn write_consumers(output: &mut Output, overview: &Overview) -> Result<(), CliError> {
    for consumer in &overview.consumers {
        let live = &consumer.state;
        let paused = if live.paused { ", paused" } else { "" };
        let gone = if consumer.live { "" } else { ", not renewed for a minute" };
        output.line(format!(
            "consumer  {}  {} handlers, {} in flight, {} handled, {} failed{paused}{gone}",
            shown(&consumer.name),
            live.handlers.len() + live.omitted,
            live.in_flight,
            live.handled,
            live.failed
        ))?;
    }
    for coordinator in &overview.coordinators {
        let live = &coordinator.state;
        let paused = match live.paused.as_slice() {
            [] => String::new(),
            paused => format!(", paused: {}", shown(&paused.join(", "))),
        };
        output.line(format!(
            "sagas by  {}  {} definitions, driving {}{paused}",
            shown(&coordinator.id),
            live.definitions.len() + live.omitted,
            live.driving
        ))?;
    }
    Ok(())
}
