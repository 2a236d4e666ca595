//! An act on dead letters: the plan is shown, the operator confirms, then it is applied with its
//! progress; Ctrl-C cancels it after the present chunk.

use super::note;
use crate::{
    args::{Global, LetterAct},
    config::{self, Target},
    database,
    error::CliError,
    output::{Answer, Output, cut, shown, warn},
};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use outbox_core::{
    admin::{
        Act, ActDone, ActStore, AdminStore, Applied, AuditOutcome, Canary, OperatorNote, Plan,
        apply,
    },
    event::LetterId,
    runtime::Shutdown,
};
use outbox_sea_orm::Outbox;
use std::{
    io::{IsTerminal, Write, stderr, stdin},
    process::ExitCode,
    time::{Duration, Instant},
};

/// Pause between two lines of progress where there is no terminal.
const PROGRESS_EVERY: Duration = Duration::from_secs(10);

/// Plans an act, asks, and applies it.
pub(super) async fn run(
    global: &Global,
    act: Act,
    arguments: &LetterAct,
    output: &mut Output,
) -> Result<ExitCode, CliError> {
    let target = config::target(global)?;
    let outbox = database::open(&target).await?;
    let by = note(&arguments.note, arguments.force);
    if !arguments.letters.is_empty() {
        return on_letters(global, &target, &outbox, act, arguments, &by, output).await;
    }
    let plan = outbox.plan(act, &arguments.filter.to_filter(), arguments.all).await?;
    if arguments.plan {
        if output.json {
            output.document(&Answer { database: &target.name, result: &plan })?;
        } else {
            write_plan(output, &plan)?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    if !output.json {
        write_plan(output, &plan)?;
    }
    if plan.count.count == 0 {
        return Err(CliError::NotFound("no open dead letter matches".to_owned()));
    }
    confirm(global, &target, &format!("{} {} letters?", verb(act), plan.count))?;
    let canary = arguments.canary.map(|watch| Canary { watch });
    let (outcome, applied) = apply_plan(&outbox, &plan, &by, canary).await?;
    let done = ActDone { plan: Some(plan.id), outcome, applied };
    write_done(output, &target, act, &done)?;
    Ok(match outcome {
        AuditOutcome::Done => ExitCode::SUCCESS,
        AuditOutcome::Running | AuditOutcome::Cancelled | AuditOutcome::Stopped => {
            ExitCode::from(5)
        }
    })
}

/// Acts on letters that were named.
async fn on_letters(
    global: &Global,
    target: &Target,
    outbox: &Outbox,
    act: Act,
    arguments: &LetterAct,
    by: &OperatorNote,
    output: &mut Output,
) -> Result<ExitCode, CliError> {
    let letters: Vec<LetterId> = arguments.letters.iter().copied().map(LetterId).collect();
    let named: Vec<String> = letters.iter().map(ToString::to_string).collect();
    let what =
        format!("{} {}", if letters.len() == 1 { "letter" } else { "letters" }, named.join(", "));
    if arguments.plan {
        let plan = format!("{} {what}", verb(act));
        if output.json {
            output.document(&Answer { database: &target.name, result: plan })?;
        } else {
            output.line(plan)?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    confirm(global, target, &format!("{} {what}?", verb(act)))?;
    let resolved = match act {
        Act::Redrive => outbox.redrive(&letters, by).await?,
        Act::Discard => outbox.discard(&letters, by).await?,
        Act::Purge => outbox.purge(&letters, by).await?,
        other => return Err(CliError::Usage(format!("{other} takes no numbers of letters"))),
    };
    let done = ActDone::on_letters(letters.len(), resolved.len());
    write_done(output, target, act, &done)?;
    if act == Act::Purge && done.applied.skipped > 0 && !output.json {
        output.line("the content of letters that were resolved before is deleted too")?;
    }
    Ok(ExitCode::from(u8::from(resolved.is_empty() && act != Act::Purge)))
}

/// Asks whether an act is to be done. Without a terminal `--yes` is needed.
pub(super) fn confirm(global: &Global, target: &Target, question: &str) -> Result<(), CliError> {
    if global.yes {
        return Ok(());
    }
    if !stdin().is_terminal() {
        return Err(CliError::NotConfirmed("without a terminal --yes is needed".to_owned()));
    }
    let production = if target.production { "PRODUCTION " } else { "" };
    let mut to = stderr();
    write!(to, "{production}{}: {} [y/N] ", shown(&target.to_string()), shown(question))?;
    to.flush()?;
    let mut answer = String::new();
    stdin().read_line(&mut answer)?;
    match answer.trim() {
        "y" | "Y" | "yes" => Ok(()),
        _ => Err(CliError::NotConfirmed("it was not confirmed".to_owned())),
    }
}

fn write_plan(output: &mut Output, plan: &Plan) -> Result<(), CliError> {
    output.line(format!("plan {}: {} {}", plan.id, plan.act, shown(&plan.selection)))?;
    let first: Vec<String> = plan.first.iter().map(ToString::to_string).collect();
    output.line(format!("  {} letters, the first: {}", plan.count, first.join(", ")))?;
    for note in &plan.notes {
        output.line(format!("  {}", shown(note)))?;
    }
    output.line(format!("  void after {}", plan.expires_at))
}

/// Applies a plan with its progress. Ctrl-C cancels it after the present chunk.
async fn apply_plan(
    outbox: &Outbox,
    plan: &Plan,
    by: &OperatorNote,
    canary: Option<Canary>,
) -> Result<(AuditOutcome, Applied), CliError> {
    let cancel = Shutdown::default();
    let mut progress = Progress::new(plan.count.count);
    let mut last = Applied::default();
    let outcome = {
        let mut work = std::pin::pin!(apply(outbox, plan.id, by, canary, &cancel, |applied| {
            last = applied;
            progress.show(&applied);
        }));
        tokio::select! {
            outcome = &mut work => outcome,
            _ = tokio::signal::ctrl_c() => {
                cancel.request(Duration::ZERO);
                warn("cancelled: the present chunk ends first");
                work.await
            }
        }
    };
    progress.finish();
    Ok((outcome?, last))
}

/// A bar on a terminal, else a line every 10 s.
struct Progress {
    bar: ProgressBar,
    is_terminal: bool,
    told: Instant,
}

impl Progress {
    fn new(letters: u64) -> Self {
        let is_terminal = stderr().is_terminal();
        let target =
            if is_terminal { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let style = ProgressStyle::with_template("{bar:40} {pos}/{len}  {per_sec}  {eta}")
            .unwrap_or_else(|_| ProgressStyle::default_bar());
        let bar = ProgressBar::with_draw_target(Some(letters), target).with_style(style);
        Self { bar, is_terminal, told: outbox_core::runtime::now() }
    }

    fn show(&mut self, applied: &Applied) {
        let seen = applied.done + applied.skipped + applied.refused;
        self.bar.set_position(seen);
        let now = outbox_core::runtime::now();
        if !self.is_terminal && now.saturating_duration_since(self.told) >= PROGRESS_EVERY {
            self.told = now;
            warn(&format!(
                "{} letters done, {} left as they were",
                applied.done,
                seen - applied.done
            ));
        }
    }

    fn finish(self) {
        self.bar.finish_and_clear();
    }
}

const fn verb(act: Act) -> &'static str {
    match act {
        Act::Redrive => "redrive",
        Act::Discard => "discard",
        Act::Purge => "purge",
        _ => "change",
    }
}

fn write_done(
    output: &mut Output,
    target: &Target,
    act: Act,
    done: &ActDone,
) -> Result<(), CliError> {
    if output.json {
        return output.document(&Answer { database: &target.name, result: done });
    }
    let Applied { done: changed, skipped, refused, .. } = done.applied;
    let mut line = format!("{}: {changed} letters", verb(act));
    if skipped > 0 {
        line.push_str(&format!(", {skipped} left as others had resolved them"));
    }
    if refused > 0 {
        line.push_str(&format!(", {refused} refused"));
    }
    line.push_str(match done.outcome {
        AuditOutcome::Done => "",
        AuditOutcome::Running => "; it is not complete",
        AuditOutcome::Cancelled => "; cancelled, the others stay open",
        AuditOutcome::Stopped => "; stopped, as letters of this plan failed again",
    });
    output.line(cut(&line, 200))
}
