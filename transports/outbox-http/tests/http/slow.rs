//! Strangers who send slowly, on many connections at once.

use crate::{
    support::{OTHER_SECRET, SECRET, Server},
    wire::{Request, now, read_answer, receiver},
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

/// More than the receiver has places.
const STRANGERS: usize = 80;
const PLACES: usize = 64;
/// How long anything may take before it is called hung, and less than the receiver waits for a body.
const SOON: Duration = Duration::from_secs(30);
/// What a sender may wait for its answer while strangers do their worst; many times what it takes.
const AT_ONCE: Duration = Duration::from_secs(5);

/// A receiver that would wait for a body for longer than the test lasts.
fn patient() -> ReceiverBuilder {
    HttpReceiver::builder()
        .verify(SECRET)
        .max_in_flight(PLACES)
        .answer_within(Duration::from_mins(10))
}

/// A request that only its whole body tells from a signed one.
fn forged() -> Request {
    Request::binary().body(vec![b'x'; 10_000]).signed_by(OTHER_SECRET, "forged", now())
}

/// Sends a byte a second for as long as the receiver listens, in the form that a connection has.
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
    /// The statuses of those that were answered.
    refused: mpsc::UnboundedReceiver<u16>,
    _tasks: JoinSet<()>,
}

/// Opens the connections of strangers, and gives them when all places that there are for bodies are taken by them.
async fn besiege(server: &Server) -> Strangers {
    let (told, mut refused) = mpsc::unbounded_channel();
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
        let told = told.clone();
        tasks.spawn(async move {
            let (reader, writer) = stream.into_split();
            let answer = async {
                let answer = read_answer(reader).await;
                // The test may have ended.
                let _ = told.send(answer.status);
            };
            tokio::join!(answer, trickle(writer, chunked));
        });
    }
    // Those that are too many have their answers; the others are waited for.
    for _ in PLACES..STRANGERS {
        let status =
            timeout(SOON, refused.recv()).await.expect("strangers who are too many are refused");
        assert_eq!(status, Some(503));
    }
    Strangers { refused, _tasks: tasks }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_who_send_a_byte_a_second_keep_no_signed_request_out() {
    let (server, mut subscriber) = receiver(patient()).await;
    let mut strangers = besiege(&server).await;
    let large = Request::binary().with("content-type", "text/plain").body(vec![b'x'; 900_000]);
    for request in [Request::binary(), Request::structured(), large] {
        let request = request.signed();
        let begun = Instant::now();
        let acknowledged = async {
            let delivery = subscriber.next().await.expect("open").expect("a delivery");
            delivery.ack().await.expect("the sender waits");
        };
        let sent = async {
            let answer = request.send(&server).await;
            assert_eq!(answer.status, 204, "{}", answer.text);
        };
        let both = timeout(SOON, async { tokio::join!(sent, acknowledged) }).await;
        both.expect("a signed request is taken while strangers send slowly");
        assert!(begun.elapsed() < AT_ONCE, "answered after {:?}", begun.elapsed());
    }
    // Those of the strangers went that were in the way, and no more.
    let mut gone = 0;
    while let Ok(status) = strangers.refused.try_recv() {
        gone += 1;
        assert_eq!(status, 503);
    }
    assert!(gone <= 3, "{gone} of {PLACES} strangers were given up");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stranger_who_ends_a_body_halfway_leaves_his_place() {
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
    let (answer, acknowledged) = tokio::join!(request.send(&server), acknowledged);
    assert!(acknowledged.is_ok() && answer.status == 204, "{}", answer.text);
}

#[tokio::test]
async fn a_body_of_a_request_without_a_signature_is_not_waited_for() {
    let (server, _subscriber) = receiver(patient()).await;
    for unsigned in ["webhook-id", "webhook-timestamp", "webhook-signature"] {
        // Its body never comes, and the answer does.
        let stream = forged().without(unsigned).open(&server).await;
        let answer = timeout(SOON, read_answer(stream)).await.expect("an answer without the body");
        assert_eq!(answer.status, 401, "{unsigned}: {}", answer.text);
    }
}
