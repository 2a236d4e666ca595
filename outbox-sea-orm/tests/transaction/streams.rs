//! Rows one by one, and other statements on the transaction's one connection meanwhile.

use crate::shop::{OrderPlaced, Shop, new_order, order, place};
use futures_util::TryStreamExt;
use outbox_sea_orm::prelude::*;
use sea_orm::{
    ActiveModelTrait, ConnectionTrait, DbErr, EntityTrait, PaginatorTrait, StreamTrait,
    TransactionTrait,
};
use std::time::Duration;
use tests::{databases::TempDatabase, on_every_database};

/// Long enough for a busy machine; what waits for itself waits longer.
const SOON: Duration = Duration::from_secs(20);

/// Makes sure that a statement is refused; one that waits for the stream that waits for it says
/// nothing.
async fn is_refused<T, E: Into<DbErr>>(what: &str, statement: impl Future<Output = Result<T, E>>) {
    let said = match tokio::time::timeout(SOON, statement).await {
        Ok(Ok(_)) => format!("{what} ran inside of a stream"),
        Ok(Err(error)) => error.into().to_string(),
        Err(_) => format!("{what} waits for itself"),
    };
    assert!(said.contains("collect the rows first"), "{said}");
}

/// Asks everything of a transaction while one of its streams is open.
async fn refuses_all(tx: &OutboxTransaction, outbox: &Outbox) {
    let placed = OrderPlaced { order_id: 9, total: 9 };
    let backend = ConnectionTrait::get_database_backend(tx);
    let one = || sea_orm::Statement::from_string(backend, "SELECT 1");
    is_refused("an insert", new_order(9).insert(tx)).await;
    is_refused("a count", order::Entity::find().count(tx)).await;
    is_refused("raw SQL", tx.execute_unprepared("SELECT 1")).await;
    is_refused("a second stream", tx.stream_raw(one())).await;
    is_refused("a nested transaction", tx.begin()).await;
    is_refused("SeaORM's nested transaction", TransactionTrait::begin(tx)).await;
    is_refused("the driver's transaction", tx.sea_orm()).await;
    is_refused("an event that is written at once", outbox.enqueue(tx, &placed)).await;
}

on_every_database! {
    async fn what_is_asked_inside_of_a_stream_s_loop_is_refused_at_once_and_the_transaction_goes_on(db: &TempDatabase) {
        let shop = Shop::open(db).await;
        for total in 1..=40 {
            new_order(total).insert(&shop.db).await.unwrap();
        }
        let tx = shop.outbox.begin().await.unwrap();
        {
            let mut orders = order::Entity::find().stream(&tx).await.unwrap();
            let first = orders.try_next().await.unwrap().unwrap();
            refuses_all(&tx, &shop.outbox).await;
            tx.emit(OrderPlaced::from(&first)).unwrap();
            assert!(orders.try_next().await.unwrap().is_some(), "the stream goes on");
        }
        place(&tx, 41).await.unwrap();
        tx.commit().await.unwrap();
        assert_eq!(shop.saved().await, (41, 2));
    }

    async fn the_same_holds_inside_of_a_savepoint(db: &TempDatabase) {
        let shop = Shop::open(db).await;
        for total in 1..=3 {
            new_order(total).insert(&shop.db).await.unwrap();
        }
        let tx = shop.outbox.begin().await.unwrap();
        let nested = tx.begin().await.unwrap();
        {
            let mut orders = order::Entity::find().stream(&nested).await.unwrap();
            assert!(orders.try_next().await.unwrap().is_some());
            refuses_all(&nested, &shop.outbox).await;
        }
        place(&nested, 4).await.unwrap();
        nested.commit().await.unwrap();
        tx.commit().await.unwrap();
        assert_eq!(shop.saved().await, (4, 1));
    }

    async fn a_stream_that_has_given_its_last_row_hinders_nobody(db: &TempDatabase) {
        let shop = Shop::open(db).await;
        for total in 1..=3 {
            new_order(total).insert(&shop.db).await.unwrap();
        }
        let tx = shop.outbox.begin().await.unwrap();
        let mut orders = order::Entity::find().stream(&tx).await.unwrap();
        let mut sum = 0;
        while let Some(order) = orders.try_next().await.unwrap() {
            sum += order.total;
        }
        let placed = tokio::time::timeout(SOON, place(&tx, sum)).await.expect("it does not wait for a stream that has ended");
        assert_eq!(placed.unwrap().total, 6);
        assert!(orders.try_next().await.unwrap().is_none());
        drop(orders);
        tx.commit().await.unwrap();
        assert_eq!(shop.saved().await, (4, 1));
    }
}
