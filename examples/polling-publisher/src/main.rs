//! An outbox table with a poller, as it is written by hand in an afternoon, and what three nights do to
//! it; then the same nights with a relay and an inbox.
//!
//! - The destination is down for a while.
//! - It does its work, and the answer is lost.
//! - It refuses one message, whatever happens.
#![expect(clippy::print_stdout, reason = "an example speaks to its reader")]

mod by_hand;
mod destination;
mod with_relay;

use destination::{Destination, Night};
use sea_orm::{ConnectionTrait, Database};
use std::error::Error;

/// Orders, each with two events: it is placed, then paid.
const ORDERS: i64 = 4;
const EVENTS: [&str; 2] = ["placed", "paid"];

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    for night in Night::ALL {
        println!("{night}");
        for way in ["by hand", "with a relay"] {
            let name = format!("{night:?}-{way}").replace(' ', "-");
            let url = format!("sqlite://{}/{name}.db?mode=rwc", folder.path().display());
            let db = Database::connect(url).await?;
            // What the destination has done, in its order.
            db.execute_unprepared(
                "CREATE TABLE effects (id INTEGER PRIMARY KEY, order_id BIGINT NOT NULL, what TEXT NOT NULL)",
            )
            .await?;
            let destination = Destination::new(night);
            match way {
                "by hand" => by_hand::run(&db, &destination).await?,
                _ => with_relay::run(&db, destination).await?,
            }
            println!("    {way:<14}{}", destination::report(&db).await?);
        }
    }
    println!(
        "\nThe relay waits out the first, the inbox knows the second, and behind the third only its own order waits."
    );
    Ok(())
}
