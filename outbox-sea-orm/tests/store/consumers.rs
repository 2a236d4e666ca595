//! What consumers rely on, whatever else happens on the same database.

use crate::outbox::installed;
use bytes::Bytes;
use outbox_core::{
    event::{Headers, Message, MessageId, MessageParts, Timestamp},
    outbox::{
        ClaimQuery, ConsumerStore, DeferredDelivery, History, InboxKey, RetrierStore, Store,
        StoredDelivery,
    },
};
use outbox_sea_orm::{Namespace, Outbox};
use sea_orm::{ConnectionTrait, Statement};
use std::{sync::Arc, time::Duration};
use tests::{
    databases::{Database, TempDatabase},
    on_every_database, wait_until,
};

pub(crate) fn message() -> Message {
    Message::new(MessageParts {
        id: MessageId::generate(),
        source: "/shop".into(),
        topic: "orders".into(),
        event_type: "order.placed".into(),
        event_version: 1,
        aggregate_type: None,
        key: Some("a".into()),
        content_type: "application/json".into(),
        payload: Bytes::from_static(b"{}"),
        headers: Headers::new(),
        created_at: Timestamp::from_micros(1),
        expires_at: None,
        sequence: None,
        retry: None,
    })
}

pub(crate) async fn put(outbox: &Outbox, message: &Message, due_in: Option<Duration>) -> bool {
    let tx = Store::begin(outbox).await.unwrap();
    let delivery = DeferredDelivery {
        consumer: "c",
        handler: "h",
        message,
        due_in,
        history: History::default(),
    };
    let put = outbox.defer(&tx, &delivery).await.unwrap();
    outbox.commit(tx).await.unwrap();
    put
}

async fn claimed(outbox: &Outbox) -> Vec<StoredDelivery> {
    let (handlers, me) = ([Arc::from("h")], Arc::from("me"));
    let lease = Duration::from_mins(1);
    outbox
        .claim(&ClaimQuery { consumer: "c", handlers: &handlers, by: &me, lease, limit: 10 })
        .await
        .unwrap()
}

/// Finds deliveries that are deferred behind the head of a key while the head is handled, on a
/// server whose default is REPEATABLE READ.
async fn is_found(database: Database) {
    let temp = TempDatabase::create(database).await;
    let db = temp.connect().await;
    installed(&db, &Namespace::default()).await;
    if database == Database::Postgres {
        let name = temp.url().rsplit('/').next().unwrap();
        let stricter = format!(
            "ALTER DATABASE \"{name}\" SET default_transaction_isolation = 'repeatable read'"
        );
        db.execute_unprepared(&stricter).await.unwrap();
    }
    let outbox = Outbox::builder(temp.connect().await).source("/shop").build().await.unwrap();
    let (first, second) = (message(), message());
    assert!(put(&outbox, &first, Some(Duration::ZERO)).await);
    let head = claimed(&outbox).await.swap_remove(0);

    let tx = outbox.begin_stored().await.unwrap();
    let key = InboxKey { consumer: "c", handler: "h", source: &first.source, message_id: first.id };
    outbox.admit(&tx, key, None).await.unwrap();
    assert!(put(&outbox, &second, None).await, "it goes behind the one that is being handled");
    assert!(outbox.extend_claim(&head.claim, Duration::from_mins(1), false).await.unwrap());
    assert!(outbox.finish(&tx, &head.claim).await.unwrap());
    outbox.commit(tx).await.unwrap();

    let next: Vec<_> =
        claimed(&outbox).await.into_iter().map(|stored| stored.message.unwrap().id).collect();
    assert_eq!(next, [second.id], "{database:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_put_behind_a_handled_delivery_is_found_at_repeatable_read_on_postgresql() {
    is_found(Database::Postgres).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_put_behind_a_handled_delivery_is_found_at_repeatable_read_on_mariadb() {
    is_found(Database::MariaDb).await;
}

on_every_database! {
    async fn a_message_is_remembered_for_as_long_as_its_receiver_said(db: &TempDatabase) {
        let pool = db.connect().await;
        installed(&pool, &Namespace::default()).await;
        let mut outboxes = Vec::new();
        for days in [0, 30] {
            let builder = Outbox::builder(pool.clone()).source("/shop");
            outboxes.push(builder.inbox_retention(Duration::from_hours(24 * days)).build().await.unwrap());
        }
        let received = message();
        let key = |consumer| InboxKey { consumer, handler: "h", source: "/shop", message_id: received.id };
        for (outbox, consumer) in outboxes.iter().zip(["forgetful", "careful"]) {
            let tx = Store::begin(outbox).await.unwrap();
            assert!(outbox.receive(&tx, key(consumer)).await.unwrap());
            outbox.commit(tx).await.unwrap();
        }
        // Whoever tidies up.
        for outbox in &outboxes {
            wait_until(Duration::from_secs(30), "a moment has passed", async || {
                outbox.prune_inbox(10).await.unwrap();
                pool.query_all_raw(Statement::from_string(pool.get_database_backend(), "SELECT 1 FROM outbox_inbox"))
                    .await
                    .unwrap()
                    .len()
                    == 1
            })
            .await;
        }
        let tx = Store::begin(&outboxes[0]).await.unwrap();
        assert!(!outboxes[0].receive(&tx, key("careful")).await.unwrap(), "it is still known");
        outboxes[0].rollback(tx).await.unwrap();
    }
}
