//! The user's `#[serde(..)]` attributes, as far as they shape the payload of a variant.

use proc_macro2::TokenStream;
use quote::quote;
use syn::{Attribute, Meta, Token, punctuated::Punctuated};

/// What of an enum's own attributes holds inside its variants. Those of its tagging do not: the type is in the envelope.
const OF_ENUM: &[&str] = &["rename_all_fields", "deny_unknown_fields"];
/// What of a variant's attributes holds for its content.
const OF_VARIANT: &[&str] = &["rename_all", "with", "serialize_with", "deserialize_with"];

/// Gives the attributes of an enum that its payloads keep.
pub(super) fn of_enum(attrs: &[Attribute]) -> Vec<Meta> {
    metas(attrs).filter(|m| OF_ENUM.iter().any(|name| m.path().is_ident(name))).collect()
}

/// Gives the attributes of a variant that its payload keeps.
pub(super) fn of_variant(attrs: &[Attribute]) -> Vec<Meta> {
    metas(attrs).filter(|m| OF_VARIANT.iter().any(|name| m.path().is_ident(name))).collect()
}

/// Gives the attributes of a field that a payload keeps: all but the bounds, which stand on the whole, and borrowing, since an event
/// outlives its message.
pub(super) fn of_field(attrs: &[Attribute]) -> Vec<Meta> {
    metas(attrs).filter(|m| !m.path().is_ident("bound") && !m.path().is_ident("borrow")).collect()
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

/// Goes through what all `#[serde(..)]` say. One that cannot be read is left to serde's own derive, which says so.
fn metas(attrs: &[Attribute]) -> impl Iterator<Item = Meta> {
    let serde = attrs.iter().filter(|a| a.path().is_ident("serde"));
    serde.filter_map(|a| a.parse_args_with(Punctuated::<Meta, Token![,]>::parse_terminated).ok()).flatten()
}
