//! What stands in the text of a statement outside of strings, names in quotes and comments: pure.
//!
//! Its rules are those of each database's own lexer: what this one takes for a comment or a string,
//! and the server for code, could end a transaction unseen. PostgreSQL's rules are those with
//! `standard_conforming_strings`, MySQL's those without `NO_BACKSLASH_ESCAPES` and `ANSI_QUOTES`, which
//! are the defaults.

use crate::dialect::SqlSyntax;

/// What stands in a text outside of strings, names in quotes and comments.
#[derive(Debug, Default)]
pub(super) struct Code {
    /// Its words and numbers, in lower case.
    pub(super) words: Vec<String>,
    /// Whether something stands behind the end of a statement.
    pub(super) has_several: bool,
    /// Whether there is a comment that the server runs.
    pub(super) has_hidden: bool,
}

impl Code {
    pub(super) fn of(sql: &str, syntax: SqlSyntax) -> Self {
        let (mut code, mut rest, mut is_over) = (Self::default(), sql, false);
        while let Some(first) = rest.chars().next() {
            if let Some(behind) = behind_comment(rest, syntax) {
                let is_run = ["/*!", "/*M!"].iter().any(|begin| rest.starts_with(begin));
                code.has_hidden |= is_run && syntax.runs_comments();
                rest = behind;
                continue;
            }
            code.has_several |= is_over && !first.is_ascii_whitespace() && first != ';';
            is_over |= first == ';';
            rest = if is_of_word(first) {
                code.take_word(rest, syntax)
            } else {
                behind_quotes(rest, syntax).unwrap_or(&rest[first.len_utf8()..])
            };
        }
        code
    }

    /// Takes the word or number with which the text begins; gives what stands behind it.
    fn take_word<'a>(&mut self, text: &'a str, syntax: SqlSyntax) -> &'a str {
        // A `$` is part of a name, and no part of a number, behind which it may begin a string.
        let is_number = text.starts_with(|c: char| c.is_ascii_digit());
        let is_inside = |c: char| match is_number {
            true => c.is_ascii_digit(),
            false => is_of_word(c) || c == '$',
        };
        let end = text.find(|c: char| !is_inside(c)).unwrap_or(text.len());
        let (word, behind) = text.split_at(end);
        self.words.push(word.to_ascii_lowercase());
        let has_escapes = syntax.has_escape_strings()
            && word.eq_ignore_ascii_case("e")
            && behind.starts_with('\'');
        if has_escapes { behind_escape_string(behind) } else { behind }
    }
}

/// Tells whether a character may begin a name: beyond ASCII all of them.
fn is_of_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || !c.is_ascii()
}

/// Gives what stands behind a comment with which the text begins.
pub(super) fn behind_comment(text: &str, syntax: SqlSyntax) -> Option<&str> {
    if text.starts_with("/*") {
        return Some(behind_block(text, syntax.nests_comments()));
    }
    let is_line = match text.strip_prefix("--") {
        Some(comment) => {
            let is_space = |c: char| c.is_ascii_whitespace() || c.is_ascii_control();
            !syntax.comments_need_space() || comment.chars().next().is_none_or(is_space)
        }
        None => syntax.has_hash_comments() && text.starts_with('#'),
    };
    is_line.then(|| behind_line(text, syntax))
}

/// Gives what stands behind a `/* .. */`.
fn behind_block(text: &str, nests: bool) -> &str {
    let (mut depth, mut at) = (1_usize, 2);
    while let Some(two) = text.as_bytes().get(at..at + 2) {
        if two == b"*/" {
            (depth, at) = (depth - 1, at + 2);
            if depth == 0 {
                return &text[at..];
            }
        } else if nests && two == b"/*" {
            (depth, at) = (depth + 1, at + 2);
        } else {
            at += 1;
        }
    }
    ""
}

/// Gives what stands behind the end of a line.
fn behind_line(text: &str, syntax: SqlSyntax) -> &str {
    let is_end = |c: char| c == '\n' || (c == '\r' && syntax.ends_lines_by_return());
    text.find(is_end).map_or("", |end| &text[end + 1..])
}

