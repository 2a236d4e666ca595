//! The guide as a book, and the blocks of code and the commands of all documents.
//!
//! `tests/guide/book` builds the book, where mdbook is installed.

use super::tree::{File, files, manifests, none};

/// Languages of blocks. Those of Rust are compiled; an attribute such as `ignore` would leave one out.
const LANGUAGES: [&str; 7] = ["rust", "sh", "text", "sql", "toml", "java", "json"];

/// Pages beside the guide whose Rust `tests/examples/readme` has.
const COMPILED: [&str; 3] = ["README.md", "docs/sagas.md", "docs/dashboard.md"];

fn documents() -> impl Iterator<Item = &'static File> {
    files().iter().filter(|file| file.path.ends_with(".md") || file.path == "docs/llms.txt")
}

/// The blocks of a document: the line of the fence, the language, and the lines between.
fn blocks(text: &str) -> Vec<(usize, &str, Vec<&str>)> {
    let (mut blocks, mut is_open) = (Vec::new(), false);
    for (line, text) in (1..).zip(text.lines()) {
        match (text.trim_start().strip_prefix("```"), is_open) {
            (Some(language), false) => {
                blocks.push((line, language.trim_end(), Vec::new()));
                is_open = true;
            }
            (Some(_), true) => is_open = false,
            (None, true) => blocks.last_mut().expect("one is open").2.push(text.trim()),
            (None, false) => (),
        }
    }
    blocks
}

/// The chapters of a table of contents: title and page.
fn chapters(summary: &str) -> Vec<(&str, &str)> {
    let links = summary.lines().filter_map(|line| line.split_once('[')?.1.strip_suffix(')'));
    links.filter_map(|link| link.split_once("](")).collect()
}

fn file(path: &str) -> &'static File {
    files().iter().find(|file| file.path == path).unwrap_or_else(|| panic!("no {path}"))
}

#[test]
fn the_book_has_each_page_once_under_a_part_of_its_heading() {
    let chapters = chapters(&file("docs/guide/SUMMARY.md").text);
    assert!(chapters.len() >= 40, "the guide has pages");
    let mut faults = Vec::new();
    for (at, (title, page)) in chapters.iter().enumerate() {
        if chapters[..at].iter().any(|(_, before)| before == page) {
            faults.push(format!("{page} is there twice"));
        }
        let text = &file(&format!("docs/guide/{page}")).text;
        let heading = text.lines().next().and_then(|line| line.strip_prefix("# "));
        if heading.is_none_or(|heading| !heading.to_lowercase().contains(&title.to_lowercase())) {
            faults.push(format!("{page}: `{title}` is no part of its heading {heading:?}"));
        }
    }
    none("docs/guide/SUMMARY.md", faults);
}

#[test]
fn every_block_of_code_has_a_language_and_those_of_rust_are_compiled() {
    let mut faults = Vec::new();
    for document in documents() {
        // The doc tests of a crate compile its README.
        let is_of_crate = document.path.strip_suffix("README.md").is_some_and(|folder| {
            let library = format!("{folder}src/lib.rs");
            let library = files().iter().find(|file| file.path == library);
            library.is_some_and(|file| file.text.contains("include_str!(\"../README.md\")"))
        });
        let is_compiled = is_of_crate
            || document.path.starts_with("docs/guide/")
            || COMPILED.contains(&&*document.path);
        for (line, language, _) in blocks(&document.text) {
            let place = format!("{}:{line}", document.path);
            if !LANGUAGES.contains(&language) {
                faults.push(format!("{place}: `{language}` is none of {LANGUAGES:?}"));
            } else if language == "rust" && !is_compiled {
                faults.push(format!("{place}: no test compiles it"));
            }
        }
    }
    none("a block of code that no test looks at", faults);
}

