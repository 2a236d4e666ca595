//! `find`, `life`, `follow` and `explain`.

use super::{Answers, ask_all};
use crate::{
    args::Global,
    config,
    error::CliError,
    output::{Output, Table, cut, instant, shown},
};
use outbox_core::{
    admin::{Explanation, Found, HistoryEntry, InspectStore, Subject, explain as explain_facts},
    event::MessageId,
    outbox::StoreError,
};
use outbox_sea_orm::Outbox;
use serde::Serialize;
use std::{collections::BTreeSet, process::ExitCode};

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

/// One entry, with the database that has it.
#[derive(Debug, Serialize)]
struct Line<'a> {
    database: &'a str,
    #[serde(flatten)]
    entry: &'a HistoryEntry,
}

/// What was found about a text in one database.
#[derive(Debug, Default, Serialize)]
struct Known {
    entries: Vec<HistoryEntry>,
    gone: Vec<String>,
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
        known(outbox, [subject.clone().into()].into()).await
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
    let named = ask_all(global, async |outbox: &Outbox| subjects(outbox, text).await).await?;
    let mut everywhere = BTreeSet::new();
    for OrderedSubject(_, subject) in named.list.iter().flat_map(|(_, subjects)| subjects) {
        if let Subject::Saga(id) = subject {
            everywhere.insert(Subject::Key(id.to_string()).into());
        }
        everywhere.insert(subject.clone().into());
    }
    let ask = async |outbox: &Outbox| known(outbox, everywhere.clone()).await;
    let answers = ask_all(global, ask).await?;
    write_by_time(text, &answers, output)
}

/// Gives what a text names in a database.
async fn subjects(outbox: &Outbox, text: &str) -> Result<BTreeSet<OrderedSubject>, StoreError> {
    if let Ok(subject) = text.parse::<Subject>() {
        return Ok([subject.into()].into());
    }
    let found = outbox.find(text).await?;
    Ok(found.into_iter().map(|found| found.subject.into()).collect())
}

async fn known(outbox: &Outbox, subjects: BTreeSet<OrderedSubject>) -> Result<Known, StoreError> {
    let mut known = Known::default();
    for OrderedSubject(_, subject) in &subjects {
        let history = outbox.history(subject, MOST_ENTRIES).await?;
        for entry in history.entries {
            if !known.entries.contains(&entry) {
                known.entries.push(entry);
            }
        }
        known.gone.extend(history.gone);
    }
    known.gone.sort();
    known.gone.dedup();
    Ok(known)
}

/// A subject, ordered by its text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct OrderedSubject(String, Subject);

impl From<Subject> for OrderedSubject {
    fn from(subject: Subject) -> Self {
        Self(subject.to_string(), subject)
    }
}

impl PartialOrd for OrderedSubject {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for OrderedSubject {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.cmp(&other.0)
    }
}

/// Writes the entries of all databases in order of time, each with its service.
fn write_by_time(
    text: &str,
    answers: &Answers<Known>,
    output: &mut Output,
) -> Result<ExitCode, CliError> {
    let mut lines: Vec<Line<'_>> = Vec::new();
    for (target, known) in &answers.list {
        lines.extend(known.entries.iter().map(|entry| Line { database: &target.name, entry }));
    }
    // Stable: entries without an instant stay behind the one before them.
    lines.sort_by_key(|line| line.entry.at);
    let found = !lines.is_empty();
    if output.json {
        output.document(&lines)?;
        return Ok(answers.exit_code(found));
    }
    if !found {
        output.line(nothing(text))?;
    }
    let width = lines.iter().map(|line| line.entry.service.chars().count()).max().unwrap_or(0);
    for Line { entry, .. } in &lines {
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

/// Why one subject stands still.
#[derive(Debug, Serialize)]
struct Explained {
    subject: Subject,
    #[serde(flatten)]
    explanation: Explanation,
}

/// Says why what a text names stands still.
pub(super) async fn explain(
    global: &Global,
    text: &str,
    output: &mut Output,
) -> Result<ExitCode, CliError> {
    let answers = ask_all(global, async |outbox: &Outbox| {
        let mut explained = Vec::new();
        for OrderedSubject(_, subject) in subjects(outbox, text).await? {
            if let Some(facts) = outbox.facts(&subject).await? {
                explained.push(Explained { subject, explanation: explain_facts(&facts) });
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
        for Explained { explanation, .. } in explained {
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
