//! Orders that stand still, to be looked at on the page and with the command line `outbox`: payments refuses whatever
//! comes until somebody presses Enter, and shipping cannot notify a customer without a name.

use super::{Customers, Shop, WAIT_LIMIT, faults::Fault, stop_signal, until};
use crate::{
    operations,
    options::Options,
    orders::NewOrder,
    service::{Location, Server},
};
use outbox_sea_orm::admin::AdminStore;
use std::path::Path;
use tokio::io::{AsyncBufReadExt, BufReader, stdin};

/// Orders that payments refuses.
const REFUSED: u32 = 12;
/// Cancelled orders of customers without a name.
const NAMELESS: u32 = 2;

/// Places the orders, says where to look, and serves until a signal asks the process to stop.
pub async fn run(
    shop: &Shop,
    location: &Location,
    options: &Options,
    operations: &Server,
) -> anyhow::Result<()> {
    let customers = Customers::of(&shop.orders.url(), options)?;
    shop.faults.set(Some(Fault::Refuses));
    customers.place(0..REFUSED).await?;
    for _ in 0..NAMELESS {
        let new = NewOrder { customer: String::new(), product: "unicorn".to_owned(), total: 1_000 };
        customers.send(&new).await?;
    }
    until(WAIT_LIMIT, "the notices of the nameless are dead letters", async || {
        Ok(shop.shipping.outbox.stats().await?.dead >= u64::from(NAMELESS))
    })
    .await?;
    let failures = shop.orders.failed.clone();
    until(WAIT_LIMIT, "payments refuses", async || Ok(*failures.borrow() > 0)).await?;
    print_where_to_look(location, operations)?;
    let mut lines = BufReader::new(stdin()).lines();
    tokio::select! {
        stopped = stop_signal() => return Ok(stopped?),
        line = lines.next_line() => {
            // Without a standard input payments stays as it is.
            if line?.is_some() {
                shop.faults.set(None);
                println!("payments works again: what stood still goes on by itself");
            }
        }
    }
    stop_signal().await?;
    println!("stopping");
    Ok(())
}

fn print_where_to_look(location: &Location, operations: &Server) -> anyhow::Result<()> {
    println!(
        "\n{REFUSED} orders stand still: payments refuses whatever comes, until you press Enter here."
    );
    println!("{NAMELESS} notices are dead letters: their customers have no name.\n");
    operations::print_address(operations);
    let Some(config) = location.write_contexts()? else {
        println!("\nLook with: outbox --database URL --namespace SERVICE overview");
        return Ok(());
    };
    let outbox = format!("cargo run -p outbox-saga-cli -- --config {}", shown(&config));
    println!("\nIn another terminal:\n");
    for command in [
        "overview",
        "explain order-7",
        "follow order-7",
        "sagas show order-7 --mermaid",
        "dead-letters groups",
        "--on shipping --yes dead-letters redrive --consumer shipping --canary",
    ] {
        println!("  {outbox} {command}");
    }
    println!("\nCtrl-C stops the shop.");
    Ok(())
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}
