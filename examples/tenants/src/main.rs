//! Several tenants in one application: an outbox each, with a relay and a consumer.
//!
//! Acme and Bolt share a database, in which a namespace gives each of them tables of its own. Coyote
//! signs up while the program runs, and gets a database of its own. One order of Bolt is rejected;
//! the others notice nothing, nor does Bolt's next order.
#![expect(clippy::print_stdout, reason = "an example speaks to its reader")]

mod tenant;

use sea_orm::{ConnectionTrait, Database, DatabaseConnection};
use std::path::Path;
use tenant::Tenant;

/// The totals of each tenant's orders. Nobody can bill the second one of Bolt.
const ORDERS: [(&str, [i64; 3]); 3] =
    [("acme", [4200, 900, 1300]), ("bolt", [700, -1, 2500]), ("coyote", [10, 20, 30])];

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let shared = open(folder.path(), "shared").await?;
    let [acme, bolt, coyote] = ORDERS;

    let mut tenants = Vec::new();
    for (name, totals) in [acme, bolt] {
        let tenant = Tenant::start(name, &shared).await?;
        tenant.place_orders(&totals).await?;
        tenants.push(tenant);
    }

    // A tenant that signs up: the program installs its tables and starts its relay and consumer.
    let (name, totals) = coyote;
    let tenant = Tenant::start(name, &open(folder.path(), name).await?).await?;
    tenant.place_orders(&totals).await?;
    tenants.push(tenant);

    for tenant in tenants {
        let name = tenant.name;
        let books = tenant.finish().await?;
        println!("{name:<8}{:?} billed, {} dead letters", books.billed, books.dead_letters);
    }
    Ok(())
}

/// Opens a database, with the table of the receiver's effects.
async fn open(folder: &Path, name: &str) -> anyhow::Result<DatabaseConnection> {
    let url = format!("sqlite://{}?mode=rwc", folder.join(name).with_extension("db").display());
    let db = Database::connect(url).await?;
    db.execute_unprepared("CREATE TABLE bills (source TEXT NOT NULL, order_id BIGINT NOT NULL)")
        .await?;
    Ok(db)
}
