//! The plan of the hot statements: the primary key, also where one partition has everything and the
//! others nothing.

use crate::outbox::installed;
use outbox_core::testing::store::event;
use outbox_sea_orm::{Dialect, Namespace, Schema};
use sea_orm::{
    ConnectionTrait, DatabaseConnection, DatabaseTransaction, DbBackend, Statement,
    TransactionTrait,
};
use std::time::Duration;
use tests::{databases::TempDatabase, on_every_database};

/// Events of the one full partition: enough for a planner to prefer something else.
const FULL: usize = 20_000;
const READ: i64 = 4;

/// Gives the plan of a statement as the database prints it, a line for each of its rows.
async fn plan<C: ConnectionTrait>(db: &C, explain: String) -> String {
    let rows =
        db.query_all_raw(Statement::from_string(db.get_database_backend(), explain)).await.unwrap();
    let sql = |row: &sea_orm::QueryResult| {
        let columns = 0..row.column_names().len();
        let words =
            columns.filter_map(|i| row.try_get_by_index::<Option<String>>(i).ok().flatten());
        words.collect::<Vec<_>>().join(" | ") + "\n"
    };
    rows.iter().map(sql).collect()
}

/// Puts numbers into the places of parameters.
fn with_numbers(sql: &str, numbers: &[i64]) -> String {
    let mut numbers = numbers.iter();
    sql.split_inclusive('?')
        .map(|part| match part.strip_suffix('?') {
            Some(before) => {
                format!("{before}{}", numbers.next().expect("a number for each parameter"))
            }
            None => part.to_owned(),
        })
        .collect()
}

async fn fill(db: &DatabaseConnection, schema: &Schema) {
    let events: Vec<_> = (0..500).map(|_| event("one")).collect();
    for _ in 0..FULL / events.len() {
        let fresh: Vec<_> = events
            .iter()
            .map(|e| outbox_core::event::NewEvent {
                message_id: outbox_core::event::MessageId::generate(),
                ..e.clone()
            })
            .collect();
        schema.append(db, "/shop", &fresh).await.unwrap();
    }
}

/// Explains read and finish on PostgreSQL, with the settings of a relay's connection.
async fn postgres(tx: &DatabaseTransaction, schema: &Schema) -> [String; 2] {
    for setting in schema.settings_of_relay(Duration::from_secs(60)) {
        tx.execute_unprepared(&format!("SET LOCAL {setting}")).await.unwrap();
    }
    let (read, finish) = (schema.sql_of_read(1), schema.sql_of_finish(4));
    let types = "smallint[], bigint[], bigint[], boolean[], bigint, bigint, bigint, bigint";
    tx.execute_unprepared(&format!("PREPARE outbox_read ({types}) AS {read}")).await.unwrap();
    let finished = "smallint[], bigint[], text, smallint[], bigint[]";
    tx.execute_unprepared(&format!("PREPARE outbox_finish ({finished}) AS {finish}"))
        .await
        .unwrap();
    let read = "EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF, SUMMARY OFF) EXECUTE outbox_read \
                ('{0,1,2,3}', '{100,100,100,100}', '{50,50,50,50}', '{t,t,t,t}', 2000, 2000, 10000, 10000)";
    let finish =
        "EXPLAIN (COSTS OFF) EXECUTE outbox_finish ('{0}', '{1}', 'me', '{0,0,0}', '{1,2,3}')";
    let plans = [plan(tx, read.into()).await, plan(tx, finish.into()).await];
    tx.execute_unprepared("DEALLOCATE outbox_read; DEALLOCATE outbox_finish").await.unwrap();
    plans
}

/// Explains them on the others, with numbers in place of parameters.
async fn with_literals(db: &DatabaseConnection, schema: &Schema) -> [String; 2] {
    let explain =
        if schema.dialect() == Dialect::Sqlite { "EXPLAIN QUERY PLAN" } else { "EXPLAIN" };
    let one = |p: i64| [2_000, 2_000, p, 100, 50, p, p, 100, 100, 10_000, 1, p, 100, p, 100, 700];
    let numbers: Vec<i64> = (0..READ).flat_map(one).collect();
    let read = with_numbers(&schema.sql_of_read(4), &numbers);
    let finish = with_numbers(&schema.sql_of_finish(4), &[1, 2, 3, 4]);
    [plan(db, format!("{explain} {read}")).await, plan(db, format!("{explain} {finish}")).await]
}

