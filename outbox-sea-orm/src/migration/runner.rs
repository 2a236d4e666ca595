//! Runs the steps. Every step can be repeated, and two programs that start at once do not disturb
//! each other.

use super::{
    MAX_PARTITIONS, rights,
    script::former_names,
    versions::{Installation, Step, VERSIONS, Version, last},
};
use crate::{
    dialect::{Dialect, Tables},
    namespace::Namespace,
    pool::{DbErrorClass, classify, is_denied},
};
use outbox_core::runtime::{Exit, spawn};
use sea_orm::{
    ConnectionTrait, DatabaseConnection, DbErr, SqliteTransactionMode, Statement,
    TransactionOptions, TransactionTrait, Value,
};

/// Creates the tables of an outbox with a number of partitions (1 to 128), or brings them up to
/// date.
///
/// May be called at every start, also by several programs at once. Where the tables are up to date
/// it writes nothing, and the role needs no other right than to read them.
///
/// # Errors
/// [`DbErr::Migration`] when the outbox exists with another number of partitions, or when the role
/// of this program may not create the tables: the error has the SQL for a role that may. Else the
/// database's error.
///
/// # Cancel safety
/// Leaves all tables or none; on MySQL and MariaDB, where DDL commits by itself, maybe some of
/// them. Call again.
pub async fn install(
    db: &DatabaseConnection,
    namespace: &Namespace,
    partitions: u16,
) -> Result<(), DbErr> {
    install_versions(db, namespace, partitions, VERSIONS).await
}

/// Installs the tables of the given versions.
pub(super) async fn install_versions(
    db: &DatabaseConnection,
    namespace: &Namespace,
    partitions: u16,
    versions: &'static [Version],
) -> Result<(), DbErr> {
    let dialect = Dialect::detect(db).await?;
    let installation = Installation { dialect, namespace, partitions, versions };
    if is_up_to_date(db, &installation).await? {
        return Ok(());
    }
    match install_now(db, &installation).await {
        Err(refusal) if is_denied(&refusal) => {
            Err(DbErr::Migration(rights::missing(db, &installation, &refusal).await))
        }
        done => done,
    }
}

/// Tells whether there is nothing to do. A query that fails here fails again where the tables are
/// created.
async fn is_up_to_date(
    db: &DatabaseConnection,
    installation: &Installation<'_>,
) -> Result<bool, DbErr> {
    let (dialect, tables) = (installation.dialect, installation.tables());
    let Ok((version, installed)) = meta(db, dialect, &tables).await else { return Ok(false) };
    if version < last(installation.versions) {
        return Ok(false);
    }
    if has_former_names(db, dialect, &tables).await {
        return Err(DbErr::Migration(former_names(version)));
    }
    check_partitions(installation.partitions, Some(installed))?;
    Ok(partitions(db, dialect, &tables).await.is_ok_and(|rows| rows == i64::from(installed)))
}

