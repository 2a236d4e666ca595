//! The comparison of two contents, line by line.

use crate::page::{
    frame::json::lay_out,
    text::{Markup, lines},
};
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

/// Compares two contents. JSON is compared one value a line, also where it was written in one line:
/// no token of it is changed for that, so that no difference is hidden.
pub(super) fn rows(old: &str, new: &str) -> Vec<Row> {
    let (old, new) = match (lay_out(old), lay_out(new)) {
        (Some(old), Some(new)) => (old, new),
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
