//! Tables with rows in them that are upgraded to a made-up next version, by each of the three ways.

use crate::outbox::{LEASE, installed, owner_of_all, read_all};
use outbox_core::{
    event::MessageId,
    outbox::InboxKey,
    testing::store::{PARTITIONS, event},
};
use outbox_sea_orm::{Dialect, Namespace, OutboxMigration, Schema, install, next};
use sea_orm::{ConnectionTrait, DatabaseConnection, Statement};
use sea_orm_migration::{MigrationTrait, MigratorTrait};
use tests::{databases::TempDatabase, on_every_database};

/// The ways to bring tables up to date, each with an outbox of its own.
const WAYS: [&str; 3] = ["installs", "migrates", "scripts"];
const VERSION: i32 = Schema::VERSION;

fn namespace(name: &str) -> Namespace {
    Namespace::new(name).unwrap()
}

/// The migrations of this version.
struct Now;

impl MigratorTrait for Now {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        OutboxMigration::all(namespace("migrates"), PARTITIONS)
    }
}

/// Those of the next one.
struct Next;

impl MigratorTrait for Next {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        next::migrations(&namespace("migrates"), PARTITIONS)
    }
}

async fn run(db: &DatabaseConnection, sql: &str) {
    for statement in sql.split(";\n").filter(|statement| !statement.trim().is_empty()) {
        db.execute_unprepared(statement)
            .await
            .unwrap_or_else(|error| panic!("{error}: {statement}"));
    }
}

/// The message that was received before.
fn received() -> MessageId {
    "01890a5d-ac96-774b-bcce-b302099a8057".parse().unwrap()
}

/// Puts two events into an outbox, and a message into its inbox.
async fn fill(db: &DatabaseConnection, namespace: &Namespace) {
    let schema = Schema::open(db, namespace).await.unwrap();
    schema.append(db, "/shop", &[event("a"), event("b")]).await.unwrap();
    let key = InboxKey { consumer: "c", handler: "h", source: "/shop", message_id: received() };
    assert!(schema.receive(db, key).await.unwrap());
}

/// Fails where what was there is not, or what is new cannot be used.
async fn check(db: &DatabaseConnection, namespace: &Namespace) {
    let schema = Schema::open(db, namespace).await.unwrap();
    let (store, _) = owner_of_all(db, &schema, LEASE).await;
    assert_eq!(read_all(&*store.reader).await.len(), 2, "{namespace}");
    let key = InboxKey { consumer: "c", handler: "h", source: "/shop", message_id: received() };
    assert!(!schema.receive(db, key).await.unwrap(), "{namespace}: it was received before");
    db.execute_unprepared(&format!("DELETE FROM {namespace}_outbox_source")).await.unwrap();
}

/// Lists columns and indexes of an outbox, without its namespace.
async fn shape(db: &DatabaseConnection, dialect: Dialect, namespace: &str) -> Vec<String> {
    let query = match dialect {
        Dialect::Postgres => {
            "SELECT table_name || ' ' || column_name || ' ' || data_type || ' ' || is_nullable FROM information_schema.columns \
             WHERE table_schema = current_schema() UNION SELECT indexdef FROM pg_indexes WHERE schemaname = current_schema()"
        }
        Dialect::MySql | Dialect::MariaDb => {
            "SELECT CONCAT(table_name, ' ', column_name, ' ', column_type, ' ', is_nullable) FROM information_schema.columns \
             WHERE table_schema = DATABASE() UNION SELECT CONCAT(table_name, ' ', index_name, ' ', column_name) \
             FROM information_schema.statistics WHERE table_schema = DATABASE()"
        }
        Dialect::Sqlite => {
            "SELECT m.name || ' ' || p.name || ' ' || p.type FROM sqlite_master m JOIN pragma_table_info(m.name) p \
             WHERE m.type = 'table' UNION SELECT name || ' ' || COALESCE(sql, '') FROM sqlite_master WHERE type = 'index'"
        }
    };
    let rows = db.query_all_raw(Statement::from_string(dialect.backend(), query)).await.unwrap();
    let of = format!("{namespace}_outbox_");
    let texts = rows.iter().map(|row| row.try_get_by_index::<String>(0).unwrap());
    let mut shape: Vec<String> =
        texts.filter(|text| text.contains(&of)).map(|text| text.replace(&of, "")).collect();
    shape.sort();
    shape
}

async fn version(db: &DatabaseConnection, namespace: &str) -> i32 {
    let query = Statement::from_string(
        db.get_database_backend(),
        format!("SELECT version FROM {namespace}_outbox_meta"),
    );
    db.query_one_raw(query).await.unwrap().unwrap().try_get_by_index(0).unwrap()
}

on_every_database! {
    async fn tables_of_this_version_go_on_to_the_next_one_by_all_three_ways(temp: &TempDatabase) {
        let db = temp.connect().await;
        Now::up(&db, None).await.unwrap();
        let mut dialect = None;
        for way in WAYS {
            dialect = Some(installed(&db, &namespace(way)).await.dialect());
            fill(&db, &namespace(way)).await;
        }
        let dialect = dialect.unwrap();
        for _ in 0..2 {
            next::install(&db, &namespace("installs"), PARTITIONS).await.unwrap();
            Next::up(&db, None).await.unwrap();
        }
        run(&db, &next::sql(dialect, &namespace("scripts"), PARTITIONS, VERSION, VERSION + 1).unwrap()).await;
        next::install(&db, &namespace("fresh"), PARTITIONS).await.unwrap();
        let fresh = shape(&db, dialect, "fresh").await;
        assert!(fresh.len() > 100, "columns and indexes are listed: {fresh:?}");
        assert!(fresh.iter().any(|line| line.contains("next_note")), "{fresh:?}");
        for way in WAYS {
            assert_eq!((way, version(&db, way).await), (way, VERSION + 1));
            assert_eq!(shape(&db, dialect, way).await, fresh, "{way}");
            let written = format!("INSERT INTO {way}_outbox_next (id, note) VALUES (1, 'new')");
            db.execute_unprepared(&written).await.unwrap();
            // A program of this version goes on beside it.
            install(&db, &namespace(way), PARTITIONS).await.unwrap();
            check(&db, &namespace(way)).await;
        }
    }

    async fn the_script_of_all_versions_makes_what_an_installation_makes(temp: &TempDatabase) {
        let db = temp.connect().await;
        let dialect = installed(&db, &namespace("installs")).await.dialect();
        for step in 0..VERSION {
            run(&db, &Schema::sql(dialect, &namespace("scripts"), PARTITIONS, step, step + 1).unwrap()).await;
        }
        let made = shape(&db, dialect, "scripts").await;
        assert_eq!(made, shape(&db, dialect, "installs").await);
        fill(&db, &namespace("scripts")).await;
        check(&db, &namespace("scripts")).await;
        for (from, to) in [(-1, VERSION), (2, 1), (0, VERSION + 1)] {
            let refused = Schema::sql(dialect, &namespace("scripts"), PARTITIONS, from, to).unwrap_err();
            assert!(refused.to_string().contains("there is no way"), "{refused}");
        }
    }
}
