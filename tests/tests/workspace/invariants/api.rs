//! The public API of a crate, read from its sources.
//!
//! It has each item that is `pub` along a path of public modules, and each one that such a module
//! re-exports, under every path that it has. `#[doc(hidden)]` items are left out, and so are methods
//! and what a derive generates. Features count as enabled.

use super::{
    code::Part,
    declaration::{Declaration, imports},
    lexer::Token,
    tree::File,
};
use std::collections::{BTreeMap, BTreeSet};

const KINDS: [&str; 8] = ["struct", "enum", "union", "trait", "type", "fn", "const", "static"];
/// Imports that name each other in turn would be followed without an end.
const DEEPEST: usize = 40;

/// The crate, the modules, and the name of an item.
type Path = Vec<String>;

/// An item under one of its public paths.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Shown {
    pub(super) path: String,
    pub(super) kind: String,
    /// The path of its definition.
    pub(super) item: String,
}

/// What a module declares.
#[derive(Debug)]
enum Entry {
    Module { name: String, public: bool },
    Item { name: String, kind: String, public: bool },
    Import { target: Path, name: String, public: bool },
}

/// What a name means.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Meaning {
    Module(Path),
    Item(Path, String),
}

/// The modules of crates by path, each with what it declares.
#[derive(Default)]
pub(super) struct Api(BTreeMap<Path, Vec<Entry>>);

impl Api {
    /// Reads a crate: its name, and the folder of its sources.
    pub(super) fn read(&mut self, name: &str, folder: &str, files: &[File]) {
        let at_root = format!("{folder}/lib.rs");
        let file = files.iter().find(|file| file.path == at_root).expect("a crate has a root");
        let code = file.code(Part::Documented);
        self.module(&[name.to_owned()], code.tokens(), folder, files);
    }

    /// Lists what a crate shows.
    pub(super) fn of(&self, name: &str) -> BTreeSet<Shown> {
        let (path, mut found) = (vec![name.to_owned()], BTreeSet::new());
        self.shown(&path, &path, &mut found);
        found
    }

    fn module(&mut self, path: &[String], all: &[Token], folder: &str, files: &[File]) {
        let mut at = 0;
        while at < all.len() {
            let item = Declaration::at(all, at);
            at = item.end.max(at + 1);
            let (name, public) = (item.name.clone(), item.public);
            match item.kind.as_str() {
                "mod" => {
                    let (module, inner) = (joined(path, &name), format!("{folder}/{name}"));
                    match item.body {
                        [] => self.module_file(&module, folder, &item.attributes, files),
                        body => self.module(&module, body, &inner, files),
                    }
                    self.add(path, Entry::Module { name, public });
                }
                "use" => {
                    for (target, name) in imports(item.body, &[]) {
                        self.add(path, Entry::Import { target, name, public });
                    }
                }
                // It is at the root of its crate, wherever it is written.
                "macro_rules" if item.attributes.contains("macro_export") => {
                    let public = !item.attributes.contains("doc(hidden)");
                    self.add(&path[..1], Entry::Item { name, kind: "macro".to_owned(), public });
                }
                "fn" if item.attributes.contains("proc_macro") => {
                    let derived = item.attributes.split_once("proc_macro_derive(");
                    let derived = derived.and_then(|(_, rest)| rest.split([',', ')']).next());
                    let name = derived.map_or(name, str::to_owned);
                    self.add(path, Entry::Item { name, kind: "macro".to_owned(), public });
                }
                kind if KINDS.contains(&kind) => {
                    self.add(path, Entry::Item { name, kind: kind.to_owned(), public });
                }
                _ => (),
            }
        }
    }

    fn module_file(&mut self, module: &[String], folder: &str, attributes: &str, files: &[File]) {
        let inner = format!("{folder}/{}", module.last().expect("a module has a name"));
        let explicit = attributes.split_once("path=\"");
        let places = match explicit.and_then(|(_, rest)| rest.split('"').next()) {
            Some(file) => vec![format!("{folder}/{file}")],
            None => vec![format!("{inner}.rs"), format!("{inner}/mod.rs")],
        };
        if let Some(file) = files.iter().find(|file| places.contains(&file.path)) {
            self.module(module, file.code(Part::Documented).tokens(), &inner, files);
        }
    }

    fn add(&mut self, module: &[String], entry: Entry) {
        self.0.entry(module.to_vec()).or_default().push(entry);
    }

    fn entries(&self, module: &[String]) -> &[Entry] {
        self.0.get(module).map(Vec::as_slice).unwrap_or_default()
    }

    /// Lists what a module shows under a public path.
    fn shown(&self, module: &[String], path: &[String], found: &mut BTreeSet<Shown>) {
        for entry in self.entries(module) {
            let (name, meanings) = match entry {
                Entry::Module { name, public: true } => {
                    (name, vec![Meaning::Module(joined(module, name))])
                }
                Entry::Item { name, kind, public: true } => {
                    (name, vec![Meaning::Item(joined(module, name), kind.clone())])
                }
                Entry::Import { target, name, public: true } => {
                    (name, self.meanings(module, target, 0))
                }
                Entry::Module { .. } | Entry::Item { .. } | Entry::Import { .. } => continue,
            };
            let path = joined(path, name);
            for meaning in meanings {
                match meaning {
                    Meaning::Module(module) if self.is_public(&module) => {
                        self.shown(&module, &path, found);
                    }
                    // An import of a function leaves out the private module of its name.
                    Meaning::Module(_) => (),
                    Meaning::Item(item, kind) => {
                        let (path, item) = (path.join("::"), item.join("::"));
                        found.insert(Shown { path, kind, item });
                    }
                }
            }
        }
    }

