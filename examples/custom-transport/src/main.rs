//! A custom transport in under a hundred lines (`lines.rs`), and the conformance suite of all
//! transports, which it passes.
#![expect(clippy::print_stdout, reason = "an example speaks to its reader")]
#![expect(unreachable_pub, reason = "written as a library would be")]

mod lines;

use outbox_sea_orm::prelude::*;
use sea_orm::Database;
use serde::{Deserialize, Serialize};
use std::{error::Error, fs, time::Duration};

#[derive(Debug, Serialize, Deserialize, OutboxEvent)]
#[outbox(type = "order.placed", topic = "orders")]
struct OrderPlaced {
    #[outbox(key)]
    order_id: i64,
}

async fn read_line(event: OrderPlaced, cx: &HandlerContext) -> Result<(), OutboxError> {
    println!("handled {}: order {}", cx.message().event_type, event.order_id);
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("orders.jsonl");
    let outbox = Outbox::builder(Database::connect("sqlite::memory:").await?)
        .source("shop")
        .install()
        .await?;
    let (publisher, subscriber) = lines::open(&file)?;
    let relay = Relay::builder(&outbox).route("file", topic("orders"), publisher).start().await?;
    let consumer = Consumer::builder("readers", &outbox)
        .on("read-line", read_line)
        .subscribe(subscriber)
        .start()
        .await?;

    let tx = outbox.begin().await?;
    for order_id in 1..=3 {
        tx.emit(OrderPlaced { order_id })?;
    }
    tx.commit().await?;

    consumer.stats().wait_for(|stats| stats.acked == 3).await?;
    relay.shutdown(Duration::from_secs(5)).await?;
    consumer.shutdown(Duration::from_secs(5)).await?;
    println!("lines in the file: {}", fs::read_to_string(&file)?.lines().count());
    Ok(())
}

#[cfg(test)]
mod tests {
    use outbox_core::testing::transport::{Pair, Promises, TransportFixture};

    struct Lines;

    #[async_trait::async_trait]
    impl TransportFixture for Lines {
        fn promises() -> Promises {
            Promises::broker()
        }

        async fn pair() -> Pair {
            let folder = tempfile::tempdir().expect("there is room for a file");
            let (publisher, subscriber) =
                super::lines::open(&folder.path().join("lines")).expect("it can be opened");
            Pair::new(publisher, subscriber).keeping(folder)
        }
    }

    outbox_core::transport_suite!(Lines);
}
