//! The output of the example, with the shared broker.

use std::{process::Command, time::Duration};
use tests::{processes::Process, servers::kafka};

const SAID: &str = "\
Saved with the data, relayed, and confirmed by the broker, each key in its partition:
  ticket.sold  key 1  partition [..] offset ..
  ticket.sold  key 2  partition [..] offset ..
  ticket.sold  key 3  partition [..] offset ..

Received, each answered by hand; what comes back goes before what is behind it:
  ticket 1  attempt 1: printed, ack
  ticket 2  attempt 1: the printer is jammed, nack
  ticket 2  attempt 2: printed, ack
  ticket 3  attempt 1: the printer is jammed, nack
  ticket 3  attempt 2: the printer is jammed, nack
  ticket 3  attempt 3: the printer is jammed for the third time, reject

The dead letters, with Kafka Connect's headers for why:
  ticket.sold  key 3  Rejected: the printer is jammed";

/// Partition and offset of a record depend on the broker and the hash.
fn without_places(line: &str) -> String {
    match line.split_once("partition [") {
        Some((before, rest)) => {
            let (partition, offset) = rest.split_once("] offset ").expect("a place");
            assert!(
                partition.parse::<u8>().is_ok_and(|p| p < 3) && offset.parse::<u64>().is_ok(),
                "{line}"
            );
            format!("{before}partition [..] offset ..")
        }
        None => line.to_owned(),
    }
}

#[tokio::test]
async fn the_example_says_what_its_reader_is_promised() {
    let mut program =
        Process::start(Command::new(env!("CARGO_BIN_EXE_kafka")).arg(kafka::shared_url()));
    let (status, lines) = program.finish(Duration::from_secs(60)).await;
    let said: Vec<String> = lines.iter().map(|line| without_places(line)).collect();
    assert_eq!(said.join("\n"), SAID);
    assert!(status.success());
}