async fn install_now(
    db: &DatabaseConnection,
    installation: &Installation<'_>,
) -> Result<(), DbErr> {
    let Installation { dialect, partitions, versions, .. } = *installation;
    let (db, namespace, to) = (db.clone(), installation.namespace.clone(), last(versions));
    let versions = versions.to_vec();
    // A task of its own: a BEGIN that is cancelled half-way would leave a broken connection in the
    // application's pool.
    let work = spawn(async move {
        let installation =
            Installation { dialect, namespace: &namespace, partitions, versions: &versions };
        let options = TransactionOptions {
            sqlite_transaction_mode: Some(SqliteTransactionMode::Immediate),
            ..TransactionOptions::default()
        };
        let tx = db.begin_with_options(options).await?;
        let lock = dialect.install_lock_of_session(&namespace.name("outbox_install"));
        let (acquire, release) = lock.unzip();
        if let Some(acquire) = acquire {
            tx.query_one_raw(Statement::from_string(dialect.backend(), acquire)).await?;
        }
        let done = up(&tx, &installation, to).await;
        if let Some(release) = release {
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

/// Creates or completes the tables up to a version, on one connection. Tables of a later version
/// stay.
pub(super) async fn up<C: ConnectionTrait>(
    conn: &C,
    installation: &Installation<'_>,
    to: i32,
) -> Result<(), DbErr> {
    let Installation { dialect, namespace, partitions, .. } = *installation;
    check_partitions(partitions, None)?;
    if let Some(lock) = dialect.install_lock_sql(&namespace.name("outbox_install")) {
        conn.execute_unprepared(&lock).await?;
    }
    for statement in installation.create_meta() {
        conn.execute_unprepared(&statement).await?;
    }
    let (version, installed) = meta(conn, dialect, &installation.tables()).await?;
    check_partitions(partitions, Some(installed))?;
    for step in installation.steps(version, to) {
        if !exists(conn, dialect, &step).await? {
            conn.execute_unprepared(&step.sql).await?;
        }
    }
    Ok(())
}

/// Checks the number of partitions that the caller wants against the installed one.
fn check_partitions(wanted: u16, installed: Option<i32>) -> Result<(), DbErr> {
    if wanted == 0 || wanted > MAX_PARTITIONS {
        return Err(DbErr::Migration(format!(
            "an outbox has 1 to {MAX_PARTITIONS} partitions, not {wanted}"
        )));
    }
    match installed {
        Some(installed) if installed != i32::from(wanted) => Err(DbErr::Migration(format!(
            "the outbox has {installed} partitions, not {wanted}: install it with {installed}"
        ))),
        _ => Ok(()),
    }
}

/// Tells whether the column or index of a step exists; `false` where its statement has an
/// `IF NOT EXISTS`.
pub(super) async fn exists<C: ConnectionTrait>(
    conn: &C,
    dialect: Dialect,
    step: &Step,
) -> Result<bool, DbErr> {
    let Some(query) = &step.exists_query else { return Ok(false) };
    let row = conn.query_one_raw(Statement::from_string(dialect.backend(), query)).await?;
    Ok(row.is_some_and(|row| row.try_get_by_index::<i64>(0).is_ok_and(|n| n > 0)))
}

/// Drops the view and all tables, with their rows.
pub(super) async fn down<C: ConnectionTrait>(
    conn: &C,
    installation: &Installation<'_>,
) -> Result<(), DbErr> {
    let Installation { dialect, namespace, .. } = *installation;
    conn.execute_unprepared(&installation.tables().fill("DROP VIEW IF EXISTS {view}")).await?;
    for table in installation.table_names() {
        let name = dialect.quote(&namespace.name(table));
        conn.execute_unprepared(&format!("DROP TABLE IF EXISTS {name}")).await?;
    }
    Ok(())
}

/// Reads version and number of partitions.
pub(crate) async fn meta<C: ConnectionTrait>(
    conn: &C,
    dialect: Dialect,
    tables: &Tables,
) -> Result<(i32, i32), DbErr> {
    let sql = tables.fill("SELECT version, partitions FROM {meta} WHERE id = ")
        + dialect.first_parameter();
    let query = Statement::from_sql_and_values(dialect.backend(), sql, [Value::Int(Some(1))]);
    match conn.query_one_raw(query).await? {
        Some(row) => Ok((row.try_get_by_index(0)?, row.try_get_by_index(1)?)),
        None => Err(DbErr::Migration("the table outbox_meta has no row".into())),
    }
}

/// Tells whether the tables are those of a revision that counted versions otherwise and named the
/// archive otherwise. A role that may not read the archive is not refused for that.
pub(crate) async fn has_former_names<C: ConnectionTrait>(
    conn: &C,
    dialect: Dialect,
    tables: &Tables,
) -> bool {
    let sql = tables.fill("SELECT 1 FROM {archive} WHERE 1 = 0");
    let read = conn.query_one_raw(Statement::from_string(dialect.backend(), sql)).await;
    read.is_err_and(|error| classify(&error) == DbErrorClass::Missing)
}

/// Counts the rows of partitions.
pub(crate) async fn partitions<C: ConnectionTrait>(
    conn: &C,
    dialect: Dialect,
    tables: &Tables,
) -> Result<i64, DbErr> {
    let sql = tables.fill("SELECT count(*) FROM {partitions}");
    match conn.query_one_raw(Statement::from_string(dialect.backend(), sql)).await? {
        Some(row) => row.try_get_by_index(0),
        None => Ok(0),
    }
}
