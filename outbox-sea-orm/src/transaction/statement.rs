//! What a statement changes, as far as its text shows it: pure.

use super::lexer::{Code, behind_comment};
use crate::dialect::SqlSyntax;

/// Longest name of a table that is noted.
const LONGEST_NAME: usize = 255;

/// First words of statements that a rollback does not undo, or that end the transaction, on some of
/// the databases without being asked to.
///
/// # Source
/// MySQL manual, "Statements That Cause an Implicit Commit"; the same page of MariaDB.
const REFUSED: [&str; 32] = [
    "abort",
    "alter",
    "analyze",
    "begin",
    "cache",
    "change",
    "check",
    "commit",
    "create",
    "drop",
    "end",
    "execute",
    "flush",
    "grant",
    "install",
    "load",
    "lock",
    "optimize",
    "prepare",
    "purge",
    "rename",
    "repair",
    "reset",
    "revoke",
    "rollback",
    "start",
    "stop",
    "truncate",
    "uninstall",
    "unlock",
    "vacuum",
    "xa",
];
/// Words of a `SET` that ends the transaction, or outlasts the session.
const REFUSED_SETTINGS: [&str; 4] = ["autocommit", "global", "persist", "persist_only"];
/// How soon `INTO` stands behind `INSERT`, and `FROM` behind `DELETE`: options stand between them.
const OPTIONS_BETWEEN: usize = 4;

/// Which table a statement changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Change {
    /// None: it only reads.
    Reads,
    /// This one, or one that the statement does not show.
    Writes(Option<String>),
    /// A try refuses it.
    Refused {
        /// What is refused.
        what: String,
        /// Why.
        why: &'static str,
    },
}

impl Change {
    fn statement(what: &str) -> Self {
        let why = "which a rollback does not undo on every database";
        Self::Refused { what: format!("the statement `{what}`"), why }
    }
}

/// Tells which table a statement changes, by its first words. `syntax` says how strings and
/// comments are written.
pub(super) fn change_of(sql: &str, syntax: SqlSyntax) -> Change {
    let code = Code::of(sql, syntax);
    if code.has_several {
        let why = "of which one may end its transaction: run each by itself";
        return Change::Refused { what: "several statements in one text".to_owned(), why };
    }
    if code.has_hidden {
        let why = "which may end its transaction: write the statement without the comment";
        return Change::Refused { what: "code in a comment".to_owned(), why };
    }
    let mut words = Words { rest: sql, syntax };
    words.next_word();
    match code.words.first().map_or("", String::as_str) {
        "select" | "show" | "explain" | "describe" | "desc" | "pragma" | "values" | "savepoint"
        | "release" => Change::Reads,
        "set" => match code.refused_setting() {
            Some(setting) => Change::statement(&format!("set {setting}")),
            None => Change::Reads,
        },
        "with" if !code.writes() => Change::Reads,
        "insert" | "replace" | "merge" => Change::Writes(words.after("into")),
        "delete" => Change::Writes(words.after("from")),
        "update" => Change::Writes(words.name_after_options()),
        // To a savepoint.
        "rollback" if code.words.iter().any(|word| word == "to") => Change::Reads,
        verb if REFUSED.contains(&verb) => Change::statement(verb),
        _ => Change::Writes(None),
    }
}

impl Code {
    /// Gives what a `SET` sets that a try refuses.
    fn refused_setting(&self) -> Option<&str> {
        let password = self.words.get(1).filter(|word| *word == "password");
        let refused = |word: &&String| REFUSED_SETTINGS.contains(&word.as_str());
        password.or_else(|| self.words.iter().find(refused)).map(String::as_str)
    }

    /// Tells whether a part of the statement changes rows. `FOR UPDATE` only locks them, and
    /// `replace` is a function too.
    fn writes(&self) -> bool {
        let is_followed = |at: usize, by: &str| {
            self.words[at + 1..].iter().take(OPTIONS_BETWEEN).any(|word| word == by)
        };
        let locks = |at: usize| {
            at.checked_sub(1).is_some_and(|before| matches!(&*self.words[before], "for" | "key"))
        };
        let changes = |(at, word): (usize, &String)| match word.as_str() {
            "insert" | "replace" | "merge" => is_followed(at, "into"),
            "delete" => is_followed(at, "from"),
            "update" => !locks(at),
            _ => false,
        };
        self.words.iter().enumerate().any(changes)
    }
}

/// The words of a statement, one after another. Names in quotes are one word with their quotes.
struct Words<'a> {
    rest: &'a str,
    syntax: SqlSyntax,
}

