//! Lists: deferred deliveries, scheduled events, the inbox, the audit, and the doctor's findings.

use super::ask_all;
use crate::{
    args::{Deferred, Global, Paging},
    error::CliError,
    output::{Output, Table, cut, instant, shown},
};
use outbox_core::{
    admin::{ActStore, DoctorStore, ListStore, Page, Severity},
    event::MessageId,
};
use outbox_sea_orm::Outbox;
use std::process::ExitCode;

/// Longest text of a stranger in a table, in characters.
const LONGEST_TEXT: usize = 60;

impl From<&Paging> for Page {
    fn from(paging: &Paging) -> Self {
        Self { after: paging.after, limit: paging.limit }
    }
}

/// Says how the list goes on, where a page is full.
pub(super) fn write_next(
    output: &mut Output,
    rows: usize,
    limit: u32,
    last: Option<String>,
) -> Result<(), CliError> {
    match last {
        Some(last) if rows >= limit as usize => output.line(format!("more: --after {last}")),
        _ => Ok(()),
    }
}

/// Lists deferred deliveries.
pub(super) async fn deferred(
    global: &Global,
    deferred: &Deferred,
    output: &mut Output,
) -> Result<ExitCode, CliError> {
    let page = Page::from(&deferred.paging);
    let consumer = deferred.consumer.as_deref();
    let ask = async |outbox: &Outbox| outbox.deferred(consumer, page).await;
    let answers = ask_all(global, ask).await?;
    answers.write(output, |output, _, rows| {
        let mut table = Table::new(&[
            "#no",
            "handler",
            "type",
            "key",
            "due",
            "#failures",
            "last error or what it awaits",
        ]);
        for row in rows {
            let due = row.due_at.map_or_else(|| "behind others of its key".to_owned(), instant);
            let why = row.awaits.as_ref().or(row.last_error.as_ref());
            table.row([
                row.id.to_string(),
                format!("{}/{}", row.consumer, row.handler),
                row.event_type.clone(),
                row.key.clone().unwrap_or_default(),
                due,
                row.failures.to_string(),
                why.map(|why| cut(why, LONGEST_TEXT)).unwrap_or_default(),
            ]);
        }
        table.write(output, "no consumer has deferred a delivery")?;
        write_next(output, rows.len(), page.limit, rows.last().map(|row| row.id.to_string()))
    })?;
    Ok(answers.exit_code(true))
}

/// Lists scheduled events.
pub(super) async fn scheduled(
    global: &Global,
    paging: &Paging,
    output: &mut Output,
) -> Result<ExitCode, CliError> {
    let page = Page::from(paging);
    let answers = ask_all(global, async |outbox: &Outbox| outbox.scheduled(page).await).await?;
    answers.write(output, |output, _, rows| {
        let mut table = Table::new(&["#no", "due", "topic", "type", "key", "message"]);
        for row in rows {
            table.row([
                row.id.to_string(),
                instant(row.deliver_at),
                row.topic.clone(),
                row.event_type.clone(),
                row.key.clone().unwrap_or_default(),
                row.message.to_string(),
            ]);
        }
        table.write(output, "no event is scheduled for later")?;
        write_next(output, rows.len(), page.limit, rows.last().map(|row| row.id.to_string()))
    })?;
    Ok(answers.exit_code(true))
}

/// Shows in which handlers a message was received.
pub(super) async fn inbox(
    global: &Global,
    text: &str,
    output: &mut Output,
) -> Result<ExitCode, CliError> {
    let message: MessageId =
        text.parse().map_err(|_| CliError::Usage("a message id is a UUID".to_owned()))?;
    let answers = ask_all(global, async |outbox: &Outbox| outbox.inbox(message).await).await?;
    answers.write(output, |output, _, rows| {
        let mut table = Table::new(&["handler", "from", "a repeat is recognised until"]);
        for row in rows {
            let handler = format!("{}/{}", row.consumer, row.handler);
            table.row([handler, row.source.clone(), instant(row.keep_until)]);
        }
        table.write(output, "no handler has this message in its inbox")
    })?;
    let found = answers.list.iter().any(|(_, rows)| !rows.is_empty());
    Ok(answers.exit_code(found))
}

/// Lists the acts of operators.
pub(super) async fn audit(
    global: &Global,
    paging: &Paging,
    output: &mut Output,
) -> Result<ExitCode, CliError> {
    let Page { after, limit } = paging.into();
    let answers = ask_all(global, async |outbox: &Outbox| outbox.audit(after, limit).await).await?;
    answers.write(output, |output, _, rows| {
        let mut table =
            Table::new(&["#no", "at", "by", "act", "on", "#done", "#left", "outcome", "why"]);
        for row in rows {
            table.row([
                row.id.to_string(),
                instant(row.at),
                row.by.clone(),
                row.act.clone(),
                cut(&row.target, LONGEST_TEXT),
                row.done.to_string(),
                row.skipped.to_string(),
                row.outcome.as_str().to_owned(),
                cut(&row.reason, LONGEST_TEXT),
            ]);
        }
        table.write(output, "no operator has acted here")?;
        write_next(output, rows.len(), limit, rows.last().map(|row| row.id.to_string()))
    })?;
    Ok(answers.exit_code(true))
}

/// Examines each outbox; the exit code is 1 where a finding is a warning or worse.
pub(super) async fn doctor(global: &Global, output: &mut Output) -> Result<ExitCode, CliError> {
    let answers = ask_all(global, async |outbox: &Outbox| outbox.findings().await).await?;
    answers.write(output, |output, _, findings| {
        for finding in findings {
            output.line(format!(
                "{:<8}  {:<18}  {}",
                finding.severity.to_string(),
                finding.check,
                shown(&finding.what)
            ))?;
            if finding.severity > Severity::Ok {
                output.line(format!("{:30}do: {}", "", shown(&finding.to_do)))?;
                output.line(format!("{:30}seen by: {}", "", shown(&finding.seen_by)))?;
            }
        }
        Ok(())
    })?;
    let mut findings = answers.list.iter().flat_map(|(_, findings)| findings);
    Ok(answers.exit_code(findings.all(|finding| finding.severity < Severity::Warning)))
}
