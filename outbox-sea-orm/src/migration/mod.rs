//! Creates the tables: by [`install`], or as a migration among the user's own.

mod m0001_outbox;
mod m0002_received;
mod m0003_saga;
mod m0004_participant;
mod m0005_lock;
mod runner;

pub use runner::install;
pub(crate) use runner::{meta, partitions};

use crate::{dialect::Dialect, namespace::Namespace};
use sea_orm::DbErr;
use sea_orm_migration::{MigrationName, MigrationTrait, SchemaManager};

/// Version of the tables that this program writes and reads. A later version only adds, so that programs of an earlier
/// one go on working beside it.
pub(crate) const VERSION: i32 = 5;

/// Most partitions of an outbox: a read over all of them is one statement, which SQLite limits to 500 parts.
pub(crate) const MAX_PARTITIONS: u16 = 128;

/// The outbox's tables as a migration of sea-orm-migration, to stand among the user's own.
///
/// ```
/// use outbox_sea_orm::{Namespace, OutboxMigration};
/// use sea_orm_migration::{MigrationTrait, MigratorTrait};
///
/// struct Migrator;
///
/// impl MigratorTrait for Migrator {
///     fn migrations() -> Vec<Box<dyn MigrationTrait>> {
///         vec![Box::new(OutboxMigration::new(Namespace::default(), 16))]
///     }
/// }
/// assert_eq!(Migrator::migrations()[0].name(), "m0001_outbox");
/// ```
#[derive(Debug, Clone)]
pub struct OutboxMigration {
    name: String,
    namespace: Namespace,
    partitions: u16,
}

impl OutboxMigration {
    /// Makes the migration of one outbox with a number of partitions, 1 to 128.
    #[must_use]
    pub fn new(namespace: Namespace, partitions: u16) -> Self {
        Self { name: namespace.name("m0001_outbox"), namespace, partitions }
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
        runner::up(conn, dialect, &self.namespace, self.partitions).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let conn = manager.get_connection();
        let dialect = Dialect::detect(conn).await?;
        runner::down(conn, dialect, &self.namespace).await
    }
}
