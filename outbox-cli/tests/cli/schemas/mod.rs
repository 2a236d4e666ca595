//! Each document of `--json` against its schema, which is committed in `schema/`.

mod documents;
mod story;
mod rare;

use crate::{
    program::{command, on, run},
    tail::Tail,
    world::World,
};
use clap::CommandFactory;
use documents::{Documents, properties, schema_of};
use outbox_cli::Cli;
use serde_json::Value;
use std::{collections::BTreeSet, fs, path::PathBuf};
use tests::{databases::TempDatabase, on_every_database};

/// The commands that write no document, each with arguments that it takes.
const WITHOUT_DOCUMENT: [(&str, &[&str]); 6] = [
    ("relay", &["relay.toml"]),
    ("serve", &[]),
    ("migrate sql", &["--dialect", "sqlite"]),
    ("new", &["orders"]),
    ("completions", &["bash"]),
    ("schema", &[]),
];

/// Objects with names that are not told, as somebody else chooses them: the headers of a message.
const OPEN: [&str; 1] = ["Message"];

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("schema")
}

fn file(name: &str) -> Value {
    let text = fs::read_to_string(folder().join(format!("{name}.json"))).unwrap();
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{name}.json: {error}"))
}

/// Gives the commands of the program, each by its words, as the help has them.
fn commands() -> BTreeSet<String> {
    fn walk(command: &clap::Command, before: &str, all: &mut BTreeSet<String>) {
        for inner in command.get_subcommands() {
            let words = format!("{before} {}", inner.get_name()).trim().to_owned();
            if inner.has_subcommands() {
                walk(inner, &words, all);
            } else {
                all.insert(words);
            }
        }
    }
    let mut all = BTreeSet::new();
    walk(&Cli::command(), "", &mut all);
    all
}

/// Gives the commands that have a schema.
fn described() -> BTreeSet<String> {
    let listed = run(command(&["schema"])).exits(0).out;
    listed.lines().map(str::to_owned).collect()
}

/// Lists the objects of a schema that take names which are not told, and the properties without a
/// description.
fn gaps(schema: &Value, at: &str, all: &mut Vec<String>) {
    match schema {
        Value::Object(fields) => {
            if fields.contains_key("properties") && schema["additionalProperties"] != false {
                all.push(at.to_owned());
            }
            for (name, property) in schema["properties"].as_object().into_iter().flatten() {
                if property["description"].as_str().is_none_or(str::is_empty) {
                    all.push(format!("{at}.{name}"));
                }
            }
            for (field, inner) in fields {
                let at = match field.as_str() {
                    "properties" | "$defs" | "items" | "anyOf" => at.to_owned(),
                    name => format!("{at}.{name}"),
                };
                gaps(inner, at.trim_start_matches('.'), all);
            }
        }
        Value::Array(items) => items.iter().for_each(|inner| gaps(inner, at, all)),
        _ => {}
    }
}

#[test]
fn each_command_has_a_schema_or_refuses_to_write_a_document() {
    let (described, mut all) = (described(), commands());
    assert!(all.len() > 30, "the commands were found: {all:?}");
    let named: BTreeSet<String> = described.iter().map(|name| name.replace(' ', "-")).collect();
    let files = fs::read_dir(folder()).unwrap();
    let mut files: BTreeSet<String> = files
        .map(|entry| entry.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned())
        .collect();
    assert!(files.remove("common"), "what the schemas have in common");
    assert_eq!(files, named, "a file for each command that has a schema, and no others");
    for (name, arguments) in WITHOUT_DOCUMENT {
        let words: Vec<&str> = ["--json"].into_iter().chain(name.split(' ')).collect();
        let ran = run(command(&[&words[..], arguments].concat())).exits(2);
        let told = format!("`{name}` writes no document: leave --json out");
        assert!(ran.err.contains(&told) && ran.out.is_empty(), "{ran:?}");
        assert!(all.remove(name), "it is a command: {name}");
    }
    assert_eq!(described, all, "each other command has a schema");
}

#[test]
fn a_schema_is_found_by_the_words_of_its_command_alone() {
    for words in [&["dead-letters", "list"][..], &["dead-letters list"]] {
        let ran = run(command(&[&["schema"][..], words].concat())).exits(0);
        assert_eq!(ran.json()["title"], "outbox dead-letters list --json");
    }
    for words in [&["dead-letters"][..], &["relay"], &["common"], &["dead-letters-list"]] {
        let ran = run(command(&[&["schema"][..], words].concat())).exits(2);
        assert!(ran.err.contains("`outbox schema` names those that do"), "{}", ran.err);
    }
}

#[test]
fn each_schema_is_closed_tells_what_each_property_is_and_is_a_schema() {
    let common = file("common");
    let mut used = BTreeSet::new();
    let mut found = Vec::new();
    gaps(&common, "", &mut found);
    for name in described() {
        let schema = schema_of(&name);
        if let Err(error) = jsonschema::draft202012::meta::validate(&schema) {
            panic!("{name}: {error}");
        }
        assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema", "{name}");
        assert_eq!(schema["title"], format!("outbox {name} --json"));
        used.extend(schema["$defs"].as_object().into_iter().flat_map(|all| all.keys().cloned()));
        gaps(&file(&name.replace(' ', "-")), &name, &mut found);
    }
    assert_eq!(found, OPEN, "a name without a description, or an object that takes any name");
    let there: BTreeSet<String> = common["$defs"].as_object().unwrap().keys().cloned().collect();
    assert_eq!(used, there, "each common definition is used");
}

