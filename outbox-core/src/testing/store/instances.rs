//! Instances of consumers: alive, over, signed off.

use super::StoreFixture;
use crate::outbox::{
    DeclaredHandler, DeclaredSaga, DeclaredType, InstanceRow, InstanceStore, NewInstance,
};
use std::{sync::Arc, time::Duration};

/// A lease that no test outlives, and one whose end tests wait for.
const LONG: Duration = Duration::from_mins(10);
const SHORT: Duration = Duration::from_millis(100);
/// What the database needs no longer for.
const SOON: Duration = Duration::from_secs(30);

async fn register<S: InstanceStore>(store: &S, id: &str, consumer: &str, lease: Duration) {
    let id: Arc<str> = id.into();
    let types = vec![DeclaredType { name: "order.placed".into(), version: 3 }];
    let renamed_from = Some("before".into());
    let sagas = vec![DeclaredSaga { name: "checkout".into(), version: 2 }];
    let handlers = [DeclaredHandler { name: "h".into(), types, sagas, renamed_from }];
    let row = NewInstance { id: &id, consumer, max_in_flight: 16, handlers: &handlers };
    store.register_instance(&row, lease).await.expect("an instance registers");
}

async fn of<S: InstanceStore>(store: &S, consumer: &str) -> Vec<InstanceRow> {
    let mut rows = store.instances(consumer).await.expect("instances are read");
    rows.sort_by(|a, b| a.id.cmp(&b.id));
    rows
}

async fn renew<S: InstanceStore>(store: &S, id: &str) -> bool {
    store.renew_instance(id, LONG).await.expect("a renewal is answered")
}

/// Of its own consumer only, by the database's clock.
pub async fn an_instance_is_alive_while_it_renews_and_gone_when_it_signs_off<F: StoreFixture>() {
    let fixture = F::create(false).await;
    let store = fixture.consumer().await;
    for (id, consumer) in [("a", "c"), ("b", "c"), ("x", "other")] {
        register(&store, id, consumer, LONG).await;
    }
    // Registering again, after an answer that was lost, is one row.
    register(&store, "b", "c", LONG).await;
    let rows = of(&store, "c").await;
    let told: Vec<_> =
        rows.iter().map(|row| (&*row.id, row.max_in_flight, row.expired_for)).collect();
    assert_eq!(told, [("a", 16, None), ("b", 16, None)]);
    let declared = &rows[0].handlers[0];
    assert_eq!((&*declared.name, declared.renamed_from.as_deref()), ("h", Some("before")));
    assert_eq!((declared.types[0].version, declared.sagas[0].version), (3, 2));
    assert!(renew(&store, "a").await);
    let renewed = of(&store, "c").await;
    assert_ne!(renewed[0].lease_until, rows[0].lease_until, "a renewal is seen");
    assert_eq!(renewed[1], rows[1]);
    store.remove_instance("a", true).await.expect("answered");
    assert_eq!(of(&store, "c").await.len(), 2, "it lives");
    store.remove_instance("a", false).await.expect("it signs off");
    assert!(!renew(&store, "a").await, "its row is gone");
    assert_eq!(of(&store, "c").await, rows[1..]);
    assert_eq!(of(&store, "other").await.len(), 1);
}

/// One that stood still and goes on is alive again.
pub async fn an_instance_that_does_not_renew_is_over_until_it_does<F: StoreFixture>() {
    let fixture = F::create(false).await;
    let store = fixture.consumer().await;
    for id in ["a", "b"] {
        register(&store, id, "c", SHORT).await;
    }
    let over = async {
        while of(&store, "c").await.iter().any(|row| row.expired_for.is_none()) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(SOON, over).await.expect("both leases end");
    assert!(renew(&store, "a").await);
    let rows = of(&store, "c").await;
    assert!(rows[0].expired_for.is_none() && rows[1].expired_for.is_some(), "{rows:?}");
    for id in ["a", "b"] {
        store.remove_instance(id, true).await.expect("answered");
    }
    let left = of(&store, "c").await;
    assert_eq!(left.iter().map(|row| &*row.id).collect::<Vec<_>>(), ["a"]);
}
