//! `find`, `life`, `follow` and `explain`.

use super::{Answers, ask_all, ask_each};
use crate::{
    args::Global,
    config::{self, Target},
    error::CliError,
    output::{Output, Table, cut, instant, shown},
};
use outbox_core::{
    admin::{
        CommandFacts, DatabaseEntry, ExplainedSubject, Facts, Found, History, InspectStore,
        Subject, awaited_commands, commands_of, explain as explain_facts, history_of, messages_of,
        named_subjects, subjects_everywhere,
    },
    event::MessageId,
    saga::CommandId,
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
    let mut everywhere = subjects_everywhere(named.list.into_iter().flat_map(|(_, named)| named));
    let messages = messages_of_sagas(global, &everywhere).await?;
    everywhere.extend(messages);
    let ask = async |outbox: &Outbox| history_of(outbox, &everywhere, MOST_ENTRIES).await;
    let answers = ask_all(global, ask).await?;
    write_by_time(text, &answers, output)
}

/// Gives the messages of the commands whose replies sagas await, and of the replies, as all databases
/// have them: their services may know them under other keys.
async fn messages_of_sagas(global: &Global, asked: &[Subject]) -> Result<Vec<Subject>, CliError> {
    if !asked.iter().any(|subject| matches!(subject, Subject::Saga(_))) {
        return Ok(Vec::new());
    }
    let awaited =
        ask_all(global, async |outbox: &Outbox| awaited_commands(outbox, asked).await).await?;
    let targets = awaited.list.iter().map(|(target, _)| target.clone()).collect();
    let commands: Vec<CommandId> =
        awaited.list.into_iter().flat_map(|(_, commands)| commands).collect();
    let known = what_is_known(targets, &commands).await?;
    Ok(messages_of(known.list.iter().flat_map(|(_, known)| known), asked))
}

/// Asks databases what they have of commands; none where there is no command.
async fn what_is_known(
    targets: Vec<Target>,
    commands: &[CommandId],
) -> Result<Answers<Vec<CommandFacts>>, CliError> {
    let targets = if commands.is_empty() { Vec::new() } else { targets };
    ask_each(targets, async |outbox: &Outbox| commands_of(outbox, commands).await).await
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
    let facts = ask_all(global, async |outbox: &Outbox| {
        let mut known = Vec::new();
        for subject in named_subjects(outbox, text).await? {
            known.extend(outbox.facts(&subject).await?);
        }
        Ok(known)
    })
    .await?;
    let answers = explained_together(facts).await?;
    let databases = answers.list.len();
    answers.write(output, |output, target, explained| {
        if explained.is_empty() {
            output.line(nothing(text))?;
        }
        for ExplainedSubject { explanation, .. } in explained {
            output.line(shown(&explanation.sentence))?;
            for (name, value) in &explanation.facts {
                output.line(format!("    {}: {}", shown(name), cut(value, LONGEST_LINE)))?;
            }
            let acts_on = explanation.database.as_deref().unwrap_or(&target.name);
            let selecting = config::selecting(global, acts_on, databases);
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

/// Explains the facts of each database, with what the others have of the commands that its sagas wait
/// for.
async fn explained_together(
    facts: Answers<Vec<Facts>>,
) -> Result<Answers<Vec<ExplainedSubject>>, CliError> {
    let Answers { list, mut failures } = facts;
    let awaited = list.iter().flat_map(|(_, facts)| facts).flat_map(Facts::awaited_commands);
    let awaited: Vec<CommandId> = awaited.collect();
    let targets: Vec<Target> = list.iter().map(|(target, _)| target.clone()).collect();
    // Of one database alone, its own facts have all.
    let targets = if targets.len() > 1 { targets } else { Vec::new() };
    let known = what_is_known(targets, &awaited).await?;
    failures.extend(known.failures);
    let explained = |(target, mut facts): (Target, Vec<Facts>)| {
        for (other, commands) in known.list.iter().filter(|(other, _)| other.url != target.url) {
            facts.iter_mut().for_each(|facts| facts.add_elsewhere(&other.name, commands));
        }
        let explained = facts.into_iter().map(|facts| ExplainedSubject {
            explanation: explain_facts(&facts),
            subject: facts.subject,
        });
        (target, explained.collect())
    };
    Ok(Answers { list: list.into_iter().map(explained).collect(), failures })
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
            event_type: None,
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
