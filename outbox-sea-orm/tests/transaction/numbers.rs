//! Numbers that JSON has not: written as `null`, they would be an error of every receiver.

use crate::shop::{AppError, Shop, place};
use outbox_sea_orm::{event::EncodeError, prelude::*};
use sea_orm::TransactionTrait;
use serde::{Deserialize, Serialize};
use tests::{databases::TempDatabase, on_every_database};

#[derive(Debug, Clone, Serialize, Deserialize, OutboxEvent)]
#[outbox(type = "reading.taken")]
struct Reading {
    #[outbox(key)]
    meter: i64,
    values: Vec<Option<f64>>,
}

#[derive(Debug, Clone, Serialize, Deserialize, OutboxEvent)]
#[outbox(prefix = "rate")]
enum Rate {
    Set {
        #[outbox(key)]
        meter: i64,
        rate: f32,
    },
    #[outbox(no_key)]
    Unset(f64),
}

fn reading(value: f64) -> Reading {
    Reading { meter: 7, values: vec![Some(1.0), None, Some(value)] }
}

#[transactional_outbox(emit = |value| reading(*value))]
async fn measure(tx: &OutboxTransaction, value: f64) -> Result<f64, AppError> {
    place(tx, 1).await?;
    Ok(value)
}

fn names<T: std::fmt::Debug>(refused: Result<T, OutboxError>, field: &str) {
    match refused {
        Err(OutboxError::Encode(EncodeError::Json { fault, event_type })) => {
            assert_eq!(fault.path(), field);
            assert!(
                fault.to_string().contains("for which JSON has no number"),
                "{fault} of {event_type}"
            );
        }
        other => panic!("it is not refused: {other:?}"),
    }
}

on_every_database! {
    async fn a_number_that_json_has_not_is_refused_where_it_is_written_and_the_transaction_goes_on(db: &TempDatabase) {
        let shop = Shop::open(db).await;
        let tx = shop.outbox.begin().await.unwrap();
        names(tx.emit(reading(f64::NAN)), "values[2]");
        names(tx.emit(Rate::Set { meter: 1, rate: f32::INFINITY }), "rate");
        names(tx.emit(Rate::Unset(f64::NEG_INFINITY)), "");
        place(&tx, 1).await.unwrap();
        tx.emit(reading(f64::MAX)).unwrap();
        tx.commit().await.unwrap();
        assert_eq!(shop.saved().await, (1, 2));

        let txn = shop.db.begin().await.unwrap();
        names(shop.outbox.enqueue(&txn, &reading(f64::NAN)).await, "values[2]");
        names(shop.outbox.enqueue_many(&txn, &[reading(1.0), reading(f64::NAN)]).await, "values[2]");
        txn.commit().await.unwrap();
        let refused = measure(&shop.outbox, f64::NAN).await.unwrap_err();
        assert!(refused.to_string().contains("`values[2]` is NaN"), "{refused}");
        assert_eq!(shop.saved().await, (1, 2), "the function's work is rolled back with it");
        assert!((measure(&shop.outbox, 0.5).await.unwrap() - 0.5).abs() < f64::EPSILON);
        assert_eq!(shop.saved().await, (2, 4));
    }
}
