//! `find`, `life`, `follow` and `explain`.

use super::{Answers, ask_all};
use crate::{
    args::Global,
    config,
    error::CliError,
    output::{Output, Table, cut, instant, shown},
};
use outbox_core::{
    admin::{
        DatabaseEntry, ExplainedSubject, Found, History, InspectStore, Subject,
        explain as explain_facts, history_of, named_subjects, subjects_everywhere,
    },
    event::MessageId,
};
use outbox_sea_orm::Outbox;
use std::process::ExitCode;

/// Entries of one history at most.
const MOST_ENTRIES: u32 = 1_000;
/// Longest line of a history, in characters.
const LONGEST_LINE: usize = 200;

/// Shows what a text is.
pub(super) async fn find(
    global: &Global,
    text: &str,
    output: &mut Output,
) -> Result<ExitCode, CliError> {
    let answers = ask_all(global, async |outbox: &Outbox| outbox.find(text).await).await?;
    answers.write(output, |output, _, found| {
        let mut table = Table::new(&["what", "name", "id", "made"]);
        for Found { subject, what, name, at } in found {
            table.row([
                what.clone(),
                name.clone(),
                subject.to_string(),
                at.map(instant).unwrap_or_default(),
            ]);
        }
        table.write(output, &nothing(text))
    })?;
    let found = answers.list.iter().any(|(_, found)| !found.is_empty());
    Ok(answers.exit_code(found))
}

fn nothing(text: &str) -> String {
    format!("nothing here is known as {}", cut(text, 100))
}

/// Shows the life of one message.
pub(super) async fn life(
    global: &Global,
    text: &str,
    output: &mut Output,
) -> Result<ExitCode, CliError> {
    let message: MessageId = text.parse().map_err(|_| {
        CliError::Usage("a message id is a UUID; `follow` takes keys too".to_owned())
    })?;
    let subject = Subject::Message(message);
    let answers = ask_all(global, async |outbox: &Outbox| {
        history_of(outbox, std::slice::from_ref(&subject), MOST_ENTRIES).await
    })
    .await?;
    write_by_time(text, &answers, output)
}

/// Shows everything about a text, over all databases: what each knows under the text, and what the
/// others have of it. Commands and replies of a saga have its id as their key.
pub(super) async fn follow(
    global: &Global,
    text: &str,
    output: &mut Output,
) -> Result<ExitCode, CliError> {
    let named = ask_all(global, async |outbox: &Outbox| named_subjects(outbox, text).await).await?;
    let everywhere = subjects_everywhere(named.list.into_iter().flat_map(|(_, named)| named));
    let ask = async |outbox: &Outbox| history_of(outbox, &everywhere, MOST_ENTRIES).await;
    let answers = ask_all(global, ask).await?;
    write_by_time(text, &answers, output)
}

/// Writes the entries of all databases in order of time, each with its service.
fn write_by_time(
    text: &str,
    answers: &Answers<History>,
    output: &mut Output,
) -> Result<ExitCode, CliError> {
    let mut lines: Vec<DatabaseEntry<'_>> = Vec::new();
    for (target, known) in &answers.list {
        lines.extend(
            known.entries.iter().map(|entry| DatabaseEntry { database: &target.name, entry }),
        );
    }
    by_time(&mut lines);
    let found = !lines.is_empty();
    if output.json {
        output.document(&lines)?;
        return Ok(answers.exit_code(found));
    }
    if !found {
        output.line(nothing(text))?;
    }
    let width = lines.iter().map(|line| line.entry.service.chars().count()).max().unwrap_or(0);
    for DatabaseEntry { entry, .. } in &lines {
        let at = entry.at.map(|at| at.to_string()).unwrap_or_default();
        output.line(format!(
            "{at:<27}  {:<width$}  {}",
            cut(&entry.service, width.max(1)),
            cut(&entry.text, LONGEST_LINE)
        ))?;
    }
    for (_, known) in &answers.list {
        for gone in &known.gone {
            output.line(format!("note: {}", shown(gone)))?;
        }
    }
    Ok(answers.exit_code(found))
}

/// Sorts by time; entries without an instant stand last, in their order.
fn by_time(lines: &mut [DatabaseEntry<'_>]) {
    lines.sort_by_key(|line| (line.entry.at.is_none(), line.entry.at));
}

/// Says why what a text names stands still.
pub(super) async fn explain(
    global: &Global,
    text: &str,
    output: &mut Output,
) -> Result<ExitCode, CliError> {
    let answers = ask_all(global, async |outbox: &Outbox| {
        let mut explained = Vec::new();
        for subject in named_subjects(outbox, text).await? {
            if let Some(facts) = outbox.facts(&subject).await? {
                explained.push(ExplainedSubject { subject, explanation: explain_facts(&facts) });
            }
        }
        Ok(explained)
    })
    .await?;
    let databases = answers.list.len();
    answers.write(output, |output, target, explained| {
        let selecting = config::selecting(global, &target.name, databases);
        if explained.is_empty() {
            output.line(nothing(text))?;
        }
        for ExplainedSubject { explanation, .. } in explained {
            output.line(shown(&explanation.sentence))?;
            for (name, value) in &explanation.facts {
                output.line(format!("    {}: {}", shown(name), cut(value, LONGEST_LINE)))?;
            }
            for command in &explanation.commands {
                let command = command.replacen("outbox", &format!("outbox{selecting}"), 1);
                output.line(format!("    $ {}", shown(&command)))?;
            }
        }
        Ok(())
    })?;
    let found = answers.list.iter().any(|(_, explained)| !explained.is_empty());
    Ok(answers.exit_code(found))
}

#[cfg(test)]
mod tests {
    use super::*;
    use outbox_core::{
        admin::{HistoryEntry, HistoryKind},
        event::Timestamp,
    };

    #[test]
    fn entries_without_an_instant_stand_last_in_their_order() {
        let entry = |(at, text): (Option<i64>, &str)| HistoryEntry {
            at: at.map(Timestamp::from_micros),
            service: "/shop".to_owned(),
            message: None,
            kind: HistoryKind::Created,
            text: text.to_owned(),
        };
        let all = [(None, "c"), (Some(2), "b"), (None, "d"), (Some(1), "a")].map(entry);
        let mut lines: Vec<DatabaseEntry<'_>> =
            all.iter().map(|entry| DatabaseEntry { database: "orders", entry }).collect();
        by_time(&mut lines);
        let texts: Vec<&str> = lines.iter().map(|line| line.entry.text.as_str()).collect();
        assert_eq!(texts, ["a", "b", "c", "d"]);
    }
}
