//! What each version adds, and the statements that lead from one to another. Pure.

use super::m0001_outbox;
use crate::{
    dialect::{AddedColumn, AddedIndex, Dialect, TableDef, Tables},
    namespace::Namespace,
};

/// What a version adds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Version {
    pub(crate) number: i32,
    pub(crate) tables: &'static [TableDef],
    /// Added to tables of earlier versions.
    pub(crate) columns: &'static [AddedColumn],
    /// Added to tables of earlier versions.
    pub(crate) indexes: &'static [AddedIndex],
}

/// All versions, in order.
pub(crate) const VERSIONS: &[Version] =
    &[Version { number: 1, tables: m0001_outbox::TABLES, columns: &[], indexes: &[] }];

/// The last of some versions.
pub(crate) const fn last(versions: &[Version]) -> i32 {
    match versions {
        [.., last] => last.number,
        [] => 0,
    }
}

/// One statement of an installation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Step {
    pub(super) sql: String,
    /// Query that tells whether the column or index exists; `None` where the statement has an
    /// `IF NOT EXISTS`.
    pub(super) exists_query: Option<String>,
}

impl Step {
    const fn always(sql: String) -> Self {
        Self { sql, exists_query: None }
    }
}

/// An installation: its database, namespace and number of partitions, and the versions of the
/// tables.
#[derive(Debug, Clone, Copy)]
pub(super) struct Installation<'a> {
    pub(super) dialect: Dialect,
    pub(super) namespace: &'a Namespace,
    pub(super) partitions: u16,
    pub(super) versions: &'a [Version],
}

impl Installation<'_> {
    /// Writes the statements that create the table `outbox_meta`, with version 0.
    pub(super) fn create_meta(&self) -> [String; 2] {
        let (tables, (insert, unless_there)) = (self.tables(), self.dialect.insert_if_absent());
        let create = "CREATE TABLE IF NOT EXISTS {meta} (id INTEGER NOT NULL PRIMARY KEY, version INTEGER NOT NULL, \
                      partitions INTEGER NOT NULL, CHECK (id = 1))";
        let partitions = self.partitions;
        let row = format!(
            "{insert} {{meta}} (id, version, partitions) VALUES (1, 0, {partitions}){unless_there}"
        );
        [tables.fill(create), tables.fill(&row)]
    }

    /// Lists the statements that bring the tables from a version to another one. The version is
    /// written last, so that a program that reads it finds the tables.
    pub(super) fn steps(&self, from: i32, to: i32) -> Vec<Step> {
        let (dialect, tables) = (self.dialect, self.tables());
        let name_of = |base: &str| self.namespace.name(base);
        let mut steps = Vec::new();
        let wanted = || {
            self.versions.iter().filter(move |version| (from + 1..=to).contains(&version.number))
        };
        for table in wanted().flat_map(|version| version.tables) {
            steps.extend(dialect.create_table(table, &name_of).into_iter().map(Step::always));
        }
        for added in wanted().flat_map(|version| version.columns) {
            let exists_query = dialect.has_column(added, &name_of);
            steps.push(Step { sql: dialect.add_column(added, &name_of), exists_query });
        }
        for added in wanted().flat_map(|version| version.indexes) {
            let exists_query = dialect.has_index(added, &name_of);
            steps.push(Step { sql: dialect.add_index(added, &name_of), exists_query });
        }
        if from < 1 {
            steps.push(Step::always(view(dialect, &tables)));
        }
        let (insert, unless_there) = dialect.insert_if_absent();
        let rows: Vec<String> = (0..self.partitions).map(|n| format!("({n}, 0)")).collect();
        let fill = format!(
            "{insert} {{partitions}} (partition_no, epoch) VALUES {}{unless_there}",
            rows.join(", ")
        );
        steps.push(Step::always(tables.fill(&fill)));
        if from < to {
            let written = format!("UPDATE {{meta}} SET version = {to} WHERE version < {to}");
            steps.push(Step::always(tables.fill(&written)));
        }
        steps
    }

    /// Lists the tables of all versions, the last ones first.
    pub(super) fn table_names(&self) -> impl Iterator<Item = &'static str> {
        let tables = self.versions.iter().rev().flat_map(|version| version.tables.iter().rev());
        tables.map(|table| table.name).chain(["outbox_meta"])
    }

    pub(super) fn tables(&self) -> Tables {
        Tables::new(self.dialect, self.namespace)
    }
}

fn view(dialect: Dialect, tables: &Tables) -> String {
    tables.fill(
        &m0001_outbox::VIEW
            .replace("{create_view}", dialect.create_view())
            .replace("{created}", &dialect.readable("created_at"))
            .replace("{expires}", &dialect.readable("expires_at"))
            .replace("{finished}", &dialect.readable("finished_at"))
            .replace("{nothing}", dialect.no_instant()),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::namespace::MAX_PREFIX;

    #[test]
    fn no_name_of_a_table_or_index_is_cut_by_postgresql_or_refused_by_mysql_behind_the_longest_prefix()
     {
        let longest = Namespace::new(&"n".repeat(MAX_PREFIX)).unwrap();
        let tables = || VERSIONS.iter().flat_map(|version| version.tables);
        let indexes = tables().flat_map(|table| table.indexes).map(|index| index.name);
        let added =
            VERSIONS.iter().flat_map(|version| version.indexes).map(|added| added.index.name);
        for name in tables().map(|table| table.name).chain(indexes).chain(added) {
            assert!(longest.name(name).len() <= 63, "{name}");
        }
    }

    #[test]
    fn versions_follow_one_another_and_the_last_one_is_the_programs() {
        let numbers: Vec<i32> = VERSIONS.iter().map(|version| version.number).collect();
        assert_eq!(numbers, (1..=super::super::VERSION).collect::<Vec<_>>());
    }

    #[test]
    fn an_upgrade_has_the_statements_of_its_versions_alone_and_writes_the_version_last() {
        let namespace = Namespace::default();
        let later = super::super::VERSION + 1;
        let added = Version {
            number: later,
            tables: &[TableDef {
                name: "outbox_added",
                body: "id BIGINT NOT NULL PRIMARY KEY",
                queue: false,
                indexes: &[],
            }],
            columns: &[AddedColumn { table: "outbox_source", name: "added", kind: "{name}" }],
            indexes: &[],
        };
        let versions: Vec<Version> = VERSIONS.iter().copied().chain([added]).collect();
        for dialect in [Dialect::Postgres, Dialect::MySql, Dialect::MariaDb, Dialect::Sqlite] {
            let installation =
                Installation { dialect, namespace: &namespace, partitions: 2, versions: &versions };
            let whole: Vec<String> =
                installation.steps(0, later).into_iter().map(|step| step.sql).collect();
            for from in 0..later {
                let steps = installation.steps(from, from + 1);
                assert!(
                    steps
                        .last()
                        .is_some_and(|step| step.sql.contains(&format!("version = {}", from + 1)))
                );
                let changes = steps[..steps.len() - 1].iter();
                assert!(
                    changes.clone().count() > 1,
                    "{dialect:?} {from}: a version adds something"
                );
                assert!(
                    changes.clone().all(|step| whole.contains(&step.sql)),
                    "{dialect:?} {from}"
                );
            }
            let nothing = installation.steps(later, later);
            assert_eq!(nothing.len(), 1, "the rows of the partitions: {nothing:?}");
        }
    }
}
