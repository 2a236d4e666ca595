//! Order in the tree: no ignored tests, no to-dos. The lints of the workspace find stubs, and
//! exceptions from lints without a reason.

use super::{
    code::Part,
    tree::{File, files, libraries, none, root, sources},
};
use std::{collections::BTreeSet, os::unix::fs::PermissionsExt};

#[test]
fn no_test_is_ignored_and_no_lint_is_silenced() {
    let found = sources().flat_map(|file| {
        let code = file.code(Part::Unquoted);
        let silenced =
            ["#[ignore", "#[allow", "#![allow"].map(|attribute| code.lines_with(attribute));
        silenced
            .concat()
            .into_iter()
            .map(|line| format!("{}:{line}", file.path))
            .collect::<Vec<_>>()
    });
    none("fix it, or #[expect(.., reason = \"..\")]", found.collect());
}

#[test]
fn no_to_do_is_left() {
    // Written in two, so that this file is not found.
    let words = [concat!("TO", "DO"), concat!("FIX", "ME")];
    let unfinished = files().iter().filter(|file| file.path != "Cargo.lock").flat_map(|file| {
        let lines = file.text.lines().enumerate();
        let marked = lines.filter(|(_, line)| words.iter().any(|word| line.contains(word)));
        marked.map(|(at, _)| format!("{}:{}", file.path, at + 1)).collect::<Vec<_>>()
    });
    none("left to do", unfinished.collect());
}

#[test]
fn no_test_sleeps_on_a_thread() {
    let found = sources().flat_map(|file| {
        let lines = file.code(Part::Whole).lines_with("thread::sleep");
        lines.into_iter().map(|line| format!("{}:{line}", file.path)).collect::<Vec<_>>()
    });
    none("wait for a signal, or until something holds", found.collect());
}

#[test]
fn no_path_of_one_machine_stands_in_the_tree() {
    // Written in two, so that this file is not found.
    let homes = [
        concat!("/wo", "rk/"),
        concat!("/ro", "ot/"),
        concat!("/ho", "me/"),
        concat!("/Us", "ers/"),
    ];
    let here = root().to_string_lossy();
    let found = files().iter().flat_map(|file| {
        let lines = file.text.lines().enumerate();
        let named = lines.filter(|(_, line)| {
            homes.iter().any(|home| line.contains(home)) || line.contains(&*here)
        });
        named.map(|(at, _)| format!("{}:{}", file.path, at + 1)).collect::<Vec<_>>()
    });
    none("a path that other machines do not have", found.collect());
}

#[test]
fn the_scripts_are_executable() {
    for script in ["tests/run", ".ci/run"] {
        let file = files()
            .iter()
            .find(|file| file.path == script)
            .unwrap_or_else(|| panic!("{script} is missing"));
        assert!(file.text.starts_with("#!/usr/bin/env bash\n"), "{script} says what runs it");
        let mode = std::fs::metadata(root().join(script)).unwrap().permissions().mode();
        assert_eq!(mode & 0o111, 0o111, "{script} is executable");
    }
}

#[test]
fn the_architecture_names_every_module_and_no_other() {
    let text = &files().iter().find(|file| file.path == "ARCHITECTURE.md").unwrap().text;
    let rows = text.lines().filter(|line| line.starts_with("| ") && line.contains("/`"));
    let named: BTreeSet<&str> = rows.filter_map(|row| row.split('`').nth(1)).collect();
    let gone = named
        .iter()
        .filter(|module| !root().join(module).is_dir())
        .map(|module| format!("{module} is not there"));

    // Modules of the table are folders right under a library's `src/`.
    let module = |file: &'static File| {
        let (member, inside) = file.path.split_once("/src/")?;
        let (folder, _) = inside.split_once('/')?;
        Some(&file.path[..member.len() + "/src/".len() + folder.len() + 1])
    };
    let there: BTreeSet<&str> = libraries().filter_map(module).collect();
    assert!(there.len() > 5, "the modules were found");
    let silent = there.difference(&named).map(|module| format!("{module} is not named"));
    none("ARCHITECTURE.md", gone.chain(silent).collect());
}

/// The files of a numbered list of ARCHITECTURE.md, from a heading or sentence on.
fn reading_list(architecture: &str, from: &str) -> Vec<String> {
    let (_, rest) = architecture.split_once(from).unwrap_or_else(|| panic!("no `{from}`"));
    let lines = rest.lines().skip_while(|line| !line.starts_with("1. "));
    let entries = lines.take_while(|line| line.starts_with(|c: char| c.is_ascii_digit()));
    entries.filter_map(|line| line.split('`').nth(1)).map(str::to_owned).collect()
}

#[test]
fn the_way_of_an_event_opens_at_most_25_files_and_of_a_failing_one_12_more() {
    let architecture = files().iter().find(|file| file.path == "ARCHITECTURE.md");
    let text = &architecture.expect("ARCHITECTURE.md is there").text;
    let lists = [("## Reading order", 25), ("An event that fails goes on", 12)];
    let mut named = BTreeSet::new();
    for (from, most) in lists {
        let list = reading_list(text, from);
        assert!((2..=most).contains(&list.len()), "{from}: {} files, {most} at most", list.len());
        let missing = list.iter().filter(|path| !files().iter().any(|file| file.path == **path));
        none("a file of the reading order is missing", missing.cloned().collect());
        let twice = list.into_iter().filter(|path| !named.insert(path.clone()));
        none("a file is named twice", twice.collect());
    }
}
