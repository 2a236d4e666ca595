//! One test, run on every database.

use super::{Database, TempDatabase};

/// Makes of each function three tests, `name::sqlite`, `name::postgres` and `name::mariadb`, each with a database of its
/// own.
///
/// ```
/// use sea_orm::ConnectionTrait;
/// use tests::{databases::TempDatabase, on_every_database};
///
/// on_every_database! {
///     async fn a_table_can_be_made(db: &TempDatabase) {
///         let connection = db.connect().await;
///         connection.execute_unprepared("CREATE TABLE t (id INTEGER)").await.unwrap();
///     }
/// }
/// ```
#[macro_export]
macro_rules! on_every_database {
    ($($(#[$attribute:meta])* async fn $name:ident($db:ident: $given:ty) $(-> $answer:ty)? $body:block)+) => {$(
        $(#[$attribute])*
        async fn $name($db: $given) $(-> $answer)? $body

        mod $name {
            #[test]
            fn sqlite() $(-> $answer)? {
                $crate::databases::run_on($crate::databases::Database::Sqlite, super::$name)
            }

            #[test]
            fn postgres() $(-> $answer)? {
                $crate::databases::run_on($crate::databases::Database::Postgres, super::$name)
            }

            #[test]
            fn mariadb() $(-> $answer)? {
                $crate::databases::run_on($crate::databases::Database::MariaDb, super::$name)
            }
        }
    )+};
}

/// Runs one test on one new database, in a runtime of two threads.
///
/// # Panics
/// When the test does.
pub fn run_on<T>(database: Database, test: impl AsyncFnOnce(&TempDatabase) -> T) -> T {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.expect("a runtime can be made").block_on(async {
        let db = TempDatabase::create(database).await;
        test(&db).await
    })
}
