//! Transactions in which handlers are tried: what was done in them is noted, nothing is committed,
//! and no hook or listener runs after them.

use super::{
    OutboxTransaction,
    open::joinable,
    state::FrameId,
    statement::{Change, bare, change_of},
    within,
};
use crate::{
    Outbox,
    error::{OutboxError, database},
    pool::is_missing_savepoint,
};
use async_trait::async_trait;
use outbox_core::{
    event::NewEvent,
    failure::full_text,
    outbox::{StoreError, TableChange, TrialEffects, TrialStore},
};
use sea_orm::{ConnectionTrait, DbErr, Statement};
use std::{collections::BTreeMap, time::Duration};

/// Longest wait for a lock in a try: others must not wait long behind what it has locked either.
const LOCK_WAIT: Duration = Duration::from_secs(1);
/// Tables that a try names; the changes of further ones are counted together.
const MOST_TABLES: usize = 200;
/// Refused calls that a try names.
const MOST_REFUSED: usize = 20;
/// The savepoint with which a try begins: when it is gone, so is the transaction.
const SAVEPOINT: &str = "SAVEPOINT outbox_trial";
/// Fails where it is gone.
const PROBE: &str = "RELEASE SAVEPOINT outbox_trial; SAVEPOINT outbox_trial";
/// What is said of a handler with a statement that ends transactions.
const ENDED: &str = "a statement of the handler has ended its transaction, so that a part of what \
    it did may be committed: look at the data, and give the handler the option `no_try`";

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

impl OutboxTransaction {
    /// Notes what a statement will change; refuses one that a rollback may not undo. Nothing is
    /// noted outside of a try.
    pub(super) fn trial_change(&self, sql: &str) -> Result<Option<Option<String>>, DbErr> {
        let mut state = self.shared.state.lock();
        if !state.is_trial() {
            return Ok(None);
        }
        match change_of(sql, self.outbox().schema().dialect().syntax()) {
            Change::Reads => Ok(None),
            Change::Writes(table) => Ok(Some(table)),
            Change::Refused { what, why } => {
                state.refused(&what, MOST_REFUSED);
                Err(DbErr::Custom(format!("a try of a handler refuses {what}, {why}")))
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

    /// Does what a commit does before COMMIT, and what a database would check in it.
    async fn prepare_trial(&self) -> Result<(), OutboxError> {
        let limit = self.shared.state.lock().trial_limit();
        within(self, self.prepare_within(limit)).await?;
        let Some(check) = self.outbox().schema().dialect().check_constraints_now() else {
            return Ok(());
        };
        self.run_on_driver(check).await?.map_err(OutboxError::Commit)
    }

    /// Runs a statement of the try itself: past the state of the transaction, which may be aborted.
    async fn run_on_driver(&self, sql: &'static str) -> Result<Result<(), DbErr>, OutboxError> {
        let mut turn = self.shared.take_turn().await?;
        let ran = self.shared.run_bounded(&mut turn, "a try", |txn| async move {
            txn.execute_unprepared(sql).await.map(drop)
        });
        Ok(ran.await)
    }

    /// Tells whether a statement has ended the transaction of a try: its savepoint is gone.
    async fn has_ended_early(&self) -> bool {
        // What the database has rolled back by itself has no savepoint either.
        if self.shared.state.lock().is_rolled_back() {
            return false;
        }
        let probed = self.run_on_driver(PROBE).await;
        matches!(probed, Ok(Err(error)) if is_missing_savepoint(&error))
    }

    /// Gives what a commit may check that a try cannot, where there is something.
    async fn unchecked(&self) -> Option<&'static str> {
        let dialect = self.outbox().schema().dialect();
        let (query, note) = dialect.checked_at_commit_alone()?;
        let query = Statement::from_string(dialect.backend(), query);
        let mut turn = self.shared.take_turn().await.ok()?;
        let row = self
            .shared
            .run_bounded(&mut turn, "a try", |txn| async move { txn.query_one_raw(query).await });
        let constraints: i64 = row.await.ok()??.try_get_by_index(0).ok()?;
        (constraints > 0).then_some(note)
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
        tx.run_on_driver(SAVEPOINT).await?.map_err(database)?;
        tx.shared.state.lock().begin_trial(limit);
        Ok(tx)
    }

    async fn end_trial(
        &self,
        tx: OutboxTransaction,
        is_done: bool,
    ) -> Result<TrialEffects, StoreError> {
        // First the savepoints inside of that of the try, which the probe releases.
        let verified = match is_done {
            true => tx.verify().await,
            false => Ok(()),
        };
        // Before the events are written, which would be committed one by one then.
        let has_ended = tx.has_ended_early().await;
        let prepared = match verified {
            Ok(()) if is_done && !has_ended => tx.prepare_trial().await,
            verified => verified,
        };
        let (effects, refused) = tx.shared.state.lock().take_effects();
        let schema = self.schema();
        let own =
            ["events", "scheduled", "dedup"].map(|table| schema.filled(&format!("{{{table}}}")));
        let is_own = |table: &str| own.iter().any(|own| bare(own).as_deref() == Some(table));
        let (tables, events) = effects.shown(is_own);
        let mut not_committable = prepared.err().map(|error| full_text(&error));
        let mut notes = Vec::new();
        if has_ended || (is_done && tx.has_ended_early().await) {
            not_committable = Some(ENDED.to_owned());
            notes.push(ENDED.to_owned());
        } else if is_done && not_committable.is_none() && !tables.is_empty() {
            notes.extend(tx.unchecked().await.map(str::to_owned));
        }
        tx.rollback_quietly().await;
        Ok(TrialEffects { tables, events, refused, not_committable, notes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
