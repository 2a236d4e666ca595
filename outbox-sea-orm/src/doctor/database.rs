//! The database, its server and the role of this program.

use super::{Checked, finding, fine, or_fine};
use crate::{
    dialect::Dialect,
    error::database,
    inspect::{column, now, query},
    migration::VERSION,
    outbox::Outbox,
};
use outbox_core::{
    admin::{Finding, Severity, safe_text},
    event::Timestamp,
    outbox::StoreError,
    runtime::wall_clock,
};
use sea_orm::{ConnectionTrait, QueryResult, Value};
use std::time::Duration;

/// A transaction that is open for longer is worth a warning, and hurts, in seconds.
const OPEN_FOR: (i64, i64) = (300, 3_600);
/// So many dead rows are worth knowing, and hurt: each read walks over them.
const DEAD_ROWS: (i64, i64) = (100_000, 1_000_000);
/// A clock that differs by so much is worth knowing, and hurts: a receiver of webhooks takes a
/// signature for 5 minutes.
const SKEW: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(60));

/// The version of the tables is that of this program.
pub(super) async fn schema_version(outbox: &Outbox) -> Checked {
    const CHECK: &str = "schema-version";
    let rows =
        query(outbox, "SELECT version FROM {meta} WHERE id = ?", vec![Value::from(1_i32)]).await?;
    let version: i32 = rows.first().map_or(Ok(0), |row| column(row, 0))?;
    let seen_by = "SELECT version FROM outbox_meta";
    Ok(match version.cmp(&VERSION) {
        std::cmp::Ordering::Equal => {
            fine(CHECK, format!("the tables have version {version}"), seen_by)
        }
        std::cmp::Ordering::Less => vec![finding(
            CHECK,
            Severity::Critical,
            format!("the tables have version {version}, and this program needs {VERSION}"),
            "run the migration: outbox migrate up",
            seen_by,
        )],
        std::cmp::Ordering::Greater => vec![finding(
            CHECK,
            Severity::Info,
            format!("the tables have version {version}, later than {VERSION} of this program"),
            "update this program when the others are updated",
            seen_by,
        )],
    })
}

/// The role may read and write every table.
pub(super) async fn role_rights(outbox: &Outbox) -> Checked {
    const CHECK: &str = "role-rights";
    const NEEDED: [&str; 4] = ["SELECT", "INSERT", "UPDATE", "DELETE"];
    let dialect = outbox.schema().dialect();
    let Some(sql) = dialect.rights_on_table() else { return Ok(Vec::new()) };
    let (mut found, mut told) = (Vec::new(), false);
    for table in [
        "{events}",
        "{archive}",
        "{scheduled}",
        "{relays}",
        "{partitions}",
        "{retries}",
        "{letters}",
        "{unparked}",
        "{dedup}",
        "{inbox}",
        "{deferred}",
        "{instances}",
        "{barrier}",
        "{sagas}",
        "{saga_log}",
        "{live}",
        "{controls}",
        "{plans}",
        "{audit}",
    ] {
        let table = dialect.table_name(&outbox.schema().filled(table));
        let rows = query(outbox, sql, vec![Value::from(table.as_str())]).await?;
        let held: Vec<String> =
            rows.iter().map(|row| column(row, 0)).collect::<Result<_, StoreError>>()?;
        told |= !held.is_empty();
        let missing = NEEDED.iter().filter(|right| !held.iter().any(|held| held == **right));
        let missing: Vec<&str> = missing.copied().collect();
        if !missing.is_empty() {
            found.push(finding(
                CHECK,
                Severity::Critical,
                format!(
                    "the role of this program has no right to {} on {table}",
                    missing.join(", ")
                ),
                format!("as an administrator: GRANT {} ON {table} TO its role", missing.join(", ")),
                "the privileges of the current user",
            ));
        }
    }
    // A role that reads these tables and has no right by name has its rights by other means.
    let found = if told { found } else { Vec::new() };
    or_fine(
        CHECK,
        found,
        "the role may read and write the tables",
        "the privileges of the current user",
    )
}

/// The server keeps what was committed.
pub(super) async fn durability(outbox: &Outbox) -> Checked {
    const CHECK: &str = "durability";
    let mut found = Vec::new();
    for setting in outbox.schema().dialect().durability() {
        let rows = query(outbox, setting.sql, Vec::new()).await?;
        let Some(value) = rows.first().map(text_or_number).transpose()? else { continue };
        if !setting.safe.contains(&value.as_str()) {
            found.push(finding(
                CHECK,
                Severity::Critical,
                format!("{} is {}: {}", setting.name, safe_text(&value, 40), setting.loses),
                format!("set {} to {}", setting.name, setting.safe[0]),
                setting.sql,
            ));
        }
    }
    or_fine(CHECK, found, "the server keeps what was committed", "settings of the server")
}

fn text_or_number(row: &QueryResult) -> Result<String, StoreError> {
    column::<String>(row, 0).or_else(|_| column::<i64>(row, 0).map(|number| number.to_string()))
}