/// Gives what stands behind a string, or a name in quotes, with which the text begins.
fn behind_quotes(text: &str, syntax: SqlSyntax) -> Option<&str> {
    match text.chars().next()? {
        quote @ ('\'' | '"') => Some(behind_quote(text, quote, syntax.escapes_by_backslash())),
        '`' if syntax.has_backticks() => Some(behind_quote(text, '`', false)),
        '[' if syntax.has_brackets() => Some(text.split_once(']').map_or("", |(_, behind)| behind)),
        '$' if syntax.has_dollar_strings() => behind_dollar_string(text),
        _ => None,
    }
}

/// Gives what stands behind the quote that ends what a quote has begun; a doubled one is part of it.
fn behind_quote(text: &str, quote: char, with_backslash: bool) -> &str {
    let mut chars = text.char_indices().skip(1).peekable();
    while let Some((at, c)) = chars.next() {
        if c == '\\' && with_backslash {
            chars.next();
        } else if c == quote && chars.next_if(|(_, next)| *next == quote).is_none() {
            return &text[at + quote.len_utf8()..];
        }
    }
    ""
}

/// Gives what stands behind the quotes of a PostgreSQL string `E'..'`, with the parts in which it goes
/// on: they have escapes too.
fn behind_escape_string(text: &str) -> &str {
    let mut rest = behind_quote(text, '\'', true);
    while let Some(part) = next_part(rest) {
        rest = behind_quote(part, '\'', true);
    }
    rest
}

/// Gives the next part of a PostgreSQL string: the quote behind white space with a line break.
fn next_part(text: &str) -> Option<&str> {
    let (mut rest, mut is_broken) = (text, false);
    loop {
        let next = rest.trim_start_matches([' ', '\t', '\n', '\r', '\x0b', '\x0c']);
        is_broken |= rest[..rest.len() - next.len()].contains(['\n', '\r']);
        if !next.starts_with("--") {
            return Some(next).filter(|next| is_broken && next.starts_with('\''));
        }
        // The line break stays.
        rest = &next[next.find(['\n', '\r'])?..];
    }
}

/// Gives what stands behind a PostgreSQL string between two `$tag$`.
fn behind_dollar_string(text: &str) -> Option<&str> {
    let name_end = 1 + text[1..].find(|c: char| !is_of_word(c))?;
    let is_parameter = text[1..].starts_with(|c: char| c.is_ascii_digit());
    if is_parameter || !text[name_end..].starts_with('$') {
        return None;
    }
    let (tag, inside) = text.split_at(name_end + 1);
    Some(inside.split_once(tag).map_or("", |(_, behind)| behind))
}

#[cfg(test)]
mod tests {
    use super::*;
    use SqlSyntax::{MySql, Postgres, Sqlite};

    /// On which databases a text has a second statement.
    const NONE: &[SqlSyntax] = &[];
    const ALL: &[SqlSyntax] = &[Postgres, MySql, Sqlite];

