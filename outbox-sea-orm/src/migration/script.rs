//! The SQL of an upgrade, for a database administrator, and the error where the upgrade is missing.

use super::{
    MAX_PARTITIONS, VERSION,
    versions::{Installation, Version, last},
};
use crate::{dialect::Dialect, namespace::Namespace};
use sea_orm::DbErr;

/// Writes the statements that bring the tables from a version to another one, each ended by a
/// semicolon and a line.
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
    let meta = if from == 0 { installation.create_meta().to_vec() } else { Vec::new() };
    let steps = installation.steps(from, to).into_iter().map(|step| step.sql);
    Ok(meta.into_iter().chain(steps).map(|statement| format!("{statement};\n")).collect())
}

/// Writes that tables are older than this program, and the ways to bring them up to date. Version
/// 0: no tables.
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

/// Writes that the tables have the names of a revision before version 1 of this numbering.
pub(crate) fn former_names(version: i32) -> String {
    format!(
        "its tables have version {version} of a former numbering and other names, from which no migration leads: deliver \
         what is left with the former program, drop the outbox's tables, and install again (docs/renames.md has the names)"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outdated_tables_are_refused_with_their_version_and_all_ways_to_upgrade_them() {
        for (version, said) in [(0, "its tables are missing"), (3, "its tables have version 3")] {
            let why = outdated(version);
            let sql = format!("Schema::sql(dialect, .., {version}, {VERSION})");
            for part in [said, &*format!("version {VERSION}"), ".install()", "Migrator", &*sql] {
                assert!(why.contains(part), "{part}: {why}");
            }
        }
    }
}
