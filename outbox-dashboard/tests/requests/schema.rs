//! Whether a document is what the OpenAPI document says, and whether that says what the schemas of the
//! command line say.

use serde_json::{Value, json};
use std::collections::BTreeSet;

/// What stands before the name of a schema in the OpenAPI document.
const COMPONENTS: &str = "#/components/schemas/";
/// What stands before the name of a definition in the schemas of the command line.
const DEFINITIONS: &str = "#/$defs/";

/// Checks the answer of an operation.
pub(crate) fn check(openapi: &Value, method: &str, path: &str, status: &str, document: &Value) {
    let answer = &openapi["paths"][path][method]["responses"][status];
    let kinds = answer["content"].as_object();
    let kinds = kinds.unwrap_or_else(|| panic!("{method} {path} has no answer {status}: {answer}"));
    let schema = &kinds.values().next().expect("an answer has a kind")["schema"];
    // Its references are those of the OpenAPI document.
    let whole = json!({ "allOf": [schema], "components": openapi["components"] });
    let validator = jsonschema::draft202012::options().should_validate_formats(true).build(&whole);
    let validator = validator.unwrap_or_else(|error| panic!("{method} {path} {status}: {error}"));
    let faults: Vec<String> = validator
        .iter_errors(document)
        .map(|error| format!("{}: {error}", error.instance_path()))
        .collect();
    assert!(faults.is_empty(), "{method} {path} {status}: {}\n{document:#}", faults.join("\n"));
}

/// Lists where a schema of the OpenAPI document, which is there as `openapi`, differs from one of the
/// command line, of which `common` has the definitions. The latter may tell more.
pub(crate) fn differences(
    (openapi, theirs): (&Value, &Value),
    (common, ours): (&Value, &Value),
    at: &str,
    all: &mut Vec<String>,
) {
    let theirs = resolved(theirs, &openapi["components"]["schemas"], COMPONENTS);
    let ours = resolved(ours, &common["$defs"], DEFINITIONS);
    // What the OpenAPI document does not tell: what running parts write, and what users store.
    if *theirs == json!(true) || *theirs == json!({ "type": "object" }) {
        return;
    }
    let is_told = |field: &&&str| !theirs[**field].is_null();
    let fields = ["enum", "format"].iter().filter(is_told).chain(&["type", "additionalProperties"]);
    let differ = fields.filter(|field| !is_same(&theirs[**field], &ours[**field]));
    all.extend(differ.map(|field| format!("{at}: {field}")));
    if !is_same(&theirs["required"], &ours["required"]) {
        all.push(format!("{at}: {} or {}", theirs["required"], ours["required"]));
    }
    let names = |schema: &Value| -> BTreeSet<String> {
        schema["properties"]
            .as_object()
            .into_iter()
            .flatten()
            .map(|(name, _)| name.clone())
            .collect()
    };
    for name in &names(theirs) | &names(ours) {
        let inner = (&theirs["properties"][&name], &ours["properties"][&name]);
        let at = format!("{at}.{name}");
        if inner.0.is_null() || inner.1.is_null() {
            all.push(format!("{at}: only one has it"));
        } else {
            differences((openapi, inner.0), (common, inner.1), &at, all);
        }
    }
    if theirs["items"].is_object() {
        differences((openapi, &theirs["items"]), (common, &ours["items"]), &format!("{at}[]"), all);
    }
    let alternatives = |schema: &Value| schema["anyOf"].as_array().cloned().unwrap_or_default();
    let (theirs, ours) = (alternatives(theirs), alternatives(ours));
    if theirs.len() != ours.len() {
        all.push(format!("{at}: {} or {} alternatives", theirs.len(), ours.len()));
    }
    for (theirs, ours) in theirs.iter().zip(&ours) {
        differences((openapi, theirs), (common, ours), at, all);
    }
}

/// Follows a reference to one of the named schemas.
fn resolved<'a>(schema: &'a Value, named: &'a Value, before: &str) -> &'a Value {
    match schema["$ref"].as_str() {
        Some(reference) => &named[reference.trim_start_matches(before)],
        None => schema,
    }
}

/// Compares two values; the order of a list does not count.
fn is_same(one: &Value, other: &Value) -> bool {
    let sorted = |value: &Value| -> Option<BTreeSet<String>> {
        Some(value.as_array()?.iter().map(Value::to_string).collect())
    };
    one == other || sorted(one).is_some_and(|one| sorted(other) == Some(one))
}
