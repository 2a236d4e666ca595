//! Whether a document is what the OpenAPI document says: as much of JSON Schema as that uses.

use serde_json::Value;

/// Checks the answer of an operation.
pub(crate) fn check(openapi: &Value, method: &str, path: &str, status: &str, document: &Value) {
    let answer = &openapi["paths"][path][method]["responses"][status];
    let kinds = answer["content"].as_object();
    let kinds = kinds.unwrap_or_else(|| panic!("{method} {path} has no answer {status}: {answer}"));
    let schema = &kinds.values().next().expect("an answer has a kind")["schema"];
    if let Err(fault) = fits(openapi, schema, document, "") {
        panic!("{method} {path} {status}: {fault}\n{document:#}");
    }
}

fn fits(openapi: &Value, schema: &Value, value: &Value, at: &str) -> Result<(), String> {
    if schema == &Value::Bool(true) {
        return Ok(());
    }
    if let Some(name) = schema["$ref"].as_str() {
        let name = name.strip_prefix("#/components/schemas/").expect("a reference to a schema");
        return fits(openapi, &openapi["components"]["schemas"][name], value, at);
    }
    if let Some(any) = schema["anyOf"].as_array() {
        let faults: Vec<String> =
            any.iter().filter_map(|schema| fits(openapi, schema, value, at).err()).collect();
        let fits_one = faults.len() < any.len();
        return if fits_one { Ok(()) } else { Err(faults.join("; or ")) };
    }
    if let Some(words) = schema["enum"].as_array()
        && !words.contains(value)
    {
        return Err(format!("{at}: {value} is none of {words:?}"));
    }
    let is_kind = match schema["type"].as_str() {
        Some("object") => value.is_object(),
        Some("array") => value.is_array(),
        Some("string") => value.is_string(),
        Some("integer") => value.is_i64() || value.is_u64(),
        Some("number") => value.is_number(),
        Some("boolean") => value.is_boolean(),
        Some("null") => value.is_null(),
        other => return Err(format!("{at}: the schema has the type {other:?}: {schema}")),
    };
    if !is_kind {
        return Err(format!("{at}: {value} is no {}", schema["type"]));
    }
    for (number, item) in value.as_array().into_iter().flatten().enumerate() {
        fits(openapi, &schema["items"], item, &format!("{at}[{number}]"))?;
    }
    let Some(fields) = value.as_object() else { return Ok(()) };
    for name in schema["required"].as_array().into_iter().flatten() {
        let name = name.as_str().expect("a name");
        if !fields.contains_key(name) {
            return Err(format!("{at}: {name} is missing"));
        }
    }
    let Some(properties) = schema["properties"].as_object() else { return Ok(()) };
    for (name, value) in fields {
        let schema = properties.get(name).ok_or_else(|| format!("{at}: {name} is not told"))?;
        fits(openapi, schema, value, &format!("{at}.{name}"))?;
    }
    Ok(())
}
