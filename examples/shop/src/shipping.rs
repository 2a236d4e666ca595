//! The shipping service: it sends parcels by command, and notifies customers of the events of their
//! orders.

use crate::{
    Release,
    events::{ORDERS, ParcelSent, REPLIES, SendParcel},
    next::{self, gift},
    notices::{self, notice},
    service::{Database, Service, Wire},
};
use outbox_sea_orm::{consumer::UnhandledPolicy, prelude::*};
use sea_orm::{ActiveValue::Set, entity::prelude::*};

/// The sent parcels. The table permits two parcels for one order.
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

/// Sends a parcel, and emits its event. The saga may repeat the command: the parcel is sent once.
async fn send_parcel(command: SendParcel, cx: &HandlerContext) -> Result<(), HandlerError> {
    let order_id = send(command, cx).await?;
    cx.tx.emit(ParcelSent { order_id })?;
    Ok(())
}

/// Sends the parcel of an order, and gives the order.
pub async fn send(command: SendParcel, cx: &HandlerContext) -> Result<i64, DbErr> {
    let SendParcel { order_id, product } = command;
    let parcel = parcel::ActiveModel {
        order_id: Set(order_id),
        product: Set(product),
        ..Default::default()
    };
    parcel.insert(&cx.tx).await?;
    Ok(order_id)
}

/// Starts the service, without its relay.
pub async fn start(database: Database, wire: &Wire, release: Release) -> anyhow::Result<Service> {
    database.create_table(parcel::Entity).await?;
    database.create_table(notice::Entity).await?;
    if release == Release::Next {
        database.create_table(gift::Entity).await?;
    }
    let outbox = database.outbox("shipping").install().await?;
    let (events, subscriber) = wire.receive("shipping")?;
    // Every message of its queue is for this service: it stores messages of unknown types, also
    // while no instance that handles them runs, before a rollout or after a rollback.
    let consumer = Consumer::builder("shipping", &outbox)
        .unhandled(UnhandledPolicy::Defer)
        .subscribe(subscriber);
    let consumer = consumer.commands_from(ORDERS, REPLIES);
    let consumer = match release {
        Release::This => consumer
            .on_command("send-parcel", send_parcel)
            .on("tell-customer", notices::tell_customer),
        Release::Next => consumer
            .on_command("send-parcel", next::send_parcel)
            .on_with("notify-customer", next::NOTIFY, notices::tell_customer)
            .on("send-gift", next::send_gift),
    };
    Service::start("shipping", outbox, database, consumer, events).await
}
