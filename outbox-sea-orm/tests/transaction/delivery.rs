//! Options of an event: once a key, and later.

use crate::shop::{OrderPlaced, Shop, new_order};
use outbox_core::outbox::Store;
use outbox_sea_orm::{EnqueueOptions, OnDuplicate, prelude::*};
use sea_orm::{ActiveModelTrait, ConnectionTrait, TransactionTrait};
use std::time::Duration;
use tests::{databases::TempDatabase, on_every_database, wait_until};

const EVENT: OrderPlaced = OrderPlaced { order_id: 1, total: 1 };

const SOON: Duration = Duration::from_secs(20);

fn once() -> EnqueueOptions {
    EnqueueOptions::new().dedup_key("order-1")
}

on_every_database! {
    async fn the_repeat_of_a_transaction_is_a_duplicate_and_saves_nothing(db: &TempDatabase) {
        let shop = Shop::open(db).await;
        let run = async |event: OrderPlaced, options: EnqueueOptions| {
            let tx = shop.outbox.begin().await?;
            new_order(1).insert(&tx).await?;
            let id = tx.emit_with(event, options)?;
            tx.commit().await?;
            Ok::<_, OutboxError>(id)
        };
        let first = run(EVENT, once()).await.unwrap();
        match run(EVENT, once()).await {
            Err(OutboxError::Duplicate { dedup_key, message_id, same_bytes: true }) => {
                assert_eq!((dedup_key.as_str(), message_id), ("order-1", first));
            }
            other => panic!("{other:?}"),
        }
        let other = OrderPlaced { order_id: 1, total: 2 };
        assert!(matches!(run(other, once()).await, Err(OutboxError::Duplicate { same_bytes: false, .. })));
        assert_eq!(shop.saved().await, (1, 1));
        run(EVENT, once().on_duplicate(OnDuplicate::Ignore)).await.unwrap();
        assert_eq!(shop.saved().await, (2, 1), "the event alone is left out");
        run(EVENT, EnqueueOptions::new().dedup_key("order-2")).await.unwrap();
        assert_eq!(shop.saved().await, (3, 2));
    }

    async fn a_key_of_a_rolled_back_transaction_is_free_again(db: &TempDatabase) {
        let shop = Shop::open(db).await;
        let txn = shop.db.begin().await.unwrap();
        shop.outbox.enqueue_with(&txn, &EVENT, once()).await.unwrap();
        txn.rollback().await.unwrap();
        let txn = shop.db.begin().await.unwrap();
        shop.outbox.enqueue_with(&txn, &EVENT, once()).await.unwrap();
        txn.commit().await.unwrap();
        assert_eq!(shop.events().await, 1);
    }

    async fn one_transaction_uses_a_key_once(db: &TempDatabase) {
        let shop = Shop::open(db).await;
        let tx = shop.outbox.begin().await.unwrap();
        tx.emit_with(EVENT, once().on_duplicate(OnDuplicate::Ignore)).unwrap();
        tx.emit_with(EVENT, once().on_duplicate(OnDuplicate::Ignore)).unwrap();
        tx.emit(EVENT).unwrap();
        tx.commit().await.unwrap();
        assert_eq!(shop.events().await, 2);
        let tx = shop.outbox.begin().await.unwrap();
        let key = || EnqueueOptions::new().dedup_key("twice");
        tx.emit_with(EVENT, key()).unwrap();
        tx.emit_with(EVENT, key()).unwrap();
        assert!(matches!(tx.commit().await, Err(OutboxError::Duplicate { .. })));
        assert_eq!(shop.events().await, 2);
    }

    async fn headers_of_one_event_are_saved_with_it_and_one_that_could_not_travel_is_refused(db: &TempDatabase) {
        let shop = Shop::open(db).await;
        let tx = shop.outbox.begin().await.unwrap();
        for (name, value) in [("source", "a"), ("Tenant", "a"), ("tenant", "a\nb")] {
            let refused = tx.emit_with(EVENT, EnqueueOptions::new().header(name, value));
            assert!(matches!(refused, Err(OutboxError::Encode(_))), "{name}");
        }
        tx.emit_with(EVENT, EnqueueOptions::new().header("tenant", "first").header("tenant", "acme")).unwrap();
        tx.emit(EVENT).unwrap();
        tx.commit().await.unwrap();
        let with = shop.count("outbox_events WHERE headers LIKE '%tenant%acme%'").await;
        assert_eq!((with, shop.events().await), (1, 2));
    }

    async fn a_key_that_could_not_be_stored_is_refused(db: &TempDatabase) {
        let shop = Shop::open(db).await;
        let tx = shop.outbox.begin().await.unwrap();
        for key in ["", "a\nb", &"k".repeat(256)] {
            let refused = tx.emit_with(EVENT, EnqueueOptions::new().dedup_key(key));
            assert!(matches!(refused, Err(OutboxError::Encode(_))), "{key}");
        }
        tx.emit_with(EVENT, EnqueueOptions::new().dedup_key("k".repeat(255))).unwrap();
        tx.commit().await.unwrap();
        assert_eq!(shop.events().await, 1);
    }

    async fn while_too_many_events_wait_the_applications_next_are_refused_and_a_handlers_are_saved(db: &TempDatabase) {
        let shop = Shop::open_with(db, |_| (), |outbox| outbox.max_waiting(3)).await;
        let emits = async || {
            let tx = shop.outbox.begin().await.unwrap();
            let emitted = tx.emit(EVENT);
            tx.rollback().await.unwrap();
            match emitted {
                Ok(_) => true,
                Err(OutboxError::TooManyWaiting { limit: 3 }) => false,
                Err(error) => panic!("{error}"),
            }
        };
        for _ in 0..3 {
            let tx = shop.outbox.begin().await.unwrap();
            tx.emit(EVENT).unwrap();
            tx.commit().await.unwrap();
        }
        wait_until(SOON, "an event is refused", async || !emits().await).await;
        let txn = shop.db.begin().await.unwrap();
        for refused in [
            shop.outbox.enqueue(&txn, &EVENT).await.map(drop),
            shop.outbox.enqueue_many(&txn, &[EVENT]).await.map(drop),
            shop.outbox.enqueue_unchecked(&txn, &EVENT).await.map(drop),
        ] {
            let error = refused.unwrap_err().to_string();
            assert!(error.starts_with("3 events wait already") && error.contains("outbox explain"), "{error}");
        }
        txn.rollback().await.unwrap();

        let tx = Store::begin(&shop.outbox).await.unwrap();
        tx.emit(EVENT).unwrap();
        Store::commit(&shop.outbox, tx).await.unwrap();
        assert_eq!(shop.events().await, 4, "a handler goes on with what was accepted before");

        shop.db.execute_unprepared("DELETE FROM outbox_events").await.unwrap();
        wait_until(SOON, "events are saved again", emits).await;
    }

    async fn an_event_for_later_waits_apart_and_may_be_taken_back(db: &TempDatabase) {
        let shop = Shop::open(db).await;
        let tx = shop.outbox.begin().await.unwrap();
        let id = tx.emit_with(EVENT, EnqueueOptions::new().deliver_in(Duration::from_hours(1))).unwrap();
        let at = outbox_sea_orm::event::Timestamp::parse_rfc3339("2100-01-01T00:00:00Z").unwrap();
        tx.emit_with(EVENT, EnqueueOptions::new().deliver_at(at)).unwrap();
        tx.emit(EVENT).unwrap();
        tx.commit().await.unwrap();
        assert_eq!((shop.events().await, shop.count("outbox_scheduled").await), (1, 2));
        let tx = shop.outbox.begin().await.unwrap();
        assert!(shop.outbox.cancel(&tx, id).await.unwrap());
        assert!(!shop.outbox.cancel(&tx, id).await.unwrap());
        tx.commit().await.unwrap();
        assert_eq!(shop.count("outbox_scheduled").await, 1);
    }
}