#[test]
fn the_page_of_the_tables_names_each_table() {
    let page = &file("docs/guide/reference/sql.md").text;
    let tables = file("outbox-sea-orm/src/dialect/tables.rs").text.split("quoted(\"").skip(1);
    let tables: Vec<&str> = tables.filter_map(|rest| rest.split('"').next()).collect();
    assert!(tables.len() >= 20, "the tables were found: {tables:?}");
    // One is an index that a statement names.
    let tables = tables.into_iter().filter(|name| *name != "outbox_events_place");
    let silent = tables.filter(|name| !page.contains(&format!("`{name}`")));
    none("no row of docs/guide/reference/sql.md", silent.map(str::to_owned).collect());
}

/// The commands of cargo in a document, in its blocks of `sh` and between backticks.
fn cargo_commands(text: &'static str) -> Vec<&'static str> {
    let of_blocks = blocks(text).into_iter().filter(|(_, language, _)| *language == "sh");
    let mut found: Vec<&str> = of_blocks.flat_map(|(_, _, lines)| lines).collect();
    let prose = text.split("```").step_by(2);
    found.extend(prose.flat_map(|prose| prose.split('`').skip(1).step_by(2)));
    let command = |line: &'static str| {
        let begins = line.find("cargo ")?;
        line[begins..].split([';', '#', '&', '|', '>']).next()
    };
    found.into_iter().filter_map(command).collect()
}

/// The value of an argument of a command: the word behind it.
fn value<'a>(words: &[&'a str], names: [&str; 2]) -> Option<&'a str> {
    let at = words.iter().position(|word| names.contains(word))?;
    words.get(at + 1).copied()
}

/// Why a command of cargo cannot run here; `None` where it can, or names no package.
fn fault(command: &str, members: &[(&File, toml::Table)]) -> Option<String> {
    let words: Vec<&str> = command.split_whitespace().take_while(|word| *word != "--").collect();
    if !["run", "test", "build", "doc"].contains(words.get(1)?) {
        return None;
    }
    let name = value(&words, ["-p", "--package"])?;
    let is_named =
        |(_, manifest): &&(&File, toml::Table)| manifest["package"]["name"].as_str() == Some(name);
    let Some((_, manifest)) = members.iter().find(is_named) else {
        return Some(format!("no package `{name}`"));
    };
    let features = manifest.get("features").and_then(toml::Value::as_table);
    let wanted = value(&words, ["--features", "-F"]).into_iter().flat_map(|list| list.split(','));
    let unknown = |feature: &&str| !features.is_some_and(|known| known.contains_key(*feature));
    wanted.filter(unknown).map(|feature| format!("`{name}` has no feature `{feature}`")).next()
}

#[test]
fn the_commands_of_cargo_in_the_documents_name_packages_and_features_that_are_there() {
    let members = manifests();
    let (mut faults, mut all) = (Vec::new(), 0);
    for document in documents() {
        for command in cargo_commands(&document.text) {
            all += 1;
            if let Some(fault) = fault(command, &members) {
                faults.push(format!("{}: `{}`: {fault}", document.path, command.trim()));
            }
        }
    }
    assert!(all >= 40, "the documents have commands: {all}");
    none("a command that fails", faults);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_found_with_their_languages_also_in_lists() {
        let text = "a\n```sh\nls\n```\n1. b\n\n   ```\n   c\n   ```\n";
        assert_eq!(blocks(text), [(2, "sh", vec!["ls"]), (7, "", vec!["c"])]);
    }

    #[test]
    fn commands_are_checked_up_to_the_programs_own_arguments() {
        let members = manifests();
        let fault = |command| fault(command, &members);
        assert_eq!(fault("cargo run -p shop --features amqp -- -p none"), None);
        assert_eq!(fault("cargo run -p none").as_deref(), Some("no package `none`"));
        let found = fault("cargo run -p shop --features amqp,none");
        assert_eq!(found.as_deref(), Some("`shop` has no feature `none`"));
        assert_eq!(fault("cargo test"), None);
    }
}
