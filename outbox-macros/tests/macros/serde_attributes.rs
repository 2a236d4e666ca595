//! What becomes of each of serde's attributes on an enum, whose payload is the content of a variant alone.

use crate::event::serde::{NOT_OF_FIELDS, OF_ENUM, OF_VARIANT};
use std::collections::BTreeSet;

/// What the derive does with an attribute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Does {
    /// It shapes the payload as it shapes the content elsewhere.
    Keeps,
    /// The same is printed as without it: it says nothing of the content.
    Ignores,
    /// It would change what is sent or read, and cannot.
    Refuses,
    /// The same, unless the event is never read.
    RefusesIfRead,
}
use Does::{Ignores, Keeps, Refuses, RefusesIfRead};

/// Every attribute of a container that serde 1.0.229 knows.
const ENUM: &[(&str, Does)] = &[
    (r#"rename = "x""#, Ignores),
    (r#"rename_all = "camelCase""#, Ignores),
    (r#"rename_all_fields = "camelCase""#, Keeps),
    (r#"rename_all_fields(serialize = "camelCase", deserialize = "UPPERCASE")"#, Keeps),
    ("deny_unknown_fields", Keeps),
    (r#"tag = "kind""#, Ignores),
    (r#"content = "of""#, Ignores),
    ("untagged", Ignores),
    (r#"bound = """#, Ignores),
    ("default", Ignores),
    (r#"remote = "Other""#, Refuses),
    ("transparent", Ignores),
    (r#"from = "Other""#, RefusesIfRead),
    (r#"try_from = "Other""#, RefusesIfRead),
    (r#"into = "Other""#, Refuses),
    (r#"crate = "other""#, Ignores),
    (r#"expecting = "a payment""#, Ignores),
    ("variant_identifier", Refuses),
    ("field_identifier", Refuses),
    (r#"of_a_later_serde = "x""#, Refuses),
];

/// Every attribute of a variant that it knows.
const VARIANT: &[(&str, Does)] = &[
    (r#"rename = "x""#, Ignores),
    (r#"alias = "x""#, Ignores),
    (r#"rename_all = "camelCase""#, Keeps),
    ("skip", Refuses),
    ("skip_serializing", Refuses),
    ("skip_deserializing", RefusesIfRead),
    ("other", RefusesIfRead),
    (r#"bound = """#, Ignores),
    (r#"with = "x""#, Keeps),
    (r#"serialize_with = "x""#, Keeps),
    (r#"deserialize_with = "x""#, Keeps),
    ("borrow", Ignores),
    ("untagged", Ignores),
    ("of_a_later_serde", Refuses),
];

/// Every attribute of a field that it knows.
const FIELD: &[(&str, Does)] = &[
    (r#"rename = "x""#, Keeps),
    (r#"alias = "x""#, Keeps),
    ("default", Keeps),
    (r#"default = "x""#, Keeps),
    ("skip", Keeps),
    ("skip_serializing", Keeps),
    ("skip_deserializing", Keeps),
    (r#"skip_serializing_if = "x""#, Keeps),
    (r#"with = "x""#, Keeps),
    (r#"serialize_with = "x""#, Keeps),
    (r#"deserialize_with = "x""#, Keeps),
    ("flatten", Keeps),
    (r#"bound = """#, Ignores),
    ("borrow", Ignores),
    // serde's own derive refuses it on an enum, and so does it on the copy.
    (r#"getter = "x""#, Keeps),
    ("of_a_later_serde", Keeps),
];

/// Prints an enum with attributes of serde's at one of the places.
fn printed(encode_only: bool, on_enum: &str, on_variant: &str, on_field: &str) -> String {
    let more = if encode_only { ", encode_only" } else { "" };
    let input = format!(
        "#[outbox(prefix = \"payment\"{more})] {on_enum} enum Payment {{ {on_variant} Charged {{ {on_field} cents: i64 }} }}"
    );
    crate::event::derive(input.parse().expect("it is Rust")).to_string()
}

fn does(expand: impl Fn(bool, &str) -> String, attribute: &str) -> Does {
    let attribute = format!("#[serde({attribute})]");
    let refused = |printed: &str| printed.contains("compile_error");
    let with = expand(false, &attribute);
    if refused(&with) {
        let encode_only = expand(true, &attribute);
        let advice = ["put", "move", "remove", "make", "derive the event"];
        assert!(advice.iter().any(|verb| with.contains(verb)), "{with}");
        return if refused(&encode_only) { Refuses } else { RefusesIfRead };
    }
    if with == expand(false, "") { Ignores } else { Keeps }
}

fn name(attribute: &str) -> &str {
    attribute.split(['(', ' ']).next().unwrap_or_default()
}

#[test]
fn every_attribute_of_serde_is_kept_or_says_nothing_of_a_content_or_is_refused() {
    type Place = (&'static str, &'static [(&'static str, Does)], fn(bool, &str) -> String);
    let cases: [Place; 3] = [
        ("an enum", ENUM, |encode_only, attribute| printed(encode_only, attribute, "", "")),
        ("a variant", VARIANT, |encode_only, attribute| printed(encode_only, "", attribute, "")),
        ("a field", FIELD, |encode_only, attribute| printed(encode_only, "", "", attribute)),
    ];
    for (place, attributes, expand) in cases {
        for (attribute, expected) in attributes {
            assert_eq!(does(expand, attribute), *expected, "{attribute} on {place}");
        }
    }
}

#[test]
fn the_tables_of_attributes_are_those_of_serde() {
    let listed = |cases: &[(&'static str, Does)]| -> BTreeSet<&str> {
        cases
            .iter()
            .map(|(attribute, _)| name(attribute))
            .filter(|name| *name != "of_a_later_serde")
            .collect()
    };
    let known = |table: &[(&'static str, crate::event::serde::Rule)]| {
        table.iter().map(|(name, _)| *name).collect()
    };
    assert_eq!(listed(ENUM), known(OF_ENUM));
    assert_eq!(listed(VARIANT), known(OF_VARIANT));
    assert!(NOT_OF_FIELDS.iter().all(|name| listed(FIELD).contains(name)));
}
