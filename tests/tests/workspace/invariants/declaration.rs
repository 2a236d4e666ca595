//! The items of a module as tokens: what each is, and what an import names.

use super::{
    code::{closed, item_ends},
    lexer::Token,
};

/// One item of a module, as it is written.
pub(super) struct Declaration<'t> {
    /// What it is: `struct`, `use`; empty for a stray token.
    pub(super) kind: String,
    pub(super) name: String,
    /// The words of its attributes, without spaces.
    pub(super) attributes: String,
    /// Whether it is `pub` without a restriction and no attribute hides it.
    pub(super) public: bool,
    /// What stands behind its name: inside the braces of a module, behind the word `use`.
    pub(super) body: &'t [Token],
    pub(super) end: usize,
}

impl<'t> Declaration<'t> {
    /// Reads the item at a position, with the attributes before it.
    pub(super) fn at(all: &'t [Token], mut at: usize) -> Self {
        let text = |at: usize| all.get(at).map_or("", |token| token.text.as_str());
        let mut attributes = String::new();
        while text(at) == "#" {
            let open = at + 1 + usize::from(text(at + 1) == "!");
            let end = closed(all, open);
            // Those of the file are not the item's.
            if text(at + 1) != "!" {
                attributes.extend(all[open..end].iter().map(|token| token.text.as_str()));
            }
            at = end;
        }
        let is_pub = text(at) == "pub";
        let restricted = is_pub && text(at + 1) == "(";
        let mut kind = if restricted { closed(all, at + 1) } else { at + usize::from(is_pub) };
        while ["async", "unsafe", "extern"].contains(&text(kind))
            || text(kind) == "const" && ["fn", "async", "unsafe"].contains(&text(kind + 1))
            || text(kind).starts_with('"')
        {
            kind += 1;
        }
        let semicolon = || (kind..all.len()).find(|at| text(*at) == ";").unwrap_or(all.len());
        let (name, body, end) = match text(kind) {
            // Its braces do not end it.
            "use" => (kind, kind + 1..semicolon(), semicolon() + 1),
            "mod" if text(kind + 2) == "{" => {
                let end = closed(all, kind + 2);
                (kind + 1, kind + 3..end - 1, end)
            }
            "macro_rules" => (kind + 2, kind..kind, closed(all, kind + 3)),
            "mod" => (kind + 1, kind..kind, kind + 3),
            _ => {
                let end = item_ends(all, kind);
                (kind + 1, (kind + 2).min(end)..end, end)
            }
        };
        Self {
            kind: text(kind).to_owned(),
            name: text(name).to_owned(),
            public: is_pub && !restricted && !attributes.contains("doc(hidden)"),
            attributes,
            body: &all[body],
            end,
        }
    }
}

/// Lists what an import names: its targets, each with the name that it gets.
pub(super) fn imports(tokens: &[Token], before: &[String]) -> Vec<(Vec<String>, String)> {
    let (mut path, mut at) = (before.to_vec(), 0);
    while let Some(token) = tokens.get(at) {
        match token.text.as_str() {
            "{" => {
                let inner = &tokens[at + 1..closed(tokens, at) - 1];
                return parts(inner).flat_map(|part| imports(part, &path)).collect();
            }
            "as" => {
                let name = tokens.get(at + 1).map(|token| token.text.clone());
                return name.map(|name| (path, name)).into_iter().collect();
            }
            ":" => (),
            part => path.push(part.to_owned()),
        }
        at += 1;
    }
    if path.last().is_some_and(|part| part == "self") {
        path.pop();
    }
    path.last().cloned().map(|name| (path, name)).into_iter().collect()
}

/// The parts between the commas of a list, which are not inside of braces.
fn parts(tokens: &[Token]) -> impl Iterator<Item = &[Token]> {
    let mut depth = 0_usize;
    let is_between = move |token: &Token| {
        match token.text.as_str() {
            "{" => depth += 1,
            "}" => depth = depth.saturating_sub(1),
            _ => (),
        }
        token.text == "," && depth == 0
    };
    tokens.split(is_between).filter(|part| !part.is_empty())
}
