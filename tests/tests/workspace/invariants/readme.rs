//! The README's code compiles, and the tests that the documents name exist.

use super::{
    lexer::tokens,
    tree::{File, files, none, sources},
};

fn readme() -> &'static File {
    files().iter().find(|file| file.path == "README.md").expect("there is a README")
}

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

#[test]
fn the_readmes_code_is_compiled() {
    let compiled: Vec<Vec<String>> = sources()
        .filter(|file| file.path.starts_with("tests/examples/readme/"))
        .map(|file| code(&file.text))
        .collect();
    let more = files().iter().find(|file| file.path == "docs/sagas.md").expect("there is a page");
    let blocks: Vec<&str> = blocks(&readme().text).into_iter().chain(blocks(&more.text)).collect();
    assert!(blocks.len() >= 7, "the README has code");
    let strange = |block: &&str| {
        let block = code(block);
        !compiled.iter().any(|all| all.windows(block.len()).any(|part| part == block))
    };
    let found = blocks.into_iter().filter(strange).map(str::to_owned).collect();
    none("of the README, and not in tests/examples/readme", found);
}

#[test]
fn the_tests_that_the_readme_names_are_there() {
    let table = readme()
        .text
        .lines()
        .filter(|line| line.starts_with("| ") && line.matches('|').count() == 4);
    let names = table
        .flat_map(|line| line.split('`').skip(1).step_by(2))
        .filter(|name| name.matches('_').count() >= 4);
    let names: Vec<&str> = names.collect();
    assert!(names.len() >= 12, "the promises name their tests");
    let is_there = |name: &str| sources().any(|file| file.text.contains(&format!("fn {name}(")));
    none(
        "a test that the README names is gone",
        names.into_iter().filter(|name| !is_there(name)).map(str::to_owned).collect(),
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