impl<'a> Words<'a> {
    fn next_word(&mut self) -> Option<&'a str> {
        let between = |c: char| c.is_whitespace() || c == '(';
        let mut rest = self.rest.trim_start_matches(between);
        while let Some(behind) = behind_comment(rest, self.syntax) {
            rest = behind.trim_start_matches(between);
        }
        let end = match rest.chars().next()? {
            '"' | '`' | '[' => quoted_end(rest),
            _ => {
                let ends = |(at, c): (usize, char)| {
                    let is_comment = behind_comment(&rest[at..], self.syntax).is_some();
                    (is_comment || c.is_whitespace() || "(),;".contains(c)).then_some(at)
                };
                rest.char_indices().find_map(ends).unwrap_or(rest.len())
            }
        };
        let (word, rest) = rest.split_at(end);
        self.rest = rest;
        Some(word).filter(|word| !word.is_empty())
    }

    /// Gives the name behind a word, which stands within the next few.
    fn after(&mut self, word: &str) -> Option<String> {
        for _ in 0..5 {
            if self.next_word()?.eq_ignore_ascii_case(word) {
                return self.name_after_options();
            }
        }
        None
    }

    /// Gives the name behind options such as `ONLY`, `IGNORE` and `OR REPLACE`.
    fn name_after_options(&mut self) -> Option<String> {
        const OPTIONS: [&str; 9] = [
            "only",
            "ignore",
            "low_priority",
            "or",
            "rollback",
            "abort",
            "replace",
            "fail",
            "quick",
        ];
        for _ in 0..4 {
            let word = self.next_word()?;
            if !OPTIONS.iter().any(|option| word.eq_ignore_ascii_case(option)) {
                return bare(word);
            }
        }
        None
    }
}

/// Gives the end of a name in quotes, with the names that a dot joins to it.
fn quoted_end(text: &str) -> usize {
    let mut inside = None;
    for (at, c) in text.char_indices() {
        match (inside, c) {
            (Some(close), c) if c == close => inside = None,
            (Some(_), _) => {}
            (None, '"' | '`') => inside = Some(c),
            (None, '[') => inside = Some(']'),
            (None, c) if c.is_whitespace() || "(),;".contains(c) => return at,
            (None, _) => {}
        }
    }
    text.len()
}

