//! What would move something, as places of the dashboard: from the commands of an explanation.

use super::found::Sentence;
use crate::page::text::{Markup, query, text};
use outbox_core::admin::shown_text;

/// A step that would move something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Step {
    /// What to click.
    pub(crate) label: Markup,
    /// What a click there would do.
    pub(crate) does: &'static str,
    /// Where it is done, from the root on.
    pub(crate) href: String,
    /// The same for a terminal.
    pub(crate) command: Markup,
}

/// Gives the steps of explanations, each once.
pub(super) fn steps(sentences: &[Sentence]) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    for sentence in sentences {
        for step in steps_of(&sentence.commands, &sentence.acts_on) {
            if !steps.contains(&step) {
                steps.push(step);
            }
        }
    }
    steps
}

/// Gives the steps of the commands of one explanation, which are for a database.
pub(crate) fn steps_of(commands: &[String], database: &str) -> Vec<Step> {
    commands.iter().filter_map(|command| step(command, database)).collect()
}

/// Reads a command of an explanation; `None` for one that the dashboard has no place for.
fn step(command: &str, database: &str) -> Option<Step> {
    let words: Vec<&str> = command.split(' ').collect();
    let db = query(&[("db", Some(database))]);
    let (label, does, href) = match words.as_slice() {
        ["outbox", "dead-letters", "redrive", letter] => (
            format!("Redrive letter {letter}"),
            "It is stored again under its id and is due at once; events of its key that wait go on after it.",
            format!("letters/{letter}{db}#acts"),
        ),
        ["outbox", "dead-letters", "discard", letter] => (
            format!("Discard letter {letter}"),
            "It is given up for good; events of its key that wait go on without it.",
            format!("letters/{letter}{db}#acts"),
        ),
        ["outbox", "sagas", "resume", saga] => (
            "Resume the saga".to_owned(),
            "It goes on where it is stuck, with its failures counted anew.",
            format!("sagas/{saga}{db}#acts"),
        ),
        ["outbox", "sagas", "retry-from", saga, step @ ..] => (
            format!("Retry the saga from step {}", step.join(" ")),
            "That step and those behind it are done, or undone, again.",
            format!("sagas/{saga}{db}#acts"),
        ),
        ["outbox", "sagas", "skip", saga, step @ ..] => (
            format!("Skip step {}", step.join(" ")),
            "The step counts as done, or as undone: somebody has done it by other means.",
            format!("sagas/{saga}{db}#acts"),
        ),
        ["outbox", "sagas", "cancel", saga] => (
            "Cancel the saga".to_owned(),
            "It compensates: what it has done is undone, the last step first.",
            format!("sagas/{saga}{db}#acts"),
        ),
        ["outbox", "resume", scope, name @ ..] => {
            let name = name.join(" ");
            let plain = unquoted(&name);
            let parts = [
                ("db", Some(database)),
                ("do", Some("resume")),
                ("scope", Some(*scope)),
                ("name", Some(&*plain)),
            ];
            (
                format!("Resume {scope} {name}"),
                "The pause ends: what has waited goes on at once.",
                format!("routes{}#control", query(&parts)),
            )
        }
        _ => return None,
    };
    let command = text(&shown_text(command));
    Some(Step { label: text(&label), does, href, command })
}

/// Takes a shell's quotes off.
fn unquoted(argument: &str) -> String {
    match argument.strip_prefix('\'').and_then(|rest| rest.strip_suffix('\'')) {
        Some(inner) => inner.replace("'\\''", "'"),
        None => argument.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_command_of_an_explanation_has_its_place() {
        for (command, href) in [
            ("outbox dead-letters redrive 7", "letters/7?db=a#acts"),
            ("outbox dead-letters discard 7", "letters/7?db=a#acts"),
            ("outbox sagas resume 01", "sagas/01?db=a#acts"),
            ("outbox sagas retry-from 01 hand-over", "sagas/01?db=a#acts"),
            ("outbox sagas skip 01 'hand over'", "sagas/01?db=a#acts"),
            ("outbox sagas cancel 01", "sagas/01?db=a#acts"),
            (
                "outbox resume key 'it'\\''s 7'",
                "routes?db=a&do=resume&scope=key&name=it%27s%207#control",
            ),
        ] {
            assert_eq!(step(command, "a").unwrap().href, href, "{command}");
        }
        assert_eq!(step("outbox frobnicate 7", "a"), None);
    }
}
