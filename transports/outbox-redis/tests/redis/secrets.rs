//! Nothing secret is shown: not in `Debug`, not in an error, not in a log.

use crate::support::{
    SOON, STREAM, client, message_with, next, next_failure, publisher, subscriber,
};
use outbox_core::{
    failure::full_text,
    transport::{Publisher, Subscriber},
};
use outbox_redis::{RedisPublisher, RedisSubscriber};
use std::{
    io::Write,
    sync::{Arc, Mutex},
};
use tests::servers::{Server, redis as server};
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
    server.url().replace("redis://", "redis://ann:canary-password@")
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
    const URL: &str = "redis://ann:canary-password@127.0.0.1:6379";
    let publisher = RedisPublisher::new(URL).expect("a URL");
    assert_silent("the publisher", &format!("{publisher:?} {publisher:#?}"));
    assert!(format!("{publisher:?}").contains("127.0.0.1:"), "it shows where it publishes");
    let subscriber = RedisSubscriber::new(URL, "billing").expect("a URL").stream("orders");
    assert_silent("the subscriber", &format!("{subscriber:?} {subscriber:#?}"));
    for url in [
        "redis://ann:canary-password@[::1",
        "ftp://ann:canary-password@h",
        "ann:canary-password@h",
        "redis://ann:canary-password@h/database",
    ] {
        let error = RedisPublisher::new(url).expect_err("wrong");
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
    let server = server::start().await;
    let (admin, sent) = (client(&server).await, canary_message());

    let refused = RedisPublisher::new(stranger(&server))
        .expect("a URL")
        .publish(&sent)
        .await
        .expect_err("not let in");
    assert_silent("the refusal", &format!("{refused:?} {}", refused.full_text()));
    let mut stranger =
        RedisSubscriber::new(stranger(&server), "billing").expect("a URL").stream(STREAM);
    assert_silent("the refusal", &next_failure(&mut stranger).await);
    admin.ask::<()>("SET orders text").await;
    let refused = publisher(&server).publish(&sent).await.expect_err("no stream");
    assert_silent("the wrong type", &format!("{refused:?} {}", refused.full_text()));
    admin.ask::<()>("DEL orders").await;

    let receipt = publisher(&server).publish(&sent).await.expect("confirmed");
    assert_silent("the receipt", &format!("{receipt:?}"));
    let mut subscriber = subscriber(&server);
    let delivery = next(&mut subscriber).await;
    assert_silent("the delivery", &format!("{delivery:?}"));
    delivery.nack(true).await.expect("returned");
    next(&mut subscriber).await.reject("no").await.expect("acknowledged");
    admin.ask::<u64>("CLIENT KILL TYPE normal SKIPME yes").await;
    let lost = tokio::time::timeout(SOON, subscriber.next()).await.expect("the loss is reported");
    assert_silent("the loss", &full_text(&lost.expect_err("lost")));

    tracing::info!("the end");
    let text =
        String::from_utf8_lossy(&log.0.lock().expect("no panic under the lock")).into_owned();
    assert!(
        text.contains("the end") && text.contains("an entry was rejected"),
        "something was logged: {text}"
    );
    assert_silent("the log", &text);
}

/// A server without a command quotes its arguments, and so does not with these errors.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_does_not_know_a_command_shows_no_payload() {
    let server = server::start_with(&["--rename-command", "XADD", ""]).await;
    let refused = publisher(&server).publish(&canary_message()).await.expect_err("unknown");
    assert!(refused.to_string().contains("unknown command"), "{refused}");
    assert_silent("the error", &format!("{refused:?} {}", refused.full_text()));
}
