//! The shipping service: sends parcels when it is asked, and tells customers what it hears of their orders.

use crate::{
    events::{ParcelSent, SendParcel},
    notices::{self, notice},
    service::{Database, Service, Wire},
};
use outbox_sea_orm::prelude::*;
use sea_orm::{ActiveValue::Set, entity::prelude::*};

/// What was sent. Nothing in it forbids two parcels for one order.
pub mod parcel {
    use sea_orm::entity::prelude::*;

    #[sea_orm::model]
    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "shop_parcels")]
    pub struct Model {
        #[sea_orm(primary_key)]
        pub id: i64,
        pub order_id: i64,
        pub product: String,
    }

    impl ActiveModelBehavior for ActiveModel {}
}

/// Sends a parcel, and says so to whoever listens. The saga may ask again and again: it is sent once.
async fn send_parcel(command: SendParcel, cx: &HandlerContext) -> Result<(), HandlerError> {
    let SendParcel { order_id, product } = command;
    let parcel = parcel::ActiveModel { order_id: Set(order_id), product: Set(product), ..Default::default() };
    parcel.insert(&cx.tx).await?;
    cx.tx.emit(ParcelSent { order_id })?;
    Ok(())
}

/// Starts the service. Its relay is started apart.
pub async fn start(database: Database, wire: &Wire) -> anyhow::Result<Service> {
    database.create_table(parcel::Entity).await?;
    database.create_table(notice::Entity).await?;
    let outbox = database.outbox("shipping").install().await?;
    let (events, subscriber) = wire.receive("shipping")?;
    let consumer = Consumer::new("shipping", &outbox)
        .on("send-parcel", send_parcel)
        .on("tell-customer", notices::tell_customer)
        .subscribe(subscriber);
    Service::start("shipping", outbox, database, consumer, events).await
}
