//! Transactions in which handlers are tried: what was done in them is noted, nothing is committed,
//! and no hook or listener runs after them.

use super::{OutboxTransaction, open::joinable, state::FrameId, within};
use crate::{Outbox, error::OutboxError};
use async_trait::async_trait;
use outbox_core::{
    event::NewEvent,
    failure::full_text,
    outbox::{StoreError, TableChange, TrialEffects, TrialStore},
};
use sea_orm::DbErr;
use std::{collections::BTreeMap, time::Duration};

/// Longest wait for a lock in a try: others must not wait long behind what it has locked either.
const LOCK_WAIT: Duration = Duration::from_secs(1);
/// Tables that a try names; the changes of further ones are counted together.
const MOST_TABLES: usize = 200;
/// Longest name of a table that is noted.
const LONGEST_NAME: usize = 255;
/// Refused calls that a try names.
const MOST_REFUSED: usize = 20;

/// What was done in a frame of a transaction that is tried.
#[derive(Debug, Default)]
pub(super) struct Effects {
    /// Changed rows by table; `None` for a table that is not known. A number that is not known is
    /// `None`, and so is the sum.
    tables: BTreeMap<Option<String>, Option<u64>>,
    events: Vec<NewEvent>,
}

impl Effects {
    /// Notes rows that a statement has changed.
    pub(super) fn changed(&mut self, table: Option<String>, rows: Option<u64>) {
        let is_full = self.tables.len() >= MOST_TABLES && !self.tables.contains_key(&table);
        let sum = self.tables.entry(table.filter(|_| !is_full)).or_insert(Some(0));
        *sum = sum.zip(rows).map(|(sum, rows)| sum.saturating_add(rows));
    }

    /// Adds what was done in a savepoint that was released.
    pub(super) fn absorb(&mut self, inner: Self) {
        for (table, rows) in inner.tables {
            self.changed(table, rows);
        }
        self.events.extend(inner.events);
    }

    /// Lists the tables, without those of the outbox itself, whose rows are shown as events.
    fn shown(self, is_own: impl Fn(&str) -> bool) -> (Vec<TableChange>, Vec<NewEvent>) {
        let (known, unknown): (Vec<_>, Vec<_>) =
            self.tables.into_iter().partition(|(table, _)| table.is_some());
        let changes = known.into_iter().chain(unknown);
        let tables = changes
            .filter(|(table, rows)| *rows != Some(0) && !table.as_deref().is_some_and(&is_own))
            .map(|(table, rows)| TableChange { table, rows });
        (tables.collect(), self.events)
    }
}

/// Which table a statement changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Change {
    /// None: it only reads.
    Reads,
    /// This one, or one that the statement does not show.
    Writes(Option<String>),
    /// The statement cannot be rolled back on every database.
    Refused(String),
}

/// Tells which table a statement changes, by its first words.
pub(super) fn change_of(sql: &str) -> Change {
    let mut words = Words(sql);
    let verb = words.next_word().unwrap_or_default().to_ascii_lowercase();
    match verb.as_str() {
        "select" | "show" | "explain" | "describe" | "desc" | "pragma" | "set" | "values"
        | "savepoint" | "release" => Change::Reads,
        "insert" | "replace" | "merge" => Change::Writes(words.after("into")),
        "delete" => Change::Writes(words.after("from")),
        "update" => Change::Writes(words.name_after_options()),
        // Some of them end the transaction on MySQL and MariaDB, without being asked to.
        "create" | "drop" | "alter" | "truncate" | "rename" | "begin" | "start" | "commit"
        | "lock" | "unlock" | "grant" | "revoke" => Change::Refused(verb),
        _ => Change::Writes(None),
    }
}

/// The words of a statement, one after another. Names in quotes are one word with their quotes.
struct Words<'a>(&'a str);

impl<'a> Words<'a> {
    fn next_word(&mut self) -> Option<&'a str> {
        let mut rest = self.0.trim_start_matches(|c: char| c.is_whitespace() || c == '(');
        while let Some(comment) = rest.strip_prefix("/*") {
            rest = comment.split_once("*/")?.1.trim_start();
        }
        let end = match rest.chars().next()? {
            '"' | '`' | '[' => quoted_end(rest),
            _ => rest.find(|c: char| c.is_whitespace() || "(),;".contains(c)).unwrap_or(rest.len()),
        };
        let (word, rest) = rest.split_at(end);
        self.0 = rest;
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
fn bare(word: &str) -> Option<String> {
    let name: String = word.chars().filter(|c| !"\"`[]".contains(*c)).collect();
    (!name.is_empty() && name.len() <= LONGEST_NAME && !name.chars().any(char::is_control))
        .then_some(name)
}

impl OutboxTransaction {
    /// Notes what a statement will change; refuses one that a rollback may not undo. Nothing is
    /// noted outside of a try.
    pub(super) fn trial_change(&self, sql: &str) -> Result<Option<Option<String>>, DbErr> {
        let mut state = self.shared.state.lock();
        if !state.is_trial() {
            return Ok(None);
        }
        match change_of(sql) {
            Change::Reads => Ok(None),
            Change::Writes(table) => Ok(Some(table)),
            Change::Refused(verb) => {
                state.refused(&format!("the statement `{verb}`"), MOST_REFUSED);
                Err(DbErr::Custom(format!(
                    "a try of a handler refuses the statement `{verb}`, which a rollback does not undo on every database"
                )))
            }
        }
    }

