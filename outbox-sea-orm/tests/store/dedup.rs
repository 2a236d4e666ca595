//! Keys that make a repeat of a whole transaction harmless.

use crate::outbox::{installed, writing};
use outbox_core::event::MessageId;
use outbox_sea_orm::{DedupConflict, DedupReservation, Namespace, Schema};
use sea_orm::{ConnectionTrait, DatabaseConnection};
use std::{sync::Arc, time::Duration};
use tests::{
    databases::{Database, TempDatabase, waiting_for_locks},
    on_every_database, wait_until,
};

const DAY: Duration = Duration::from_hours(24);

fn claim(key: &str, payload_hash: i64) -> DedupReservation {
    DedupReservation { key: key.into(), message_id: MessageId::generate(), payload_hash, keep: DAY }
}

async fn opened(temp: &TempDatabase) -> (DatabaseConnection, Arc<Schema>) {
    let db = temp.connect().await;
    let schema = installed(&db, &Namespace::default()).await;
    (db, schema)
}

async fn claimed(
    db: &DatabaseConnection,
    schema: &Schema,
    claims: &[DedupReservation],
) -> Option<DedupConflict> {
    let tx = writing(db).await;
    let conflict = schema.reserve_dedup_keys(&tx, claims).await.unwrap();
    // The transaction goes on after any result.
    tx.execute_unprepared("SELECT 1").await.unwrap();
    tx.commit().await.unwrap();
    conflict
}

on_every_database! {
    async fn a_second_use_of_a_key_says_whose_it_is(temp: &TempDatabase) {
        let (db, schema) = opened(temp).await;
        let first = [claim("b", 1), claim("a", 2)];
        assert_eq!(claimed(&db, &schema, &first).await, None);
        assert_eq!(claimed(&db, &schema, &first).await, None, "the same events hold their own keys");
        let second = [claim("c", 3), claim("a", 2), claim("b", 7)];
        let conflict = DedupConflict { index: 1, message_id: first[1].message_id, same_bytes: true };
        assert_eq!(claimed(&db, &schema, &second).await, Some(conflict), "the lowest index");
        let other_bytes = DedupConflict { index: 0, message_id: first[0].message_id, same_bytes: false };
        assert_eq!(claimed(&db, &schema, &second[2..]).await, Some(other_bytes));
    }

    async fn a_key_is_compared_to_the_last_byte(temp: &TempDatabase) {
        let (db, schema) = opened(temp).await;
        for key in ["a", "A", "a ", " a", "\u{e4}", "a\u{308}", "'", "\\", &"k".repeat(254), &"k".repeat(255)] {
            assert_eq!(claimed(&db, &schema, &[claim(key, 1)]).await, None, "{key:?}");
        }
    }

    async fn one_key_twice_in_one_transaction_is_a_conflict(temp: &TempDatabase) {
        let (db, schema) = opened(temp).await;
        let claims = [claim("x", 1), claim("a", 1), claim("x", 1)];
        let conflict = DedupConflict { index: 2, message_id: claims[0].message_id, same_bytes: true };
        assert_eq!(claimed(&db, &schema, &claims).await, Some(conflict));
    }

    async fn a_key_whose_time_has_passed_is_free(temp: &TempDatabase) {
        let (db, schema) = opened(temp).await;
        let short = [claim("a", 1), claim("b", 1)];
        assert_eq!(claimed(&db, &schema, &short).await, None);
        db.execute_unprepared("UPDATE outbox_dedup SET until = 1 WHERE dedup_key = 'a'").await.unwrap();
        let next = [claim("a", 2)];
        assert_eq!(claimed(&db, &schema, &next).await, None);
        let held = DedupConflict { index: 0, message_id: next[0].message_id, same_bytes: false };
        assert_eq!(claimed(&db, &schema, &[claim("a", 3)]).await, Some(held), "it has a new holder");
        let both = DedupConflict { index: 0, message_id: short[1].message_id, same_bytes: true };
        assert_eq!(claimed(&db, &schema, &[claim("b", 1)]).await, Some(both));
    }

    async fn a_key_that_is_being_claimed_is_waited_for(temp: &TempDatabase) {
        if temp.database() == Database::Sqlite {
            // One writer: the second transaction does not begin before the first has ended.
            return;
        }
        let (db, schema) = opened(temp).await;
        for (key, commits) in [("a", false), ("b", true)] {
            let first = writing(&db).await;
            let held = claim(key, 1);
            assert_eq!(schema.reserve_dedup_keys(&first, std::slice::from_ref(&held)).await.unwrap(), None);
            let second = {
                let (db, schema) = (db.clone(), Arc::clone(&schema));
                tokio::spawn(async move { claimed(&db, &schema, &[claim(key, 1)]).await })
            };
            let waits = wait_until(Duration::from_secs(10), "the second waits for the first", async || {
                waiting_for_locks(&db).await > 0
            });
            waits.await;
            if commits {
                first.commit().await.unwrap();
                let conflict = DedupConflict { index: 0, message_id: held.message_id, same_bytes: true };
                assert_eq!(second.await.unwrap(), Some(conflict));
            } else {
                first.rollback().await.unwrap();
                assert_eq!(second.await.unwrap(), None);
            }
        }
    }

    async fn many_keys_in_any_order_at_once_end_without_a_deadlock(temp: &TempDatabase) {
        let (db, schema) = opened(temp).await;
        for round in 0..10 {
            let keys: Vec<String> = (0..20).map(|n| format!("{round}-{n}")).collect();
            let (mut up, mut down): (Vec<_>, Vec<_>) = (Vec::new(), Vec::new());
            for key in &keys {
                up.push(claim(key, 1));
                down.insert(0, claim(key, 1));
            }
            let (one, two) = tokio::join!(claimed(&db, &schema, &up), claimed(&db, &schema, &down));
            assert_eq!(usize::from(one.is_none()) + usize::from(two.is_none()), 1, "one of them has all, the other none");
        }
    }
}
