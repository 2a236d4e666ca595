//! Nothing secret is shown: not in `Debug`, not in an error, not in a log, not even the client
//! library's.

use crate::support::{STREAM, client, message_with, next, stream};
use outbox_core::{
    failure::full_text,
    transport::{Publisher, Subscriber},
};
use outbox_nats::{DurableConsumer, NatsPublisher, NatsSubscriber};
use std::{
    io::Write,
    sync::{Arc, Mutex},
};
use tests::servers::nats;
use tracing_subscriber::fmt::MakeWriter;

/// What may be seen nowhere: a password, a payload as text and as a list of bytes, a header.
const CANARIES: [&str; 4] =
    ["canary-password", "canary-payload", "99, 97, 110, 97, 114, 121", "canary-header"];

fn assert_silent(what: &str, text: &str) {
    for canary in CANARIES {
        assert!(!text.contains(canary), "{what} shows {canary}: {text}");
    }
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
    const URL: &str = "nats://ann:canary-password@127.0.0.1:4222";
    let publisher = NatsPublisher::new(URL).expect("a URL").credentials("canary-password");
    assert_silent("the publisher", &format!("{publisher:?} {publisher:#?}"));
    assert!(format!("{publisher:?}").contains("127.0.0.1:"), "it shows where it publishes");
    let error = publisher.build().expect_err("no credentials");
    assert_silent("the credentials' fault", &format!("{error} {error:?}"));
    let subscriber = NatsSubscriber::new(URL, STREAM, "c").expect("a URL");
    assert_silent("the subscriber", &format!("{subscriber:?} {subscriber:#?}"));
    for url in [
        "nats://ann:canary-password@[::1",
        "ftp://ann:canary-password@h",
        "ann:canary-password@h",
        "nats://canary-password@h/path",
    ] {
        let error = NatsPublisher::new(url).expect_err("wrong");
        assert_silent("the URL's fault", &format!("{error} {error:?}"));
    }
}

// Alone in its process under nextest; elsewhere the other tests may log into the same place, of
// which none has a canary.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_failure_and_no_log_shows_a_secret_whatever_is_refused_or_lost() {
    let log = Log::default();
    let listening = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_writer(log.clone())
        .finish();
    tracing::subscriber::set_global_default(listening).expect("the first");
    let sent = message_with(|m| {
        m.payload = "{\"card\":\"canary-payload\"}".into();
        m.headers.insert("card", "canary-header").expect("legal");
    });

    let closed = nats::start_with(&["--user", "ann", "--pass", "other"]).await;
    let stranger = closed.url().replace("nats://", "nats://ann:canary-password@");
    let refused = NatsPublisher::new(&stranger).expect("a URL").publish(&sent).await;
    let refused = refused.expect_err("not let in");
    assert_silent("the refusal", &format!("{refused:?} {}", refused.full_text()));
    let refused = NatsSubscriber::new(&stranger, STREAM, "c").expect("a URL").next().await;
    let refused = refused.expect_err("not let in");
    assert_silent("the refusal", &format!("{refused:?} {}", full_text(&refused)));

    let server = nats::start().await;
    let alone = NatsPublisher::new(server.url()).expect("a URL");
    let missing = alone.publish(&sent).await.expect_err("no stream");
    assert_silent("the missing stream", &format!("{missing:?} {}", missing.full_text()));
    let receipt = alone.declare([stream()]).publish(&sent).await.expect("confirmed");
    assert_silent("the receipt", &format!("{receipt:?}"));
    let mut subscriber = NatsSubscriber::new(server.url(), STREAM, "c")
        .expect("a URL")
        .declare_consumer(DurableConsumer::new());
    let delivery = next(&mut subscriber).await;
    assert_silent("the delivery", &format!("{delivery:?}"));
    delivery.nack(true).await.expect("accepted");
    next(&mut subscriber).await.reject("no").await.expect("accepted");
    let orders = client(&server).await.get_stream(STREAM).await.expect("it is there");
    let (lost, ()) = tokio::join!(subscriber.next(), async {
        orders.delete_consumer("c").await.expect("deleted");
    });
    assert_silent("the loss", &full_text(&lost.expect_err("the consumer is gone")));

    tracing::info!("the end");
    let text =
        String::from_utf8_lossy(&log.0.lock().expect("no panic under the lock")).into_owned();
    assert!(
        text.contains("the end") && text.contains("a message was rejected"),
        "something was logged: {text}"
    );
    assert_silent("the log", &text);
}
