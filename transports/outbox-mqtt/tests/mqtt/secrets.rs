//! Nothing secret is shown: not in `Debug`, not in an error, not in a log.

use crate::support::{
    SOON, TOPIC, connected, lost, message_with, next, publisher, subscriber, users,
};
use outbox_core::{
    failure::full_text,
    transport::{Publisher, Subscriber},
};
use outbox_mqtt::{MqttPublisher, MqttSubscriber};
use std::{
    io::Write,
    sync::{Arc, Mutex},
};
use tests::servers::{Server, mosquitto};
use tracing_subscriber::fmt::MakeWriter;

/// What may be seen nowhere: a password, a payload as text and as a list of bytes, a header.
const CANARIES: [&str; 4] =
    ["canary-password", "canary-payload", "99, 97, 110, 97, 114, 121", "canary-header"];

fn assert_silent(what: &str, text: &str) {
    for canary in CANARIES {
        assert!(!text.contains(canary), "{what} shows {canary}: {text}");
    }
}

fn stranger(server: &Server) -> String {
    server.url().replace("mqtt://", "mqtt://ann:canary-password@")
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
    const URL: &str = "mqtt://ann:canary-password@127.0.0.1:1883";
    let publisher = MqttPublisher::new(URL).expect("a URL");
    assert_silent("the publisher", &format!("{publisher:?} {publisher:#?}"));
    assert!(format!("{publisher:?}").contains("127.0.0.1:"), "it shows where it publishes");
    let subscriber = MqttSubscriber::new(URL, "billing").expect("a URL").topic("orders");
    assert_silent("the subscriber", &format!("{subscriber:?} {subscriber:#?}"));
    for url in [
        "mqtt://ann:canary-password@[::1",
        "ftp://ann:canary-password@h",
        "ann:canary-password@h",
        "mqtt://ann:canary-password@h/topic",
    ] {
        let error = MqttPublisher::new(url).expect_err("wrong");
        assert_silent("the URL's fault", &format!("{error} {error:?}"));
    }
}

// Alone in its process under nextest; elsewhere the other tests may log into the same place, of
// which none has a canary.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_failure_and_no_log_shows_a_secret_whatever_is_rejected_refused_or_lost() {
    let log = Log::default();
    let listening = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_writer(log.clone())
        .finish();
    tracing::subscriber::set_global_default(listening).expect("the first");
    let sent = canary_message();

    let (closed, _folder) = users("", &[("ann", "other")]).await;
    let refused = MqttPublisher::new(stranger(&closed))
        .expect("a URL")
        .publish(&sent)
        .await
        .expect_err("not let in");
    assert_silent("the refusal", &format!("{refused:?} {}", refused.full_text()));
    let mut stranger =
        MqttSubscriber::new(stranger(&closed), "billing").expect("a URL").topic(TOPIC);
    assert_silent("the refusal", &lost(&mut stranger).await);

    let mut server = mosquitto::start().await;
    let refused = publisher(&server).publish(&sent).await.expect_err("nobody subscribes");
    assert_silent("the missing subscription", &format!("{refused:?} {}", refused.full_text()));
    let mut subscriber = connected(subscriber(&server)).await;
    let deep = publisher(&server).topic(|_| "a/".repeat(201));
    let refused = deep.publish(&sent).await.expect_err("the connection is ended over it");
    assert_silent("the lost connection", &format!("{refused:?} {}", refused.full_text()));
    let receipt = publisher(&server).publish(&sent).await.expect("confirmed");
    assert_silent("the receipt", &format!("{receipt:?}"));
    let delivery = next(&mut subscriber).await;
    assert_silent("the delivery", &format!("{delivery:?}"));
    delivery.nack(true).await.expect("returned");
    next(&mut subscriber).await.reject("no").await.expect("acknowledged");
    server.stop().await;
    let lost = tokio::time::timeout(SOON, subscriber.next()).await.expect("the loss is reported");
    assert_silent("the loss", &full_text(&lost.expect_err("lost")));

    tracing::info!("the end");
    let text =
        String::from_utf8_lossy(&log.0.lock().expect("no panic under the lock")).into_owned();
    assert!(
        text.contains("the end") && text.contains("a message was rejected"),
        "something was logged: {text}"
    );
    assert_silent("the log", &text);
}
