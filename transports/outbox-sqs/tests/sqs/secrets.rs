//! Nothing secret is shown: not in `Debug`, not in an error, not in a log.

use crate::support::{
    STANDARD, failure, message_with, next, publisher, start, subscriber, topic_publisher,
};
use outbox_core::transport::{Publisher, Subscriber};
use outbox_sqs::{SnsPublisher, SqsPublisher, SqsQueue, SqsSubscriber};
use std::{
    io::Write,
    sync::{Arc, Mutex},
};
use tests::servers::Server;
use tracing_subscriber::fmt::MakeWriter;

/// What may be seen nowhere: a secret, a payload as text and as a list of bytes, a header.
const CANARIES: [&str; 4] =
    ["canary-secret", "canary-payload", "99, 97, 110, 97, 114, 121", "canary-header"];

fn assert_silent(what: &str, text: &str) {
    for canary in CANARIES {
        assert!(!text.contains(canary), "{what} shows {canary}: {text}");
    }
}

fn with_keys(server: &Server) -> String {
    server.url().replace("sqs+http://", "sqs+http://ann:canary-secret@")
}

fn canary_message() -> outbox_core::event::Message {
    message_with(|m| {
        m.payload = "{\"card\":\"canary-payload\"}".into();
        m.headers.insert("card", "canary-header").expect("legal");
    })
}

/// Collects what is logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("no panic under the lock").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Log {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

#[test]
fn no_debug_and_no_configuration_error_shows_a_secret() {
    const URL: &str = "sqs+http://ann:canary-secret@127.0.0.1:4566";
    let publisher = SqsPublisher::new(URL).expect("a URL");
    assert_silent("the publisher", &format!("{publisher:?} {publisher:#?}"));
    assert!(format!("{publisher:?}").contains("127.0.0.1:"), "it shows where it publishes");
    let topics = SnsPublisher::new(URL).expect("a URL");
    assert_silent("the publisher", &format!("{topics:?} {topics:#?}"));
    let subscriber = SqsSubscriber::new(URL, "orders").expect("a URL");
    assert_silent("the subscriber", &format!("{subscriber:?} {subscriber:#?}"));
    for url in [
        "sqs+http://ann:canary-secret@",
        "ftp://ann:canary-secret@h",
        "ann:canary-secret@h",
        "sqs://ann:canary-secret@eu/orders",
    ] {
        let error = SqsPublisher::new(url).expect_err("wrong");
        assert_silent("the URL's fault", &format!("{error} {error:?}"));
    }
}

// Alone in its process under nextest; elsewhere the other tests may log into the same place, of
// which none has a canary.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_failure_and_no_log_shows_a_secret_whatever_is_sent_rejected_refused_or_lost() {
    let log = Log::default();
    let listening = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_writer(log.clone())
        .finish();
    tracing::subscriber::set_global_default(listening).expect("the first");
    let mut server = start().await;
    let sent = canary_message();
    let own = || SqsPublisher::new(with_keys(&server)).expect("a URL").queue(STANDARD);
    let refused = own().publish(&sent).await.expect_err("no such queue");
    assert_silent("the refusal", &format!("{refused:?} {}", refused.full_text()));
    let declared = own().declare([SqsQueue::new(STANDARD)]);
    let receipt = declared.publish(&sent).await.expect("confirmed");
    assert_silent("the receipt", &format!("{receipt:?}"));
    topic_publisher(&server, "events", "copies").publish(&sent).await.expect("confirmed");

    let mut receiving = subscriber(&server);
    let delivery = next(&mut receiving).await;
    assert_silent("the delivery", &format!("{delivery:?}"));
    delivery.nack(true).await.expect("returned");
    next(&mut receiving).await.reject("no").await.expect("deleted");
    receiving.close().await;
    server.stop().await;
    let lost = failure(&publisher(&server)).await;
    assert_silent("the loss", &format!("{lost:?} {}", lost.full_text()));

    tracing::info!("the end");
    let text =
        String::from_utf8_lossy(&log.0.lock().expect("no panic under the lock")).into_owned();
    assert!(
        text.contains("the end") && text.contains("a message was rejected"),
        "something was logged: {text}"
    );
    assert_silent("the log", &text);
}
