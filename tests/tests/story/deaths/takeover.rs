//! Relays that take over from one another.

use crate::support::{
    Deliveries, Destination, LATE, LEASE, SOON, VictimConfig, VictimRoute, World, keys, relay,
    victim,
};
use outbox_sea_orm::transport::everything;
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tests::{databases::TempDatabase, on_every_database, processes::Process, wait_until};

/// Successive relays.
const TURNS: u64 = 20;
/// Pause between transactions of the load.
const BEAT: Duration = Duration::from_millis(10);

/// Starts a relay in a process of its own, with a short lease.
async fn start(world: &World, db: &TempDatabase, name: &str, route: VictimRoute) -> Process {
    start_for(world, db, name, route, 1_500).await
}

/// Starts a relay in a process of its own, with a lease of so many milliseconds.
async fn start_for(
    world: &World,
    db: &TempDatabase,
    name: &str,
    route: VictimRoute,
    lease_ms: u64,
) -> Process {
    let config = VictimConfig {
        url: db.url().to_owned(),
        name: name.to_owned(),
        lease_ms,
        shutdown_ms: 10_000,
        routes: vec![route],
        ..VictimConfig::default()
    };
    let process = victim(&config).await;
    wait_until(SOON, "the new relay is registered", async || {
        tests::above(world.count("outbox_relays").await, 0)
    })
    .await;
    process
}

on_every_database! {
    async fn the_backlog_of_a_killed_owner_is_delivered_by_one_that_had_read_further(db: &TempDatabase) {
        let (world, destination) = (World::open(db).await, Destination::new());
        let to = destination.listen().await;
        // The lease is longer than the other relay needs for its half, also on a busy machine.
        let mut owner = start_for(&world, db, "owner", VictimRoute::to("a", to), 10_000).await;
        let source = world.source();
        let next = relay(&source, LEASE).route("a", everything(), destination.publisher("a")).start().await.unwrap();
        world.wait_for_shares(&[8, 8], "both own a half").await;
        owner.pause();
        let paused_at = destination.count();
        let expected = keys(64, 50);
        world.emit_all(&expected).await;
        // The other relay is done with its half, so its position is past the ids of the killed
        // one's.
        let theirs = "SELECT COUNT(*) FROM outbox_events e JOIN outbox_partitions p ON p.partition_no = e.partition_no";
        let (mut before, mut same) = (0, 0);
        wait_until(SOON, "only the backlog is left", async || {
            let left = world.number(theirs).await;
            same = if left == before { same + 1 } else { 0 };
            before = left;
            destination.count() > paused_at && left > 0 && same > 3
        })
        .await;
        owner.kill().await;
        world.drained(LATE).await;
        assert_eq!(world.shares().await, [16]);
        next.shutdown(SOON).await.unwrap();
        Deliveries::of(&destination.confirmed()).is_whole(&expected).is_in_order().repeats_at_most(0);
    }

    async fn relays_that_follow_one_another_lose_nothing_keep_the_order_and_share_fairly(db: &TempDatabase) {
        let (world, destination) = (Arc::new(World::open(db).await), Destination::new());
        let to = destination.listen().await;
        let ends = Arc::new(AtomicBool::new(false));
        let load = {
            let (world, ends) = (world.clone(), ends.clone());
            tokio::spawn(async move {
                let mut n = 0;
                while !ends.load(Ordering::SeqCst) {
                    n += 1;
                    for key in 0..8 {
                        world.emit(&format!("k{key}"), n).await;
                    }
                    tokio::time::sleep(BEAT).await;
                }
                n
            })
        };
        let mut old = start(&world, db, "relay 0", VictimRoute::to("a", to)).await;
        for turn in 1..=TURNS {
            let new = start(&world, db, &format!("relay {turn}"), VictimRoute::to("a", to)).await;
            world.wait_for_shares(&[8, 8], "both own a half").await;
            let status = old.terminate(SOON).await;
            assert_eq!(status.code(), Some(0), "{:?}", old.finish(SOON).await.1);
            world.wait_for_shares(&[16], "the new one owns all").await;
            old = new;
        }
        ends.store(true, Ordering::SeqCst);
        let rounds = load.await.unwrap();
        world.drained(LATE).await;
        assert_eq!(old.terminate(SOON).await.code(), Some(0));
        Deliveries::of(&destination.confirmed()).is_whole(&keys(8, rounds)).is_in_order().repeats_at_most(0);
    }
}
