//! Relays that do not have the same routes.

use crate::stage::{Destination, LATE, Part, RoutePart, SOON, Story, World, keys, victim};
use tests::{databases::TempDatabase, on_every_database};

on_every_database! {
    async fn a_relay_with_other_routes_waits_saying_for_whom_until_the_other_is_gone(db: &TempDatabase) {
        let (world, destination) = (World::open(db).await, Destination::new());
        let to = destination.listen().await;
        let part = |name: &str, routes: &[&str]| Part {
            url: db.url().to_owned(),
            name: name.to_owned(),
            lease_ms: 1_500,
            shutdown_ms: 10_000,
            routes: routes.iter().map(|route| RoutePart::to(route, to)).collect(),
            ..Part::default()
        };
        let mut old = victim(&part("old", &["a"])).await;
        world.wait_for_shares(&[16], "the old one owns all").await;
        let rows = world.rows("SELECT DISTINCT owner FROM outbox_partitions").await;
        let owner: String = rows[0].try_get_by_index(0).unwrap();

        let mut new = victim(&part("new", &["a", "b"])).await;
        let line = new.wait_for_line(SOON, "waits until it is gone").await;
        assert!(line.contains(&owner), "it says for whom: {line}");
        world.tell_all(&keys(8, 5)).await;
        world.drained(SOON).await;
        assert!(destination.confirmed().iter().all(|sent| sent.from == "old"), "the new one still waits");
        assert_eq!(world.shares().await, [16]);

        assert_eq!(old.terminate(SOON).await.code(), Some(0));
        world.wait_for_shares(&[16], "the new one owns all").await;
        let rest = (0..8).map(|key| (format!("k{key}"), 6));
        for (key, n) in rest {
            world.tell(&key, n).await;
        }
        world.drained(LATE).await;
        assert_eq!(new.terminate(SOON).await.code(), Some(0));
        Story::of(&destination.of_route("a")).is_whole(&keys(8, 6)).is_in_order().repeats_at_most(0);
        assert_eq!(destination.of_route("b").len(), 8, "the second route begins with the new relay");
    }
}
