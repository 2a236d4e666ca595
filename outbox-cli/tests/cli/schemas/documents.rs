//! Documents that were written, each checked by its schema, and the properties that they have.

use crate::program::{command, on, run};
use serde_json::Value;
use std::collections::BTreeSet;

/// What stands before the name of a definition.
const DEFINITIONS: &str = "#/$defs/";

/// What was written so far.
#[derive(Debug, Default)]
pub(super) struct Documents {
    /// The commands that were asked.
    pub(super) asked: BTreeSet<String>,
    /// The properties that a document had, such as `Overview.events.pending`.
    pub(super) seen: BTreeSet<String>,
}

impl Documents {
    /// Runs a command, which is named by its words, and gives what it writes, checked. Exit code 1
    /// says that nothing was found, or that something is wrong: the document is there all the same.
    #[track_caller]
    pub(super) fn ask(&mut self, url: &str, words: &str, arguments: &[&str]) -> Value {
        let mut all = vec!["--json", "--yes"];
        all.extend(words.split(' '));
        all.extend(arguments);
        let ran = on(url, &all);
        assert!(ran.code <= 1 && !ran.out.is_empty(), "{words} {arguments:?}: {ran:?}");
        let document = ran.json();
        self.check(words, &document);
        document
    }

    /// Checks a document of a command, and notes which properties it has.
    #[track_caller]
    pub(super) fn check(&mut self, words: &str, document: &Value) {
        let schema = schema_of(words);
        let validator =
            jsonschema::draft202012::options().should_validate_formats(true).build(&schema);
        let validator = validator.unwrap_or_else(|error| panic!("{words}: {error}"));
        let faults: Vec<String> = validator
            .iter_errors(document)
            .map(|error| format!("{}: {error}", error.instance_path()))
            .collect();
        assert!(faults.is_empty(), "{words}: {}\n{document:#}", faults.join("\n"));
        self.asked.insert(words.to_owned());
        self.note(&schema, &schema, document, words);
    }

    /// Notes the properties of a value that fits a schema, a part of `root` that stands at `at`.
    fn note(&mut self, root: &Value, schema: &Value, value: &Value, at: &str) {
        if let Some(name) = schema["$ref"].as_str() {
            let name = name.trim_start_matches(DEFINITIONS);
            return self.note(root, &root["$defs"][name], value, name);
        }
        // No two alternatives have a property of one name.
        for alternative in schema["anyOf"].as_array().into_iter().flatten() {
            self.note(root, alternative, value, at);
        }
        for (name, property) in schema["properties"].as_object().into_iter().flatten() {
            if let Some(inner) = value.get(name) {
                let at = format!("{at}.{name}");
                self.note(root, property, inner, &at);
                self.seen.insert(at);
            }
        }
        for item in value.as_array().into_iter().flatten() {
            self.note(root, &schema["items"], item, at);
        }
    }
}

/// Asks the program for the schema of a command.
#[track_caller]
pub(super) fn schema_of(words: &str) -> Value {
    let all: Vec<&str> = ["schema"].into_iter().chain(words.split(' ')).collect();
    run(command(&all)).exits(0).json()
}

/// Lists the properties of a schema and of its definitions, under the names that
/// [`Documents::seen`] has.
pub(super) fn properties(schema: &Value, at: &str, all: &mut BTreeSet<String>) {
    for (name, definition) in schema["$defs"].as_object().into_iter().flatten() {
        properties(definition, name, all);
    }
    for alternative in schema["anyOf"].as_array().into_iter().flatten() {
        properties(alternative, at, all);
    }
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        let at = format!("{at}.{name}");
        properties(property, &at, all);
        all.insert(at);
    }
    if schema["items"].is_object() {
        properties(&schema["items"], at, all);
    }
}
