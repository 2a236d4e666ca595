//! An operator's questions: what the store has, by reads that are bounded in rows and bytes, and by
//! keys and windows of keys, so that none walks a table.

mod overview;
mod events;
mod letters;
mod groups;
mod lists;
mod find;
mod history;
mod facts;
mod commands;
mod samples;
mod tail;

use crate::{
    error::database,
    outbox::Outbox,
    pool::{DbErrorClass, classify},
    schema::decode::history as errors_of,
};
use async_trait::async_trait;
pub(crate) use letters::oldest_open;
pub(crate) use lists::{oldest_deferred, senders};
use outbox_core::{
    admin::{
        Bounded, CommandFacts, DeadLetterFilter, DeferredView, Facts, Found, History, InboxView,
        InspectStore, LetterGroup, ListStore, Overview, Page, ScheduledView, Subject, safe_text,
    },
    event::{LetterId, MessageId, SENSITIVE, Timestamp},
    failure::{AttemptError, DeadLetter},
    outbox::StoreError,
    saga::CommandId,
};
pub(crate) use overview::{coordinators, instances, partition_owners, relays, running_parts};
use sea_orm::{ConnectionTrait, DbErr, QueryResult, TryGetable, Value};

/// Rows of a window in which something without an index is searched.
pub(crate) const WINDOW: i64 = 10_000;
/// Longest text of a column that a read takes; a longer one counts as absent. The longest history of
/// errors that the framework writes has 12 KiB.
pub(crate) const LONGEST_TEXT: usize = 64 * 1024;
/// Longest error or reason that a view shows, in bytes.
const LONGEST_ERROR: usize = 300;
/// Longest name or key that a view shows, in bytes.
const LONGEST_NAME: usize = 255;
/// What stands for the error of a message that is marked as sensitive.
const HIDDEN: &str = "(hidden)";
/// Most rows of a page: with the longest texts of [`safe_text`] it has 4 MiB at most.
const LONGEST_PAGE: u32 = 1_000;

#[async_trait]
impl InspectStore for Outbox {
    async fn overview(&self) -> Result<Overview, StoreError> {
        overview::overview(self).await
    }

    async fn find(&self, text: &str) -> Result<Vec<Found>, StoreError> {
        find::find(self, text).await
    }

    async fn history(&self, subject: &Subject, limit: u32) -> Result<History, StoreError> {
        history::history(self, subject, limit).await
    }

    async fn facts(&self, subject: &Subject) -> Result<Option<Facts>, StoreError> {
        facts::facts(self, subject).await
    }

    async fn command_facts(&self, command: &CommandId) -> Result<Option<CommandFacts>, StoreError> {
        commands::command_facts(self, command).await.map(Some)
    }

    async fn letter_groups(
        &self,
        filter: &DeadLetterFilter,
    ) -> Result<Vec<LetterGroup>, StoreError> {
        groups::letter_groups(self, filter).await
    }
}

#[async_trait]
impl ListStore for Outbox {
    async fn deferred(
        &self,
        consumer: Option<&str>,
        page: Page,
    ) -> Result<Vec<DeferredView>, StoreError> {
        lists::deferred(self, consumer, page).await
    }

    async fn scheduled(&self, page: Page) -> Result<Vec<ScheduledView>, StoreError> {
        lists::scheduled(self, page).await
    }

    async fn inbox(&self, message: MessageId) -> Result<Vec<InboxView>, StoreError> {
        Ok(lists::inbox(self, message).await?.rows)
    }

    async fn letters_without_payload(
        &self,
        filter: &DeadLetterFilter,
        after: Option<LetterId>,
        limit: u32,
    ) -> Result<Vec<DeadLetter>, StoreError> {
        self.list_letters(filter, after, limit, false).await
    }
}

/// Reads rows.
pub(crate) async fn query(
    outbox: &Outbox,
    sql: &str,
    values: Vec<Value>,
) -> Result<Vec<QueryResult>, StoreError> {
    let schema = outbox.schema();
    let statement = schema.statement(&schema.filled(sql), values);
    outbox.reads().query_all_raw(statement).await.map_err(failed)
}

/// Reads a number; 0 where there is no row.
pub(crate) async fn number(
    outbox: &Outbox,
    sql: &str,
    values: Vec<Value>,
) -> Result<i64, StoreError> {
    let rows = query(outbox, sql, values).await?;
    rows.first().map_or(Ok(0), |row| column::<Option<i64>>(row, 0).map(Option::unwrap_or_default))
}

