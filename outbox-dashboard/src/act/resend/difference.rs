//! The comparison of two contents, line by line.

use crate::page::text::{Markup, lines};
use serde::de::IgnoredAny;
use similar::{ChangeTag, TextDiff};
use std::time::Duration;

/// Lines that are the same and are shown around those that differ.
const AROUND: usize = 3;
/// How long a comparison may look for the shortest one; past that it takes a longer one.
const WITHIN: Duration = Duration::from_millis(100);

/// A line of the comparison.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Row {
    /// The class of the style sheet.
    pub(super) class: &'static str,
    /// What a line begins with: colour alone says nothing.
    pub(super) sign: &'static str,
    /// The same in a word, for those who hear it.
    pub(super) word: &'static str,
    pub(super) text: Markup,
}

/// Compares two contents. JSON is compared one value a line, also where it was written in one line.
pub(super) fn rows(old: &str, new: &str) -> Vec<Row> {
    let (old, new) = match (is_json(old), is_json(new)) {
        (true, true) => (one_value_a_line(old), one_value_a_line(new)),
        _ => (old.to_owned(), new.to_owned()),
    };
    let difference = TextDiff::configure().timeout(WITHIN).diff_lines(&old, &new);
    let mut rows = Vec::new();
    for (number, group) in difference.grouped_ops(AROUND).iter().enumerate() {
        if number > 0 {
            rows.push(row("gap", "", "", "…"));
        }
        for change in group.iter().flat_map(|op| difference.iter_changes(op)) {
            let (class, sign, word) = match change.tag() {
                ChangeTag::Equal => ("same", " ", ""),
                ChangeTag::Delete => ("removed", "-", "removed:"),
                ChangeTag::Insert => ("added", "+", "added:"),
            };
            rows.push(row(class, sign, word, change.value().trim_end_matches(['\n', '\r'])));
        }
    }
    rows
}

fn row(class: &'static str, sign: &'static str, word: &'static str, text: &str) -> Row {
    Row { class, sign, word, text: lines(text) }
}

fn is_json(text: &str) -> bool {
    serde_json::from_str::<IgnoredAny>(text).is_ok()
}

/// Lays JSON out, one value a line. It changes the space between values alone: a number, a repeated
/// name or an escape stays as it is written, so that no difference is hidden.
fn one_value_a_line(json: &str) -> String {
    let mut laid = String::with_capacity(json.len() * 2);
    let (mut depth, mut in_string, mut is_escaped) = (0_usize, false, false);
    let new_line = |laid: &mut String, depth: usize| {
        laid.push('\n');
        laid.extend(std::iter::repeat_n("  ", depth.min(40)));
    };
    let mut last = ' ';
    for c in json.chars() {
        if in_string {
            laid.push(c);
            in_string = c != '"' || is_escaped;
            is_escaped = c == '\\' && !is_escaped;
            continue;
        }
        match c {
            ' ' | '\t' | '\r' | '\n' => continue,
            '{' | '[' => {
                laid.push(c);
                depth += 1;
                new_line(&mut laid, depth);
            }
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                if matches!(last, '{' | '[') {
                    laid.truncate(laid.trim_end().len());
                } else {
                    new_line(&mut laid, depth);
                }
                laid.push(c);
            }
            ',' => {
                laid.push(c);
                new_line(&mut laid, depth);
            }
            ':' => laid.push_str(": "),
            c => {
                in_string = c == '"';
                laid.push(c);
            }
        }
        last = c;
    }
    laid.push('\n');
    laid
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(old: &str, new: &str) -> Vec<String> {
        let row = |row: Row| format!("{}{}", row.sign, row.text);
        rows(old, new).into_iter().map(row).collect()
    }

    #[test]
    fn json_of_one_line_is_compared_value_by_value() {
        let old = r#"{"order":"7","total":-90,"lines":[],"note":"a, b: {c}\""}"#;
        let new = r#"{"order": "7", "total": 90, "lines": [], "note":"a, b: {c}\""}"#;
        assert_eq!(
            shown(old, new),
            [
                " {",
                "   &quot;order&quot;: &quot;7&quot;,",
                "-  &quot;total&quot;: -90,",
                "+  &quot;total&quot;: 90,",
                "   &quot;lines&quot;: [],",
                "   &quot;note&quot;: &quot;a, b: {c}\\&quot;&quot;",
                " }",
            ]
        );
    }

    #[test]
    fn a_number_that_is_only_written_otherwise_is_a_difference() {
        assert_eq!(shown("[1.0]", "[1.00]"), [" [", "-  1.0", "+  1.00", " ]"]);
    }

    #[test]
    fn other_texts_are_compared_line_by_line_and_far_lines_are_left_out() {
        let text = |changed: &str| {
            let lines = (0..20).map(|n| if n == 10 { changed.to_owned() } else { n.to_string() });
            lines.collect::<Vec<_>>().join("\n")
        };
        assert_eq!(
            shown(&text("old"), &text("new")),
            [" 7", " 8", " 9", "-old", "+new", " 11", " 12", " 13"]
        );
        assert_eq!(shown("a\n<b>", "a\n<i>"), [" a", "-&lt;b&gt;", "+&lt;i&gt;"]);
    }
}
