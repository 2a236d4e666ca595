//! The types that the README's code uses.

use super::OrderPlaced;
use outbox_sea_orm::prelude::*;
use sea_orm::{ActiveValue::Set, DbErr, IntoActiveModel};
use serde::{Deserialize, Serialize};

pub(crate) mod order {
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

pub(crate) mod receipt {
    use sea_orm::entity::prelude::*;

    #[sea_orm::model]
    #[derive(Clone, Debug, DeriveEntityModel)]
    #[sea_orm(table_name = "receipts")]
    pub struct Model {
        #[sea_orm(primary_key)]
        pub id: i64,
        pub order_id: i64,
    }

    impl ActiveModelBehavior for ActiveModel {}
}

pub(crate) struct NewOrder {
    pub(crate) total: i64,
}

impl IntoActiveModel<order::ActiveModel> for NewOrder {
    fn into_active_model(self) -> order::ActiveModel {
        order::ActiveModel { total: Set(self.total), ..Default::default() }
    }
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum AppError {
    #[error(transparent)]
    Database(#[from] DbErr),
    #[error(transparent)]
    Outbox(#[from] OutboxError),
    #[error(transparent)]
    Sagas(#[from] SagasError),
}

#[derive(Serialize, Deserialize, OutboxEvent)]
#[outbox(type = "receipt.sent", topic = "receipts")]
pub(crate) struct ReceiptSent {
    #[outbox(key)]
    pub(crate) order_id: i64,
}

#[transactional_outbox]
pub(crate) async fn charge(
    tx: &OutboxTransaction,
    order: i64,
    amount: i64,
) -> Result<(), AppError> {
    tx.emit(OrderPlaced { order_id: order, total: amount })?;
    Ok(())
}

pub(crate) async fn notify_screen(event: OrderPlaced) -> Result<(), std::io::Error> {
    std::io::Write::write_all(&mut std::io::stdout(), format!("{event:?}\n").as_bytes())
}
