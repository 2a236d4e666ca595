//! Arrows between rooms: the modules right under a crate's root use each other one way.
//!
//! A use is a path that begins with `crate::`, or with as many `super::` as lead to the root. A name
//! that the root re-exports is a use of the room that it comes from. The test leaves out the root
//! itself, tests, and the modules with tools for tests.

use super::{
    code::Code,
    tree::{File, libraries, none},
};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

const CRATES: [&str; 2] = ["outbox-core", "outbox-sea-orm"];

/// An arrow of a cycle that stays.
struct Exception {
    member: &'static str,
    from: &'static str,
    to: &'static str,
    reason: &'static str,
}

const EXCEPTIONS: [Exception; 1] = [Exception {
    member: "outbox-sea-orm",
    from: "transaction",
    to: "outbox",
    reason: "an outbox opens transactions, and each of them names its outbox in its interface: \
             `OutboxTransaction::outbox` gives it to the user, `Transactional` takes one for a \
             transaction, and a function joins the open transaction of its outbox; a trait \
             between both for the writing of events would hide one of these arrows and leave the \
             others",
}];

/// The uses by which one room knows another, as `path:line`, by the two rooms.
type Arrows = BTreeMap<(String, String), Vec<String>>;

/// The room of a file, from its path inside `src/`; `None` for the root of the crate.
fn room(inside: &str) -> Option<&str> {
    let top = inside.split('/').next()?;
    let name = top.strip_suffix(".rs").unwrap_or(top);
    (name != "lib").then_some(name)
}

/// How many modules a file is below the root of the crate.
fn depth(inside: &str) -> usize {
    let folders = inside.matches('/').count();
    if inside.ends_with("/mod.rs") { folders } else { folders + 1 }
}

/// The position behind a `::`, where one stands at a position.
fn after_colons(code: &Code, at: usize) -> Option<usize> {
    let is_colon = |at: usize| code.tokens().get(at).is_some_and(|token| token.text == ":");
    (is_colon(at) && is_colon(at + 1)).then_some(at + 2)
}

/// The first names of the paths at a position: of one path, or of each one in braces.
fn first_names(code: &Code, at: usize) -> Vec<(&str, usize)> {
    let all = code.tokens();
    let name = |at: usize| all.get(at).map(|token| (token.text.as_str(), token.line));
    if name(at).is_none_or(|(text, _)| text != "{") {
        return name(at).into_iter().collect();
    }
    let (mut names, mut open, mut begins) = (Vec::new(), 0_usize, true);
    for token in &all[at..] {
        match token.text.as_str() {
            "{" => open += 1,
            "}" => open -= 1,
            "," if open == 1 => begins = true,
            text if open == 1 && begins => {
                names.push((text, token.line));
                begins = false;
            }
            _ => (),
        }
        if open == 0 {
            break;
        }
    }
    names
}

/// The names right under the root that a piece of code uses, with their lines.
fn uses_of_root(code: &Code, depth: usize) -> Vec<(&str, usize)> {
    let all = code.tokens();
    let mut found = Vec::new();
    for at in 0..all.len() {
        let is_inside_a_path = at >= 2 && all[at - 1].text == ":" && all[at - 2].text == ":";
        let behind = match all[at].text.as_str() {
            "crate" => after_colons(code, at + 1),
            "super" if !is_inside_a_path => {
                let (mut behind, mut supers) = (at, 0);
                while let Some(next) = all
                    .get(behind)
                    .filter(|token| token.text == "super")
                    .and_then(|_| after_colons(code, behind + 1))
                {
                    (behind, supers) = (next, supers + 1);
                }
                (supers == depth).then_some(behind)
            }
            _ => None,
        };
        found.extend(behind.map(|behind| first_names(code, behind)).unwrap_or_default());
    }
    found
}

/// The rooms from which the root of a crate re-exports names, by the name.
fn re_exports(root: &Code) -> BTreeMap<String, String> {
    let all = root.tokens();
    let mut found = BTreeMap::new();
    for at in (0..all.len()).filter(|at| all[*at].text == "use") {
        let (Some(from), Some(behind)) = (all.get(at + 1), after_colons(root, at + 2)) else {
            continue;
        };
        let names = all[behind..].iter().take_while(|token| token.text != ";");
        found.extend(names.map(|token| (token.text.clone(), from.text.clone())));
    }
    found
}

/// Reads the arrows between the rooms of a crate from its files, given by their paths inside `src/`.
fn arrows<'a>(files: impl Iterator<Item = (&'a str, Code)>) -> Arrows {
    let files: Vec<(&str, Code)> = files.collect();
    let root = files.iter().find(|(inside, _)| *inside == "lib.rs");
    let re_exports = root.map(|(_, code)| re_exports(code)).unwrap_or_default();
    let rooms: BTreeSet<&str> = files.iter().filter_map(|(inside, _)| room(inside)).collect();
    let mut arrows = Arrows::new();
    for (inside, code) in &files {
        let Some(from) = room(inside) else { continue };
        for (name, line) in uses_of_root(code, depth(inside)) {
            let is_room = rooms.contains(name);
            let to = if is_room { Some(name) } else { re_exports.get(name).map(String::as_str) };
            let Some(to) = to.filter(|to| rooms.contains(to) && *to != from) else { continue };
            let place = format!("{inside}:{line}: {name}");
            arrows.entry((from.to_owned(), to.to_owned())).or_default().push(place);
        }
    }
    arrows
}

