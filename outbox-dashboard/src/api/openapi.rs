//! The OpenAPI document, made from the list of operations.

use super::{Operation, Parameter, body::respond, operations, schemas};
use crate::{access::Refusal, act::filter};
use axum::{extract::OriginalUri, response::Response};
use http::StatusCode;
use outbox_core::saga::SagaState;
use serde_json::{Map, Value, json};

/// Gives the document.
pub(super) async fn document(OriginalUri(uri): OriginalUri) -> Result<Response, Refusal> {
    let prefix = uri.path().trim_end_matches("/api/openapi.json");
    respond(StatusCode::OK, &openapi(if prefix.is_empty() { "/" } else { prefix }))
}

/// Makes the document of an API under a path.
fn openapi(server: &str) -> Value {
    let mut paths: Map<String, Value> = Map::new();
    for operation in operations() {
        let path = paths.entry(operation.entry.path).or_insert_with(|| json!({}));
        path[operation.entry.method.as_str().to_ascii_lowercase()] = described(&operation);
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "The outbox's dashboard",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "The documents that the command line `outbox` writes with --json.",
        },
        "servers": [{ "url": server }],
        "paths": paths,
        "components": {
            "schemas": schemas::components(),
            "securitySchemes": {
                "basic": { "type": "http", "scheme": "basic" },
                "bearer": { "type": "http", "scheme": "bearer" },
            },
        },
        // On loopback nothing is needed.
        "security": [{}, { "basic": [] }, { "bearer": [] }],
    })
}

fn described(operation: &Operation) -> Value {
    let path = operation.entry.path;
    let is_act = !operation.entry.method.is_safe();
    let mut parameters: Vec<Value> = Vec::new();
    if path.contains("{id}") {
        parameters.push(json!({
            "name": "id", "in": "path", "required": true, "schema": { "type": "string" },
        }));
    }
    parameters.extend(operation.query.iter().flat_map(|parameter| in_query(*parameter)));
    let json_of = |schema: &Value| json!({ "application/json": { "schema": schema } });
    let problem = |description: &str| {
        json!({
            "description": description,
            "content": { "application/problem+json": { "schema": schemas::named("Problem") } },
        })
    };
    let mut responses = json!({
        "200": { "description": "The answer.", "content": json_of(&operation.result) },
        "400": problem("The request is wrong."),
        "401": problem("A login is missing."),
        "403": problem("The login may not do that, or a page of another site asked."),
        "404": problem("There is no such thing."),
        "429": problem("Too many logins of this name and address have failed: `Retry-After` says when to try again."),
        "500": problem("The outbox of a database does not fit this program, or cannot be used."),
        "503": problem("A database cannot be reached, is busy, or did not answer in time."),
    });
    if is_act {
        responses["409"] = problem("Nothing was changed: the state does not allow it.");
    }
    if path.starts_with("/api/plans/") && is_act {
        responses["202"] = json!({
            "description": "It goes on.", "content": json_of(&operation.result),
        });
    }
    let mut described = json!({
        "operationId": operation_id(operation),
        "summary": operation.summary,
        "parameters": parameters,
        "responses": responses,
    });
    if let Some(body) = &operation.body {
        described["requestBody"] = json!({ "required": true, "content": json_of(body) });
        for (status, what) in
            [("413", "The document is too large."), ("415", "The document is no JSON.")]
        {
            described["responses"][status] = problem(what);
        }
    }
    described
}

/// Names an operation by its method and path: `get_dead_letters_groups`.
fn operation_id(operation: &Operation) -> String {
    let words = operation.entry.path.trim_start_matches("/api/").replace(['/', '-'], "_");
    let method = operation.entry.method.as_str().to_ascii_lowercase();
    format!("{method}_{}", words.replace(['{', '}'], ""))
}

fn in_query(parameter: Parameter) -> Vec<Value> {
    let optional = |name: &str, schema: Value| json!({ "name": name, "in": "query", "required": false, "schema": schema });
    let text = || json!({ "type": "string", "maxLength": 1024 });
    let limit = || {
        let mut limit =
            optional("limit", json!({ "type": "integer", "minimum": 1, "maximum": 1_000 }));
        limit["description"] = json!(
            "A page may be shorter, by its bytes: ask on from its last row, until one is empty."
        );
        limit
    };
    match parameter {
        Parameter::Db => vec![optional("db", text())],
        Parameter::Q => vec![json!({
            "name": "q", "in": "query", "required": true,
            "schema": { "type": "string", "minLength": 1, "maxLength": 1024 },
        })],
        Parameter::Letters => filter::NAMES.iter().map(|name| optional(name, text())).collect(),
        Parameter::Page => vec![optional("after", json!({ "type": "integer" })), limit()],
        Parameter::SagaPage => {
            vec![optional("after", json!({ "type": "string", "format": "uuid" })), limit()]
        }
        Parameter::Consumer => vec![optional("consumer", text())],
        Parameter::Sagas => {
            let states = SagaState::ALL.map(SagaState::as_str);
            vec![
                optional("name", text()),
                optional("state", json!({ "type": "string", "enum": states })),
                optional("correlation", text()),
            ]
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    /// Gives each reference of a document.
    fn references<'a>(value: &'a Value, all: &mut BTreeSet<&'a str>) {
        match value {
            Value::Object(fields) => {
                all.extend(fields.get("$ref").and_then(Value::as_str));
                fields.values().for_each(|value| references(value, all));
            }
            Value::Array(items) => items.iter().for_each(|value| references(value, all)),
            _ => {}
        }
    }

    #[test]
    fn each_schema_that_is_named_is_there_and_used_and_each_operation_has_its_own_name() {
        let document = openapi("/");
        let mut used = BTreeSet::new();
        references(&document, &mut used);
        let there = document["components"]["schemas"].as_object().unwrap();
        let there: BTreeSet<String> =
            there.keys().map(|name| format!("#/components/schemas/{name}")).collect();
        assert_eq!(used, there.iter().map(String::as_str).collect());
        let names: BTreeSet<String> = operations().iter().map(operation_id).collect();
        assert_eq!(names.len(), operations().len(), "{names:?}");
    }
}
