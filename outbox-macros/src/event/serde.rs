//! The user's `#[serde(..)]` attributes, as far as they shape the payload of a variant.

use crate::fallback::Faults;
use proc_macro2::TokenStream;
use quote::quote;
use syn::{Attribute, Meta, Token, punctuated::Punctuated};

/// The effect of a serde attribute on an enum or a variant on a payload, which is the content of a
/// variant alone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Rule {
    /// It holds for the payload too.
    Kept,
    /// It names or tags the variant, which the envelope does, or says nothing of the content.
    NotOfTheContent,
    /// The payload would ignore it: what to write instead.
    Refused(&'static str),
    /// The same, where events are read.
    RefusedIfRead(&'static str),
}

const CONVERTED: &str = "the payload is the content of a variant alone, so that this conversion of the whole enum would be \
    passed over, and its content be sent as it is: put it on the type of a variant's content, `Charged(Charge)` with \
    `#[serde(into = \"..\")] struct Charge`, or write `#[serde(with = \"..\")]` on the variant or field";
const UNREAD: &str = "the payload is the content of a variant alone, so that this conversion of the whole enum would be passed \
    over, and what comes in be taken as it is: put it on the type of a variant's content, `Charged(Charge)` with \
    `#[serde(try_from = \"..\")] struct Charge`, write `#[serde(with = \"..\")]` on the variant or field, or \
    `#[outbox(encode_only)]` where the event is never read";
const ELSEWHERE: &str = "this describes how another type is written: derive the event on a type of its own that holds one, with \
    `#[serde(with = \"..\")]` on the field";
const IDENTIFIER: &str =
    "an enum that stands for names of fields or variants is no event: make another one";
const UNWRITTEN: &str = "a variant that serde must not write is an event type all the same, and would be sent: move it to another \
    enum, or remove this";
const NEVER_READ: &str = "a variant that serde must not read would be read all the same: move it to another enum, remove this, or \
    write `#[outbox(encode_only)]` on the enum where it is never read";
const CATCH_ALL: &str = "an unknown type does not come here, since a handler gets the types that it names: remove this, and see \
    `Consumer` for what becomes of other types";
const UNKNOWN: &str = "this attribute of serde's is not known to `OutboxEvent`, and would be passed over: put it on the type of a \
    variant's content";

/// Every attribute that serde has for an enum.
pub(crate) const OF_ENUM: &[(&str, Rule)] = &[
    ("rename_all_fields", Rule::Kept),
    ("deny_unknown_fields", Rule::Kept),
    ("rename", Rule::NotOfTheContent),
    ("rename_all", Rule::NotOfTheContent),
    ("tag", Rule::NotOfTheContent),
    ("content", Rule::NotOfTheContent),
    ("untagged", Rule::NotOfTheContent),
    // Bounds are made anew from the fields.
    ("bound", Rule::NotOfTheContent),
    ("crate", Rule::NotOfTheContent),
    ("expecting", Rule::NotOfTheContent),
    ("into", Rule::Refused(CONVERTED)),
    ("from", Rule::RefusedIfRead(UNREAD)),
    ("try_from", Rule::RefusedIfRead(UNREAD)),
    ("remote", Rule::Refused(ELSEWHERE)),
    ("variant_identifier", Rule::Refused(IDENTIFIER)),
    ("field_identifier", Rule::Refused(IDENTIFIER)),
    // serde itself refuses these on an enum.
    ("transparent", Rule::NotOfTheContent),
    ("default", Rule::NotOfTheContent),
];

/// Every attribute that serde has for a variant.
pub(crate) const OF_VARIANT: &[(&str, Rule)] = &[
    ("rename_all", Rule::Kept),
    ("with", Rule::Kept),
    ("serialize_with", Rule::Kept),
    ("deserialize_with", Rule::Kept),
    ("rename", Rule::NotOfTheContent),
    ("alias", Rule::NotOfTheContent),
    ("untagged", Rule::NotOfTheContent),
    ("bound", Rule::NotOfTheContent),
    // An event outlives its message.
    ("borrow", Rule::NotOfTheContent),
    ("skip", Rule::Refused(UNWRITTEN)),
    ("skip_serializing", Rule::Refused(UNWRITTEN)),
    ("skip_deserializing", Rule::RefusedIfRead(NEVER_READ)),
    ("other", Rule::RefusedIfRead(CATCH_ALL)),
];

/// Field attributes that payloads do not keep: bounds stand on the whole type, and an event
/// outlives its message.
pub(crate) const NOT_OF_FIELDS: &[&str] = &["bound", "borrow"];

/// Notes the attributes that a payload cannot keep.
pub(super) fn check(
    attrs: &[Attribute],
    known: &[(&str, Rule)],
    is_read: bool,
    faults: &mut Faults,
) {
    for meta in metas(attrs) {
        match rule(&meta, known) {
            Rule::Refused(advice) => faults.at(meta.path(), advice),
            Rule::RefusedIfRead(advice) if is_read => faults.at(meta.path(), advice),
            Rule::Kept | Rule::NotOfTheContent | Rule::RefusedIfRead(_) => {}
        }
    }
}

fn rule(meta: &Meta, known: &[(&str, Rule)]) -> Rule {
    known
        .iter()
        .find(|(name, _)| meta.path().is_ident(name))
        .map_or(Rule::Refused(UNKNOWN), |(_, rule)| *rule)
}

/// Gives the attributes of an enum that its payloads keep.
pub(super) fn of_enum(attrs: &[Attribute]) -> Vec<Meta> {
    metas(attrs).filter(|meta| rule(meta, OF_ENUM) == Rule::Kept).collect()
}

/// Gives the attributes of a variant that its payload keeps.
pub(super) fn of_variant(attrs: &[Attribute]) -> Vec<Meta> {
    metas(attrs).filter(|meta| rule(meta, OF_VARIANT) == Rule::Kept).collect()
}

/// Gives the attributes of a field that a payload keeps.
pub(super) fn of_field(attrs: &[Attribute]) -> Vec<Meta> {
    metas(attrs)
        .filter(|meta| !NOT_OF_FIELDS.iter().any(|name| meta.path().is_ident(name)))
        .collect()
}

/// Prints attributes, or nothing when there are none.
pub(super) fn print(metas: &[Meta]) -> Option<TokenStream> {
    (!metas.is_empty()).then(|| quote!(#[serde(#(#metas),*)]))
}

/// Tells whether one of the names is among the attributes, with or without a value.
pub(super) fn has(metas: &[Meta], names: &[&str]) -> bool {
    metas.iter().any(|m| names.iter().any(|name| m.path().is_ident(name)))
}

/// Tells whether a missing field is filled by its type's default.
pub(super) fn takes_default(metas: &[Meta]) -> bool {
    let plain = |m: &Meta| matches!(m, Meta::Path(path) if path.is_ident("default"));
    metas.iter().any(plain) || has(metas, &["skip", "skip_deserializing"])
}

/// Visits the arguments of all `#[serde(..)]`. An attribute that cannot be parsed is left to
/// serde's own derive, which reports it.
fn metas(attrs: &[Attribute]) -> impl Iterator<Item = Meta> {
    let serde = attrs.iter().filter(|a| a.path().is_ident("serde"));
    serde
        .filter_map(|a| a.parse_args_with(Punctuated::<Meta, Token![,]>::parse_terminated).ok())
        .flatten()
}
