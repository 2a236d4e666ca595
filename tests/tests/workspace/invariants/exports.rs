//! One name, one thing: no two exported items of the libraries have the same name.
//!
//! An item counts as exported where it is `pub` without a restriction. That approximates "reachable
//! from outside", since `.ci/run` denies the lint `unreachable_pub`. The test leaves out items of
//! `impl` and `trait` blocks, of functions, and of the modules with tools for tests. It counts an alias
//! of an item of the same name (`pub type Saga<T> = core::Saga<Store, T>`) as a re-export.

use super::{
    code::{Code, closed, item_ends},
    tree::{File, libraries, none},
};
use std::collections::BTreeMap;

/// Names that several items have.
const EXCEPTIONS: [(&str, &str); 6] = [
    ("ConfigFault", "each transport has faults of its own, and no program imports two of them"),
    (
        "History",
        "what an operator sees of a message, and what a store knows of a delivery's attempts",
    ),
    ("Model", "SeaORM's name for a row; each entity is a module of its own"),
    (
        "install",
        "`migration::next::install` is the same for the next version, for tests of upgrades",
    ),
    ("Plan", "what an operator's act will do, and what a coordinator does next with a saga"),
    ("Relation", "SeaORM's name for an entity's relations; each entity is a module of its own"),
];

const KINDS: [&str; 6] = ["struct", "enum", "union", "trait", "type", "fn"];
/// What may stand between `pub` and the kind of an item.
const QUALIFIERS: [&str; 4] = ["const", "async", "unsafe", "extern"];
/// What an item that is not exported begins with.
const ITEMS: [&str; 13] = [
    "impl", "struct", "enum", "union", "trait", "type", "fn", "use", "const", "static", "async",
    "unsafe", "extern",
];

/// An item that users of a library can name.
#[derive(Debug, PartialEq, Eq)]
struct Export {
    name: String,
    kind: String,
    line: usize,
}

/// Lists the exported items of a piece of code, in its modules and outside of all other items.
fn exports(code: &Code) -> Vec<Export> {
    let all = code.tokens();
    let text = |at: usize| all.get(at).map_or("", |token| token.text.as_str());
    let export = |at: usize, kind: &str| Export {
        name: text(at).to_owned(),
        kind: kind.to_owned(),
        line: all.get(at).map_or(0, |token| token.line),
    };
    let (mut found, mut at, mut attributes) = (Vec::new(), 0, String::new());
    while at < all.len() {
        match text(at) {
            "#" => {
                let open = at + 1 + usize::from(text(at + 1) == "!");
                let end = closed(all, open);
                attributes.extend(all[open..end].iter().map(|token| token.text.as_str()));
                at = end;
                continue;
            }
            // Of a module with a body the items come next.
            "mod" => at += 3,
            "pub" if text(at + 1) == "mod" => at += 1,
            "pub" if text(at + 1) == "(" => at = closed(all, at + 1),
            "macro_rules" => {
                if attributes.contains("macro_export") {
                    found.push(export(at + 2, "macro"));
                }
                at = closed(all, at + 3);
            }
            "pub" => {
                let mut kind = at + 1;
                while QUALIFIERS.contains(&text(kind)) || text(kind).starts_with('"') {
                    kind += 1;
                }
                let end = item_ends(all, at);
                let is_alias_of_its_name = text(kind) == "type"
                    && all[kind + 2..end].iter().any(|token| token.text == text(kind + 1));
                if KINDS.contains(&text(kind)) && !is_alias_of_its_name {
                    let is_macro = attributes.contains("proc_macro");
                    found.push(export(kind + 1, if is_macro { "macro" } else { text(kind) }));
                }
                at = end;
            }
            word if ITEMS.contains(&word) => at = item_ends(all, at),
            _ => at += 1,
        }
        attributes.clear();
    }
    found
}

#[test]
fn no_two_exported_items_of_the_libraries_have_one_name() {
    let mut places: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let of_file = |file: &'static File| {
        exports(&file.shipped()).into_iter().map(move |export| (file, export))
    };
    for (file, Export { name, kind, line }) in libraries().flat_map(of_file) {
        places.entry(name).or_default().push(format!("{}:{line} ({kind})", file.path));
    }
    assert!(places.len() > 200, "the exported items were found: {}", places.len());
    places.retain(|_, places| places.len() > 1);

    let is_exception = |name: &str| EXCEPTIONS.iter().any(|(exception, _)| *exception == name);
    let wrong = places.iter().filter(|(name, _)| !is_exception(name));
    none(
        "several things of one name: rename one, or add an exception with its reason to \
         tests/tests/workspace/invariants/exports.rs",
        wrong.map(|(name, places)| format!("`{name}`: {}", places.join(", "))).collect(),
    );

    let unused = EXCEPTIONS.iter().filter(|(name, _)| !places.contains_key(*name));
    none(
        "an exception that no two items need any more: delete it",
        unused.map(|(name, reason)| format!("`{name}`: {reason}")).collect(),
    );
}

#[cfg(test)]
mod tests {
    use super::exports;
    use crate::invariants::code::{Code, Part};

    const SAMPLE: &str = r#"
pub struct A<T>(pub T);
pub(crate) struct Inner;
impl<T> A<T> { pub fn method() {} }
pub mod inner { pub async fn b() { fn nested() {} } mod private; pub use a::{C, d}; }
pub const E: usize = 1;
pub const fn f() -> [u8; 3] { [0; 3] }
pub type G = other::G<u8>;
pub type H<T> = Vec<T>;
#[macro_export]
macro_rules! i { () => { pub struct Emitted; } }
macro_rules! j { () => {} }
#[proc_macro_derive(K, attributes(k))]
pub fn k(input: TokenStream) -> TokenStream { input }
trait L { fn m(); }
pub unsafe trait N { type O; }
#[cfg(test)]
mod tests { pub struct P; }
pub enum Q { R }
"#;

    #[test]
    fn an_item_is_exported_where_it_is_pub_and_in_no_other_item() {
        let found = exports(&Code::read(SAMPLE, Part::Shipped));
        let found: Vec<(&str, &str, usize)> =
            found.iter().map(|it| (it.kind.as_str(), it.name.as_str(), it.line)).collect();
        let expected = [
            ("struct", "A", 2),
            ("fn", "b", 5),
            ("fn", "f", 7),
            ("type", "H", 9),
            ("macro", "i", 11),
            ("macro", "k", 14),
            ("trait", "N", 16),
            ("enum", "Q", 19),
        ];
        assert_eq!(found, expected);
    }
}
