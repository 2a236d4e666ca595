//! RabbitMQ with an outbox in front of it: publisher confirms, manual acknowledgement, three
//! attempts and then the dead-letter queue, which messages reach in three ways, and its reader.
//!
//! `server.rs` has the exchange and queues, `shop.rs` saves events and relays them, `worker.rs`
//! receives.
//!
//! ```text
//! cargo run -p rabbitmq [-- amqp://user:password@host:5672]
//! ```
#![expect(clippy::print_stdout, reason = "an example speaks to its reader")]
#![expect(unreachable_pub, reason = "written as a library would be")]

mod worker;
mod server;
mod shop;

use outbox_amqp::AmqpSubscriber;
use server::Names;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let url =
        std::env::args().nth(1).unwrap_or_else(|| "amqp://guest:guest@127.0.0.1:5672".to_owned());
    let names = Names::of_this_run();

    println!("Saved with the data, relayed, and confirmed by the server:");
    for line in shop::sell(&url, &names).await? {
        println!("  {line}");
    }

    println!("\nReceived, each answered by hand; what fails is tried three times:");
    let tickets = AmqpSubscriber::new(&url, names.queue("tickets"))?.prefetch(1).build()?;
    for line in worker::print_tickets(tickets, 3).await? {
        println!("  {line}");
    }

    println!("\nThe dead letters, and what the server wrote of each in x-death:");
    let dead = AmqpSubscriber::new(&url, names.queue("dead"))?.build()?;
    for line in worker::read_dead_letters(dead, &names, 3).await? {
        println!("  {line}");
    }
    Ok(())
}
