//! A shop: orders, their events, and an outbox for both.

use outbox_sea_orm::prelude::*;
use sea_orm::{
    ActiveValue::Set, ConnectOptions, ConnectionTrait, DatabaseConnection, Schema, Statement,
    entity::prelude::*,
};
use serde::{Deserialize, Serialize};
use tests::databases::{Database, TempDatabase};

/// Orders.
#[expect(unreachable_pub, reason = "the entity's macros need public names")]
pub(crate) mod order {
    use sea_orm::entity::prelude::*;

    #[sea_orm::model]
    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "shop_order")]
    pub struct Model {
        #[sea_orm(primary_key)]
        pub id: i64,
        pub customer: String,
        pub total: i64,
    }

    impl ActiveModelBehavior for ActiveModel {}
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, OutboxEvent)]
#[outbox(type = "order.placed", topic = "orders")]
pub(crate) struct OrderPlaced {
    #[outbox(key)]
    pub(crate) order_id: i64,
    pub(crate) total: i64,
}

impl From<&order::Model> for OrderPlaced {
    fn from(order: &order::Model) -> Self {
        Self { order_id: order.id, total: order.total }
    }
}

#[derive(Debug, Serialize, OutboxEvent)]
#[outbox(type = "order.noted", topic = "orders", encode_only)]
pub(crate) struct OrderNoted<'a> {
    #[outbox(key)]
    pub(crate) order_id: i64,
    pub(crate) note: &'a str,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum AppError {
    #[error(transparent)]
    Db(#[from] DbErr),
    #[error(transparent)]
    Outbox(#[from] OutboxError),
    #[error("the total must be positive")]
    BadTotal,
}

/// A database with a shop in it.
pub(crate) struct Shop {
    pub(crate) db: DatabaseConnection,
    pub(crate) outbox: Outbox,
}

impl Shop {
    /// Opens one with the pool that the tests use.
    pub(crate) async fn open(database: &TempDatabase) -> Self {
        Self::open_with(database, |_| (), |builder| builder).await
    }

    /// Opens one with other options of the pool and of the outbox.
    pub(crate) async fn open_with(
        database: &TempDatabase,
        pool: impl FnOnce(&mut ConnectOptions),
        build: impl FnOnce(outbox_sea_orm::OutboxBuilder) -> outbox_sea_orm::OutboxBuilder,
    ) -> Self {
        let db = database.connect_with(pool).await;
        let backend = ConnectionTrait::get_database_backend(&db);
        let table = Schema::new(backend).create_table_from_entity(order::Entity);
        db.execute(&table).await.unwrap();
        let outbox = build(Outbox::builder(db.clone()).source("shop")).install().await.unwrap();
        Self { db, outbox }
    }

    pub(crate) async fn orders(&self) -> u64 {
        order::Entity::find().count(&self.db).await.unwrap()
    }

    pub(crate) async fn events(&self) -> i64 {
        self.count("outbox_events").await
    }

    /// How many events, while a transaction is open: SQLite's pool has one connection.
    pub(crate) async fn events_of_pool(&self, database: &TempDatabase) -> i64 {
        match database.database() {
            Database::Sqlite => {
                let onlooker = database.connect().await;
                let count = self.count_in(&onlooker, "outbox_events").await;
                onlooker.close().await.unwrap();
                count
            }
            _ => self.events().await,
        }
    }

    /// How many orders, how many events.
    pub(crate) async fn saved(&self) -> (u64, i64) {
        (self.orders().await, self.events().await)
    }

    pub(crate) async fn count(&self, table: &str) -> i64 {
        self.count_in(&self.db, table).await
    }

    pub(crate) async fn count_in(&self, connection: &impl ConnectionTrait, table: &str) -> i64 {
        let count = Statement::from_string(
            connection.get_database_backend(),
            format!("SELECT COUNT(*) FROM {table}"),
        );
        connection.query_one_raw(count).await.unwrap().unwrap().try_get_by_index(0).unwrap()
    }
}

/// An order that is not saved yet.
pub(crate) fn new_order(total: i64) -> order::ActiveModel {
    order::ActiveModel { customer: Set("ada".into()), total: Set(total), ..Default::default() }
}

/// Places an order and says so.
pub(crate) async fn place(tx: &OutboxTransaction, total: i64) -> Result<order::Model, AppError> {
    let order = new_order(total).insert(tx).await?;
    tx.emit(OrderPlaced::from(&order))?;
    Ok(order)
}
