//! What is said where the role of a program may not make the tables: the SQL for a role that may.

use super::{
    runner::{is_there, meta},
    versions::{Installation, last},
};
use sea_orm::{ConnectionTrait, DatabaseConnection, DbErr, Statement};

/// Says what is refused, and which SQL is to be run instead, one statement a line.
pub(super) async fn missing(
    db: &DatabaseConnection,
    installation: &Installation<'_>,
    refusal: &DbErr,
) -> String {
    let dialect = installation.dialect;
    let version = meta(db, dialect, &installation.tables()).await.ok().map(|(version, _)| version);
    let role = match dialect.current_role() {
        Some(ask) => {
            db.query_one_raw(Statement::from_string(dialect.backend(), ask)).await.ok().flatten()
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

/// Writes the statements that bring the tables up to date, from a version on where it is known, and give a role its rights.
/// What the database does not tell is not there, as far as the list is concerned.
async fn statements(
    db: &DatabaseConnection,
    installation: &Installation<'_>,
    version: Option<i32>,
    role: Option<&str>,
) -> Vec<String> {
    let Installation { dialect, namespace, versions, .. } = *installation;
    let mut statements = Vec::new();
    if version.is_none() {
        statements.extend(installation.first());
    }
    for step in installation.steps(version.unwrap_or(0), last(versions)) {
        if !is_there(db, dialect, &step).await.unwrap_or_default() {
            statements.push(step.sql);
        }
    }
    let grant = |role: &str| -> Vec<String> {
        let made = installation.made().chain(["outbox_view"]);
        made.map(|name| dialect.grant(&dialect.quote(&namespace.name(name)), role)).collect()
    };
    statements.extend(role.map(grant).unwrap_or_default());
    statements
}
