//! The code of README and guide compiles, and the tests that the documents name exist.

use super::{
    lexer::tokens,
    tree::{File, files, none, sources},
};

/// The tokens of a piece of code, without the commas that a formatter puts before closing brackets.
fn code(text: &str) -> Vec<String> {
    let mut code: Vec<String> = Vec::new();
    for token in tokens(text) {
        let closes = [")", "]", "}"].contains(&token.text.as_str());
        if closes && code.last().is_some_and(|last| last == ",") {
            code.pop();
        }
        code.push(token.text);
    }
    code
}

/// The blocks of Rust in a text.
fn blocks(text: &str) -> Vec<&str> {
    text.split("```rust\n")
        .skip(1)
        .filter_map(|rest| rest.split_once("```"))
        .map(|(block, _)| block)
        .collect()
}

/// Settings of servers that look like the name of a test.
const SETTINGS: [&str; 1] = ["idle_in_transaction_session_timeout"];

/// README, guide and the pages beside it that have code.
fn pages() -> impl Iterator<Item = &'static File> {
    files().iter().filter(|file| {
        file.path == "README.md"
            || file.path == "docs/sagas.md"
            || (file.path.starts_with("docs/guide/") && file.path.ends_with(".md"))
    })
}

#[test]
fn the_code_of_readme_and_guide_is_compiled() {
    let compiled: Vec<Vec<String>> = sources()
        .filter(|file| file.path.starts_with("tests/examples/readme/"))
        .map(|file| code(&file.text))
        .collect();
    // A page whose code is a whole program is followed by `tests/guide/follow`, which builds it.
    let is_followed = |block: &&str| block.starts_with("// src/");
    let dashboard = files().iter().filter(|file| file.path == "docs/dashboard.md");
    let blocks = pages().chain(dashboard).flat_map(|page| {
        blocks(&page.text)
            .into_iter()
            .filter(|block| !is_followed(block))
            .map(|block| (&*page.path, block))
    });
    let blocks: Vec<(&str, &str)> = blocks.collect();
    assert!(blocks.len() >= 25, "README and guide have code");
    let is_strange = |block: &str| {
        let block = code(block);
        !compiled.iter().any(|all| all.windows(block.len()).any(|part| part == block))
    };
    let found = blocks.into_iter().filter(|(_, block)| is_strange(block));
    none(
        "of README or guide, and not in tests/examples/readme",
        found.map(|(page, block)| format!("{page}: {block}")).collect(),
    );
}

#[test]
fn the_tests_that_readme_and_guide_name_are_there() {
    let names = pages().flat_map(|page| {
        let names = page.text.split('`').skip(1).step_by(2);
        names.filter(|name| name.matches('_').count() >= 4 && !name.contains(['.', '/', ' ', '(']))
    });
    let names: Vec<&str> =
        names.filter(|name| name.chars().all(|c| c != '=' && c != '-')).collect();
    assert!(names.len() >= 60, "the promises name their tests");
    let is_there = |name: &str| sources().any(|file| file.text.contains(&format!("fn {name}(")));
    let metrics = &files().iter().find(|file| file.path == "docs/metrics.md").expect("a page").text;
    none(
        "a test that README or guide name is gone",
        names
            .into_iter()
            .filter(|name| !is_there(name) && !metrics.contains(name) && !SETTINGS.contains(name))
            .map(str::to_owned)
            .collect(),
    );
}

#[test]
fn the_tests_of_a_first_days_mistakes_are_there() {
    let page =
        files().iter().find(|file| file.path == "docs/first-day.md").expect("there is a page");
    let rows: Vec<&str> =
        page.text.lines().filter(|line| line.starts_with("| ") && line.ends_with("` |")).collect();
    assert!(rows.len() >= 30, "the mistakes name their tests");
    let is_there = |name: &str| match name.starts_with("ui/") {
        true => files().iter().any(|file| file.path == format!("outbox-macros/tests/{name}")),
        false => sources().any(|file| file.text.contains(&format!("fn {name}("))),
    };
    let gone = rows
        .iter()
        .filter_map(|row| row.trim_end_matches("` |").rsplit('`').next())
        .filter(|name| !is_there(name));
    none("a test that docs/first-day.md names is gone", gone.map(str::to_owned).collect());
}

#[test]
fn the_tests_of_bad_days_are_there() {
    let page =
        files().iter().find(|file| file.path == "docs/bad-days.md").expect("there is a page");
    let tests = page.text.lines().filter_map(|line| line.split(" | ").nth(1)?.split('`').nth(1));
    let tests: Vec<&str> = tests
        .map(|path| path.trim_end_matches("::sqlite").trim_end_matches("::postgres"))
        .collect();
    assert!(tests.len() >= 120, "the faults name their tests");
    let name = |path: &&str| {
        path.trim_end_matches("::mariadb").rsplit("::").next().unwrap_or_default().to_owned()
    };
    let gone =
        tests.iter().map(name).filter(|name| !sources().any(|file| file.text.contains(name)));
    none("a test that docs/bad-days.md names is gone", gone.collect());
}
