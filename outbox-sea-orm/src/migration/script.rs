//! The SQL of an upgrade, for somebody who runs it by hand, and what is said where it is missing.

use super::{
    MAX_PARTITIONS, VERSION,
    versions::{Installation, Version, last},
};
use crate::{dialect::Dialect, namespace::Namespace};
use sea_orm::DbErr;

/// Writes the statements that bring the tables from a version to another one, each ended by a semicolon and a line.
pub(crate) fn script(
    dialect: Dialect,
    (namespace, partitions): (&Namespace, u16),
    (from, to): (i32, i32),
    versions: &[Version],
) -> Result<String, DbErr> {
    let newest = last(versions);
    if from < 0 || from > to || to > newest {
        let why = format!(
            "there is no way from version {from} of the tables to {to}: this program knows 0 to {newest}"
        );
        return Err(DbErr::Migration(why));
    }
    if partitions == 0 || partitions > MAX_PARTITIONS {
        return Err(DbErr::Migration(format!(
            "an outbox has 1 to {MAX_PARTITIONS} partitions, not {partitions}"
        )));
    }
    let installation = Installation { dialect, namespace, partitions, versions };
    let first = if from == 0 { installation.first().to_vec() } else { Vec::new() };
    let steps = installation.steps(from, to).into_iter().map(|step| step.sql);
    Ok(first.into_iter().chain(steps).map(|statement| format!("{statement};\n")).collect())
}

/// Says that tables are older than this program, and the ways to bring them up to date. Version 0 is tables that are missing.
pub(crate) fn outdated(version: i32) -> String {
    let is = if version == 0 {
        "its tables are missing".to_owned()
    } else {
        format!("its tables have version {version}")
    };
    format!(
        "{is}, and this program needs version {VERSION}: run the migration, by `.install()` in place of `.build()`, or by \
         `OutboxMigration::all(..)` in the application's own `Migrator`; `Schema::sql(dialect, .., {version}, {VERSION})` is the \
         SQL for a database administrator"
    )
}
