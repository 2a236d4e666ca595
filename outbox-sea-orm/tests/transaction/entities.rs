//! All of SeaORM through `&OutboxTransaction`.

use crate::shop::{OrderPlaced, Shop, new_order, order};
use futures_util::{StreamExt, TryStreamExt};
use outbox_sea_orm::prelude::*;
use sea_orm::{
    ActiveModelTrait, ColumnTrait, ConnectionTrait, DbErr, EntityTrait, IntoActiveModel,
    ModelTrait, PaginatorTrait, QueryFilter, QueryOrder, Set, StreamTrait, TransactionError,
    TransactionSession, TransactionTrait,
};
use tests::{databases::TempDatabase, on_every_database};

/// As libraries write it: over any connection that can open transactions.
async fn twice<C: ConnectionTrait + TransactionTrait>(db: &C) -> Result<u64, DbErr> {
    for _ in 0..2 {
        let inner = db.begin().await?;
        new_order(1).insert(&inner).await?;
        inner.commit().await?;
    }
    let undone = db.begin().await?;
    new_order(1).insert(&undone).await?;
    undone.rollback().await?;
    order::Entity::find().count(db).await
}

on_every_database! {
    async fn every_call_takes_the_transaction(db: &TempDatabase) {
        let shop = Shop::open(db).await;
        let tx = shop.outbox.begin().await.unwrap();
        let saved = new_order(1).insert(&tx).await.unwrap();
        let mut active = saved.clone().into_active_model();
        active.total = Set(2);
        assert_eq!(active.update(&tx).await.unwrap().total, 2);
        let changed = order::ActiveModel { id: Set(saved.id), total: Set(3), ..Default::default() };
        changed.save(&tx).await.unwrap();
        order::Entity::insert_many((10..30).map(new_order)).exec(&tx).await.unwrap();
        assert_eq!(order::Entity::find().count(&tx).await.unwrap(), 21);
        let found = order::Entity::find_by_id(saved.id).one(&tx).await.unwrap().unwrap();
        assert_eq!(found.total, 3);
        let mut pages = order::Entity::find().order_by_asc(order::Column::Id).paginate(&tx, 8);
        assert_eq!(pages.num_pages().await.unwrap(), 3);
        assert_eq!(pages.fetch_and_next().await.unwrap().unwrap().len(), 8);
        let updated = order::Entity::update_many()
            .col_expr(order::Column::Total, sea_orm::sea_query::Expr::value(0))
            .filter(order::Column::Total.gte(20))
            .exec(&tx).await.unwrap();
        assert_eq!(updated.rows_affected, 10);
        let deleted = order::Entity::delete_many().filter(order::Column::Total.eq(0)).exec(&tx).await.unwrap();
        assert_eq!(deleted.rows_affected, 10);
        found.delete(&tx).await.unwrap();
        assert_eq!(order::Entity::find().count(&tx).await.unwrap(), 10);
        tx.commit().await.unwrap();
        assert_eq!(shop.orders().await, 10);
    }

    /// `ActiveModelEx` opens a nested transaction on whatever it is given.
    async fn the_nested_active_model_takes_the_transaction_and_the_outbox(db: &TempDatabase) {
        let shop = Shop::open(db).await;
        let model = || order::ActiveModelEx { customer: Set("ada".into()), total: Set(1), ..Default::default() };
        let tx = shop.outbox.begin().await.unwrap();
        let saved = model().insert(&tx).await.unwrap();
        let mut again = saved.into_active_model();
        again.total = Set(5);
        again.update(&tx).await.unwrap();
        tx.emit(OrderPlaced { order_id: 1, total: 5 }).unwrap();
        tx.commit().await.unwrap();
        model().insert(&shop.outbox).await.unwrap();
        assert_eq!(shop.saved().await, (2, 1));
        let tx = shop.outbox.begin().await.unwrap();
        model().insert(&tx).await.unwrap();
        drop(tx);
        assert_eq!(shop.saved().await, (2, 1));
    }

    async fn generic_code_nests_in_it(db: &TempDatabase) {
        let shop = Shop::open(db).await;
        let tx = shop.outbox.begin().await.unwrap();
        assert_eq!(twice(&tx).await.unwrap(), 2);
        tx.rollback().await.unwrap();
        assert_eq!(twice(&shop.outbox).await.unwrap(), 2);
        let session: OutboxTransaction = TransactionTrait::begin(&shop.outbox).await.unwrap();
        new_order(1).insert(&session).await.unwrap();
        TransactionSession::commit(session).await.unwrap();
        assert_eq!(shop.orders().await, 3);
    }

    async fn callbacks_of_seaorm_s_form_work(db: &TempDatabase) {
        let shop = Shop::open(db).await;
        let tx = shop.outbox.begin().await.unwrap();
        let saved = TransactionTrait::transaction::<_, _, DbErr>(&tx, |tx| Box::pin(async move {
            tx.emit(OrderPlaced { order_id: 1, total: 1 })?;
            new_order(1).insert(tx).await
        })).await;
        assert_eq!(saved.unwrap().total, 1);
        let failed = TransactionTrait::transaction::<_, (), DbErr>(&tx, |tx| Box::pin(async move {
            tx.emit(OrderPlaced { order_id: 1, total: 1 })?;
            new_order(1).insert(tx).await?;
            Err(DbErr::Custom("no".into()))
        })).await;
        assert!(matches!(failed, Err(TransactionError::Transaction(_))));
        tx.commit().await.unwrap();
        assert_eq!(shop.saved().await, (1, 1));
    }

    async fn rows_stream_and_a_stream_may_be_dropped(db: &TempDatabase) {
        let shop = Shop::open(db).await;
        let tx = shop.outbox.begin().await.unwrap();
        order::Entity::insert_many((0..200).map(new_order)).exec(&tx).await.unwrap();
        let all: Vec<order::Model> =
            order::Entity::find().order_by_asc(order::Column::Id).stream(&tx).await.unwrap().try_collect().await.unwrap();
        assert_eq!(all.iter().map(|order| order.total).collect::<Vec<_>>(), (0..200).collect::<Vec<_>>());
        for length in [0, 1, 20, 150] {
            let stream = order::Entity::find().order_by_asc(order::Column::Id).stream(&tx).await.unwrap();
            let some: Vec<_> = stream.take(length).collect().await;
            assert_eq!(some.len(), length);
            assert_eq!(order::Entity::find().count(&tx).await.unwrap(), 200, "the next statement has its own answer");
        }
        let failing = sea_orm::Statement::from_string(ConnectionTrait::get_database_backend(&tx), "SELECT nothing FROM nowhere");
        let failed: Result<Vec<_>, _> = tx.stream_raw(failing).await.unwrap().try_collect().await;
        assert!(failed.is_err());
        let ends = db.database() == tests::databases::Database::Postgres;
        assert_eq!(tx.commit().await.is_err(), ends);
    }

    async fn the_options_of_a_nested_transaction_are_refused(db: &TempDatabase) {
        let shop = Shop::open(db).await;
        let tx = shop.outbox.begin().await.unwrap();
        let wanted = Some(sea_orm::IsolationLevel::Serializable);
        let refused = tx.begin_with_config(wanted, None).await.unwrap_err();
        assert!(refused.to_string().contains("outermost"), "{refused}");
        tx.begin_with_config(None, None).await.unwrap().commit().await.unwrap();
    }
}
