//! `dead-letters`: lists, groups, one letter, and another content.

use super::{act, ask_all, lists::write_next, note};
use crate::{
    args::{DeadLetters, Global, LetterFilter, Note, Paging},
    config, database,
    error::CliError,
    output::{Answer, Output, Table, ago, cut, instant, quoted, shown},
};
use outbox_core::{
    admin::{
        Act, AdminStore, DeadLetterFilter, InspectStore, LetterGroup, checked_reason, encoded_text,
        letter_by_id,
    },
    event::{LetterId, Message},
    failure::DeadLetter,
};
use outbox_sea_orm::Outbox;
use std::{collections::BTreeSet, io::Read, path::Path, process::ExitCode};

/// Longest text of a stranger in a table, in characters.
const LONGEST_TEXT: usize = 60;
/// Longest payload that is shown, in bytes.
const LONGEST_PAYLOAD: usize = 64 * 1024;
/// Longest content that is read for a resend, in bytes: no outbox takes more.
const LARGEST_PAYLOAD: u64 = 512 * 1024 * 1024;

/// Runs a command about dead letters.
pub(super) async fn run(
    global: &Global,
    command: DeadLetters,
    output: &mut Output,
) -> Result<ExitCode, CliError> {
    match command {
        DeadLetters::List { filter, paging } => list(global, &filter, &paging, output).await,
        DeadLetters::Groups { filter } => groups(global, &filter, output).await,
        DeadLetters::Show { letter, show_content: true, note } => {
            show_content(global, LetterId(letter), &note, output).await
        }
        DeadLetters::Show { letter, note, .. } => {
            show(global, LetterId(letter), &note, output).await
        }
        DeadLetters::Redrive(letters) => act::run(global, Act::Redrive, &letters, output).await,
        DeadLetters::Discard(letters) => act::run(global, Act::Discard, &letters, output).await,
        DeadLetters::Purge(letters) => act::run(global, Act::Purge, &letters, output).await,
        DeadLetters::Resend { letter, payload, note } => {
            resend(global, LetterId(letter), &payload, &note, output).await
        }
    }
}

async fn list(
    global: &Global,
    filter: &LetterFilter,
    paging: &Paging,
    output: &mut Output,
) -> Result<ExitCode, CliError> {
    let (filter, after, limit) = (filter.to_filter(), paging.after.map(LetterId), paging.limit);
    let ask = async |outbox: &Outbox| {
        let letters = outbox.dead_letters(&filter, after, limit).await?;
        Ok(letters.into_iter().map(DeadLetter::for_operators).collect::<Vec<_>>())
    };
    let answers = ask_all(global, ask).await?;
    answers.write(output, |output, _, letters| {
        let mut table = Table::new(&[
            "#no",
            "given up",
            "by",
            "type",
            "key",
            "reason",
            "#attempts",
            "last error",
        ]);
        for letter in letters {
            let message = letter.message.as_ref();
            table.row([
                letter.id.to_string(),
                instant(letter.dead_at),
                letter.given_up_by(),
                message.map(|message| message.event_type.clone()).unwrap_or_default(),
                message.and_then(|message| message.key.clone()).unwrap_or_default(),
                letter
                    .resolution
                    .as_ref()
                    .map_or_else(|| letter.reason.to_string(), |r| r.action.clone()),
                letter.attempts.to_string(),
                letter
                    .errors
                    .last()
                    .map(|error| cut(&error.text, LONGEST_TEXT))
                    .unwrap_or_default(),
            ]);
        }
        table.write(output, "no dead letter is open")?;
        // A page may end before its limit, by bytes: only an empty one says that there are no more.
        let last = letters.last().map(|letter| letter.id.to_string());
        write_next(output, letters.len(), limit, last)
    })?;
    Ok(answers.exit_code(true))
}

