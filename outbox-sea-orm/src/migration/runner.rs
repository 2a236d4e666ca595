//! Runs the steps. Every step can be repeated, and two programs that start at once do no harm to each other.

use super::{MAX_PARTITIONS, VERSION, m0001_outbox, m0002_received, m0003_saga, m0004_participant, m0005_lock};
use crate::{
    dialect::{Dialect, TableDef},
    namespace::{Namespace, Tables},
};
use outbox_core::runtime::{Exit, spawn};
use sea_orm::{
    ConnectionTrait, DatabaseConnection, DbErr, SqliteTransactionMode, Statement, TransactionOptions, TransactionTrait,
    Value,
};

/// The tables that came with each version.
const VERSIONS: &[(i32, &[TableDef])] = &[
    (1, m0001_outbox::TABLES),
    (2, m0002_received::TABLES),
    (3, m0003_saga::TABLES),
    (4, m0004_participant::TABLES),
    (5, m0005_lock::TABLES),
];

/// Seconds that a program waits for another one that migrates: tables are made in moments, even on a slow disk.
const LOCK_SECONDS: u32 = 60;

/// Creates the tables of an outbox with a number of partitions (1 to 128), or brings them up to date.
///
/// May be called at every start, also by several programs at once.
///
/// # Errors
/// [`DbErr::Migration`] when the outbox is there with another number of partitions; else what the database said.
///
/// # Cancel safety
/// Leaves tables that are all there or (on MySQL and MariaDB, where DDL commits by itself) some of them; call again.
pub async fn install(db: &DatabaseConnection, namespace: &Namespace, partitions: u16) -> Result<(), DbErr> {
    let dialect = Dialect::detect(db).await?;
    let (db, namespace) = (db.clone(), namespace.clone());
    // A task of its own: a BEGIN that is cancelled half way would poison the application's pool.
    let work = spawn(async move {
        let options = TransactionOptions {
            sqlite_transaction_mode: Some(SqliteTransactionMode::Immediate),
            ..TransactionOptions::default()
        };
        let tx = db.begin_with_options(options).await?;
        let lock = namespace.name("outbox_install");
        if dialect.is_mysql() {
            let ask = format!("SELECT GET_LOCK('{lock}', {LOCK_SECONDS})");
            tx.query_one_raw(Statement::from_string(dialect.backend(), ask)).await?;
        }
        let done = up(&tx, dialect, &namespace, partitions).await;
        if dialect.is_mysql() {
            let release = format!("SELECT RELEASE_LOCK('{lock}')");
            tx.query_one_raw(Statement::from_string(dialect.backend(), release)).await?;
        }
        match done {
            Ok(()) => tx.commit().await,
            Err(error) => tx.rollback().await.and(Err(error)),
        }
    });
    match work.await {
        Exit::Finished(done) => done,
        ended => Err(DbErr::Migration(format!("the migration did not end: {ended:?}"))),
    }
}

/// Creates or completes the tables, on one connection.
pub(super) async fn up<C: ConnectionTrait>(
    conn: &C,
    dialect: Dialect,
    namespace: &Namespace,
    partitions: u16,
) -> Result<(), DbErr> {
    if partitions == 0 || partitions > MAX_PARTITIONS {
        return Err(DbErr::Migration(format!("an outbox has 1 to {MAX_PARTITIONS} partitions, not {partitions}")));
    }
    let tables = Tables::new(dialect, namespace);
    let name_of = |base: &str| namespace.name(base);
    if let Some(alone) = dialect.install_alone(&name_of("outbox_install")) {
        conn.execute_unprepared(&alone).await?;
    }
    let (insert, unless_there) = dialect.insert_if_absent();
    conn.execute_unprepared(&tables.fill(
        "CREATE TABLE IF NOT EXISTS {meta} (id INTEGER NOT NULL PRIMARY KEY, version INTEGER NOT NULL, \
         partitions INTEGER NOT NULL, CHECK (id = 1))",
    ))
    .await?;
    let first = format!("{insert} {{meta}} (id, version, partitions) VALUES (1, 0, {partitions}){unless_there}");
    conn.execute_unprepared(&tables.fill(&first)).await?;

    let (version, installed) = meta(conn, dialect, &tables).await?;
    if installed != i32::from(partitions) {
        return Err(DbErr::Migration(format!(
            "the outbox has {installed} partitions, not {partitions}: install it with {installed}"
        )));
    }
    for (number, made) in VERSIONS {
        if version < *number {
            for statement in made.iter().flat_map(|table| dialect.create_table(table, &name_of)) {
                conn.execute_unprepared(&statement).await?;
            }
        }
    }
    if version < 1 {
        conn.execute_unprepared(&view(dialect, &tables)).await?;
    }
    let rows: Vec<String> = (0..partitions).map(|n| format!("({n}, 0)")).collect();
    let fill = format!("{insert} {{partitions}} (partition_no, epoch) VALUES {}{unless_there}", rows.join(", "));
    conn.execute_unprepared(&tables.fill(&fill)).await?;
    if version < VERSION {
        // Last, so that whoever sees the version sees the tables too.
        conn.execute_unprepared(&tables.fill(&format!("UPDATE {{meta}} SET version = {VERSION}"))).await?;
    }
    Ok(())
}

/// Drops everything, with what is in it.
pub(super) async fn down<C: ConnectionTrait>(conn: &C, dialect: Dialect, namespace: &Namespace) -> Result<(), DbErr> {
    let tables = Tables::new(dialect, namespace);
    conn.execute_unprepared(&tables.fill("DROP VIEW IF EXISTS {view}")).await?;
    let made = VERSIONS.iter().flat_map(|(_, made)| *made).rev();
    for table in made.map(|t| t.name).chain(["outbox_meta"]) {
        let name = dialect.quote(&namespace.name(table));
        conn.execute_unprepared(&format!("DROP TABLE IF EXISTS {name}")).await?;
    }
    Ok(())
}

/// Reads version and number of partitions.
pub(crate) async fn meta<C: ConnectionTrait>(conn: &C, dialect: Dialect, tables: &Tables) -> Result<(i32, i32), DbErr> {
    let text = tables.fill("SELECT version, partitions FROM {meta} WHERE id = ")
        + if dialect == Dialect::Postgres { "$1" } else { "?" };
    let ask = Statement::from_sql_and_values(dialect.backend(), text, [Value::Int(Some(1))]);
    match conn.query_one_raw(ask).await? {
        Some(row) => Ok((row.try_get_by_index(0)?, row.try_get_by_index(1)?)),
        None => Err(DbErr::Migration("the outbox's version is not there".into())),
    }
}

/// Counts the partitions, from the rows that owners are written to.
pub(crate) async fn partitions<C: ConnectionTrait>(conn: &C, dialect: Dialect, tables: &Tables) -> Result<i64, DbErr> {
    let text = tables.fill("SELECT count(*) FROM {partitions}");
    match conn.query_one_raw(Statement::from_string(dialect.backend(), text)).await? {
        Some(row) => row.try_get_by_index(0),
        None => Ok(0),
    }
}

fn view(dialect: Dialect, tables: &Tables) -> String {
    let nothing = if dialect == Dialect::Postgres { "NULL::timestamptz" } else { "NULL" };
    tables.fill(
        &m0001_outbox::VIEW
            .replace("{create_view}", dialect.create_view())
            .replace("{created}", &dialect.readable("created_at"))
            .replace("{expires}", &dialect.readable("expires_at"))
            .replace("{finished}", &dialect.readable("finished_at"))
            .replace("{nothing}", nothing),
    )
}