fn is_by_key(dialect: Dialect, [read, finish]: &[String; 2]) {
    match dialect {
        Dialect::Postgres => {
            assert!(
                read.contains("Index Scan using shop_outbox_events_pkey on shop_outbox_events e"),
                "{read}"
            );
            assert!(
                read.contains(
                    "Index Only Scan using shop_outbox_events_pkey on shop_outbox_events l"
                ),
                "{read}"
            );
            assert!(
                finish.contains("Index Scan using shop_outbox_events_pkey on shop_outbox_events e"),
                "{finish}"
            );
            for walk in ["Seq Scan", "Bitmap", "Rows Removed by Filter", "Hash", "Merge"] {
                assert!(!read.contains(walk) && !finish.contains(walk), "{walk} in {read}{finish}");
            }
        }
        Dialect::Sqlite => {
            let place = "INDEX shop_outbox_events_place (partition_no=? AND event_id>?";
            // Events, ids and whether there is any, in each partition.
            assert_eq!(read.matches(place).count(), 12, "{read}");
            assert!(!read.contains("SCAN e") && !read.contains("INTEGER PRIMARY KEY"), "{read}");
            assert!(finish.contains("USING INTEGER PRIMARY KEY (rowid=?)"), "{finish}");
        }
        Dialect::MySql | Dialect::MariaDb => {
            let events =
                read.lines().filter(|line| [" e ", " w ", " n "].iter().any(|t| line.contains(t)));
            let events: Vec<_> = events.collect();
            assert!(events.len() >= 8, "{read}");
            assert!(events.iter().all(|line| line.contains("| PRIMARY |")), "{read}");
            assert!(finish.contains("outbox_event_id") && !finish.contains("ALL"), "{finish}");
        }
    }
}

async fn recheck_is_by_key(db: &DatabaseConnection, schema: &Schema) {
    let one = |p: i64| [p, p, 150, 100, 10_000];
    let numbers: Vec<i64> = (0..READ).flat_map(one).collect();
    let recheck =
        plan(db, format!("EXPLAIN {}", with_numbers(&schema.sql_of_recheck(4), &numbers))).await;
    let walks: Vec<_> = recheck.lines().filter(|line| line.contains(" w ")).collect();
    assert_eq!(walks.len(), 4, "{recheck}");
    assert!(walks.iter().all(|line| line.contains("| PRIMARY |")), "{recheck}");
}

/// Explains the read of a page of parked keys, with numbers in place of parameters.
async fn of_parks(db: &DatabaseConnection, schema: &Schema) -> String {
    let sql = schema.sql_of_parks();
    if db.get_database_backend() != DbBackend::Postgres {
        let explain =
            if schema.dialect() == Dialect::Sqlite { "EXPLAIN QUERY PLAN" } else { "EXPLAIN" };
        return plan(db, format!("{explain} {}", with_numbers(&sql, &[0, 100, 50]))).await;
    }
    let tx = db.begin().await.unwrap();
    for setting in schema.settings_of_relay(Duration::from_secs(60)) {
        tx.execute_unprepared(&format!("SET LOCAL {setting}")).await.unwrap();
    }
    tx.execute_unprepared(&format!("PREPARE outbox_parks (smallint, bigint, bigint) AS {sql}"))
        .await
        .unwrap();
    let shown = plan(&tx, "EXPLAIN (COSTS OFF) EXECUTE outbox_parks (0, 100, 50)".into()).await;
    tx.execute_unprepared("DEALLOCATE outbox_parks").await.unwrap();
    tx.rollback().await.unwrap();
    shown
}

on_every_database! {
    async fn a_page_of_parked_keys_walks_no_other_letters(temp: &TempDatabase) {
        let db = temp.connect().await;
        let schema = installed(&db, &Namespace::new("shop").unwrap()).await;
        let shown = of_parks(&db, &schema).await;
        assert!(shown.contains("outbox_letters_park"), "{shown}");
        assert!(!shown.contains("Sort") && !shown.contains("TEMP B-TREE") && !shown.contains("filesort"), "{shown}");
    }

    async fn reading_and_finishing_go_by_the_key_however_full_a_partition_is(temp: &TempDatabase) {
        let db = temp.connect().await;
        let schema = installed(&db, &Namespace::new("shop").unwrap()).await;
        fill(&db, &schema).await;
        // Before and after the database has counted.
        for analyze in [None, Some("ANALYZE")] {
            if let Some(analyze) = analyze {
                let table = if schema.dialect() == Dialect::MariaDb { " TABLE shop_outbox_events" } else { "" };
                db.execute_unprepared(&format!("{analyze}{table}")).await.unwrap();
            }
            let plans = if db.get_database_backend() == DbBackend::Postgres {
                let tx = db.begin().await.unwrap();
                let plans = postgres(&tx, &schema).await;
                tx.rollback().await.unwrap();
                plans
            } else {
                with_literals(&db, &schema).await
            };
            is_by_key(schema.dialect(), &plans);
            if schema.dialect() == Dialect::MariaDb {
                recheck_is_by_key(&db, &schema).await;
            }
        }
    }
}
