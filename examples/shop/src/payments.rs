//! The payments service: it books payments and refunds, each payment once.

use crate::{
    Release,
    events::{ORDERS, PaymentDeclined, PaymentTaken, REPLIES, RefundPayment, TakePayment},
    next,
    service::{Database, Service, Wire},
    story::Faults,
};
use outbox_sea_orm::prelude::*;
use sea_orm::{ActiveValue::Set, entity::prelude::*};

/// The credit of a customer for one payment, in cents.
pub const CREDIT: i64 = 9_000;

/// The ledger: payments are positive, refunds negative. The table permits two payments for one
/// order: the inbox ensures that there is one.
pub mod payment {
    use sea_orm::entity::prelude::*;

    #[sea_orm::model]
    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "shop_payments")]
    pub struct Model {
        #[sea_orm(primary_key)]
        pub id: i64,
        pub order_id: i64,
        pub customer: String,
        pub amount: i64,
    }

    impl ActiveModelBehavior for ActiveModel {}
}

/// Books a payment. The entry, the inbox row and the reply commit together, or not at all.
async fn take_payment(command: TakePayment, cx: &HandlerContext) -> Result<(), HandlerError> {
    let TakePayment { order_id, customer, amount } = command;
    if amount > CREDIT {
        cx.reject(PaymentDeclined { reason: "over the credit limit".to_owned() })?;
        return Ok(());
    }
    book(order_id, customer, amount, cx).await?;
    cx.reply(PaymentTaken { amount })?;
    Ok(())
}

/// Books a refund. It runs only where a payment was taken; a payment that arrives after it is
/// blocked.
async fn refund_payment(command: RefundPayment, cx: &HandlerContext) -> Result<(), HandlerError> {
    book(command.order_id, command.customer, -command.amount, cx).await?;
    Ok(())
}

/// Writes an entry of the ledger.
pub async fn book(
    order_id: i64,
    customer: String,
    amount: i64,
    cx: &HandlerContext,
) -> Result<(), DbErr> {
    let entry = payment::ActiveModel {
        order_id: Set(order_id),
        customer: Set(customer),
        amount: Set(amount),
        ..Default::default()
    };
    entry.insert(&cx.tx).await?;
    Ok(())
}

/// Starts the service, with the faults to inject and without its relay.
pub async fn start(
    database: Database,
    wire: &Wire,
    faults: &Faults,
    release: Release,
) -> anyhow::Result<Service> {
    database.create_table(payment::Entity).await?;
    let outbox = database.outbox("payments").install().await?;
    let (events, subscriber) = wire.receive("payments")?;
    let consumer = Consumer::builder("payments", &outbox)
        .on_command("refund-payment", refund_payment)
        .commands_from(ORDERS, REPLIES)
        .subscribe(subscriber);
    let consumer = match release {
        Release::This => consumer.on_command("take-payment", take_payment),
        Release::Next => consumer.on_command("take-payment", next::take_payment),
    };
    Service::start("payments", outbox, database, consumer, faults.around(events)).await
}
