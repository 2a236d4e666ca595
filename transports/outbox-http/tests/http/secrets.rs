//! Nothing secret is shown: not in `Debug`, not in an error, not in a log.

use crate::support::{OTHER_SECRET, SECRET, closed_port, serve, serve_response};
use outbox_core::transport::{Publisher, Subscriber};
use outbox_http::{HttpPublisher, HttpReceiver, Secret};
use std::{
    io::Write,
    sync::{Arc, Mutex},
};
use tracing_subscriber::fmt::MakeWriter;

/// What may be seen nowhere: keys, the keys' bytes, a password, a token in path and query, a
/// header, a payload.
const CANARIES: [&str; 8] = [
    "Y2FuYXJ5LXRoYXQtbXVzdC1uZXZlci1iZS1zZWVu",
    "c2Vjb25kLWNhbmFyeS1uZXZlci1zZWVuLWVpdGhlcg",
    "canary-that-must-never-be-seen",
    "canary-password",
    "canary-path",
    "canary-query",
    "canary-header",
    "canary-payload",
];

fn assert_silent(what: &str, text: &str) {
    for canary in CANARIES {
        assert!(!text.contains(canary), "{what} shows {canary}: {text}");
    }
}

fn publisher(address: &str) -> HttpPublisher {
    let url = format!("http://user:canary-password@{address}/canary-path?token=canary-query");
    let publisher = HttpPublisher::new(url)
        .expect("a URL")
        .allow_loopback()
        .signed(SECRET)
        .signed(OTHER_SECRET);
    publisher.header("authorization", "Bearer canary-header")
}

fn canary_message() -> outbox_core::event::Message {
    crate::support::message_with(|m| m.payload = "{\"card\":\"canary-payload\"}".into())
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

impl Log {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().expect("no panic under the lock")).into_owned()
    }

    fn listen(&self) -> tracing::subscriber::DefaultGuard {
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(tracing::Level::TRACE)
            .with_writer(self.clone());
        tracing::subscriber::set_default(subscriber.finish())
    }
}

#[test]
fn no_debug_shows_a_secret() {
    let publisher = publisher("127.0.0.1:1");
    assert_silent("the publisher", &format!("{publisher:?} {publisher:#?}"));
    assert!(format!("{publisher:?}").contains("127.0.0.1:1"), "it shows where it publishes");
    let destination = publisher.destination().expect("there is one");
    assert_silent("what relays compare and log", &destination);
    assert!(destination.contains("127.0.0.1:1"), "{destination}");
    let builder = HttpReceiver::builder().verify(SECRET).verify(OTHER_SECRET);
    assert_silent("the receiver", &format!("{builder:?} {builder:#?}"));
    assert_silent("a secret", &format!("{:?}", Secret::parse(SECRET)));
    assert_silent("a message", &format!("{:?}", canary_message()));
}

#[test]
fn no_configuration_error_quotes_a_secret() {
    let key = SECRET.trim_start_matches("whsec_");
    for text in [
        key.to_owned(),
        format!("whsec {key}"),
        format!("{SECRET}!"),
        format!("{SECRET}{key}{key}"),
    ] {
        let error = publisher("127.0.0.1:1").signed(&text).build().expect_err("wrong");
        assert_silent("the publisher's fault", &format!("{error} {error:?}"));
        let error = HttpReceiver::builder().verify(&text).build().map(|_| ()).expect_err("wrong");
        assert_silent("the receiver's fault", &format!("{error} {error:?}"));
    }
    let error =
        publisher("127.0.0.1:1").header("x-token", "canary-header\n").build().expect_err("wrong");
    assert_silent("the header's fault", &format!("{error} {error:?}"));
    for url in
        ["http://user:canary-password@[::1/canary-path", "ftp://user:canary-password@h/canary-path"]
    {
        let error = HttpPublisher::new(url).expect_err("wrong");
        assert_silent("the URL's fault", &format!("{error} {error:?}"));
    }
}

#[tokio::test]
async fn no_failure_and_no_log_shows_a_secret() {
    let log = Log::default();
    let listening = log.listen();
    let echo = "HTTP/1.1 400 X\r\nconnection: close\r\ncontent-length: 14\r\n\r\ncanary-payload";
    let garbage = serve_response("canary\r\n\r\n").await;
    let refusing = serve_response(echo).await;
    let redirecting =
        serve_response("HTTP/1.1 307 X\r\nlocation: /canary-path\r\nconnection: close\r\n\r\n")
            .await;
    let closed = closed_port().await.to_string();
    let addresses =
        [garbage.address, refusing.address, redirecting.address].map(|address| address.to_string());
    for address in addresses.iter().chain([&closed, &"10.0.0.1:80".to_owned()]) {
        let error = publisher(address).publish(&canary_message()).await.expect_err("not confirmed");
        assert_silent("the failure", &format!("{error} {error:?} {}", error.full_text()));
    }

    let (router, mut subscriber) =
        HttpReceiver::builder().path("/canary-path").verify(OTHER_SECRET).build().expect("right");
    let server = serve(router).await;
    let sender = publisher(&server.address.to_string());
    let sent = canary_message();
    let (result, _) = tokio::join!(sender.publish(&sent), async {
        let delivery = subscriber.next().await.expect("open").expect("a delivery");
        assert_silent("the delivery", &format!("{delivery:?}"));
        delivery.ack().await.expect("the sender waits");
    });
    let receipt = result.expect("confirmed");
    assert_silent("the receipt", &format!("{receipt:?}"));
    let stranger =
        sender.header("webhook-id", "canary-header").publish(&sent).await.expect_err("a fault");
    assert_silent("the failure", &stranger.full_text());
    let unsigned =
        server.publisher().publish(&sent).await.expect_err("the path and the signature are wrong");
    assert_silent("the failure", &unsigned.full_text());
    drop(listening);
    let text = log.text();
    assert!(
        text.contains("a request was not confirmed") || text.contains("TRACE"),
        "something was logged: {text}"
    );
    assert_silent("the log", &text);
}

#[tokio::test]
async fn a_plain_connection_to_another_host_is_warned_of() {
    let warned = |url: &str| {
        let log = Log::default();
        let listening = log.listen();
        let publisher = HttpPublisher::new(url).expect("a URL").allow_loopback().build();
        drop(listening);
        assert!(publisher.is_ok());
        log.text().contains("WARN") && log.text().contains("unencrypted")
    };
    assert!(warned("http://billing.example/events"));
    assert!(warned("http://93.184.215.14/events"));
    for quiet in [
        "https://billing.example/events",
        "http://127.0.0.1/",
        "http://[::1]/",
        "http://localhost/",
    ] {
        assert!(!warned(quiet), "{quiet}");
    }
}
