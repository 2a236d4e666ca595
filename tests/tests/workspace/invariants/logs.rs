//! Every line that the libraries log stands on one page, with its level and its fields.

use super::{
    code::closed,
    lexer::Token,
    tree::{File, libraries, root},
};
use std::{collections::BTreeSet, fmt::Write, fs};

const PAGE: &str = "docs/log-lines.md";
/// What stands around the part of the page that is made from the code.
const MARKS: [&str; 2] =
    ["<!-- made from the code: begin -->\n", "<!-- made from the code: end -->\n"];
const LEVELS: [&str; 4] = ["error", "warn", "info", "debug"];
/// What stands in the file with the texts that one line says in turn.
const WHAT: &str = "pub(in crate::consumer) enum FailureKind {";

/// One line, by level, crate and text.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Line {
    level: usize,
    text: String,
    member: String,
    fields: Vec<String>,
}

/// What a text says in the end: a backslash at the end of a line goes on behind the next line's indentation.
fn said(text: &str) -> String {
    let parts = text.trim_matches('"').split("\\\n");
    parts.enumerate().map(|(n, part)| if n == 0 { part } else { part.trim_start() }).collect()
}

/// The arguments of a call, without what is inside of them.
fn arguments(inner: &[Token]) -> Vec<&[Token]> {
    let (mut found, mut begun, mut at) = (Vec::new(), 0, 0);
    while at < inner.len() {
        match inner[at].text.as_str() {
            "(" | "[" | "{" => at = closed(inner, at),
            "," => {
                found.push(&inner[begun..at]);
                (begun, at) = (at + 1, at + 1);
            }
            _ => at += 1,
        }
    }
    found.push(&inner[begun..]);
    found.into_iter().filter(|argument| !argument.is_empty()).collect()
}

/// Reads one call of a macro that logs.
fn line(level: usize, member: &str, inner: &[Token]) -> Line {
    let (mut text, mut fields) = (String::new(), Vec::new());
    for argument in arguments(inner) {
        let first = &argument[0].text;
        if first.starts_with('"') {
            if text.is_empty() {
                text = said(first);
            }
        } else if text.is_empty() {
            let name = argument.iter().find(|token| !["%", "?"].contains(&token.text.as_str()));
            fields.extend(name.map(|name| name.text.clone()));
        }
    }
    Line { level, text, member: member.to_owned(), fields }
}

fn lines_of(file: &'static File) -> Vec<Line> {
    let (code, member) =
        (file.shipped(), file.path.split_once("/src/").map_or("", |(member, _)| member));
    let (all, mut found) = (code.tokens(), Vec::new());
    for at in 0..all.len().saturating_sub(5) {
        let is = |after: usize, text: &str| all[at + after].text == text;
        if is(0, "tracing") && is(1, ":") && is(2, ":") && is(4, "!") && is(5, "(") {
            let end = closed(all, at + 5);
            let level = LEVELS.iter().position(|level| is(3, level));
            found.extend(level.map(|level| line(level, member, &all[at + 6..end - 1])));
        }
    }
    found
}

fn table() -> String {
    let lines: BTreeSet<Line> = libraries().flat_map(lines_of).collect();
    assert!(lines.len() > 100, "lines were found: {}", lines.len());
    let mut table = String::new();
    for (level, name) in LEVELS.iter().enumerate() {
        let _ = write!(
            table,
            "\n## {}\n\n| line | fields | crate |\n| --- | --- | --- |\n",
            name.to_uppercase()
        );
        for Line { text, member, fields, .. } in lines.iter().filter(|line| line.level == level) {
            let fields: Vec<String> = fields.iter().map(|field| format!("`{field}`")).collect();
            let member = member.trim_start_matches("transports/");
            let _ = writeln!(
                table,
                "| {} | {} | {member} |",
                text.replace('|', "\\|"),
                fields.join(", ")
            );
        }
    }
    table.push_str("\nWhat `{what}` is:\n\n");
    let file = libraries().find(|file| file.text.contains(WHAT)).expect("it is there");
    let code = file.shipped();
    let from = code.tokens().iter().position(|token| token.text == "what").expect("it says what");
    let until = code
        .tokens()
        .iter()
        .skip(from)
        .position(|token| token.text == "fn")
        .expect("and then others do");
    for text in code.tokens()[from..from + until].iter().filter(|token| token.text.starts_with('"'))
    {
        let _ = writeln!(table, "- {}", said(&text.text));
    }
    table
}

/// `LOG_LINES=overwrite` writes it down.
#[test]
fn the_page_of_log_lines_has_every_line_with_its_level_and_its_fields() {
    let path = root().join(PAGE);
    let page = fs::read_to_string(&path).expect("the page is there");
    let (before, rest) = page.split_once(MARKS[0]).expect("it says where the lines begin");
    let (written, after) = rest.split_once(MARKS[1]).expect("it says where they end");
    let made = table();
    if std::env::var_os("LOG_LINES").is_some_and(|what| what == "overwrite") {
        fs::write(&path, format!("{before}{}{made}{}{after}", MARKS[0], MARKS[1]))
            .expect("it can be written");
        return;
    }
    let strange: Vec<&str> =
        written.lines().filter(|line| !made.lines().any(|is| is == *line)).collect();
    let missing: Vec<&str> =
        made.lines().filter(|line| !written.lines().any(|is| is == *line)).collect();
    assert!(
        written == made,
        "{PAGE} differs from the code; LOG_LINES=overwrite mends it\ngone from the code: {strange:#?}\nnot on the page: \
         {missing:#?}"
    );
}

#[test]
fn every_line_says_something_in_words_and_names_no_field_that_could_hold_a_payload_or_a_secret() {
    const NEVER: [&str; 8] =
        ["payload", "body", "secret", "password", "token", "url", "key", "headers"];
    let wrong: Vec<Line> = libraries()
        .flat_map(lines_of)
        .filter(|line| {
            line.text.is_empty() || line.fields.iter().any(|field| NEVER.contains(&field.as_str()))
        })
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}
