//! The error where the role of a program may not create the tables: it has the SQL for a role that
//! may.

use super::{
    runner::{exists, meta},
    versions::{Installation, last},
};
use sea_orm::{ConnectionTrait, DatabaseConnection, DbErr, Statement};

/// Writes what the database refused, and the SQL to run instead, one statement a line.
pub(super) async fn missing(
    db: &DatabaseConnection,
    installation: &Installation<'_>,
    refusal: &DbErr,
) -> String {
    let dialect = installation.dialect;
    let version = meta(db, dialect, &installation.tables()).await.ok().map(|(version, _)| version);
    let role = match dialect.current_role() {
        Some(query) => {
            db.query_one_raw(Statement::from_string(dialect.backend(), query)).await.ok().flatten()
        }
        None => None,
    };
    let role: Option<String> = role.and_then(|row| row.try_get_by_index(0).ok());
    let statements = statements(db, installation, version, role.as_deref()).await;
    let who = role.map_or_else(|| "this program".to_owned(), |role| format!("the role {role}"));
    format!(
        "{who} may not make the outbox's tables ({refusal}): run this with a role that may, then start the program again\n{};",
        statements.join(";\n")
    )
}

/// Writes the statements that bring the tables up to date, from a version on where it is known, and
/// grant a role its rights. A query that fails counts as "does not exist".
async fn statements(
    db: &DatabaseConnection,
    installation: &Installation<'_>,
    version: Option<i32>,
    role: Option<&str>,
) -> Vec<String> {
    let Installation { dialect, namespace, versions, .. } = *installation;
    let mut statements = Vec::new();
    if version.is_none() {
        statements.extend(installation.create_meta());
    }
    for step in installation.steps(version.unwrap_or(0), last(versions)) {
        if !exists(db, dialect, &step).await.unwrap_or_default() {
            statements.push(step.sql);
        }
    }
    let grant = |role: &str| -> Vec<String> {
        let names = installation.table_names().chain(["outbox_view"]);
        names.map(|name| dialect.grant(&dialect.quote(&namespace.name(name)), role)).collect()
    };
    statements.extend(role.map(grant).unwrap_or_default());
    statements
}