/// Finds a shortest way along the arrows from a room to another one: the rooms on it, both included.
fn way(arrows: &Arrows, from: &str, to: &str) -> Option<Vec<String>> {
    let mut ways = VecDeque::from([vec![from.to_owned()]]);
    let mut seen = BTreeSet::new();
    while let Some(way) = ways.pop_front() {
        let last = way.last()?.clone();
        if last == to {
            return Some(way);
        }
        for (_, next) in arrows.keys().filter(|(room, _)| *room == last) {
            if seen.insert(next.clone()) {
                ways.push_back([way.clone(), vec![next.clone()]].concat());
            }
        }
    }
    None
}

/// Describes the cycles of arrows: of each the rooms, and the uses of the arrow with the fewest,
/// without which the next cycle is looked for.
fn cycles(mut arrows: Arrows) -> Vec<String> {
    let mut found = Vec::new();
    loop {
        let closed = arrows.keys().filter_map(|(from, to)| {
            let mut cycle = vec![from.clone()];
            cycle.extend(way(&arrows, to, from)?);
            Some(cycle)
        });
        let Some(cycle) = closed.min_by_key(Vec::len) else { return found };
        let steps = cycle.windows(2).map(|pair| (pair[0].clone(), pair[1].clone()));
        let Some(rarest) = steps.min_by_key(|step| arrows[step].len()) else { return found };
        let uses = arrows.remove(&rarest).unwrap_or_default();
        let (from, to) = rarest;
        let uses = uses.join("\n      ");
        found.push(format!("{}\n    {from} -> {to}:\n      {uses}", cycle.join(" -> ")));
    }
}

/// The arrows of a member of the workspace.
fn arrows_of(member: &str) -> Arrows {
    let source = |file: &'static File| {
        Some((file.path.strip_prefix(member)?.strip_prefix("/src/")?, file.shipped()))
    };
    let arrows = arrows(libraries().filter_map(source));
    assert!(arrows.len() > 20, "the rooms of {member} were found");
    arrows
}

#[test]
fn rooms_use_each_other_one_way() {
    let (mut closed, mut unused) = (Vec::new(), Vec::new());
    for member in CRATES {
        let mut arrows = arrows_of(member);
        let exceptions = EXCEPTIONS.iter().filter(|exception| exception.member == member);
        for Exception { from, to, reason, .. } in exceptions {
            let arrow = arrows.remove(&((*from).to_owned(), (*to).to_owned()));
            if arrow.is_none() || way(&arrows, to, from).is_none() {
                unused.push(format!("{member}: {from} -> {to}: {reason}"));
            }
        }
        closed.extend(cycles(arrows).into_iter().map(|cycle| format!("{member}: {cycle}")));
    }
    none(
        "rooms that know each other: move the name to the room that both may know, or add an \
         exception with its reason to tests/tests/workspace/invariants/arrows.rs",
        closed,
    );
    none("an exception that no cycle needs any more: delete it", unused);
}

#[cfg(test)]
mod tests {
    use super::{Arrows, arrows, cycles};
    use crate::invariants::code::{Code, Part};

    fn read(files: &[(&'static str, &str)]) -> Arrows {
        arrows(files.iter().map(|(inside, text)| (*inside, Code::read(text, Part::Shipped))))
    }

    #[test]
    fn a_use_is_found_in_each_form_of_a_path_and_not_in_tests() {
        let found = read(&[
            ("lib.rs", "pub use d::{D, E};\npub use other::F;\nmod a;"),
            ("a/mod.rs", "use crate::{\n    b::{self, x},\n    c::y,\n};\nuse super::d;"),
            ("a/inner.rs", "use super::b; use super::super::c::Z; fn f() -> crate::E { g() }"),
            ("b.rs", "// crate::a\n#[cfg(test)]\nmod tests { use crate::a; }\nuse crate::b::own;"),
            ("c.rs", "use crate::{F, D as G}; macro_rules! m { () => { $crate::b::x } }"),
            ("d.rs", "fn d() {}"),
        ]);
        let found: Vec<(&str, &str, String)> =
            found.iter().map(|((a, b), uses)| (a.as_str(), b.as_str(), uses.join(", "))).collect();
        let expected = [
            ("a", "b", "a/mod.rs:2: b"),
            ("a", "c", "a/mod.rs:3: c, a/inner.rs:1: c"),
            ("a", "d", "a/mod.rs:5: d, a/inner.rs:1: E"),
            ("c", "b", "c.rs:1: b"),
            ("c", "d", "c.rs:1: D"),
        ];
        assert_eq!(found, expected.map(|(a, b, uses)| (a, b, uses.to_owned())));
    }

    #[test]
    fn a_cycle_is_told_with_the_uses_of_its_rarest_arrow() {
        let one_way =
            [("a.rs", "use crate::{b, c};"), ("b.rs", "use crate::c;"), ("c.rs", "fn c() {}")];
        assert!(cycles(read(&one_way)).is_empty());
        let round = [
            ("a.rs", "use crate::b::x;\nuse crate::b::y;"),
            ("b.rs", "use crate::c::x;\nuse crate::c::y;"),
            ("c.rs", "\nuse crate::a::x;"),
        ];
        let told = cycles(read(&round));
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(told[0].ends_with("c -> a:\n      c.rs:2: a"), "{told:?}");
    }
}