    #[test]
    fn a_second_statement_is_seen_where_the_database_sees_it() {
        for (sql, several) in [
            ("SELECT 1;", NONE),
            ("SELECT 1; -- so\n /* so */ ;", NONE),
            ("SELECT 1; COMMIT", ALL),
            // Comments.
            ("SELECT 1 /* ; COMMIT */", NONE),
            ("SELECT 1 /* /* */ ; COMMIT */", &[MySql, Sqlite]),
            ("SELECT 1 /* /* /**/ */ */ ; COMMIT", ALL),
            ("SELECT 1 /*/ ; COMMIT */", NONE),
            ("SELECT 1 -- ; COMMIT", NONE),
            ("SELECT 1 --\t; COMMIT", NONE),
            ("SELECT 1 --; COMMIT", &[MySql]),
            ("SELECT 1 --x\n; COMMIT", ALL),
            ("SELECT 1 -- so\r; COMMIT", &[Postgres]),
            ("SELECT 1 # ; COMMIT", &[Postgres, Sqlite]),
            // Strings.
            ("SELECT 'it''s; COMMIT'", NONE),
            ("SELECT 'a\\'; COMMIT'", &[Postgres, Sqlite]),
            ("SELECT 'a\\'; COMMIT; SELECT ''", &[Postgres, Sqlite]),
            ("SELECT E'a\\'; COMMIT'", &[Sqlite]),
            ("SELECT xe'a\\'; COMMIT; SELECT ''", &[Postgres, Sqlite]),
            ("SELECT E'a'\n'\\'; COMMIT'", &[Sqlite]),
            ("SELECT E'a' -- so\n '\\'' ; COMMIT --'", &[Postgres, MySql]),
            ("SELECT E'a' '\\'; COMMIT; SELECT ''", &[Postgres, Sqlite]),
            ("SELECT U&'\\0041; COMMIT'", NONE),
            ("SELECT U&'\\'; COMMIT; SELECT U&''", &[Postgres, Sqlite]),
            // Between dollars.
            ("SELECT $$; COMMIT$$", &[MySql, Sqlite]),
            ("SELECT $a$; $$ COMMIT$a$", &[MySql, Sqlite]),
            ("SELECT $1$a$; COMMIT$a$", &[MySql, Sqlite]),
            ("SELECT 1$a$; COMMIT$a$", &[MySql, Sqlite]),
            ("SELECT $1$; COMMIT; SELECT $1$", ALL),
            ("SELECT a$b$; COMMIT; SELECT a$b$", ALL),
            ("SELECT €$b$; COMMIT; SELECT €$b$", ALL),
            // Names in quotes.
            ("SELECT \"a;\"\"b\"", NONE),
            ("SELECT \"a\\\"; COMMIT; SELECT \"\"", &[Postgres, Sqlite]),
            ("SELECT `a; COMMIT`", &[Postgres]),
            ("SELECT [a; COMMIT]", &[Postgres, MySql]),
            ("SELECT [a'b]; COMMIT; SELECT [a'b]", &[Sqlite]),
        ] {
            for syntax in ALL {
                let seen = Code::of(sql, *syntax).has_several;
                assert_eq!(seen, several.contains(syntax), "{syntax:?}: {sql}");
            }
        }
    }

    #[test]
    fn words_are_what_stands_outside_of_strings_and_comments() {
        for (sql, syntax, words) in [
            ("COMMIT/* so */", Postgres, &["commit"][..]),
            ("commit--so", Postgres, &["commit"]),
            ("/* /* */ COMMIT */ SELECT 1", Postgres, &["select", "1"]),
            ("/* /* */ COMMIT */ SELECT 1", Sqlite, &["commit", "select", "1"]),
            ("ROLLBACK to$x", Postgres, &["rollback", "to$x"]),
            (
                "SELECT a FROM b WHERE c = $1",
                Postgres,
                &["select", "a", "from", "b", "where", "c", "1"],
            ),
            ("SELECT 'to', \"to\"", Sqlite, &["select"]),
        ] {
            assert_eq!(Code::of(sql, syntax).words, words, "{syntax:?}: {sql}");
        }
    }

    #[test]
    fn a_comment_that_the_server_runs_is_code() {
        for (sql, runs) in [
            ("/*!50000 COMMIT */", true),
            ("SELECT 1 /*M! ; */", true),
            ("SELECT 1 /* ! */", false),
        ] {
            for syntax in ALL {
                let hidden = Code::of(sql, *syntax).has_hidden;
                assert_eq!(hidden, runs && *syntax == MySql, "{syntax:?}: {sql}");
            }
        }
    }

    #[test]
    fn no_text_is_too_strange() {
        for sql in [
            "'", "\"", "`", "$", "$a", "$$", "$é$", "/*", "/*/", "/* /* */", "--", "#", "\\", "E'",
            "E''\n", "E'' --", "é'ö", ";;;", "[", "1$", "1ö",
        ] {
            for syntax in ALL {
                assert!(!Code::of(sql, *syntax).has_several, "{syntax:?}: {sql}");
            }
        }
    }
}
