//! Rust's tokens, as far as the invariants need them: no comments, and string literals as one token.

/// One token and its line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Token {
    pub(super) text: String,
    pub(super) line: usize,
}

/// Cuts a text into tokens. Comments are left out, documentation among them.
pub(super) fn tokens(text: &str) -> Vec<Token> {
    let mut found = Vec::new();
    let (mut rest, mut line) = (text, 1);
    while let Some(first) = rest.chars().next() {
        let (length, is_token) = match first {
            '/' if rest.starts_with("//") => (rest.find('\n').unwrap_or(rest.len()), false),
            '/' if rest.starts_with("/*") => (block_comment(rest), false),
            _ if first.is_whitespace() => (first.len_utf8(), false),
            '\'' => (quoted_char(rest), true),
            _ => (quoted(rest).unwrap_or_else(|| word(rest).max(first.len_utf8())), true),
        };
        let (token, after) = rest.split_at(length);
        if is_token {
            found.push(Token { text: token.to_owned(), line });
        }
        line += token.matches('\n').count();
        rest = after;
    }
    found
}

/// Length of the word or number that a text begins with; zero where there is none.
fn word(text: &str) -> usize {
    let raw = if text.starts_with("r#") { 2 } else { 0 };
    text[raw..]
        .find(|c: char| !c.is_alphanumeric() && c != '_')
        .map_or(text.len(), |end| if end == 0 { 0 } else { raw + end })
}

/// Length of the block comment that a text begins with; they nest.
fn block_comment(text: &str) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < text.len() {
        match &text.as_bytes()[at..] {
            [b'/', b'*', ..] => (depth, at) = (depth + 1, at + 2),
            [b'*', b'/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            break;
        }
    }
    at
}

/// Length of the text literal that a text begins with: plain, of bytes or for C, raw or not.
fn quoted(text: &str) -> Option<usize> {
    let prefix = ["br", "cr", "b", "c", "r", ""].into_iter().find(|prefix| {
        text.strip_prefix(prefix).is_some_and(|rest| rest.trim_start_matches('#').starts_with('"'))
    })?;
    let body = &text[prefix.len()..];
    let hashes = body.len() - body.trim_start_matches('#').len();
    let begun = prefix.len() + hashes + 1;
    if prefix.ends_with('r') {
        let end = format!("\"{}", "#".repeat(hashes));
        return Some(text[begun..].find(&end).map_or(text.len(), |at| begun + at + end.len()));
    }
    (hashes == 0).then(|| escaped_until(text, begun, b'"'))
}

/// Length of the character, or of the lifetime or label, that a text begins with.
fn quoted_char(text: &str) -> usize {
    let mut following = text.char_indices().skip(1);
    match (following.next(), following.next()) {
        (Some((_, '\\')), _) => escaped_until(text, 1, b'\''),
        (Some(_), Some((at, '\''))) => at + 1,
        _ => 1 + word(&text[1..]),
    }
}

/// Position after the next closing mark that no backslash stands before.
fn escaped_until(text: &str, from: usize, close: u8) -> usize {
    let bytes = text.as_bytes();
    let mut at = from;
    while at < bytes.len() && bytes[at] != close {
        at += if bytes[at] == b'\\' { 2 } else { 1 };
    }
    (at + 1).min(text.len())
}

#[cfg(test)]
mod tests {
    fn texts(text: &str) -> Vec<String> {
        super::tokens(text).into_iter().map(|token| token.text).collect()
    }

    #[test]
    fn comments_vanish_and_texts_stay_whole() {
        let text =
            "a/*x /* y */ \"*/b // c\n/// d\ne\"//f\\\"\"g r#\"h\"//\"#i b\"j\" br##\"k\"#\"##";
        let expected =
            ["a", "b", "e", "\"//f\\\"\"", "g", "r#\"h\"//\"#", "i", "b\"j\"", "br##\"k\"#\"##"];
        assert_eq!(texts(text), expected);
    }

    #[test]
    fn characters_are_told_from_lifetimes() {
        assert_eq!(
            texts(r#"'"' 'a' '\'' '\u{1F600}' 'é' &'a str 'outer: loop"#),
            [
                "'\"'",
                "'a'",
                "'\\''",
                "'\\u{1F600}'",
                "'é'",
                "&",
                "'a",
                "str",
                "'outer",
                ":",
                "loop"
            ]
        );
    }

    #[test]
    fn words_numbers_and_marks_are_cut_and_counted_by_line() {
        assert_eq!(
            texts("x.r#type::<u8>(0..10_u8)"),
            ["x", ".", "r#type", ":", ":", "<", "u8", ">", "(", "0", ".", ".", "10_u8", ")"]
        );
        let lines: Vec<usize> =
            super::tokens("a\n\"b\nc\" d\n\n/* \n */ e").iter().map(|token| token.line).collect();
        assert_eq!(lines, [1, 2, 3, 6]);
    }
}
