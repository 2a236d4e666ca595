//! What each command writes, compared with what was committed; `SNAPSHOTS=overwrite` accepts it.

use crate::{
    program::{command, on, run},
    world::World,
};
use serde_json::Value;
use std::{collections::BTreeSet, env, fs, path::PathBuf};
use tests::{databases::TempDatabase, on_every_database};

/// The commands, each with the name of its file.
const COMMANDS: [(&str, &[&str]); 15] = [
    ("overview", &["overview"]),
    ("find-key", &["find", "order-1"]),
    ("follow-key", &["follow", "order-1"]),
    ("explain-key", &["explain", "order-1"]),
    ("explain-waiting", &["explain", "order-9"]),
    ("explain-saga", &["explain", "order-7"]),
    ("dead-letters-list", &["dead-letters", "list"]),
    ("dead-letters-groups", &["dead-letters", "groups"]),
    ("dead-letters-show", &["dead-letters", "show", "1"]),
    ("deferred", &["deferred"]),
    ("scheduled", &["scheduled"]),
    ("sagas-list", &["sagas", "list"]),
    ("sagas-show", &["sagas", "show", "order-7"]),
    ("audit", &["audit"]),
    ("erase", &["erase", "order-2", "--plan"]),
];

async fn storied(temp: &TempDatabase) -> World {
    let world = World::open(temp).await;
    for order in ["order-1", "order-2", "order-2"] {
        world.place(order, "two chairs").await;
    }
    world.bury(3, "503 from billing, request 4711").await;
    world.place("order-9", "a table").await;
    world.schedule("order-8").await;
    world.get_stuck("order-7").await;
    let discard = ["--yes", "dead-letters", "discard", "3", "--why", "a duplicate"];
    on(&world.url, &discard).exits(0);
    world
}

/// Replaces what differs from run to run: ids, instants, spans, the database; and the spaces between columns.
fn steady(text: &str) -> String {
    let line = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let word = |at: usize| {
            let is_unit = |word: &&str| {
                let unit = word.trim_end_matches([',', ';', ')', ':', '.']);
                ["ms", "s", "min"].contains(&unit)
            };
            let core = words[at].trim_matches(|c| "(),;\"`.".contains(c));
            let steady = match core {
                core if is_uuid(core) => "<id>",
                core if core.starts_with("--database=") => "--database=<url>",
                core if is_instant(core) => "<time>",
                core if core.parse::<u64>().is_ok() && words.get(at + 1).is_some_and(is_unit) => {
                    "<n>"
                }
                _ if at > 0 && words[at - 1].parse::<u64>().is_ok() && is_unit(&words[at]) => {
                    return words[at].replacen(core, "<unit>", 1);
                }
                core => core,
            };
            words[at].replacen(core, steady, 1)
        };
        let indent = if line.starts_with(' ') { "  " } else { "" };
        indent.to_owned() + &(0..words.len()).map(word).collect::<Vec<_>>().join(" ") + "\n"
    };
    text.lines().map(line).collect()
}

fn is_uuid(text: &str) -> bool {
    text.len() == 36
        && text.char_indices().all(|(at, c)| match at {
            8 | 13 | 18 | 23 => c == '-',
            _ => c.is_ascii_hexdigit(),
        })
}

/// Tells whether a text is an instant: with its date, or an hour with its minute.
fn is_instant(text: &str) -> bool {
    let has_date = text.len() >= 20 && text.starts_with("20") && text.as_bytes()[10] == b'T';
    let is_minute = text.len() == 5
        && text.char_indices().all(|(at, c)| if at == 2 { c == ':' } else { c.is_ascii_digit() });
    has_date || is_minute
}

fn golden(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/cli/golden").join(name)
}

/// Compares with a committed text, and gives the difference.
fn compare(name: &str, text: &str) -> Option<String> {
    let path = golden(name);
    if env::var_os("SNAPSHOTS").is_some_and(|value| value == "overwrite") {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        return None;
    }
    let known = fs::read_to_string(&path).unwrap_or_default();
    (known != text).then(|| format!("--- {name}\n{known}\n--- now\n{text}"))
}

/// Writes the names and kinds of a document, a line each: `[].result.events.pending: number`.
fn shape(value: &Value, path: &str, lines: &mut BTreeSet<String>) {
    let kind = match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                shape(value, &format!("{path}.{name}"), lines);
            }
            return;
        }
        Value::Array(items) => {
            for item in items {
                shape(item, &format!("{path}[]"), lines);
            }
            "list"
        }
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "text",
    };
    lines.insert(format!("{path}: {kind}\n"));
}

on_every_database! {
    async fn every_document_has_the_names_that_it_had_before(temp: &TempDatabase) {
        let world = storied(temp).await;
        let differences: Vec<String> = COMMANDS
            .iter()
            .filter_map(|(name, arguments)| {
                let with_json: Vec<&str> = ["--json"].iter().chain(arguments.iter()).copied().collect();
                let mut lines = BTreeSet::new();
                shape(&on(&world.url, &with_json).exits(0).json(), "", &mut lines);
                compare(&format!("{name}.json.txt"), &lines.into_iter().collect::<String>())
            })
            .collect();
        assert!(differences.is_empty(), "SNAPSHOTS=overwrite accepts it:\n{}", differences.join("\n"));
    }

    async fn every_command_writes_what_it_wrote_before(temp: &TempDatabase) {
        let world = storied(temp).await;
        let differences: Vec<String> = COMMANDS
            .iter()
            .filter_map(|(name, arguments)| {
                let ran = on(&world.url, arguments).exits(0);
                compare(&format!("{name}.txt"), &steady(&ran.out))
            })
            .collect();
        assert!(differences.is_empty(), "SNAPSHOTS=overwrite accepts it:\n{}", differences.join("\n"));
    }

    async fn a_hidden_content_is_written_as_any_other_once_somebody_has_said_why(temp: &TempDatabase) {
        let world = World::open(temp).await;
        world.add_card().await;
        world.bury(1, "503 from billing, request 4711").await;
        let show = ["dead-letters", "show", "1", "--show-content", "--why", "ann asks for it"];
        let text = steady(&on(&world.url, &show).exits(0).out);
        let with_json: Vec<&str> = ["--json"].iter().chain(show.iter()).copied().collect();
        let mut lines = BTreeSet::new();
        shape(&on(&world.url, &with_json).exits(0).json(), "", &mut lines);
        let differences = [
            compare("dead-letters-show-content.txt", &text),
            compare("dead-letters-show-content.json.txt", &lines.into_iter().collect::<String>()),
        ];
        let differences: Vec<String> = differences.into_iter().flatten().collect();
        assert!(differences.is_empty(), "SNAPSHOTS=overwrite accepts it:\n{}", differences.join("\n"));
    }
}

#[test]
fn the_help_of_the_page_is_what_it_was_before() {
    let help = run(command(&["serve", "--help"])).exits(0).out;
    let difference = compare("serve-help.txt", &help);
    assert!(difference.is_none(), "SNAPSHOTS=overwrite accepts it:\n{}", difference.unwrap());
}
