//! The path of the framework in expanded code: the crate's name in the user's manifest.

use proc_macro_crate::{FoundCrate, crate_name};
use proc_macro2::{Ident, Span, TokenStream};
use quote::quote;
use std::{env, fs, path::Path};
use toml_edit::{DocumentMut, Item, TableLike};

/// The crates that can take an event, the one that applications depend on first.
pub(crate) const EVENTS: &[&str] = &["outbox-sea-orm", "outbox-core"];

/// Gives the path of the `__private` module that emitted code calls.
///
/// It is in the crate that the user names (`crate = path`), else in the first of `crates` that the
/// user's manifest has. A normal dependency goes before a development one, which the library itself
/// would not see.
///
/// # Errors
/// A fault at the macro's call when the manifest has none of them.
pub(crate) fn private(named: Option<&syn::Path>, crates: &[&str]) -> syn::Result<TokenStream> {
    if let Some(path) = named {
        return Ok(quote!(#path::__private));
    }
    let found: Vec<String> = crates.iter().filter_map(|package| extern_name(package)).collect();
    let name = match found.as_slice() {
        [] => {
            let wanted = crates.iter().map(|c| format!("`{c}`")).collect::<Vec<_>>().join(" or ");
            let message = format!(
                "add {wanted} to the dependencies in Cargo.toml, or say where it is: `crate = path`"
            );
            return Err(syn::Error::new(Span::call_site(), message));
        }
        [one] => one,
        [first, ..] => {
            let normal = normal_dependencies();
            found.iter().find(|name| normal.contains(name)).unwrap_or(first)
        }
    };
    let ident = Ident::new(name, Span::call_site());
    Ok(quote!(::#ident::__private))
}

/// Gives the name under which the user's code sees a package, renames and workspace inheritance
/// considered.
fn extern_name(package: &str) -> Option<String> {
    match crate_name(package).ok()? {
        FoundCrate::Name(name) => Some(name),
        // Its examples, doc tests and integration tests see it under its own name, and so does the
        // library itself by its `extern crate self as ..`.
        FoundCrate::Itself => Some(package.replace('-', "_")),
    }
}

/// Gives the names of all dependencies that are no development dependencies, as code writes them.
fn normal_dependencies() -> Vec<String> {
    let manifest = env::var_os("CARGO_MANIFEST_DIR").and_then(|dir| {
        let text = fs::read_to_string(Path::new(&dir).join("Cargo.toml")).ok()?;
        text.parse::<DocumentMut>().ok()
    });
    let Some(manifest) = manifest else { return Vec::new() };
    let targets = manifest.get("target").and_then(Item::as_table_like);
    let by_target =
        targets.into_iter().flat_map(TableLike::iter).filter_map(|(_, t)| t.get("dependencies"));
    let tables =
        manifest.get("dependencies").into_iter().chain(by_target).filter_map(Item::as_table_like);
    tables.flat_map(TableLike::iter).map(|(name, _)| name.replace('-', "_")).collect()
}