async fn groups(
    global: &Global,
    filter: &LetterFilter,
    output: &mut Output,
) -> Result<ExitCode, CliError> {
    let filter = filter.to_filter();
    let answers =
        ask_all(global, async |outbox: &Outbox| outbox.letter_groups(&filter).await).await?;
    let databases = answers.list.len();
    answers.write(output, |output, target, groups| {
        let mut table = Table::new(&["#letters", "by", "reason", "error", "first", "last"]);
        for group in groups {
            table.row([
                group.count.to_string(),
                group.route.clone(),
                group.reason.to_string(),
                cut(&group.error, LONGEST_TEXT),
                instant(group.first_at),
                instant(group.last_at),
            ]);
        }
        table.write(output, "no dead letter is open")?;
        let selecting = config::selecting(global, &target.name, databases);
        let commands: BTreeSet<String> =
            groups.iter().map(|group| redrive_command(group, &selecting)).collect();
        if !commands.is_empty() {
            output.line("Redrive all of a route or handler and reason, whatever their error:")?;
        }
        commands.iter().try_for_each(|command| output.line(format!("$ {}", shown(command))))
    })?;
    Ok(answers.exit_code(true))
}

/// Gives the command that redrives the letters of a group's route or handler and reason, with the
/// conditions of the list; an error is no condition.
fn redrive_command(group: &LetterGroup, selecting: &str) -> String {
    let DeadLetterFilter {
        topic,
        event_type,
        key,
        route,
        consumer,
        handler,
        reason,
        older_than,
        ..
    } = &group.filter;
    let age = older_than.map(|age| humantime::format_duration(age).to_string());
    let reason = reason.map(|reason| reason.to_string());
    let options = [
        ("topic", topic),
        ("type", event_type),
        ("key", key),
        ("route", route),
        ("consumer", consumer),
        ("handler", handler),
        ("reason", &reason),
        ("older-than", &age),
    ];
    let given = options.into_iter().filter_map(|(option, value)| Some((option, value.as_ref()?)));
    let given: String =
        given.map(|(option, value)| format!(" --{option}={}", quoted(value))).collect();
    format!("outbox{selecting} dead-letters redrive --canary{given}")
}

async fn show(
    global: &Global,
    letter: LetterId,
    why: &Note,
    output: &mut Output,
) -> Result<ExitCode, CliError> {
    if !why.why.is_empty() {
        let no_act = "--why is for --show-content: without it nothing is audited";
        return Err(CliError::Usage(no_act.to_owned()));
    }
    let answers = ask_all(global, async |outbox: &Outbox| {
        let letter = letter_by_id(outbox, letter).await?;
        Ok(letter.into_iter().map(DeadLetter::for_operators).collect::<Vec<_>>())
    })
    .await?;
    answers.write(output, |output, _, letters| match letters.as_slice() {
        [] => output.line(format!("there is no dead letter {letter}")),
        letters => letters.iter().try_for_each(|letter| write_letter(output, letter)),
    })?;
    let found = answers.list.iter().any(|(_, letters)| !letters.is_empty());
    Ok(answers.exit_code(found))
}

