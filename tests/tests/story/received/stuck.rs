//! One key is stuck behind a lock of another session, such as that of a consumer that hangs inside
//! a handler's transaction.

use crate::support::{AckDecision, Cx, Queue, SOON, Sample, World, message, on_servers};
use futures_util::future::join_all;
use outbox_sea_orm::consumer::Consumer;
use sea_orm::{ConnectionTrait, DbErr, TransactionTrait};
use std::time::Duration;
use tests::{databases::TempDatabase, wait_until};

/// Messages of the stuck key, more than the consumer has places for, and of the other key.
const STUCK: u64 = 50;
const FREE: u64 = 100;

/// Updates the row of an event's key, whose lock it needs.
async fn note(sample: Sample, cx: &Cx) -> Result<(), DbErr> {
    let Sample { key, n, .. } = sample;
    let next = format!("UPDATE story_progress SET n = {n} WHERE k = '{key}' AND n = {n} - 1");
    match cx.tx.execute_unprepared(&next).await?.rows_affected() {
        1 => Ok(()),
        _ => Err(DbErr::Custom(format!("{key} {n} is not the next"))),
    }
}

on_servers! {
    async fn a_key_behind_a_lock_takes_no_place_of_the_others_and_goes_on_in_its_order(db: &TempDatabase) {
        let world = World::open(db).await;
        world.db.execute_unprepared("CREATE TABLE story_progress (k VARCHAR(64) NOT NULL PRIMARY KEY, n BIGINT NOT NULL)").await.unwrap();
        world.db.execute_unprepared("INSERT INTO story_progress (k, n) VALUES ('stuck', 0), ('free', 0)").await.unwrap();
        let stands_still = world.db.begin().await.unwrap();
        stands_still.execute_unprepared("UPDATE story_progress SET n = n WHERE k = 'stuck'").await.unwrap();
        let (queue, subscriber) = Queue::open();
        let consumer = Consumer::builder("story", &world.outbox).on("note", note).subscribe(subscriber);
        let handle = consumer.concurrency(4).max_unacked_time(Duration::from_secs(1)).start().await.unwrap();
        let of_stuck: Vec<_> = (1..=STUCK).map(|n| queue.deliver(Ok(message("stuck", n)))).collect();
        let of_free = (1..=FREE).map(|n| queue.deliver(Ok(message("free", n))));
        let free = tokio::time::timeout(SOON, join_all(of_free)).await.expect("the others go on");
        assert!(free.iter().all(|answer| *answer == AckDecision::Ack));
        assert_eq!(world.number("SELECT n FROM story_progress WHERE k = 'free'").await, 100);
        wait_until(SOON, "the one in hand is counted as overdue", async || handle.stats().borrow().overdue == 1).await;
        stands_still.rollback().await.unwrap();
        assert!(join_all(of_stuck).await.iter().all(|answer| *answer == AckDecision::Ack));
        assert_eq!(world.number("SELECT n FROM story_progress WHERE k = 'stuck'").await, 50);
        let stats = *handle.stats().borrow();
        handle.shutdown(SOON).await.unwrap();
        assert_eq!((stats.returned, stats.stored, stats.dead_lettered, stats.overdue), (0, 0, 0, 0));
    }
}
