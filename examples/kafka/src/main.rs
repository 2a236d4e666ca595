//! Kafka with an outbox in front of it: producer callbacks with partition and offset, manual
//! acknowledgement, a dead-letter topic and its reader.
//!
//! `shop.rs` saves events and relays them, `worker.rs` receives.
//!
//! ```text
//! cargo run -p kafka [-- host:9092]
//! ```
#![expect(clippy::print_stdout, reason = "an example speaks to its reader")]
#![expect(unreachable_pub, reason = "written as a library would be")]

mod worker;
mod shop;

use outbox_kafka::{KafkaSubscriber, Topic};
use outbox_sea_orm::prelude::MessageId;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let brokers = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:9092".to_owned());
    // Names of this run alone, for topics with a short retention.
    let run = MessageId::generate();
    let (tickets, dead) = (format!("example.{run}.tickets"), format!("example.{run}.dead"));
    let topic = |name: &str, partitions| {
        Topic::new(name).partitions(partitions).set("retention.ms", "600000")
    };
    let topics = [topic(&tickets, 3), topic(&dead, 1)];

    println!(
        "Saved with the data, relayed, and confirmed by the broker, each key in its partition:"
    );
    for line in shop::sell(&brokers, &tickets, topics.clone()).await? {
        println!("  {line}");
    }

    println!("\nReceived, each answered by hand; what comes back goes before what is behind it:");
    let tickets_subscriber = KafkaSubscriber::new(&brokers, "printing")?
        .topic(&tickets)
        .dead_letters(&dead)
        .declare(topics);
    for line in worker::print_tickets(tickets_subscriber.build()?, 3).await? {
        println!("  {line}");
    }

    println!("\nThe dead letters, with Kafka Connect's headers for why:");
    let letters = KafkaSubscriber::new(&brokers, "looking-after")?.topic(&dead).build()?;
    for line in worker::read_dead_letters(letters, 1, &tickets).await? {
        println!("  {line}");
    }
    Ok(())
}
