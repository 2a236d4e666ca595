//! A made-up version on top of the last one, so that tests can upgrade tables of the last one.

use super::{
    OutboxMigration, VERSION, runner,
    script::script,
    versions::{VERSIONS, Version},
};
use crate::{
    dialect::{AddedColumn, AddedIndex, Dialect, IndexDef, TableDef},
    namespace::Namespace,
};
use sea_orm::{DatabaseConnection, DbErr};
use sea_orm_migration::MigrationTrait;
use std::sync::LazyLock;

/// Adds a table, a column and an index.
const NEXT: Version = Version {
    number: VERSION + 1,
    tables: &[TableDef {
        name: "outbox_next",
        body: "id BIGINT NOT NULL PRIMARY KEY, note {name}",
        queue: false,
        indexes: &[],
    }],
    columns: &[AddedColumn { table: "outbox_dead_letters", name: "next_note", kind: "{name}" }],
    indexes: &[AddedIndex {
        table: "outbox_dead_letters",
        index: IndexDef {
            name: "outbox_letters_next",
            columns: "next_note",
            columns_without_condition: "next_note",
            condition: None,
            unique: false,
        },
    }],
};

static ALL: LazyLock<Vec<Version>> =
    LazyLock::new(|| VERSIONS.iter().copied().chain([NEXT]).collect());

/// As [`install`](super::install), to the next version.
pub async fn install(
    db: &DatabaseConnection,
    namespace: &Namespace,
    partitions: u16,
) -> Result<(), DbErr> {
    runner::install_versions(db, namespace, partitions, &ALL).await
}

/// As [`OutboxMigration::all`], with the next version.
pub fn migrations(namespace: &Namespace, partitions: u16) -> Vec<Box<dyn MigrationTrait>> {
    OutboxMigration::of(namespace, partitions, &ALL)
}

/// As [`Schema::sql`](crate::Schema::sql), with the next version.
pub fn sql(
    dialect: Dialect,
    namespace: &Namespace,
    partitions: u16,
    from: i32,
    to: i32,
) -> Result<String, DbErr> {
    script(dialect, (namespace, partitions), (from, to), &ALL)
}
