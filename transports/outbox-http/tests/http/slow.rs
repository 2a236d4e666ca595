//! Attackers that send bodies slowly, on many connections at once.

use crate::{
    support::{OTHER_SECRET, SECRET, Server},
    wire::{Request, now, read_response, receiver},
};
use outbox_core::transport::Subscriber;
use outbox_http::{HttpReceiver, ReceiverBuilder};
use std::time::Duration;
use tokio::{
    io::{AsyncWrite, AsyncWriteExt},
    sync::mpsc,
    task::JoinSet,
    time::{Instant, interval, timeout},
};

/// More than the receiver's limit of pending bodies.
const STRANGERS: usize = 80;
const MAX_BODIES: usize = 64;
/// How long anything may take before it is called hung, and less than the receiver waits for a
/// body.
const SOON: Duration = Duration::from_secs(30);
/// Longest wait for a response under attack; many times what it takes.
const AT_ONCE: Duration = Duration::from_secs(5);

/// A receiver that would wait for a body for longer than the test lasts.
fn patient() -> ReceiverBuilder {
    HttpReceiver::builder()
        .verify(SECRET)
        .max_in_flight(MAX_BODIES)
        .respond_within(Duration::from_mins(10))
}

/// A request that the receiver can tell from a signed one only by its whole body.
fn forged() -> Request {
    Request::binary().body(vec![b'x'; 10_000]).signed_by(OTHER_SECRET, "forged", now())
}

/// Sends a byte a second for as long as the receiver listens, in chunks or plain.
async fn trickle(mut stream: impl AsyncWrite + Unpin, chunked: bool) {
    let mut seconds = interval(Duration::from_secs(1));
    loop {
        seconds.tick().await;
        let byte: &[u8] = if chunked { b"1\r\nx\r\n" } else { b"x" };
        if stream.write_all(byte).await.is_err() {
            return;
        }
    }
}

/// Connections on which bytes come slowly, until this is dropped.
struct Strangers {
    /// The statuses of the responses.
    refused: mpsc::UnboundedReceiver<u16>,
    _tasks: JoinSet<()>,
}

/// Opens the connections of strangers and returns when their bodies fill the limit.
async fn open_slow_connections(server: &Server) -> Strangers {
    let (statuses, mut refused) = mpsc::unbounded_channel();
    let mut tasks = JoinSet::new();
    for n in 0..STRANGERS {
        // Half of them with a length, half without.
        let chunked = n % 2 == 0;
        let request = if chunked {
            Request { length: false, ..forged().with("transfer-encoding", "chunked") }
        } else {
            forged()
        };
        let stream = request.open(server).await;
        let statuses = statuses.clone();
        tasks.spawn(async move {
            let (reader, writer) = stream.into_split();
            let response = async {
                let response = read_response(reader).await;
                // The test may have ended.
                let _ = statuses.send(response.status);
            };
            tokio::join!(response, trickle(writer, chunked));
        });
    }
    // Those beyond the limit have their responses; the others are pending.
    for _ in MAX_BODIES..STRANGERS {
        let status =
            timeout(SOON, refused.recv()).await.expect("strangers who are too many are refused");
        assert_eq!(status, Some(503));
    }
    Strangers { refused, _tasks: tasks }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_who_send_a_byte_a_second_keep_no_signed_request_out() {
    let (server, mut subscriber) = receiver(patient()).await;
    let mut strangers = open_slow_connections(&server).await;
    let large = Request::binary().with("content-type", "text/plain").body(vec![b'x'; 900_000]);
    for request in [Request::binary(), Request::structured(), large] {
        let request = request.signed();
        let begun = Instant::now();
        let acknowledged = async {
            let delivery = subscriber.next().await.expect("open").expect("a delivery");
            delivery.ack().await.expect("the sender waits");
        };
        let sent = async {
            let response = request.send(&server).await;
            assert_eq!(response.status, 204, "{}", response.text);
        };
        let both = timeout(SOON, async { tokio::join!(sent, acknowledged) }).await;
        both.expect("a signed request is taken while strangers send slowly");
        assert!(begun.elapsed() < AT_ONCE, "the response took {:?}", begun.elapsed());
    }
    // The receiver evicted as many strangers as it had to, and no more.
    let mut gone = 0;
    while let Ok(status) = strangers.refused.try_recv() {
        gone += 1;
        assert_eq!(status, 503);
    }
    assert!(gone <= 3, "{gone} of {MAX_BODIES} strangers were evicted");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sender_that_ends_a_body_halfway_frees_its_entry() {
    let (server, mut subscriber) = receiver(patient().max_in_flight(1)).await;
    for _ in 0..3 {
        let mut stream = forged().open(&server).await;
        stream.write_all(b"x").await.expect("the server reads");
        // Half-closed: the stranger still listens.
        stream.shutdown().await.expect("the server reads");
        let mut rest = Vec::new();
        let read = tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut rest);
        let _ = timeout(SOON, read).await.expect("the connection ends");
        assert!(!rest.starts_with(b"HTTP/1.1 2"), "{}", String::from_utf8_lossy(&rest));
    }
    let acknowledged =
        async { subscriber.next().await.expect("open").expect("a delivery").ack().await };
    let request = Request::binary().signed();
    let (response, acknowledged) = tokio::join!(request.send(&server), acknowledged);
    assert!(acknowledged.is_ok() && response.status == 204, "{}", response.text);
}

#[tokio::test]
async fn the_receiver_does_not_read_the_body_of_a_request_without_a_signature() {
    let (server, _subscriber) = receiver(patient()).await;
    for unsigned in ["webhook-id", "webhook-timestamp", "webhook-signature"] {
        // Its body never comes, and the response does.
        let stream = forged().without(unsigned).open(&server).await;
        let response =
            timeout(SOON, read_response(stream)).await.expect("a response without the body");
        assert_eq!(response.status, 401, "{unsigned}: {}", response.text);
    }
}
