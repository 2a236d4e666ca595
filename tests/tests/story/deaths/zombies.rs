//! Processes that are suspended for longer than their lease.

use crate::support::{
    Answer, Deliveries, Destination, HERE, LATE, LEASE, SOON, VictimConfig, VictimRoute, World,
    keys, on_servers, relay, victim,
};
use outbox_sea_orm::transport::everything;
use sea_orm::{ConnectionTrait, DatabaseTransaction, TransactionTrait};
use std::time::{Duration, Instant};
use tests::{
    databases::{Database, TempDatabase, waiting_for_locks},
    equals, on_every_database, wait_until,
};

fn config(db: &TempDatabase, route: VictimRoute) -> VictimConfig {
    let (url, name) = (db.url().to_owned(), "zombie".to_owned());
    VictimConfig {
        url,
        name,
        lease_ms: 1_500,
        shutdown_ms: 10_000,
        routes: vec![route],
        ..VictimConfig::default()
    }
}

fn confirmed(destination: &Destination) -> i64 {
    i64::try_from(destination.count()).unwrap()
}

on_every_database! {
    async fn a_relay_that_stood_still_beyond_its_lease_touches_nothing_when_it_goes_on(db: &TempDatabase) {
        let (world, destination) = (World::open(db).await, Destination::new());
        let expected = keys(32, 100);
        world.emit_all(&expected).await;
        let route = VictimRoute::to("a", destination.listen().await);
        let mut zombie = victim(&config(db, route.clone())).await;
        destination.wait_for(200, SOON).await;
        // The relay is suspended while all its publishes wait for their answers: suspended in the
        // middle of a write it would finish that write, and no fence could stop it.
        destination.hold();
        destination.wait_for_held(route.max_in_flight, SOON).await;
        let all_settled = async || world.count("outbox_events").await + confirmed(&destination) == 3_200;
        wait_until(SOON, "what was confirmed is settled", all_settled).await;
        zombie.pause();
        while world.is_locked().await {
            // Only the end of the process releases a file's lock: suspend it at another moment.
            zombie.resume();
            zombie.pause();
        }
        destination.release();

        let source = world.source();
        let next = relay(&source, LEASE).route("a", everything(), destination.publisher("a")).start().await.unwrap();
        world.drained(LATE).await;
        let before = destination.confirmed();
        assert!(before.iter().any(|sent| sent.from == HERE), "the other has taken over");
        zombie.resume();
        // It sees that all its partitions are lost, and registers again for its share.
        world.wait_for_shares(&[8, 8], "both own a half").await;
        zombie.wait_for_line(SOON, "lost 16").await;
        assert_eq!(destination.count(), before.len(), "nothing was published under what was owned before");

        let more: Vec<_> = (0..32).map(|key| (format!("k{key}"), 101)).collect();
        for (key, n) in &more {
            world.emit(key, *n).await;
        }
        world.drained(SOON).await;
        let after = &destination.confirmed()[before.len()..];
        assert!(after.iter().any(|sent| sent.from == "zombie"), "it works again");
        next.shutdown(SOON).await.unwrap();
        assert_eq!(zombie.terminate(SOON).await.code(), Some(0));
        // The publishes that were in flight when it was suspended may have been repeated.
        let in_flight = route.in_flight();
        Deliveries::of(&destination.confirmed()).is_whole(&keys(32, 101)).is_in_order().repeats_at_most(in_flight);
    }
}

/// Blocks every relay that records a failure, in the middle of its transaction.
async fn hold_up(world: &World, database: Database) -> DatabaseTransaction {
    let holder = world.db.begin().await.unwrap();
    match database {
        Database::Postgres => {
            holder.execute_unprepared("LOCK TABLE outbox_retries IN EXCLUSIVE MODE").await.unwrap()
        }
        // A gap lock that an insert waits for: in an empty table it covers the whole table.
        _ => holder
            .execute_unprepared("SELECT 1 FROM outbox_retries WHERE partition_no >= 0 FOR UPDATE")
            .await
            .unwrap(),
    };
    holder
}

// Not on SQLite: it has no server that could end a writer that is suspended inside its transaction.
on_servers! {
    async fn a_relay_that_stands_still_inside_a_settle_does_not_hold_the_takeover_up(db: &TempDatabase) {
        let world = World::open(db).await;
        let destination = Destination::scripted(|sent, _| {
            let fails = sent.from == "zombie";
            if fails { Answer::Transient } else { Answer::Confirmed }
        });
        let expected = keys(1, 5);
        world.emit_all(&expected).await;
        let holder = hold_up(&world, db.database()).await;
        let zombie = config(db, VictimRoute::to("a", destination.listen().await));
        // The lease is so long that the settle's own timeout does not end it before the process is
        // suspended.
        let mut zombie = victim(&VictimConfig { lease_ms: 3_000, ..zombie }).await;
        // Before that it may wait for another lock, of its start.
        wait_until(SOON, "it owns all partitions", async || equals(world.shares().await, [16])).await;
        wait_until(SOON, "the settle waits for the lock", async || waiting_for_locks(&world.db).await > 0).await;
        zombie.pause();
        let stands_still = Instant::now();
        holder.rollback().await.unwrap();

        let source = world.source();
        let next = relay(&source, LEASE).route("a", everything(), destination.publisher("a")).start().await.unwrap();
        world.drained(SOON).await;
        // The lease, the timeouts and the renewals of the next relay, and not the time of the
        // suspension.
        let took = stands_still.elapsed();
        assert!(took < Duration::from_secs(12), "it took {took:?}");
        assert_eq!(world.shares().await, [16]);
        zombie.kill().await;
        next.shutdown(SOON).await.unwrap();
        Deliveries::of(&destination.confirmed()).is_whole(&expected).is_in_order().repeats_at_most(0);
    }
}
