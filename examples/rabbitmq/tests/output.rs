//! The output of the example, with the shared server.

use std::{process::Command, time::Duration};
use tests::{processes::Process, servers::rabbitmq};

const SAID: &str = "\
Saved with the data, relayed, and confirmed by the server:
  offer.made  key ada
  price.changed  key ticket
  price.changed  key ticket
  ticket.sold  key 1
  ticket.sold  key 2
  ticket.sold  key 3

Received, each answered by hand; what fails is tried three times:
  ticket 1  attempt 1: printed, ack
  ticket 2  attempt 1: the printer is jammed, nack and requeue
  ticket 2  attempt 2: printed, ack
  ticket 3  attempt 1: the printer is jammed, nack and requeue
  ticket 3  attempt 2: the printer is jammed, nack and requeue
  ticket 3  attempt 3: the printer is jammed for the third time, reject

The dead letters, and what the server wrote of each in x-death:
  offer.made    expired    in the queue offers, 1 time
  price.changed maxlen     in the queue prices, 1 time
  ticket.sold   rejected   in the queue tickets, 1 time";

#[tokio::test]
async fn the_example_says_what_its_reader_is_promised() {
    let mut program =
        Process::start(Command::new(env!("CARGO_BIN_EXE_rabbitmq")).arg(rabbitmq::shared_url()));
    let (status, lines) = program.finish(Duration::from_secs(60)).await;
    assert_eq!(lines.join("\n"), SAID);
    assert!(status.success());
}
