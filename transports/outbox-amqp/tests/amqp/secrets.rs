//! Nothing secret is shown: not in `Debug`, not in an error, not in a log, not even the client
//! library's.

use crate::support::{SOON, client, message_with, name, next, publisher, queue, subscriber, url};
use outbox_amqp::{AmqpPublisher, AmqpSubscriber, Topology};
use outbox_core::{
    failure::full_text,
    transport::{Publisher, Subscriber},
};
use std::{
    io::Write,
    sync::{Arc, Mutex},
};
use tracing_subscriber::fmt::MakeWriter;

/// What may be seen nowhere: a password, a payload as text and as a list of bytes, a header.
const CANARIES: [&str; 4] =
    ["canary-password", "canary-payload", "99, 97, 110, 97, 114, 121", "canary-header"];

fn assert_silent(what: &str, text: &str) {
    for canary in CANARIES {
        assert!(!text.contains(canary), "{what} shows {canary}: {text}");
    }
}

fn stranger() -> String {
    url().replace("guest:guest@", "guest:canary-password@")
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
    let publisher = AmqpPublisher::new(stranger()).expect("a URL");
    assert_silent("the publisher", &format!("{publisher:?} {publisher:#?}"));
    assert!(format!("{publisher:?}").contains("127.0.0.1:"), "it shows where it publishes");
    let subscriber = AmqpSubscriber::new(stranger(), "q").expect("a URL");
    assert_silent("the subscriber", &format!("{subscriber:?} {subscriber:#?}"));
    for url in [
        "amqp://user:canary-password@[::1",
        "ftp://user:canary-password@h",
        "user:canary-password@h",
    ] {
        let error = AmqpPublisher::new(url).expect_err("wrong");
        assert_silent("the URL's fault", &format!("{error} {error:?}"));
    }
}

// Alone in its process under nextest; elsewhere the other tests may log into the same place, of
// which none has a canary.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_failure_and_no_log_shows_a_secret_whatever_is_returned_refused_or_lost() {
    let log = Log::default();
    let listening = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_writer(log.clone())
        .finish();
    tracing::subscriber::set_global_default(listening).expect("the first");
    let sent = canary_message();

    let refused = AmqpPublisher::new(stranger())
        .expect("a URL")
        .publish(&sent)
        .await
        .expect_err("not let in");
    assert_silent("the refusal", &format!("{refused:?} {}", refused.full_text()));
    let refused =
        AmqpSubscriber::new(stranger(), "q").expect("a URL").next().await.expect_err("not let in");
    assert_silent("the refusal", &format!("{refused:?} {}", full_text(&refused)));
    let returned = publisher().queue(name("nobody")).publish(&sent).await.expect_err("returned");
    assert_silent("the return", &format!("{returned:?} {}", returned.full_text()));
    let missing = publisher().exchange(name("nothing")).publish(&sent).await.expect_err("missing");
    assert_silent("the missing exchange", &format!("{missing:?} {}", missing.full_text()));

    let name = name("secret");
    let topology = Topology::new().queue(queue(&name));
    let publisher = publisher().queue(&name).declare(topology.clone());
    let receipt = publisher.publish(&sent).await.expect("confirmed");
    assert_silent("the receipt", &format!("{receipt:?}"));
    let mut subscriber = subscriber(&name).declare(topology);
    let delivery = next(&mut subscriber).await;
    assert_silent("the delivery", &format!("{delivery:?}"));
    delivery.nack(true).await.expect("accepted");
    next(&mut subscriber).await.reject("no").await.expect("accepted");
    client(&url()).await.delete_queue(&name).await;
    let lost = tokio::time::timeout(SOON, subscriber.next())
        .await
        .expect("the loss is reported")
        .expect_err("the queue is gone");
    assert_silent("the loss", &full_text(&lost));

    tracing::info!("the end");
    let text =
        String::from_utf8_lossy(&log.0.lock().expect("no panic under the lock")).into_owned();
    assert!(
        text.contains("the end") && text.contains("a message was rejected"),
        "something was logged: {text}"
    );
    assert_silent("the log", &text);
}