/// Gives a name without its quotes.
pub(super) fn bare(word: &str) -> Option<String> {
    let name: String = word.chars().filter(|c| !"\"`[]".contains(*c)).collect();
    (!name.is_empty() && name.len() <= LONGEST_NAME && !name.chars().any(char::is_control))
        .then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_a_statement_is_found_by_its_first_words() {
        let writes = |table: &str| Change::Writes(Some(table.to_owned()));
        for (sql, expected) in [
            ("INSERT INTO bills (id) VALUES (1)", writes("bills")),
            ("insert ignore into `bills`(`id`) values (1)", writes("bills")),
            ("INSERT OR REPLACE INTO \"bills\" VALUES (1)", writes("bills")),
            ("REPLACE INTO bills VALUES (1)", writes("bills")),
            ("UPDATE \"shop\".\"big bills\" SET a = 1", writes("shop.big bills")),
            ("UPDATE ONLY bills SET a = 1", writes("bills")),
            ("UPDATE OR IGNORE bills SET a = 1", writes("bills")),
            (" \n/* why */ DELETE FROM ONLY [bills] WHERE a = 1", writes("bills")),
            ("-- why\n-- and how\nDELETE FROM bills", writes("bills")),
            ("MERGE INTO bills USING other ON 1 = 1", writes("bills")),
            ("DELETE/**/FROM/* /* why */ */bills--so", writes("bills")),
            ("INSERT INTO bills (note) VALUES ('a; COMMIT'); ", writes("bills")),
            ("INSERT INTO bills (note) VALUES ('it''s; so') -- ; DROP", writes("bills")),
            ("INSERT INTO bills (note) VALUES ($$a; COMMIT$$)", writes("bills")),
            ("INSERT INTO bills (note) VALUES ($t$a; $$ COMMIT$t$)", writes("bills")),
            ("INSERT INTO bills (note) VALUES (E'a\\'; COMMIT')", writes("bills")),
            ("UPDATE bills SET note = $1 WHERE id = $2;", writes("bills")),
            ("SELECT 1", Change::Reads),
            ("(SELECT 1) UNION (SELECT 2)", Change::Reads),
            ("SET LOCAL lock_timeout = 1", Change::Reads),
            ("ROLLBACK TO SAVEPOINT mine", Change::Reads),
            ("rollback work to mine", Change::Reads),
            ("WITH old AS (SELECT * FROM bills) SELECT * FROM old", Change::Reads),
            ("WITH old AS (SELECT 1) SELECT * FROM old FOR NO KEY UPDATE", Change::Reads),
            ("WITH old AS (SELECT 'delete from bills') SELECT 1", Change::Reads),
            ("WITH old AS (SELECT replace(a, 'b', 'c') FROM bills) SELECT 1", Change::Reads),
            ("WITH old AS (DELETE FROM bills RETURNING *) SELECT 1", Change::Writes(None)),
            ("WITH old AS (SELECT 1) UPDATE bills SET a = 1", Change::Writes(None)),
            ("CALL book(7)", Change::Writes(None)),
            ("UPDATE", Change::Writes(None)),
            ("", Change::Writes(None)),
        ] {
            assert_eq!(change_of(sql, SqlSyntax::Postgres), expected, "{sql}");
        }
        for (sql, expected) in [
            ("# why\nDELETE FROM bills", writes("bills")),
            ("-- why\nDELETE FROM bills", writes("bills")),
            ("INSERT INTO bills (note) VALUES ('it\\'s; so')", writes("bills")),
            ("SELECT 5--1", Change::Reads),
        ] {
            assert_eq!(change_of(sql, SqlSyntax::MySql), expected, "{sql}");
        }
    }

    #[test]
    fn what_may_end_a_transaction_is_refused_by_name() {
        for (sql, expected) in [
            ("CREATE TABLE t (a int)", "the statement `create`"),
            ("Commit", "the statement `commit`"),
            ("TRUNCATE bills", "the statement `truncate`"),
            ("-- nothing\nCOMMIT", "the statement `commit`"),
            ("COMMIT/* so */", "the statement `commit`"),
            ("COMMIT--so", "the statement `commit`"),
            ("/* /* */ */ COMMIT", "the statement `commit`"),
            ("ROLLBACK to$x", "the statement `rollback`"),
            ("SELECT a$b$; COMMIT; SELECT a$b$", "several statements in one text"),
            ("ROLLBACK", "the statement `rollback`"),
            ("END", "the statement `end`"),
            ("abort", "the statement `abort`"),
            ("PREPARE TRANSACTION 'a'", "the statement `prepare`"),
            ("EXECUTE IMMEDIATE 'COMMIT'", "the statement `execute`"),
            ("LOAD DATA INFILE 'a' INTO TABLE bills", "the statement `load`"),
            ("OPTIMIZE TABLE bills", "the statement `optimize`"),
            ("ANALYZE TABLE bills", "the statement `analyze`"),
            ("REPAIR TABLE bills", "the statement `repair`"),
            ("FLUSH TABLES", "the statement `flush`"),
            ("SET PASSWORD = 'a'", "the statement `set password`"),
            ("SET autocommit=1", "the statement `set autocommit`"),
            ("SET @@session.autocommit = 1", "the statement `set autocommit`"),
            ("SET lock_timeout = 1, autocommit = 1", "the statement `set autocommit`"),
            ("SET @@global.max_connections = 1", "the statement `set global`"),
            ("SELECT 1; COMMIT", "several statements in one text"),
            ("DELETE FROM bills;-- so\n;COMMIT", "several statements in one text"),
            ("SELECT 'a\\'; COMMIT; SELECT ''", "several statements in one text"),
        ] {
            let Change::Refused { what, .. } = change_of(sql, SqlSyntax::Postgres) else {
                panic!("{sql}")
            };
            assert_eq!(what, expected, "{sql}");
        }
        for (sql, expected) in [
            ("# nothing\nCOMMIT", "the statement `commit`"),
            ("/*!50000 COMMIT */", "code in a comment"),
            ("SELECT 1 /*M! ; */", "code in a comment"),
            ("SELECT 5--1; COMMIT", "several statements in one text"),
        ] {
            let Change::Refused { what, .. } = change_of(sql, SqlSyntax::MySql) else {
                panic!("{sql}")
            };
            assert_eq!(what, expected, "{sql}");
        }
    }

    #[test]
    fn no_text_is_too_strange() {
        for sql in
            ["'", "\"", "`", "$", "/*", "--", "#", "\\", "E'", "é'", ";;;", "[", "a--", "a/*"]
        {
            for syntax in [SqlSyntax::Postgres, SqlSyntax::MySql, SqlSyntax::Sqlite] {
                let _: Change = change_of(sql, syntax);
            }
        }
    }
}
