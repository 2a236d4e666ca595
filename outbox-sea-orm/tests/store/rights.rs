//! An application's role that may not make tables.

use crate::outbox::installed;
use outbox_core::testing::store::{PARTITIONS, event};
use outbox_sea_orm::{Namespace, Outbox, OutboxError, Schema, install, next};
use sea_orm::{ConnectOptions, ConnectionTrait, DatabaseConnection};
use tests::{
    databases::{Database, TempDatabase},
    on_every_database,
};

/// Connects as the application, whose role has no right to make tables.
async fn application(temp: &TempDatabase) -> DatabaseConnection {
    let mut options = ConnectOptions::new(temp.restricted_url().await);
    options.sqlx_logging(false).max_connections(2);
    sea_orm::Database::connect(options).await.unwrap()
}

/// Runs what an error says is to be run, as an administrator does.
async fn run(db: &DatabaseConnection, said: &str) {
    let (_, sql) = said.split_once('\n').unwrap_or_else(|| panic!("no SQL in: {said}"));
    for statement in sql.split(";\n") {
        db.execute_unprepared(statement.trim_end_matches(';'))
            .await
            .unwrap_or_else(|error| panic!("{error}: {statement}"));
    }
}

on_every_database! {
    async fn a_role_that_may_not_make_tables_installs_an_outbox_that_is_up_to_date(temp: &TempDatabase) {
        let db = temp.connect().await;
        installed(&db, &Namespace::default()).await;
        let owner = Outbox::builder(db.clone()).source("shop").partitions(PARTITIONS);
        owner.build().await.expect("the source is written down");
        let application = application(temp).await;
        install(&application, &Namespace::default(), PARTITIONS).await.expect("there is nothing to do");
        let builder = Outbox::builder(application.clone()).source("shop").partitions(PARTITIONS);
        builder.install().await.expect("nor is there here");
        works(temp, &application, &Namespace::default()).await;
        // A later version of the program has been here.
        db.execute_unprepared("UPDATE outbox_meta SET version = 99").await.unwrap();
        install(&application, &Namespace::default(), PARTITIONS).await.expect("a later version only adds");
        let why = install(&application, &Namespace::default(), PARTITIONS + 1).await.unwrap_err().to_string();
        assert!(why.contains("partitions"), "{why}");
    }

    async fn where_tables_are_missing_such_a_role_is_told_which_sql_is_to_be_run(temp: &TempDatabase) {
        let db = temp.connect().await;
        // SQLite reads no file that is not there.
        db.execute_unprepared("CREATE TABLE other (id INT)").await.unwrap();
        let namespace = Namespace::new("shop").unwrap();
        let application = application(temp).await;
        let refused = Outbox::builder(application.clone()).namespace("shop").install().await;
        let Err(OutboxError::Install(said)) = refused else { panic!("it is refused: {refused:?}") };
        assert!(said.contains("may not make the outbox's tables") && said.contains("CREATE TABLE"), "{said}");
        run(&db, &said).await;
        assert_eq!(Schema::open(&db, &namespace).await.unwrap().partitions(), 16);
        works(temp, &application, &namespace).await;
    }

    async fn where_tables_are_old_such_a_role_is_told_what_is_missing_from_them(temp: &TempDatabase) {
        let db = temp.connect().await;
        let schema = installed(&db, &Namespace::default()).await;
        schema.append(&db, "/shop", &[event("a")]).await.unwrap();
        let application = application(temp).await;
        let said = next::install(&application, &Namespace::default(), PARTITIONS).await.unwrap_err().to_string();
        let made = |table: &str| said.lines().any(|line| line.starts_with("CREATE TABLE") && line.contains(table));
        assert!(made("outbox_next") && !made("outbox_events") && !said.contains("VIEW"), "{said}");
        run(&db, &said).await;
        works(temp, &application, &Namespace::default()).await;
    }
}

/// The application's role works with the outbox now, and installs it again.
async fn works(temp: &TempDatabase, application: &DatabaseConnection, namespace: &Namespace) {
    let schema = Schema::open(application, namespace).await.unwrap();
    install(application, namespace, schema.partitions()).await.unwrap();
    if temp.database() != Database::Sqlite {
        schema.append(application, "/shop", &[event("b")]).await.unwrap();
    }
}
