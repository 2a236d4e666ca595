//! `pause`, `resume` and `rate`.

use super::{act::confirm, note};
use crate::{
    args::{Global, Pause, Rate, Scoped},
    config, database,
    error::CliError,
    output::{Answer, Output, shown, span},
};
use outbox_core::admin::{ControlAction, ControlScope, ControlStore};
use std::{process::ExitCode, time::Duration};

/// Pauses something.
pub(super) async fn pause(
    global: &Global,
    pause: &Pause,
    output: &mut Output,
) -> Result<ExitCode, CliError> {
    set(global, &pause.what, ControlAction::Pause, pause.lasts, output).await
}

/// Limits a route.
pub(super) async fn rate(
    global: &Global,
    rate: &Rate,
    output: &mut Output,
) -> Result<ExitCode, CliError> {
    let Rate { route, per_second, lasts, note } = rate;
    let what = Scoped { scope: ControlScope::Route, name: route.clone(), note: note.clone() };
    set(global, &what, ControlAction::Rate(*per_second), *lasts, output).await
}

async fn set(
    global: &Global,
    what: &Scoped,
    action: ControlAction,
    lasts: Option<Duration>,
    output: &mut Output,
) -> Result<ExitCode, CliError> {
    let Scoped { scope, name, note: why } = what;
    let target = config::target(global)?;
    let outbox = database::open(&target).await?;
    let does = match action {
        ControlAction::Pause => "paused".to_owned(),
        ControlAction::Rate(rate) => format!("limited to {rate} events/s"),
    };
    let until = match lasts {
        Some(lasts) => format!("for {}", span(lasts)),
        None => "until somebody resumes it".to_owned(),
    };
    let sentence = format!("{scope} {name} is {does} {until}");
    confirm(global, &target, &format!("{sentence}?"))?;
    outbox.set_control(*scope, name, action, lasts, &note(why, false)).await?;
    if output.json {
        output.document(&Answer { database: &target.name, result: outbox.controls().await?.0 })?;
    } else {
        output.line(shown(&sentence))?;
        if *scope == ControlScope::Consumer || *scope == ControlScope::Saga {
            output.line(
                "running processes obey when they renew their rows next, within a third of a lease",
            )?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Ends the pause and the rate of something.
pub(super) async fn resume(
    global: &Global,
    what: &Scoped,
    output: &mut Output,
) -> Result<ExitCode, CliError> {
    let Scoped { scope, name, note: why } = what;
    let target = config::target(global)?;
    let outbox = database::open(&target).await?;
    confirm(global, &target, &format!("resume {scope} {name}?"))?;
    let ended = outbox.end_controls(*scope, name, &note(why, false)).await?;
    if output.json {
        output.document(&Answer { database: &target.name, result: ended })?;
    } else if ended == 0 {
        output.line(format!("{scope} {} was neither paused nor limited", shown(name)))?;
    } else {
        output.line(format!("{scope} {} goes on", shown(name)))?;
    }
    Ok(ExitCode::from(u8::from(ended == 0)))
}