fn failed(error: DbErr) -> StoreError {
    match classify(&error) {
        DbErrorClass::Missing => StoreError::Mismatch(format!(
            "it lacks a table or column that this question needs ({}); run the migration",
            safe_text(&error.to_string(), LONGEST_ERROR)
        )),
        _ => database(error),
    }
}

/// Reads the database's clock.
pub(crate) async fn now(outbox: &Outbox) -> Result<Timestamp, StoreError> {
    // With the condition it has a parameter, and every driver prepares it.
    let sql = "SELECT {now} FROM {meta} WHERE id = ?";
    Ok(Timestamp::from_micros(number(outbox, sql, vec![Value::from(1_i32)]).await?))
}

/// Counts the rows that a query gives, up to [`WINDOW`].
pub(crate) async fn counted(
    outbox: &Outbox,
    from: &str,
    values: Vec<Value>,
) -> Result<Bounded, StoreError> {
    let most = WINDOW + 1;
    let sql = format!("SELECT count(*) FROM (SELECT 1 AS one FROM {from} LIMIT {most}) counted_");
    Ok(bounded(number(outbox, &sql, values).await?))
}

/// Makes a bounded count of one that stopped at one more than [`WINDOW`].
fn bounded(count: i64) -> Bounded {
    Bounded { count: count.clamp(0, WINDOW).unsigned_abs(), or_more: count > WINDOW }
}

/// Writes the read of a text that is left out where it is longer than [`LONGEST_TEXT`].
pub(crate) fn short(outbox: &Outbox, column: &str) -> String {
    let bytes = outbox.schema().dialect().bytes_of(&[column]);
    format!("CASE WHEN {bytes} <= {LONGEST_TEXT} THEN {column} END")
}

pub(crate) fn column<T: TryGetable>(row: &QueryResult, index: usize) -> Result<T, StoreError> {
    row.try_get_by_index(index).map_err(database)
}

/// Reads a flag that a CASE gives as 1 or 0.
pub(crate) fn flag(row: &QueryResult, index: usize) -> Result<bool, StoreError> {
    column::<i32>(row, index).map(|flag| flag != 0)
}

pub(crate) fn instant(row: &QueryResult, index: usize) -> Result<Timestamp, StoreError> {
    column(row, index).map(Timestamp::from_micros)
}

pub(crate) fn maybe_instant(
    row: &QueryResult,
    index: usize,
) -> Result<Option<Timestamp>, StoreError> {
    Ok(column::<Option<i64>>(row, index)?.map(Timestamp::from_micros))
}

fn message_id(row: &QueryResult, index: usize) -> Result<MessageId, StoreError> {
    column(row, index).map(MessageId::from_uuid)
}

/// Reads a name or key, as views show it.
pub(crate) fn name(row: &QueryResult, index: usize) -> Result<String, StoreError> {
    Ok(safe_text(&column::<String>(row, index)?, LONGEST_NAME))
}

fn maybe_name(row: &QueryResult, index: usize) -> Result<Option<String>, StoreError> {
    let text: Option<String> = column(row, index)?;
    Ok(text.map(|text| safe_text(&text, LONGEST_NAME)))
}

/// Writes whether a message is marked as sensitive, as 1 or 0, by the column of its headers. They
/// are stored as a JSON object without spaces, in which no text has a bare quote.
fn marked(headers: &str) -> String {
    format!("CASE WHEN {headers} LIKE '%\"{SENSITIVE}\":\"true\"%' THEN 1 ELSE 0 END")
}

/// Reads a history of errors, with the mark of its message beside it. The errors of one that is
/// marked as sensitive keep attempt, class and time, and not the texts, which may quote it.
fn errors(
    row: &QueryResult,
    errors: usize,
    marked: usize,
) -> Result<Vec<AttemptError>, StoreError> {
    let mut errors = errors_of(&column::<Option<String>>(row, errors)?.unwrap_or_default());
    if flag(row, marked)? {
        errors.iter_mut().for_each(|error| HIDDEN.clone_into(&mut error.text));
    }
    Ok(errors)
}

/// Shows an error or a reason.
fn shown(text: &str) -> String {
    safe_text(text.trim(), LONGEST_ERROR).trim().to_owned()
}
