//! A tenant: its outbox, the relay that publishes from it, and the consumer that receives for it.

use outbox_sea_orm::{admin::AdminStore, consumer::ConsumerStats, prelude::*};
use sea_orm::{ConnectionTrait, DatabaseConnection, Statement, Value};
use serde::{Deserialize, Serialize};
use std::time::Duration;
use tokio::time::timeout;

const SOON: Duration = Duration::from_secs(30);

#[derive(Debug, Serialize, Deserialize, OutboxEvent)]
#[outbox(type = "order.placed", topic = "orders")]
struct OrderPlaced {
    #[outbox(key)]
    order_id: i64,
    total: i64,
}

/// A running tenant.
pub(crate) struct Tenant {
    pub(crate) name: &'static str,
    outbox: Outbox,
    relay: Relay,
    consumer: Consumer,
}

/// What became of a tenant's orders.
pub(crate) struct Books {
    pub(crate) billed: Vec<i64>,
    pub(crate) dead_letters: u64,
}

impl Tenant {
    /// Installs a tenant's tables where they are missing, and starts its relay and its consumer. The
    /// source tells receivers the tenant.
    pub(crate) async fn start(name: &'static str, db: &DatabaseConnection) -> anyhow::Result<Self> {
        let outbox = Outbox::builder(db.clone())
            .namespace(name)
            .source(format!("shop/{name}"))
            .install()
            .await?;
        let (publisher, subscriber) = Memory::channel();
        let relay =
            Relay::builder(&outbox).route("bills", topic("orders"), publisher).start().await?;
        let consumer = Consumer::builder("bills", &outbox)
            .on("bill", bill)
            .subscribe(subscriber)
            .start()
            .await?;
        Ok(Self { name, outbox, relay, consumer })
    }

    /// Places orders, each in a transaction of its own, as requests would.
    pub(crate) async fn place_orders(&self, totals: &[i64]) -> anyhow::Result<()> {
        for (order_id, total) in (1..).zip(totals) {
            let tx = self.outbox.begin().await?;
            tx.emit(OrderPlaced { order_id, total: *total })?;
            tx.commit().await?;
        }
        Ok(())
    }

    /// Waits until every order is billed or a dead letter, stops the tenant and reads its books.
    pub(crate) async fn finish(self) -> anyhow::Result<Books> {
        let is_over = |stats: &ConsumerStats| stats.handled + stats.dead_lettered == 3;
        timeout(SOON, self.consumer.stats().wait_for(is_over)).await??;
        self.relay.shutdown(SOON).await?;
        self.consumer.shutdown(SOON).await?;

        let stats = self.outbox.stats().await?;
        anyhow::ensure!(stats.pending == 0, "{}: {} events wait", self.name, stats.pending);
        let db = self.outbox.connection();
        let sql = "SELECT order_id FROM bills WHERE source = ? ORDER BY order_id";
        let backend = ConnectionTrait::get_database_backend(db);
        let asked = Statement::from_sql_and_values(backend, sql, [self.outbox.source().into()]);
        let rows = db.query_all_raw(asked).await?;
        let billed = rows.iter().map(|row| row.try_get_by_index::<i64>(0));
        Ok(Books { billed: billed.collect::<Result<_, _>>()?, dead_letters: stats.dead })
    }
}

/// Bills an order, in the transaction of the tenant's inbox.
async fn bill(order: OrderPlaced, cx: &HandlerContext) -> Result<(), HandlerError> {
    if order.total < 0 {
        return Err(HandlerError::reject("a total below zero"));
    }
    let sql = "INSERT INTO bills (source, order_id) VALUES (?, ?)";
    let values: [Value; 2] = [cx.message().source.as_str().into(), order.order_id.into()];
    let backend = ConnectionTrait::get_database_backend(&cx.tx);
    cx.tx.execute_raw(Statement::from_sql_and_values(backend, sql, values)).await?;
    Ok(())
}