on_every_database! {
    async fn every_document_is_what_its_schema_says_and_every_property_is_seen(temp: &TempDatabase) {
        let world = World::open(temp).await;
        let mut documents = Documents::default();
        let message = story::tell(&world).await.to_string();
        story::while_all_runs(&world, || {
            documents.ask(&world.url, "overview", &[]);
            documents.ask(&world.url, "top", &["--times", "1"]);
        })
        .await;
        question(&world, &message, &mut documents);
        act(&world, &mut documents);
        follow(&world, &mut documents).await;
        for (command, document) in rare::documents() {
            documents.check(command, &document);
        }

        assert_eq!(documents.asked, described(), "each command with a schema was asked");
        let mut all = BTreeSet::new();
        for name in described() {
            properties(&schema_of(&name), &name, &mut all);
        }
        let unseen: Vec<&String> = all.difference(&documents.seen).collect();
        assert!(unseen.is_empty(), "no document has these: take them out, or show them: {unseen:#?}");
    }

    async fn a_database_without_tables_is_a_document_that_says_so(temp: &TempDatabase) {
        // SQLite makes its file when somebody connects.
        temp.connect().await;
        let ran = on(temp.url(), &["--json", "migrate", "check"]).exits(1);
        let mut documents = Documents::default();
        let document = ran.json();
        documents.check("migrate check", &document);
        let tables = &document[0]["result"];
        assert_eq!(tables["fits"], false, "{document}");
        assert!(tables["fault"].as_str().unwrap().contains("its tables are missing"), "{document}");
        assert_eq!(ran.err, "", "the document says it");
    }
}

/// Asks what an operator can ask.
fn question(world: &World, message: &str, documents: &mut Documents) {
    let all: [(&str, &[&str]); 22] = [
        ("find", &["order-1"]),
        ("find", &["order-7"]),
        ("find", &["nobody"]),
        ("life", &[message]),
        ("follow", &["order-1"]),
        ("follow", &["order-7"]),
        ("explain", &["order-1"]),
        ("explain", &["order-7"]),
        ("explain", &["order-9"]),
        ("dead-letters list", &["--resolved"]),
        ("dead-letters groups", &[]),
        ("dead-letters show", &["2"]),
        ("deferred", &[]),
        ("scheduled", &[]),
        ("inbox", &[message]),
        ("sagas list", &[]),
        ("sagas show", &["order-7"]),
        ("sagas show", &["order-41"]),
        ("doctor", &[]),
        ("migrate status", &[]),
        ("migrate check", &[]),
        ("migrate up", &[]),
    ];
    for (command, arguments) in all {
        documents.ask(&world.url, command, arguments);
    }
}

/// Does what an operator can do.
fn act(world: &World, documents: &mut Documents) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("content.json");
    fs::write(&file, r#"{"order":"order-2","note":"mended"}"#).unwrap();
    let content = file.to_str().unwrap();
    let received = ["--consumer", "warehouse"];
    let letters = documents.ask(&world.url, "dead-letters list", &received);
    let letter = &letters[0]["result"][0]["id"].to_string();
    let all: [(&str, &[&str]); 20] = [
        ("pause", &["route", "billing", "--for", "1h", "--why", "they migrate"]),
        ("rate", &["billing", "100"]),
        ("overview", &[]),
        ("resume", &["route", "billing"]),
        ("dead-letters resend", &["2", "--payload", content]),
        ("dead-letters redrive", &["3", "--plan"]),
        ("dead-letters redrive", &["--route", "billing", "--plan"]),
        ("dead-letters redrive", &["--route", "billing", "--why", "it is repaired"]),
        ("dead-letters discard", &["--consumer", "warehouse", "--plan"]),
        ("dead-letters discard", &[letter]),
        ("dead-letters purge", &[letter]),
        ("sagas resume", &["order-17"]),
        ("sagas retry-from", &["order-27", "hand-over"]),
        ("sagas skip", &["order-37", "hand-over", "--why", "by hand"]),
        ("sagas cancel", &["order-41"]),
        ("sagas show", &["order-27"]),
        ("erase", &["order-8", "--plan"]),
        ("erase", &["order-8", "--why", "asked for"]),
        ("audit", &[]),
        ("bench", &["--events", "100", "--writers", "2"]),
    ];
    for (command, arguments) in all {
        documents.ask(&world.url, command, arguments);
    }
}

/// Follows an event, and checks each line.
async fn follow(world: &World, documents: &mut Documents) {
    let tail = Tail::start(&world.url, &["--lines", "1", "--json"]);
    world.place("order-50", "a lamp").await;
    let written = tail.finish();
    let lines: Vec<Value> =
        written.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 1, "{written}");
    documents.check("tail", &lines[0]);
}
