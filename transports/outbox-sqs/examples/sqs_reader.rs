//! Prints what comes from a queue of SQS, and acknowledges the first few messages; the next one
//! stays at work until the process ends. The tests kill it there.
//!
//! ```text
//! sqs_reader URL QUEUE VISIBILITY_SECONDS ACKNOWLEDGED
//! ```

use outbox_core::transport::Subscriber;
use outbox_sqs::SqsSubscriber;
use std::{env, error::Error, future::pending, time::Duration};

#[tokio::main(flavor = "current_thread")]
#[expect(clippy::print_stdout, reason = "a program of the command line")]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [url, queue, visibility, acknowledged] = arguments.as_slice() else {
        return Err("usage: sqs_reader URL QUEUE VISIBILITY_SECONDS ACKNOWLEDGED".into());
    };
    let mut subscriber = SqsSubscriber::new(url, queue)?
        .visibility_timeout(Duration::from_secs(visibility.parse()?))
        .build()?;
    for _ in 0..acknowledged.parse::<u32>()? {
        let Some(delivery) = subscriber.next().await? else { return Ok(()) };
        delivery.ack().await?;
    }
    let Some(delivery) = subscriber.next().await? else { return Ok(()) };
    let number = delivery.message.as_ref().map(|message| message.sequence.map(|n| n.0));
    println!("{} is at work", number.ok().flatten().unwrap_or_default());
    pending::<()>().await;
    Ok(())
}
