//! Orders, their event, and the mails that follow.

use outbox_sea_orm::prelude::*;
use sea_orm::{ConnectionTrait, Database, DatabaseConnection, Schema};
use serde::{Deserialize, Serialize};
use std::path::Path;

pub mod order {
    use sea_orm::entity::prelude::*;

    #[sea_orm::model]
    #[derive(Clone, Debug, DeriveEntityModel)]
    #[sea_orm(table_name = "orders")]
    pub struct Model {
        #[sea_orm(primary_key)]
        pub id: i64,
        pub total: i64,
    }

    impl ActiveModelBehavior for ActiveModel {}
}

pub mod mail {
    use sea_orm::{ActiveValue::Set, entity::prelude::*};

    #[sea_orm::model]
    #[derive(Clone, Debug, DeriveEntityModel)]
    #[sea_orm(table_name = "mails")]
    pub struct Model {
        #[sea_orm(primary_key)]
        pub id: i64,
        pub order_id: i64,
        pub sent_by: String,
    }

    impl ActiveModelBehavior for ActiveModel {}

    /// Sends a mail: a row stands for it here.
    pub async fn send(
        order_id: i64,
        sent_by: &str,
        db: &impl ConnectionTrait,
    ) -> Result<(), DbErr> {
        let mail = ActiveModel {
            order_id: Set(order_id),
            sent_by: Set(sent_by.into()),
            ..Default::default()
        };
        Entity::insert(mail).exec(db).await?;
        Ok(())
    }
}

#[derive(Debug, Clone, Serialize, Deserialize, OutboxEvent)]
#[outbox(type = "order.placed", topic = "orders")]
pub struct OrderPlaced {
    #[outbox(key)]
    pub order_id: i64,
}

/// Opens the database, with its tables.
pub async fn open(folder: &Path) -> anyhow::Result<DatabaseConnection> {
    let db = Database::connect(format!("sqlite://{}?mode=rwc", folder.join("shop.db").display()))
        .await?;
    let schema = Schema::new(ConnectionTrait::get_database_backend(&db));
    db.execute(schema.create_table_from_entity(order::Entity).if_not_exists()).await?;
    db.execute(schema.create_table_from_entity(mail::Entity).if_not_exists()).await?;
    Ok(db)
}