/// Shows a letter whose content is hidden, once the audit says who sees it and why.
async fn show_content(
    global: &Global,
    letter: LetterId,
    why: &Note,
    output: &mut Output,
) -> Result<ExitCode, CliError> {
    let by = note(why, false);
    let fault = checked_reason(&by.reason).err();
    if let Some(fault) = fault {
        return Err(CliError::Usage(format!("--show-content: {fault}: say it by --why")));
    }
    let missing = || CliError::NotFound(format!("there is no dead letter {letter}"));
    let target = config::target(global)?;
    let outbox = database::open(&target).await?;
    let hidden = letter_by_id(&outbox, letter).await?.ok_or_else(missing)?;
    if !hidden.message.as_ref().is_some_and(Message::is_sensitive) {
        return Err(CliError::NotConfirmed(format!(
            "the content of letter {letter} is not hidden: show it without --show-content"
        )));
    }
    let shown = outbox.show_content(letter, &by).await?.ok_or_else(missing)?;
    if output.json {
        output.document(&[Answer { database: &target.name, result: [&shown] }])?;
    } else {
        write_letter(output, &shown)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn write_letter(output: &mut Output, letter: &DeadLetter) -> Result<(), CliError> {
    output.line(format!(
        "letter     {}  {} after {} attempts, given up by {} at {}",
        letter.id,
        letter.reason,
        letter.attempts,
        shown(&letter.given_up_by()),
        letter.dead_at
    ))?;
    if let Some(resolution) = &letter.resolution {
        output.line(format!(
            "resolved   {} at {} by {}: {}",
            shown(&resolution.action),
            resolution.at,
            shown(&resolution.by),
            shown(&resolution.reason)
        ))?;
    }
    if letter.parks && letter.resolution.is_none() {
        output.line("order      later events of its key wait until it is resolved")?;
    }
    if let Some(previous) = letter.previous {
        output.line(format!("before     letter {previous}: it was redriven, and failed again"))?;
    }
    for (number, error) in letter.errors.iter().enumerate() {
        let name = if number == 0 { "errors" } else { "" };
        output.line(format!("{name:<9}  attempt {}: {}", error.attempt, shown(&error.text)))?;
    }
    let Some(message) = &letter.message else {
        return output.line("message    its stored row does not decode");
    };
    output.line(format!(
        "message    {}  {} v{} on {}, from {}, made {}",
        message.id,
        shown(&message.event_type),
        message.event_version,
        shown(&message.topic),
        shown(&message.source),
        ago(message.created_at, letter.dead_at)
    ))?;
    if let Some(key) = &message.key {
        output.line(format!("key        {}", shown(key)))?;
    }
    for (name, value) in message.headers.iter() {
        output.line(format!("header     {}: {}", shown(name), shown(value)))?;
    }
    write_content(output, message)
}

/// Writes the content, as text where no codec has encoded it.
fn write_content(output: &mut Output, message: &Message) -> Result<(), CliError> {
    let payload = &message.payload;
    output.line(format!(
        "content    {} ({} bytes)",
        shown(&message.content_type),
        payload.len()
    ))?;
    if let Some(encoding) = message.encoding() {
        return output.line(encoded_text(encoding));
    }
    let text = String::from_utf8_lossy(&payload[..payload.len().min(LONGEST_PAYLOAD)]);
    output.line(shown(&text))?;
    if payload.len() > LONGEST_PAYLOAD {
        output.line(format!("(cut after {LONGEST_PAYLOAD} bytes)"))?;
    }
    Ok(())
}

async fn resend(
    global: &Global,
    letter: LetterId,
    payload: &Path,
    why: &Note,
    output: &mut Output,
) -> Result<ExitCode, CliError> {
    let target = config::target(global)?;
    let content = read_payload(payload)?;
    let outbox = database::open(&target).await?;
    let Some(old) = letter_by_id(&outbox, letter).await? else {
        return Err(CliError::NotFound(format!("there is no dead letter {letter}")));
    };
    let question = format!(
        "Send letter {letter} ({}) again with {} bytes, as a new event?",
        old.given_up_by(),
        content.len()
    );
    act::confirm(global, &target, &question)?;
    match outbox.resend(letter, content.into(), &note(why, false)).await? {
        Some(id) if output.json => {
            output.document(&Answer { database: &target.name, result: id })?;
        }
        Some(id) => output.line(format!("letter {letter} goes again as message {id}"))?,
        None => return Err(CliError::NotConfirmed(format!("letter {letter} was resolved before"))),
    }
    Ok(ExitCode::SUCCESS)
}

fn read_payload(path: &Path) -> Result<Vec<u8>, CliError> {
    let mut content = Vec::new();
    let read = if path == Path::new("-") {
        std::io::stdin().lock().take(LARGEST_PAYLOAD + 1).read_to_end(&mut content)
    } else {
        std::fs::File::open(path)
            .and_then(|file| file.take(LARGEST_PAYLOAD + 1).read_to_end(&mut content))
    };
    read.map_err(|error| CliError::Usage(format!("{}: {error}", path.display())))?;
    Ok(content)
}
