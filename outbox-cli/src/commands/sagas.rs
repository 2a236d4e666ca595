//! `sagas`: lists, one saga, and what an operator does with it.

use super::{act::confirm, ask_all, lists::write_next, note};
use crate::{
    args::{Drawing, Global, Note, Sagas},
    config, database,
    error::CliError,
    output::{Answer, Output, Table, cut, instant, shown},
};
use outbox_core::{
    admin::{SagaHistory, sagas_named},
    event::SagaId,
    outbox::StoreError,
    saga::{Operation, SagaAdmin, SagaFilter, SagaView},
};
use outbox_sea_orm::Outbox;
use std::process::ExitCode;

/// Longest text of a stranger in a table, in characters.
const LONGEST_TEXT: usize = 60;
/// Longest record of a timeline, in characters.
const LONGEST_RECORD: usize = 160;

/// Runs a command about sagas.
pub(super) async fn run(
    global: &Global,
    command: Sagas,
    output: &mut Output,
) -> Result<ExitCode, CliError> {
    match command {
        Sagas::List { name, state, correlation, after, limit } => {
            let filter = SagaFilter { name, state, correlation };
            list(global, &filter, after, limit, output).await
        }
        Sagas::Show { saga, r#as, mermaid } => {
            let drawing = if mermaid { Drawing::Mermaid } else { r#as };
            show(global, &saga, drawing, output).await
        }
        Sagas::Resume(act) => {
            operate(global, &act.saga, Operation::Resume, &act.note, output).await
        }
        Sagas::RetryFrom { saga, step, note } => {
            operate(global, &saga, Operation::RetryFrom(step), &note, output).await
        }
        Sagas::Skip { saga, step, note } => {
            operate(global, &saga, Operation::Skip(step), &note, output).await
        }
        Sagas::Cancel(act) => {
            operate(global, &act.saga, Operation::Cancel, &act.note, output).await
        }
    }
}

async fn list(
    global: &Global,
    filter: &SagaFilter,
    after: Option<SagaId>,
    limit: u32,
    output: &mut Output,
) -> Result<ExitCode, CliError> {
    let ask = async |outbox: &Outbox| outbox.sagas(filter, after, limit).await;
    let answers = ask_all(global, ask).await?;
    answers.write(output, |output, _, sagas| {
        let mut table =
            Table::new(&["id", "saga", "correlation", "state", "step", "changed", "why"]);
        for saga in sagas {
            let instance = &saga.instance;
            let step =
                instance.stuck_at.clone().or_else(|| instance.steps.last().map(|s| s.step.clone()));
            table.row([
                saga.id.to_string(),
                format!("{} v{}", saga.definition.0, saga.definition.1),
                saga.correlation.clone(),
                instance.state.to_string(),
                step.unwrap_or_default(),
                instant(saga.changed_at),
                instance.reason.as_deref().map(|why| cut(why, LONGEST_TEXT)).unwrap_or_default(),
            ]);
        }
        table.write(output, "no saga matches")?;
        write_next(output, sagas.len(), limit, sagas.last().map(|saga| saga.id.to_string()))
    })?;
    Ok(answers.exit_code(true))
}

async fn show(
    global: &Global,
    text: &str,
    drawing: Drawing,
    output: &mut Output,
) -> Result<ExitCode, CliError> {
    let answers = ask_all(global, async |outbox: &Outbox| {
        let mut all = Vec::new();
        for saga in sagas_named(outbox, text).await? {
            let log = outbox.saga_log(saga.id).await?;
            all.push(SagaHistory { saga, log });
        }
        Ok(all)
    })
    .await?;
    let found = answers.list.iter().any(|(_, sagas)| !sagas.is_empty());
    if drawing == Drawing::Mermaid && !output.json {
        for shown in answers.list.iter().flat_map(|(_, sagas)| sagas) {
            output.line(mermaid(&shown.saga))?;
        }
        return Ok(answers.exit_code(found));
    }
    answers.write(output, |output, _, sagas| {
        if sagas.is_empty() {
            output.line(format!("no saga is known as {}", cut(text, LONGEST_TEXT)))?;
        }
        sagas.iter().try_for_each(|shown| write_timeline(output, shown))
    })?;
    Ok(answers.exit_code(found))
}

fn write_timeline(
    output: &mut Output,
    SagaHistory { saga, log }: &SagaHistory,
) -> Result<(), CliError> {
    let (name, version) = &saga.definition;
    output.line(format!(
        "{} v{version}  {}  {}  {}",
        shown(name),
        saga.id,
        shown(&saga.correlation),
        saga.instance.state
    ))?;
    if let Some(why) = &saga.instance.reason {
        output.line(format!("why        {}", cut(why, LONGEST_RECORD)))?;
    }
    if !saga.instance.locks.is_empty() {
        output.line(format!("locks      {}", shown(&saga.instance.locks.join(", "))))?;
    }
    for entry in log {
        let step = entry.record.step().unwrap_or_default();
        output.line(format!(
            "{:<27}  {:<22} {:<16} {}",
            entry.at.to_string(),
            entry.record.kind(),
            shown(step),
            cut(&entry.details(), LONGEST_RECORD)
        ))?;
    }
    Ok(())
}

/// Draws the steps of a saga of which something is recorded; its definition is known to its service
/// alone.
fn mermaid(saga: &SagaView) -> String {
    use std::fmt::Write;
    let label = |text: &str| shown(text).replace('"', "#quot;");
    let (name, version) = &saga.definition;
    let mut text = format!("flowchart TD\n    start_([\"{} v{version}\"])\n", label(name));
    let mut before = "start_".to_owned();
    for (number, step) in saga.instance.steps.iter().enumerate() {
        let state = serde_json::to_value(step.state).unwrap_or_default();
        let state = state.as_str().unwrap_or_default().to_owned();
        // Writing into a string does not fail.
        let _ = writeln!(text, "    s{number}[\"{}<br/>{state}\"]", label(&step.step));
        let _ = writeln!(text, "    {before} --> s{number}");
        before = format!("s{number}");
    }
    // A step that has failed each time has left no other trace.
    let stuck_at = saga.instance.stuck_at.as_deref();
    if let Some(step) = stuck_at.filter(|step| saga.instance.step(step).is_none()) {
        let _ = writeln!(text, "    stuck_[\"{}<br/>stuck\"]", label(step));
        let _ = writeln!(text, "    {before} --> stuck_");
        before = "stuck_".to_owned();
    }
    let why = saga.instance.reason.as_deref().map(|why| format!("<br/>{}", label(why)));
    let _ = writeln!(
        text,
        "    {before} --> end_([\"{}{}\"])",
        saga.instance.state,
        why.unwrap_or_default()
    );
    text
}

async fn operate(
    global: &Global,
    text: &str,
    operation: Operation,
    why: &Note,
    output: &mut Output,
) -> Result<ExitCode, CliError> {
    let target = config::target(global)?;
    let outbox = database::open(&target).await?;
    let saga = match sagas_named(&outbox, text).await?.as_slice() {
        [] => return Err(CliError::NotFound(format!("no saga is known as {text}"))),
        [saga] => saga.clone(),
        several => {
            let ids: Vec<String> = several.iter().map(|saga| saga.id.to_string()).collect();
            let why = format!("several sagas have this correlation id: {}", ids.join(", "));
            return Err(CliError::Usage(why));
        }
    };
    let does = match &operation {
        Operation::Cancel => "compensate".to_owned(),
        Operation::Resume => "resume".to_owned(),
        Operation::RetryFrom(step) => format!("retry from step {step} of"),
        Operation::Skip(step) => format!("skip step {step} of"),
    };
    let (name, _) = &saga.definition;
    let what = format!("{does} saga {name} {} ({})", saga.correlation, saga.instance.state);
    confirm(global, &target, &format!("{what}?"))?;
    if !outbox.operate(saga.id, &operation, &note(why, false)).await? {
        let refused = format!(
            "its state does not allow that: it is {}{}",
            saga.instance.state,
            saga.instance
                .stuck_at
                .as_deref()
                .map(|step| format!(", at step {step}"))
                .unwrap_or_default()
        );
        return Err(CliError::Store(StoreError::Refused(refused.into())));
    }
    if output.json {
        output.document(&Answer { database: &target.name, result: saga.id })?;
    } else {
        output.line(format!("done: {}", shown(&what)))?;
    }
    Ok(ExitCode::SUCCESS)
}