    fn is_public(&self, module: &[String]) -> bool {
        let Some((last, parent)) = module.split_last() else { return false };
        let is_it =
            |entry: &Entry| matches!(entry, Entry::Module { name, public: true } if name == last);
        self.entries(parent).iter().any(is_it)
    }

    /// Lists what a path means in a module. A name may mean a trait and a macro at once.
    fn meanings(&self, module: &[String], target: &[String], depth: usize) -> Vec<Meaning> {
        assert!(depth < DEEPEST, "imports name each other: {target:?}");
        let Some((first, rest)) = target.split_first() else { return Vec::new() };
        let start = match first.as_str() {
            "crate" => vec![Meaning::Module(module[..1].to_vec())],
            "self" => vec![Meaning::Module(module.to_vec())],
            "super" => vec![Meaning::Module(module[..module.len() - 1].to_vec())],
            name => {
                let known = self.named(module, name, Some(target), depth);
                let of_crate = vec![name.to_owned()];
                if known.is_empty() && self.0.contains_key(&of_crate) {
                    vec![Meaning::Module(of_crate)]
                } else {
                    known
                }
            }
        };
        if start.is_empty() {
            return vec![Meaning::Item(target.to_vec(), "re-export".to_owned())];
        }
        rest.iter().fold(start, |before, part| {
            let inside = |meaning| match meaning {
                Meaning::Module(path) => self.named(&path, part, None, depth),
                Meaning::Item(..) => Vec::new(),
            };
            before.into_iter().flat_map(inside).collect()
        })
    }

    /// Lists what a name means in a module. The import that is being followed does not count.
    fn named(
        &self,
        module: &[String],
        name: &str,
        followed: Option<&[String]>,
        depth: usize,
    ) -> Vec<Meaning> {
        let mut found = BTreeSet::new();
        for entry in self.entries(module) {
            match entry {
                Entry::Module { name: is, .. } if is == name => {
                    found.insert(Meaning::Module(joined(module, name)));
                }
                Entry::Item { name: is, kind, .. } if is == name => {
                    found.insert(Meaning::Item(joined(module, name), kind.clone()));
                }
                Entry::Import { target, name: is, .. }
                    if is == name && Some(target.as_slice()) != followed =>
                {
                    found.extend(self.meanings(module, target, depth + 1));
                }
                Entry::Module { .. } | Entry::Item { .. } | Entry::Import { .. } => (),
            }
        }
        found.into_iter().collect()
    }
}

fn joined(path: &[String], name: &str) -> Path {
    path.iter().cloned().chain([name.to_owned()]).collect()
}

#[cfg(test)]
mod tests {
    use super::{Api, File};

    #[test]
    fn an_item_is_shown_under_each_public_path_unless_it_is_hidden() {
        let file = |path: &str, text: &str| File { path: path.to_owned(), text: text.to_owned() };
        let files = [
            file(
                "one/src/lib.rs",
                "#![doc(hidden)] mod a; pub mod b { pub use crate::a::{self as c, A, inner::{B, g}}; }
                 pub(crate) struct C; pub struct D<T>(pub T); #[doc(hidden)] pub struct E;
                 #[doc(hidden)] pub use a::A as F; #[cfg(test)] pub fn t() {}
                 pub const G: [u8; 1] = [0]; pub const fn h() {} #[macro_export] macro_rules! i { () => {} }",
            ),
            file(
                "one/src/a.rs",
                "pub mod inner; pub enum A {} pub use inner::g; impl A { pub fn method() {} }",
            ),
            file("one/src/a/inner.rs", "mod g; pub use g::g; pub trait B {}"),
            file("one/src/a/inner/g.rs", "pub async fn g() {}"),
            file(
                "two/src/lib.rs",
                "pub use one::{b, D as Other}; pub use three::Else; pub type D = one::D<u8>;
                 #[proc_macro_derive(Made, attributes(made))] pub fn derive() {}",
            ),
        ];
        let mut api = Api::default();
        for name in ["one", "two"] {
            api.read(name, &format!("{name}/src"), &files);
        }
        let shown = |name| -> Vec<String> {
            let shown = api.of(name).into_iter();
            shown.map(|it| format!("{} {} = {}", it.kind, it.path, it.item)).collect()
        };
        let of_one = [
            "struct one::D = one::D",
            "const one::G = one::G",
            "enum one::b::A = one::a::A",
            "trait one::b::B = one::a::inner::B",
            "fn one::b::g = one::a::inner::g::g",
            "fn one::h = one::h",
            "macro one::i = one::i",
        ];
        assert_eq!(shown("one"), of_one);
        let of_two = [
            "type two::D = two::D",
            "re-export two::Else = three::Else",
            "macro two::Made = two::Made",
            "struct two::Other = one::D",
            "enum two::b::A = one::a::A",
            "trait two::b::B = one::a::inner::B",
            "fn two::b::g = one::a::inner::g::g",
        ];
        assert_eq!(shown("two"), of_two);
    }
}