    /// Notes what a statement has changed.
    pub(super) fn note_change(&self, table: Option<Option<String>>, rows: Option<u64>) {
        let Some(table) = table else { return };
        if let Some(effects) = self.shared.state.lock().effects(self.frame.id) {
            effects.changed(table, rows);
        }
    }
}

/// Refuses a transaction of its own inside of a try, which would not be rolled back.
///
/// # Errors
/// [`OutboxError::InTrial`] with the call.
pub(crate) fn refuse_in_trial(outbox: &Outbox, call: &'static str) -> Result<(), OutboxError> {
    let Some(around) = joinable(outbox) else { return Ok(()) };
    let mut state = around.shared.state.lock();
    if !state.is_trial() {
        return Ok(());
    }
    state.refused(call, MOST_REFUSED);
    Err(OutboxError::InTrial { call })
}

/// Notes events that are written inside of a try.
pub(crate) fn note_events<'a>(outbox: &Outbox, events: impl Iterator<Item = &'a NewEvent>) {
    let Some(around) = joinable(outbox) else { return };
    let id: FrameId = around.frame.id;
    if let Some(effects) = around.shared.state.lock().effects(id) {
        effects.events.extend(events.cloned());
    }
}

#[async_trait]
impl TrialStore<OutboxTransaction> for Outbox {
    async fn begin_trial(&self, limit: Duration) -> Result<OutboxTransaction, StoreError> {
        // SQLite's write lock is taken by the first write: a handler that only reads, or waits for
        // something else first, keeps no writer waiting.
        let limits = self.work().limits().lock_wait(LOCK_WAIT).statement(limit);
        let tx = self.begin_work_deferred(Some(limits)).await?;
        tx.shared.state.lock().begin_trial();
        Ok(tx)
    }

    async fn end_trial(
        &self,
        tx: OutboxTransaction,
        is_done: bool,
    ) -> Result<TrialEffects, StoreError> {
        let prepared = match is_done {
            true => within(&tx, tx.prepare()).await,
            false => Ok(()),
        };
        let (effects, refused) = tx.shared.state.lock().take_effects();
        let schema = self.schema();
        let own =
            ["events", "scheduled", "dedup"].map(|table| schema.filled(&format!("{{{table}}}")));
        let is_own = |table: &str| own.iter().any(|own| bare(own).as_deref() == Some(table));
        let (tables, events) = effects.shown(is_own);
        tx.rollback_quietly().await;
        let not_committable = prepared.err().map(|error| full_text(&error));
        Ok(TrialEffects { tables, events, refused, not_committable })
    }
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
            ("MERGE INTO bills USING other ON 1 = 1", writes("bills")),
            ("SELECT 1", Change::Reads),
            ("(SELECT 1) UNION (SELECT 2)", Change::Reads),
            ("SET LOCAL lock_timeout = 1", Change::Reads),
            ("WITH old AS (DELETE FROM bills RETURNING *) SELECT 1", Change::Writes(None)),
            ("CALL book(7)", Change::Writes(None)),
            ("UPDATE", Change::Writes(None)),
            ("", Change::Writes(None)),
            ("CREATE TABLE t (a int)", Change::Refused("create".to_owned())),
            ("Commit", Change::Refused("commit".to_owned())),
            ("TRUNCATE bills", Change::Refused("truncate".to_owned())),
        ] {
            assert_eq!(change_of(sql), expected, "{sql}");
        }
    }

    #[test]
    fn rows_are_added_up_by_table_and_a_number_that_is_not_known_stays_so() {
        let (mut outer, mut inner) = (Effects::default(), Effects::default());
        let bills = || Some("bills".to_owned());
        outer.changed(bills(), Some(2));
        outer.changed(Some("outbox_events".to_owned()), Some(1));
        outer.changed(Some("untouched".to_owned()), Some(0));
        inner.changed(bills(), Some(1));
        inner.changed(None, None);
        inner.changed(None, Some(4));
        outer.absorb(inner);
        let (tables, _) = outer.shown(|table| table == "outbox_events");
        let change = |table, rows| TableChange { table, rows };
        assert_eq!(tables, [change(bills(), Some(3)), change(None, None)]);

        let mut many = Effects::default();
        for table in 0..MOST_TABLES + 10 {
            many.changed(Some(format!("t{table}")), Some(1));
        }
        let (tables, _) = many.shown(|_| false);
        assert_eq!(tables.len(), MOST_TABLES + 1);
        assert_eq!(tables.last(), Some(&change(None, Some(10))));
    }
}
