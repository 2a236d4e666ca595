//! `schema`: the JSON schema of what a command writes with `--json`.

use crate::{
    args::{Command, Migrate},
    error::CliError,
    output::Output,
};
use serde_json::{Map, Value};
use std::{collections::BTreeSet, io, process::ExitCode};

/// The definitions that several schemas have.
const COMMON: &str = include_str!("../../schema/common.json");
/// The file of these definitions, as the schemas name it.
const COMMON_FILE: &str = "common.json";
/// What stands before the name of a definition.
const DEFINITIONS: &str = "#/$defs/";

/// The schemas of the commands, in the order of the help.
const SCHEMAS: [(&str, &str); 33] = [
    ("overview", include_str!("../../schema/overview.json")),
    ("top", include_str!("../../schema/top.json")),
    ("find", include_str!("../../schema/find.json")),
    ("life", include_str!("../../schema/life.json")),
    ("follow", include_str!("../../schema/follow.json")),
    ("explain", include_str!("../../schema/explain.json")),
    ("dead-letters list", include_str!("../../schema/dead-letters-list.json")),
    ("dead-letters groups", include_str!("../../schema/dead-letters-groups.json")),
    ("dead-letters show", include_str!("../../schema/dead-letters-show.json")),
    ("dead-letters redrive", include_str!("../../schema/dead-letters-redrive.json")),
    ("dead-letters discard", include_str!("../../schema/dead-letters-discard.json")),
    ("dead-letters purge", include_str!("../../schema/dead-letters-purge.json")),
    ("dead-letters resend", include_str!("../../schema/dead-letters-resend.json")),
    ("deferred", include_str!("../../schema/deferred.json")),
    ("scheduled", include_str!("../../schema/scheduled.json")),
    ("inbox", include_str!("../../schema/inbox.json")),
    ("sagas list", include_str!("../../schema/sagas-list.json")),
    ("sagas show", include_str!("../../schema/sagas-show.json")),
    ("sagas resume", include_str!("../../schema/sagas-resume.json")),
    ("sagas retry-from", include_str!("../../schema/sagas-retry-from.json")),
    ("sagas skip", include_str!("../../schema/sagas-skip.json")),
    ("sagas cancel", include_str!("../../schema/sagas-cancel.json")),
    ("pause", include_str!("../../schema/pause.json")),
    ("resume", include_str!("../../schema/resume.json")),
    ("rate", include_str!("../../schema/rate.json")),
    ("doctor", include_str!("../../schema/doctor.json")),
    ("audit", include_str!("../../schema/audit.json")),
    ("migrate up", include_str!("../../schema/migrate-up.json")),
    ("migrate status", include_str!("../../schema/migrate-status.json")),
    ("migrate check", include_str!("../../schema/migrate-check.json")),
    ("tail", include_str!("../../schema/tail.json")),
    ("erase", include_str!("../../schema/erase.json")),
    ("bench", include_str!("../../schema/bench.json")),
];

/// Gives the name of a command that writes no document, so that a program which asks for one is
/// told, and does not read text.
pub(super) const fn without_document(command: &Command) -> Option<&'static str> {
    match command {
        Command::Relay(_) => Some("relay"),
        Command::Serve(_) => Some("serve"),
        Command::Migrate(Migrate::Sql { .. }) => Some("migrate sql"),
        Command::New(_) => Some("new"),
        Command::Completions { .. } => Some("completions"),
        Command::Schema { .. } => Some("schema"),
        Command::Overview
        | Command::Top(_)
        | Command::Find(_)
        | Command::Life(_)
        | Command::Follow(_)
        | Command::Explain(_)
        | Command::DeadLetters(_)
        | Command::Deferred(_)
        | Command::Scheduled(_)
        | Command::Inbox(_)
        | Command::Sagas(_)
        | Command::Pause(_)
        | Command::Resume(_)
        | Command::Rate(_)
        | Command::Doctor
        | Command::Audit(_)
        | Command::Migrate(Migrate::Up { .. } | Migrate::Status | Migrate::Check)
        | Command::Tail(_)
        | Command::Erase(_)
        | Command::Bench(_) => None,
    }
}

/// Writes the schema of a command, which is named by its words; without words the names of all.
pub(super) fn schema(words: &[String], output: &mut Output) -> Result<ExitCode, CliError> {
    if words.is_empty() {
        SCHEMAS.iter().try_for_each(|(name, _)| output.line(name))?;
        return Ok(ExitCode::SUCCESS);
    }
    let name = words.join(" ");
    let Some((_, text)) = SCHEMAS.iter().find(|(known, _)| *known == name) else {
        let why = format!("`{name}` writes no document; `outbox schema` names those that do");
        return Err(CliError::Usage(why));
    };
    output.document(&bundled(text).map_err(io::Error::from)?)?;
    Ok(ExitCode::SUCCESS)
}

/// Puts the definitions that a schema needs into it, so that it stands by itself.
fn bundled(text: &str) -> Result<Value, serde_json::Error> {
    let common: Value = serde_json::from_str(COMMON)?;
    let mut schema: Value = serde_json::from_str(text)?;
    let (mut needed, mut definitions) = (BTreeSet::new(), Map::new());
    point_inside(&mut schema, &mut needed);
    while let Some(name) = needed.pop_first() {
        if !definitions.contains_key(&name) {
            let mut definition = common["$defs"][&name].clone();
            point_inside(&mut definition, &mut needed);
            definitions.insert(name, definition);
        }
    }
    if !definitions.is_empty() {
        schema["$defs"] = Value::Object(definitions);
    }
    Ok(schema)
}

/// Lets the references of a schema point into its own document, and notes the definitions that they
/// name.
fn point_inside(schema: &mut Value, needed: &mut BTreeSet<String>) {
    match schema {
        Value::Object(fields) => {
            for (field, value) in fields.iter_mut() {
                let Value::String(reference) = value else {
                    point_inside(value, needed);
                    continue;
                };
                if field == "$ref" {
                    let inside = reference.trim_start_matches(COMMON_FILE).to_owned();
                    needed.insert(inside.trim_start_matches(DEFINITIONS).to_owned());
                    *reference = inside;
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| point_inside(item, needed)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_schema_has_what_it_needs_of_the_common_definitions_and_nothing_else() {
        let text = r#"{ "items": { "anyOf": [{ "$ref": "common.json#/$defs/ErasurePlan" }] } }"#;
        let schema = bundled(text).unwrap();
        assert_eq!(schema["items"]["anyOf"], json!([{ "$ref": "#/$defs/ErasurePlan" }]));
        let names: Vec<&String> = schema["$defs"].as_object().unwrap().keys().collect();
        assert_eq!(names, ["Bounded", "ErasurePlan", "TableErasure"]);
        assert_eq!(bundled("{}").unwrap(), json!({}));
    }
}
