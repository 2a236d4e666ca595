//! Creates the tables: by [`install`], as migrations among the user's own, or as SQL for a database
//! administrator.

mod m0001_outbox;
mod versions;
mod runner;
mod rights;
mod script;
#[cfg(feature = "testing")]
#[doc(hidden)]
pub mod next;

pub use runner::install;
pub(crate) use runner::{has_former_names, meta, partitions};
pub(crate) use script::{former_names, outdated, script};

use crate::{dialect::Dialect, namespace::Namespace};
use sea_orm::DbErr;
use sea_orm_migration::{MigrationName, MigrationTrait, SchemaManager};
pub(crate) use versions::VERSIONS;
use versions::{Installation, Version};

/// Version of the tables that this program writes and reads. A later version only adds tables,
/// columns and indexes, so that programs of an earlier one go on working beside it.
pub(crate) const VERSION: i32 = 1;

/// Most partitions of an outbox: a read over all of them is one statement, which SQLite limits to
/// 500 parts.
pub(crate) const MAX_PARTITIONS: u16 = 128;

/// One version of the outbox's tables as a migration of sea-orm-migration, to stand among the
/// user's own.
///
/// ```
/// use outbox_sea_orm::{Namespace, OutboxMigration};
/// use sea_orm_migration::{MigrationTrait, MigratorTrait};
///
/// struct Migrator;
///
/// impl MigratorTrait for Migrator {
///     fn migrations() -> Vec<Box<dyn MigrationTrait>> {
///         let mut all = OutboxMigration::all(Namespace::default(), 16);
///         // all.push(Box::new(m20260101_orders::Migration));
///         all
///     }
/// }
/// assert_eq!(Migrator::migrations()[0].name(), "m0001_outbox");
/// ```
#[derive(Debug, Clone)]
pub struct OutboxMigration {
    name: String,
    namespace: Namespace,
    partitions: u16,
    number: i32,
    versions: &'static [Version],
}

impl OutboxMigration {
    /// Gives the migrations of one outbox with a number of partitions, 1 to 128: one for each
    /// version of the tables, called `m0001_outbox`, `m0002_outbox` and so on, behind the namespace
    /// where there is one.
    ///
    /// A later release of this crate adds migrations behind these, so that a program which takes
    /// them all brings older tables up to date, wherever in the list they stand. The `down` of the
    /// first one drops all tables with their rows; the `down` of the others does nothing, since a
    /// later version only adds.
    ///
    /// ```
    /// # use outbox_sea_orm::OutboxMigration;
    /// let shop = OutboxMigration::all("shop".parse()?, 16);
    /// assert_eq!(shop[0].name(), "shop_m0001_outbox");
    /// # Ok::<(), outbox_sea_orm::NamespaceError>(())
    /// ```
    #[must_use]
    pub fn all(namespace: Namespace, partitions: u16) -> Vec<Box<dyn MigrationTrait>> {
        Self::of(&namespace, partitions, VERSIONS)
    }

    fn of(
        namespace: &Namespace,
        partitions: u16,
        versions: &'static [Version],
    ) -> Vec<Box<dyn MigrationTrait>> {
        let migration = |version: &Version| -> Box<dyn MigrationTrait> {
            let number = version.number;
            let (name, namespace) =
                (namespace.name(&format!("m{number:04}_outbox")), namespace.clone());
            Box::new(Self { name, namespace, partitions, number, versions })
        };
        versions.iter().map(migration).collect()
    }

    fn installation(&self, dialect: Dialect) -> Installation<'_> {
        let Self { namespace, partitions, versions, .. } = self;
        Installation { dialect, namespace, partitions: *partitions, versions }
    }
}

impl MigrationName for OutboxMigration {
    fn name(&self) -> &str {
        &self.name
    }
}

#[async_trait::async_trait]
#[expect(elided_lifetimes_in_paths, reason = "the trait's own methods are declared so")]
impl MigrationTrait for OutboxMigration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let conn = manager.get_connection();
        let dialect = Dialect::detect(conn).await?;
        runner::up(conn, &self.installation(dialect), self.number).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        if self.number > 1 {
            return Ok(());
        }
        let conn = manager.get_connection();
        let dialect = Dialect::detect(conn).await?;
        runner::down(conn, &self.installation(dialect)).await
    }
}
