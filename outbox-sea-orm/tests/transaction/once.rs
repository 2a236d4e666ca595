//! Requests that are processed once.

use crate::shop::{AppError, OrderPlaced, Shop, new_order};
use outbox_sea_orm::{Responded, prelude::*};
use sea_orm::{ActiveModelTrait, ConnectionTrait};
use serde::{Deserialize, Serialize};
use tests::{
    databases::{Database, TempDatabase},
    on_every_database,
};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Receipt {
    order: i64,
    rate: f64,
}

/// Places an order, and gives a receipt with its id.
async fn place(tx: &OutboxTransaction, total: i64) -> Result<Receipt, AppError> {
    let order = new_order(total).insert(tx).await?;
    tx.emit(OrderPlaced::from(&order))?;
    if total <= 0 { Err(AppError::BadTotal) } else { Ok(Receipt { order: order.id, rate: 0.5 }) }
}

on_every_database! {
    async fn a_repeat_gets_the_first_response_and_does_nothing(db: &TempDatabase) {
        let shop = Shop::open(db).await;
        let respond = async |key: &str, total: i64| shop.outbox.respond_once(key, async |tx| place(tx, total).await).await;
        // What fails leaves the key free.
        assert!(matches!(respond("a", 0).await, Err(AppError::BadTotal)));
        let first = respond("a", 7).await.unwrap();
        assert!(first.is_first(), "{first:?}");
        let again = respond("a", 9).await.unwrap();
        assert_eq!(again, Responded::Again(first.clone().into_inner()));
        let other = respond("b", 9).await.unwrap();
        assert!(other.is_first() && other.clone().into_inner() != again.into_inner());
        assert_eq!((shop.orders().await, shop.events().await), (2, 2));
        // Another type is told, and nothing is done.
        let other_type = shop.outbox.respond_once("a", async |_| Ok::<i64, AppError>(1)).await;
        match other_type {
            Err(AppError::Outbox(OutboxError::Response { dedup_key, problem })) => {
                assert!(dedup_key == "a" && problem.contains("of another type"), "{problem}");
            }
            other => panic!("{other:?}"),
        }
    }

    async fn of_many_at_once_one_does_the_work_and_all_get_its_response(db: &TempDatabase) {
        let shop = Shop::open(db).await;
        let respond = async || shop.outbox.respond_once("same", async |tx| place(tx, 7).await).await;
        let all = tokio::join!(respond(), respond(), respond(), respond());
        let all = [all.0, all.1, all.2, all.3].map(|response| response.unwrap());
        assert_eq!(all.iter().filter(|response| response.is_first()).count(), 1, "{all:?}");
        let responses = all.map(Responded::into_inner);
        assert!(responses.iter().all(|response| *response == responses[0]), "{responses:?}");
        assert_eq!(shop.orders().await, 1);
    }

    async fn a_response_is_gone_with_its_key_and_an_event_s_key_is_no_response(db: &TempDatabase) {
        let shop = Shop::open(db).await;
        let tx = shop.outbox.begin().await.unwrap();
        tx.emit_with(OrderPlaced { order_id: 1, total: 1 }, outbox_sea_orm::EnqueueOptions::new().dedup_key("event")).unwrap();
        tx.commit().await.unwrap();
        let respond = async |key: &str| shop.outbox.respond_once(key, async |tx| place(tx, 7).await).await;
        assert!(matches!(respond("event").await, Err(AppError::Outbox(OutboxError::Duplicate { .. }))));
        assert!(respond("old").await.unwrap().is_first());
        shop.db.execute_unprepared("UPDATE outbox_dedup SET until = 1").await.unwrap();
        assert!(respond("old").await.unwrap().is_first(), "the key was free again");
        assert!(!respond("old").await.unwrap().is_first());
        assert!(respond("event").await.unwrap().is_first(), "that of the event too");
    }

    async fn a_response_that_cannot_be_saved_is_refused_and_nothing_is_done(db: &TempDatabase) {
        let shop = Shop::open(db).await;
        let refused = async |key: &str, rate: f64, text: String| {
            let response = (Receipt { order: 1, rate }, text);
            let placed = shop.outbox.respond_once(key, async |tx| place(tx, 7).await.map(|_| response)).await;
            match placed {
                Err(AppError::Outbox(OutboxError::Response { problem, .. })) => problem,
                other => panic!("{other:?}"),
            }
        };
        assert!(refused("a", f64::NAN, String::new()).await.contains("cannot be written"));
        assert!(refused("a", 0.0, "x".repeat(961 * 1024)).await.contains("at most 983040 are kept"));
        for key in ["", "a\nb", &"k".repeat(256)] {
            assert!(refused(key, 0.0, String::new()).await.contains("1 to 255 bytes"));
        }
        assert_eq!(shop.orders().await, 0);
        if db.database() != Database::Sqlite {
            let longest = "k".repeat(255);
            assert!(shop.outbox.respond_once(longest, async |tx| place(tx, 7).await).await.unwrap().is_first());
        }
    }
}
