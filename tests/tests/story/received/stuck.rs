//! One key is stuck behind a lock that somebody else holds, as a consumer does that stands still inside a handler's transaction.

use crate::stage::{Answered, Cx, Queue, SOON, Told, World, message, on_servers};
use futures_util::future::join_all;
use outbox_sea_orm::consumer::Consumer;
use sea_orm::{ConnectionTrait, DbErr, TransactionTrait};
use std::time::Duration;
use tests::{databases::TempDatabase, wait_until};

/// Messages of the stuck key, more than there are places, and of the other one.
const STUCK: u64 = 50;
const FREE: u64 = 100;

/// Notes an event in the row of its key, whose lock it needs.
async fn note(told: Told, cx: &Cx) -> Result<(), DbErr> {
    let Told { key, n, .. } = told;
    let next = format!("UPDATE told SET n = {n} WHERE k = '{key}' AND n = {n} - 1");
    match cx.tx.execute_unprepared(&next).await?.rows_affected() {
        1 => Ok(()),
        _ => Err(DbErr::Custom(format!("{key} {n} is not the next"))),
    }
}

on_servers! {
    async fn a_key_behind_a_lock_takes_no_place_of_the_others_and_goes_on_in_its_order(db: &TempDatabase) {
        let world = World::open(db).await;
        world.db.execute_unprepared("CREATE TABLE told (k VARCHAR(64) NOT NULL PRIMARY KEY, n BIGINT NOT NULL)").await.unwrap();
        world.db.execute_unprepared("INSERT INTO told (k, n) VALUES ('stuck', 0), ('free', 0)").await.unwrap();
        let stands_still = world.db.begin().await.unwrap();
        stands_still.execute_unprepared("UPDATE told SET n = n WHERE k = 'stuck'").await.unwrap();
        let (queue, subscriber) = Queue::open();
        let consumer = Consumer::new("story", &world.outbox).on("note", note).subscribe(subscriber);
        let handle = consumer.concurrency(4).hold(Duration::from_secs(1)).start().await.unwrap();
        let of_stuck: Vec<_> = (1..=STUCK).map(|n| queue.deliver(Ok(message("stuck", n)))).collect();
        let of_free = (1..=FREE).map(|n| queue.deliver(Ok(message("free", n))));
        let free = tokio::time::timeout(SOON, join_all(of_free)).await.expect("the others go on");
        assert!(free.iter().all(|answer| *answer == Answered::Ack));
        assert_eq!(world.number("SELECT n FROM told WHERE k = 'free'").await, 100);
        wait_until(SOON, "the one in hand is told", async || handle.stats().borrow().overdue == 1).await;
        stands_still.rollback().await.unwrap();
        assert!(join_all(of_stuck).await.iter().all(|answer| *answer == Answered::Ack));
        assert_eq!(world.number("SELECT n FROM told WHERE k = 'stuck'").await, 50);
        let stats = *handle.stats().borrow();
        handle.shutdown(SOON).await.unwrap();
        assert_eq!((stats.returned, stats.stored, stats.buried, stats.overdue), (0, 0, 0, 0));
    }
}
