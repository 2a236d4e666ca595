//! `tail`: follows events over all databases as they are created, confirmed or given up.

use crate::{
    args::{Global, Tail as Arguments},
    config::{self, Target},
    database,
    error::CliError,
    output::{Answer, Output, cut, report, shown, warn},
    signals::Signals,
};
use outbox_core::{
    admin::{Tail, TailEntry, TailKind},
    event::Timestamp,
    runtime::{now, wall_clock},
};
use outbox_sea_orm::Outbox;
use std::{process::ExitCode, time::Instant};
use tokio::time::sleep_until;

/// Longest key of a line, in characters.
const LONGEST_KEY: usize = 40;
/// Longest detail of a line, in characters.
const LONGEST_DETAIL: usize = 80;

/// A database that is followed.
struct Followed {
    target: Target,
    outbox: Outbox,
    tail: Tail,
    /// Whether the last look failed, which was reported.
    failing: bool,
}

/// Follows the events of all databases until a signal, or until the time or the lines are over.
pub(super) async fn tail(
    global: &Global,
    arguments: &Arguments,
    output: &mut Output,
) -> Result<ExitCode, CliError> {
    let mut signals = Signals::new()?;
    let mut all = Vec::new();
    // Also while a database is slow to answer.
    tokio::select! {
        ended = follow(global, arguments, &mut all, output) => ended?,
        () = signals.stop() => {}
    }
    Ok(ExitCode::from(if all.iter().any(|followed| followed.failing) { 3 } else { 0 }))
}

async fn follow(
    global: &Global,
    arguments: &Arguments,
    all: &mut Vec<Followed>,
    output: &mut Output,
) -> Result<(), CliError> {
    for target in config::targets(global)? {
        let outbox = database::open(&target).await?;
        let tail = Tail::start(&outbox).await?;
        all.push(Followed { target, outbox, tail, failing: false });
    }
    let names: Vec<&str> = all.iter().map(|followed| &*followed.target.name).collect();
    warn(&format!("following {}; Ctrl-C ends", names.join(", ")));
    let names = names.len() > 1;
    let end = arguments.lasts.map(|lasts| now() + lasts);
    let mut written = 0;
    let mut next = now();
    loop {
        for followed in all.iter_mut() {
            for entry in followed.look().await {
                let wanted = wants(arguments, &entry);
                if wanted && arguments.lines.is_none_or(|lines| written < lines) {
                    write(output, &followed.target, names, &entry)?;
                    written += 1;
                }
            }
        }
        let is_over = end.is_some_and(|end| now() >= end)
            || arguments.lines.is_some_and(|lines| written >= lines);
        if is_over {
            return Ok(());
        }
        next = (next + arguments.every).max(now());
        let until: Instant = end.map_or(next, |end| next.min(end));
        sleep_until(until.into()).await;
    }
}

impl Followed {
    /// Gives what has happened; nothing while the database does not answer, which is reported once.
    async fn look(&mut self) -> Vec<TailEntry> {
        match self.tail.look(&self.outbox).await {
            Ok(entries) => {
                self.failing = false;
                entries
            }
            Err(error) => {
                if !std::mem::replace(&mut self.failing, true) {
                    report(&CliError::from(error));
                }
                Vec::new()
            }
        }
    }
}

fn wants(arguments: &Arguments, entry: &TailEntry) -> bool {
    let is = |wanted: &Option<String>, is: Option<&str>| {
        wanted.as_deref().is_none_or(|wanted| is == Some(wanted))
    };
    is(&arguments.topic, Some(&entry.topic)) && is(&arguments.key, entry.key.as_deref())
}

/// Writes one line: a document with `--json`.
fn write(
    output: &mut Output,
    target: &Target,
    named: bool,
    entry: &TailEntry,
) -> Result<(), CliError> {
    if output.json {
        return output.document_line(&Answer { database: &target.name, result: entry });
    }
    // Where the database keeps no time, that of the look stands for it.
    let at = entry.at.unwrap_or_else(|| Timestamp::from(wall_clock()));
    let kind = match entry.kind {
        TailKind::Created => "created",
        TailKind::Confirmed => "confirmed",
        TailKind::Dead => "dead",
    };
    let mut line = format!("{at}  {kind:<9}");
    if named {
        line.push_str(&format!("  {}", shown(&target.name)));
    }
    let message = entry.message.map_or_else(|| "-".to_owned(), |id| id.to_string());
    let key = entry.key.as_deref().unwrap_or("-");
    line.push_str(&format!(
        "  {message}  {}  {}  {}",
        shown(&entry.topic),
        shown(&entry.event_type),
        cut(key, LONGEST_KEY)
    ));
    if let Some(detail) = &entry.detail {
        line.push_str(&format!("  {}", cut(detail, LONGEST_DETAIL)));
    }
    output.line(line)
}
