//! The README's code, so that it compiles: a test of `workspace` checks that each of its blocks is
//! here.
#![expect(clippy::print_stdout, unreachable_pub, reason = "as the README says it")]

mod around;
mod others;
mod saga;
mod shop;

use outbox_http::{HttpPublisher, HttpReceiver};
use outbox_sea_orm::admin::{AdminStore, DeadLetterFilter, OperatorNote, redrive_all};
use outbox_sea_orm::{prelude::*, transport::Memory};
use sea_orm::{
    ActiveModelTrait, ActiveValue::Set, DatabaseConnection, IntoActiveModel, TransactionTrait,
};
use serde::{Deserialize, Serialize};
use shop::{AppError, NewOrder, ReceiptSent, charge, notify_screen, order, receipt};
use std::time::Duration;

type Done = Result<(), Box<dyn std::error::Error>>;

async fn first(outbox: Outbox, new: NewOrder) -> Done {
    #[transactional_outbox]
    async fn place_order(tx: &OutboxTransaction, new: NewOrder) -> Result<order::Model, AppError> {
        let order = new.into_active_model().insert(tx).await?; // any SeaORM call takes `tx`
        tx.emit(OrderPlaced { order_id: order.id, total: order.total })?;
        Ok(order) // Ok commits row and event; Err leaves neither
    }

    place_order(&outbox, new).await?; // opens a transaction; with a `tx` it joins
    Ok(())
}

#[derive(Debug, Clone, Serialize, Deserialize, OutboxEvent)]
#[outbox(type = "order.placed", topic = "orders")]
struct OrderPlaced {
    #[outbox(key)] // order is kept per key
    order_id: i64,
    total: i64,
}

async fn quickstart(db: DatabaseConnection) -> Done {
    let outbox = Outbox::builder(db).source("shop").install().await?; // creates or updates its tables

    let billing = HttpPublisher::new("https://billing.example/events")?.signed("whsec_...");
    let relay = Relay::builder(&outbox).route("billing", topic("orders"), billing).start().await?;
    relay.shutdown(Duration::from_secs(10)).await?; // lets what is in flight finish
    Ok(())
}

async fn receiving(
    outbox: Outbox,
    listener: tokio::net::TcpListener,
    stopped: impl Future<Output = ()> + Send + 'static,
) -> Done {
    async fn send_receipt(event: OrderPlaced, cx: &HandlerContext) -> Result<(), AppError> {
        receipt::ActiveModel { order_id: Set(event.order_id), ..Default::default() }
            .insert(&cx.tx)
            .await?;
        cx.tx.emit(ReceiptSent { order_id: event.order_id })?; // effect, next event, inbox row: one transaction
        Ok(())
    }

    let (router, subscriber) =
        HttpReceiver::builder().path("/events").verify("whsec_...").build()?;
    let consumer = Consumer::builder("receipts", &outbox)
        .on("send-receipt", send_receipt)
        .subscribe(subscriber);
    let consumer = consumer.start().await?;
    axum::serve(listener, router).with_graceful_shutdown(stopped).await?; // `stopped` first, then the consumer
    drop(consumer);
    Ok(())
}

fn forms() {
    #[transactional_outbox(nested)] // a savepoint: an error takes back what it did, and nothing else
    async fn try_bonus(tx: &OutboxTransaction, order: i64) -> Result<(), AppError> {
        charge(tx, order, 0).await
    }

    #[transactional_outbox(isolation = Serializable, retry = 3)] // the whole of it again on a deadlock
    async fn transfer(tx: &OutboxTransaction, order: i64, amount: i64) -> Result<(), AppError> {
        charge(tx, order, amount).await // joins
    }

    #[transactional_outbox(emit = |order| OrderPlaced::from(order))] // the event, made of what is returned
    async fn place(tx: &OutboxTransaction, new: NewOrder) -> Result<order::Model, AppError> {
        Ok(new.into_active_model().insert(tx).await?)
    }

    struct Orders {
        outbox: Outbox,
    }

    impl Orders {
        #[transactional_outbox(tx = self.outbox)] // a method, from a field
        async fn place(&self, new: NewOrder) -> Result<order::Model, AppError> {
            Ok(new.into_active_model().insert(tx).await?)
        }
    }
    let _ = |outbox, new| async move { Orders { outbox }.place(new).await };
}

async fn as_a_value(outbox: &Outbox, new: NewOrder) -> Done {
    let tx = outbox.begin().await?;
    let order = new.into_active_model().insert(&tx).await?;
    tx.emit(OrderPlaced::from(&order))?;
    tx.commit().await?; // dropped without: rolled back
    Ok(())
}

async fn in_any_transaction(db: &DatabaseConnection, outbox: &Outbox, new: NewOrder) -> Done {
    let txn = db.begin().await?;
    let order = new.into_active_model().insert(&txn).await?;
    outbox.enqueue(&txn, &OrderPlaced::from(&order)).await?; // `&db` does not compile here
    txn.commit().await?;
    outbox.wake(); // saves the wait for the next poll
    Ok(())
}

async fn phases(db: DatabaseConnection, tx: &OutboxTransaction) -> Done {
    tx.before_commit(|tx| Box::pin(async move { Ok(charge(tx, 7, 100).await?) })); // may write, emit, and refuse
    tx.after_commit(|| println!("saved"));
    tx.after_rollback(|| println!("nothing was saved"));
    tx.after_completion(|outcome| println!("{outcome:?}"));

    // By event type, registered once, with retries of its own.
    let outbox = Outbox::builder(db).listen(Phase::AfterCommit, notify_screen).build().await?;
    drop(outbox);
    Ok(())
}

async fn all(outbox: &Outbox) -> Done {
    let relay =
        Relay::builder(outbox).route("here", topic("orders"), Memory::channel().0).start().await?;
    let consumer = Consumer::builder("here", outbox).subscribe(Memory::channel().1).start().await?;
    let sagas = saga::started(outbox).await?;
    around::ended(relay, consumer, sagas).await
}

async fn letters(outbox: &Outbox) -> Done {
    let orders = DeadLetterFilter::all().topic("orders");
    let unresolved = outbox.dead_letters(&orders, None, 20).await?;
    println!("{} letters, the first: {:?}", unresolved.len(), unresolved.first());

    let why = OperatorNote::new("ann", "billing is repaired");
    redrive_all(outbox, &orders, &why, |progress| println!("{progress:?}")).await?;
    Ok(())
}

impl From<&order::Model> for OrderPlaced {
    fn from(order: &order::Model) -> Self {
        Self { order_id: order.id, total: order.total }
    }
}

/// Everything above is only to be compiled.
fn main() {
    let new = || NewOrder { total: 1 };
    let _ = |db: DatabaseConnection, outbox: Outbox, listener: tokio::net::TcpListener| async move {
        first(outbox.clone(), new()).await?;
        quickstart(db.clone()).await?;
        receiving(outbox.clone(), listener, std::future::ready(())).await?;
        forms();
        as_a_value(&outbox, new()).await?;
        in_any_transaction(&db, &outbox, new()).await?;
        phases(db, &outbox.begin().await?).await?;
        saga::sagas(outbox.clone(), outbox.begin().await?).await?;
        saga::page(outbox.clone(), outbox.clone())?;
        others::orders(outbox.clone(), Memory::channel().1).await?;
        around::tested().await?;
        others::over_rabbitmq(outbox.clone(), "amqp://").await?;
        drop(others::payments(&outbox));
        all(&outbox).await?;
        letters(&outbox).await
    };
}
