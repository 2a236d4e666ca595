//! The path of the framework in expanded code: the crate's name in the user's manifest.

use proc_macro_crate::{FoundCrate, crate_name};
use proc_macro2::{Ident, Span, TokenStream};
use quote::quote;
use std::{env, fs, path::Path};
use toml_edit::{DocumentMut, Item, TableLike};

/// A crate of the framework that emitted code calls.
#[derive(Clone, Copy)]
pub(crate) struct Library {
    /// Its name in a manifest.
    package: &'static str,
    /// Its name in code, unless a manifest renames it.
    name: &'static str,
}

/// The crate that applications depend on.
pub(crate) const SEA_ORM: Library =
    Library { package: "outbox-saga-sea-orm", name: "outbox_sea_orm" };
/// The crate that names no database.
pub(crate) const CORE: Library = Library { package: "outbox-saga-core", name: "outbox_core" };

/// The crates that can take an event, the one that applications depend on first.
pub(crate) const EVENTS: &[Library] = &[SEA_ORM, CORE];
/// The crates that have transactions.
pub(crate) const TRANSACTIONS: &[Library] = &[SEA_ORM];

/// Gives the path of the `__private` module that emitted code calls.
///
/// It is in the crate that the user names (`crate = path`), else in the first of `crates` that the
/// user's manifest has. A normal dependency goes before a development one, which the library itself
/// would not see.
///
/// # Errors
/// A fault at the macro's call when the manifest has none of them.
pub(crate) fn private(named: Option<&syn::Path>, crates: &[Library]) -> syn::Result<TokenStream> {
    if let Some(path) = named {
        return Ok(quote!(#path::__private));
    }
    let found: Vec<(Library, String)> =
        crates.iter().filter_map(|library| Some((*library, key(library.package)?))).collect();
    let (library, key) = match found.as_slice() {
        [] => {
            let wanted: Vec<String> = crates.iter().map(|c| format!("`{}`", c.package)).collect();
            let message = format!(
                "add {} to the dependencies in Cargo.toml, or say where it is: `crate = path`",
                wanted.join(" or ")
            );
            return Err(syn::Error::new(Span::call_site(), message));
        }
        [one] => one,
        [first, ..] => {
            let normal = normal_dependencies();
            found.iter().find(|(_, key)| normal.contains(key)).unwrap_or(first)
        }
    };
    let ident = Ident::new(library.name_in_code(key), Span::call_site());
    Ok(quote!(::#ident::__private))
}

impl Library {
    /// Gives the name under which code sees the library, from its key in the manifest: that of the
    /// library where the key is the package's name, else the key, which renames it.
    fn name_in_code<'a>(&self, key: &'a str) -> &'a str {
        if key == identifier(self.package) { self.name } else { key }
    }
}

/// Gives a package's key in the user's manifest as an identifier, renames and workspace inheritance
/// considered. `proc_macro_crate` knows packages and keys, and not the names of libraries.
fn key(package: &str) -> Option<String> {
    match crate_name(package).ok()? {
        FoundCrate::Name(key) => Some(key),
        // Its examples, doc tests and integration tests see it under its own name, and so does the
        // library itself by its `extern crate self as ..`.
        FoundCrate::Itself => Some(identifier(package)),
    }
}

/// Gives the names of all dependencies that are no development dependencies, as identifiers.
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
    tables.flat_map(TableLike::iter).map(|(name, _)| identifier(name)).collect()
}

/// Gives a name of a manifest as code writes it.
fn identifier(name: &str) -> String {
    name.replace('-', "_")
}
