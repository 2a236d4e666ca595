//! A consumer's process is killed in the middle.

use crate::support::{
    FIFO, SOON, VISIBILITY, next, number, publish, publisher_at, start, subscriber_at,
};
use tests::processes::{Process, program};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_killed_consumer_had_comes_to_another_one_when_its_time_is_up_and_in_order() {
    let server = start().await;
    let publisher = publisher_at(&server.url(), FIFO);
    publish(&publisher, "k", 1..=20).await;
    let mut command = program("sqs_reader");
    command.args([&server.url(), FIFO, &VISIBILITY.as_secs().to_string(), "5"]);
    let mut reader = Process::start(&mut command);
    // It has acknowledged five, and has the sixth in flight and others waiting behind it.
    reader.wait_for_line(SOON, "6 is at work").await;
    let killed_at = tokio::time::Instant::now();
    reader.kill().await;
    let mut other = subscriber_at(&server.url(), FIFO);
    for n in 6..=20 {
        let delivery = next(&mut other).await;
        assert_eq!(number(&delivery), n);
        if n == 6 {
            assert!(delivery.attempt > Some(1), "{:?}", delivery.attempt);
        }
        delivery.ack().await.expect("acknowledged");
    }
    let waited = killed_at.elapsed();
    assert!(waited < VISIBILITY * 10, "{waited:?}");
}
