//! Temporary databases.

use sea_orm::{ConnectionTrait, DatabaseConnection, DbBackend, Statement, TransactionTrait};
use std::path::Path;
use tests::{
    databases::{Database, TempDatabase},
    on_every_database,
};

/// Tells whether the server (or the disk) still has a database.
async fn exists(db: Database, name: &str, url: &str) -> bool {
    let Some(server) = db.server_url() else {
        let path = url.trim_start_matches("sqlite://").split('?').next().unwrap();
        return Path::new(path).exists();
    };
    let connection = sea_orm::Database::connect(server).await.unwrap();
    let (backend, catalogue) = match db {
        Database::Postgres => {
            (DbBackend::Postgres, "SELECT datname FROM pg_database WHERE datname")
        }
        _ => (
            DbBackend::MySql,
            "SELECT schema_name FROM information_schema.schemata WHERE schema_name",
        ),
    };
    let query = Statement::from_string(backend, format!("{catalogue} = '{name}'"));
    connection.query_one_raw(query).await.unwrap().is_some()
}

async fn write_something(connection: &DatabaseConnection) {
    connection.execute_unprepared("CREATE TABLE things (id INTEGER)").await.unwrap();
    connection.execute_unprepared("INSERT INTO things VALUES (1), (2)").await.unwrap();
}

on_every_database! {
    async fn a_temporary_database_takes_statements_and_is_seen_by_every_connection(db: &TempDatabase) {
        write_something(&db.connect().await).await;
        let other = db.connect().await;
        let written = other.execute_unprepared("DELETE FROM things").await.unwrap();
        assert_eq!(written.rows_affected(), 2);
    }

    async fn it_is_gone_when_its_test_panics_with_a_transaction_open(db: &TempDatabase) {
        let database = db.database();
        let (told, tell) = tokio::sync::oneshot::channel();
        let test = tokio::spawn(async move {
            let db = TempDatabase::create(database).await;
            let connection = db.connect().await;
            write_something(&connection).await;
            let transaction = connection.begin().await.unwrap();
            transaction.execute_unprepared("INSERT INTO things VALUES (3)").await.unwrap();
            told.send((db.name().to_owned(), db.url().to_owned())).unwrap();
            panic!("the test fails");
        });
        let (name, url) = tell.await.unwrap();
        assert!(test.await.unwrap_err().is_panic());
        assert!(!exists(database, &name, &url).await);
        write_something(&db.connect().await).await;
        assert!(exists(database, db.name(), db.url()).await, "the look is a real one");
    }

    async fn a_story_may_answer_with_an_error(db: &TempDatabase) -> Result<(), sea_orm::DbErr> {
        let connection = db.connect().await;
        connection.ping().await?;
        assert!(connection.execute_unprepared("SELECT nonsense FROM nowhere").await.is_err());
        Ok(())
    }
}