/// No transaction is open for long.
pub(super) async fn open_transaction(outbox: &Outbox) -> Checked {
    const CHECK: &str = "open-transaction";
    let dialect = outbox.schema().dialect();
    let Some(sql) = dialect.oldest_transaction() else { return Ok(Vec::new()) };
    let rows = query(outbox, sql, Vec::new()).await?;
    let Some(row) = rows.first() else { return Ok(fine(CHECK, "no transaction is open", sql)) };
    let (age, who): (i64, String) = (column(row, 0)?, column(row, 1)?);
    let who = safe_text(&who, 200);
    let severity = match age {
        age if age >= OPEN_FOR.1 => Severity::Critical,
        age if age >= OPEN_FOR.0 => Severity::Warning,
        _ => return Ok(fine(CHECK, format!("the oldest open transaction is {age} s old"), sql)),
    };
    Ok(vec![finding(
        CHECK,
        severity,
        format!("a transaction of {who} is open for {age} s: {}", dialect.pinned_by_transactions()),
        "end it, and find out what keeps it open",
        sql,
    )])
}

/// Transactions of the application do not make others wait that save events.
pub(super) async fn default_isolation(outbox: &Outbox) -> Checked {
    const CHECK: &str = "default-isolation";
    let Some(sql) = outbox.schema().dialect().default_isolation() else { return Ok(Vec::new()) };
    // Over the application's own pool: its options may set the isolation, and no other pool has them.
    let statement = outbox.schema().statement(sql, Vec::new());
    let rows = outbox.connection().query_all_raw(statement).await.map_err(database)?;
    let Some(row) = rows.first() else { return Ok(Vec::new()) };
    let (level, longest): (String, i64) = (column(row, 0)?, column(row, 1)?);
    let level = safe_text(&level, 40);
    if !Dialect::isolation_locks_gaps(&level) {
        return Ok(fine(CHECK, format!("transactions begin at {level}"), sql));
    }
    Ok(vec![finding(
        CHECK,
        Severity::Info,
        format!(
            "transactions begin at {level}: one that has saved an event and stays open may lock the gap beside its row, \
             and others that save events wait for its end, {longest} s at most"
        ),
        "set transaction-isolation = READ-COMMITTED on the server, or say isolation = ReadCommitted where a \
         transaction stays open",
        sql,
    )])
}

/// The events table is cleaned up.
pub(super) async fn dead_rows(outbox: &Outbox) -> Checked {
    const CHECK: &str = "dead-rows";
    let dialect = outbox.schema().dialect();
    let Some(sql) = dialect.dead_rows() else { return Ok(Vec::new()) };
    let table = outbox.schema().filled("{events}");
    let rows = query(outbox, sql, vec![Value::from(&*table)]).await?;
    let Some(row) = rows.first() else { return Ok(Vec::new()) };
    let dead = column::<Option<i64>>(row, 0)?.unwrap_or(0);
    let (options, autovacuum): (String, String) = (column(row, 2)?, column(row, 3)?);
    let mut found: Vec<Finding> = Vec::new();
    if autovacuum != "on" || options.contains("autovacuum_enabled=false") {
        found.push(finding(
            CHECK,
            Severity::Critical,
            format!("autovacuum is off for {table}: reads become slower with each event"),
            "turn autovacuum on, for the server and the table",
            sql,
        ));
    }
    if !options.contains(dialect.vacuum_option()) {
        found.push(finding(
            CHECK,
            Severity::Warning,
            format!("{table} lacks the option {} that the migration sets", dialect.vacuum_option()),
            format!("ALTER TABLE {table} SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 10000)"),
            sql,
        ));
    }
    let severity = match dead {
        dead if dead >= DEAD_ROWS.1 => Severity::Warning,
        dead if dead >= DEAD_ROWS.0 => Severity::Info,
        _ => Severity::Ok,
    };
    if severity > Severity::Ok {
        found.push(finding(
            CHECK,
            severity,
            format!("{table} has {dead} dead rows, which each read walks over"),
            format!("see the check open-transaction; then VACUUM {table}"),
            sql,
        ));
    }
    or_fine(CHECK, found, "the events table is cleaned up", sql)
}

/// The clocks of this process and of the database agree.
pub(super) async fn clock_skew(outbox: &Outbox) -> Checked {
    const CHECK: &str = "clock-skew";
    let before = Timestamp::from(wall_clock());
    let database = now(outbox).await?;
    let after = Timestamp::from(wall_clock());
    // Between both the clocks cannot be told apart.
    let ahead = database.since(after);
    let behind = before.since(database);
    let (skew, how) = if ahead > behind { (ahead, "ahead of") } else { (behind, "behind") };
    let seen_by = "the database's time, beside this machine's clock before and after it";
    let severity = match skew {
        skew if skew >= SKEW.1 => Severity::Warning,
        skew if skew >= SKEW.0 => Severity::Info,
        _ => return Ok(fine(CHECK, "the clocks of the database and this machine agree", seen_by)),
    };
    Ok(vec![finding(
        CHECK,
        severity,
        format!("the database's clock is {} s {how} this machine's", skew.as_secs()),
        "synchronize both clocks: leases and schedules go by the database's, signatures and ids by this one",
        seen_by,
    )])
}
