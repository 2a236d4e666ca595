//! What a server refuses, and what it suffers.

use crate::support::{
    SOON, STREAM, client, failure, full, message_with, next, next_failure, numbered, publisher,
    subscriber,
};
use outbox_core::{
    failure::FailureClass::{Permanent, Transient, Unavailable},
    transport::{Limits, PublishError, Publisher, publish_all},
};
use outbox_redis::{RedisPublisher, RedisSubscriber};
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tests::{
    servers::{Server, redis as server},
    wait_until,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::sleep,
};

fn url_as(server: &Server, user: &str) -> String {
    server.url().replace("redis://", &format!("redis://{user}@"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_its_password_and_with_a_wrong_one_the_server_counts_as_down() {
    let server = server::start().await;
    client(&server).await.ask::<()>("CONFIG SET requirepass right").await;
    let error = failure(&publisher(&server)).await;
    assert_eq!((error.class(), error.has_responded()), (Unavailable, true), "{error}");
    assert!(error.to_string().contains("name user and password in the URL"), "{error}");
    let wrong = RedisPublisher::new(url_as(&server, ":wrong-password")).expect("a URL");
    let error = failure(&wrong).await;
    assert_eq!((error.class(), error.has_responded()), (Unavailable, true), "{error}");
    assert!(error.to_string().contains("password"), "{error}");
    assert!(!error.full_text().contains("wrong-password"), "{error}");
    let mut wrong = RedisSubscriber::new(url_as(&server, "ann:wrong-password"), "billing")
        .expect("a URL")
        .stream(STREAM);
    let error = next_failure(&mut wrong).await;
    assert!(error.contains("password") && !error.contains("wrong-password"), "{error}");

    let right = RedisPublisher::new(url_as(&server, ":right")).expect("a URL").stream(STREAM);
    right.publish(&full()).await.expect("confirmed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_without_the_right_is_refused_by_name_and_goes_on_when_it_is_granted() {
    let server = server::start().await;
    let admin = client(&server).await;
    admin.ask::<()>("ACL SETUSER shop on >secret ~orders +ping").await;
    let shop = || url_as(&server, "shop:secret");
    let publisher = RedisPublisher::new(shop()).expect("a URL").stream(STREAM);
    let error = failure(&publisher).await;
    assert_eq!((error.class(), error.has_responded()), (Unavailable, true), "{error}");
    assert!(error.to_string().contains("NOPERM") && error.to_string().contains("xadd"), "{error}");
    let mut subscriber = RedisSubscriber::new(shop(), "billing").expect("a URL").stream(STREAM);
    let error = next_failure(&mut subscriber).await;
    assert!(error.contains("NOPERM"), "{error}");

    // The documented rights, and no other.
    admin
        .ask::<()>("ACL SETUSER shop +xadd +xreadgroup +xack +xclaim +xautoclaim +xpending +xgroup")
        .await;
    let goes = async || publisher.publish(&full()).await.is_ok();
    wait_until(SOON, "the publisher goes on", goes).await;
    let delivery = crate::support::next_at_last(&mut subscriber).await;
    delivery.ack().await.expect("acknowledged");
    // Another stream is none of this user's.
    let other = RedisPublisher::new(shop()).expect("a URL").stream("payments");
    assert!(failure(&other).await.to_string().contains("NOPERM"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_without_memory_refuses_for_now_and_takes_messages_when_there_is_some() {
    let server = server::start().await;
    let (admin, publisher) = (client(&server).await, publisher(&server));
    publisher.publish(&full()).await.expect("confirmed");
    admin.ask::<()>("CONFIG SET maxmemory 1").await;
    let error = failure(&publisher).await;
    assert_eq!(error.class(), Transient, "{error}");
    assert!(error.to_string().starts_with("stream `orders`: the server replied OOM"), "{error}");
    admin.ask::<()>("CONFIG SET maxmemory 0").await;
    publisher.publish(&full()).await.expect("confirmed");
    assert_eq!(admin.ask::<u64>("XLEN orders").await, 2, "a refused message is not there");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_counts_as_down_and_the_error_says_what_to_do() {
    let server = server::start().await;
    client(&server).await.ask::<()>("REPLICAOF 127.0.0.1 1").await;
    let error = failure(&publisher(&server)).await;
    assert_eq!(error.class(), Unavailable, "{error}");
    assert!(error.to_string().contains("READONLY"), "{error}");
    assert!(error.to_string().ends_with("name its master"), "{error}");
    let error = next_failure(&mut subscriber(&server)).await;
    assert!(error.contains("READONLY"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_is_no_stream_is_named_and_its_messages_go_when_it_is_away() {
    let server = server::start().await;
    let (admin, publisher) = (client(&server).await, publisher(&server));
    admin.ask::<()>("SET orders text").await;
    let error = failure(&publisher).await;
    assert_eq!(error.class(), Transient, "{error}");
    for part in ["stream `orders`", "WRONGTYPE", "rename or delete it"] {
        assert!(error.to_string().contains(part), "{part}: {error}");
    }
    // Only its own messages are concerned.
    let other = RedisPublisher::new(server.url()).expect("a URL").stream("payments");
    other.publish(&full()).await.expect("confirmed");
    let mut subscriber = subscriber(&server);
    assert!(next_failure(&mut subscriber).await.contains("WRONGTYPE"));
    admin.ask::<()>("DEL orders").await;
    publisher.publish(&full()).await.expect("confirmed");
    let delivery = crate::support::next_at_last(&mut subscriber).await;
    delivery.ack().await.expect("acknowledged");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_runs_a_script_refuses_for_now() {
    let server = server::start().await;
    let (admin, publisher) = (client(&server).await, publisher(&server));
    admin.ask::<()>("CONFIG SET lua-time-limit 20").await;
    let other = client(&server).await;
    let endless = ["EVAL", "while true do end", "0"];
    let script = tokio::spawn(async move { other.attempt::<()>(&endless).await });
    let busy = async || match publisher.publish(&full()).await {
        Err(error) if error.to_string().contains("BUSY") => {
            assert_eq!(error.class(), Transient, "{error}");
            true
        }
        _ => false,
    };
    wait_until(SOON, "the script keeps the server busy", busy).await;
    admin.ask::<()>("SCRIPT KILL").await;
    script.await.expect("ended").expect_err("killed");
    publisher.publish(&full()).await.expect("confirmed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_above_the_limit_can_never_go_and_takes_no_neighbour_with_it() {
    let server = server::start().await;
    let publisher = publisher(&server).with_limits(Limits::default().max_payload(1_000));
    let large = message_with(|m| m.payload = vec![b'x'; 1_001].into());
    let mut batch: Vec<_> = (1..=20).map(|n| numbered(n, &format!("k{n}"))).collect();
    batch.insert(7, large);
    let outcomes = publish_all(&publisher, &batch).await;
    let classes: Vec<_> =
        outcomes.iter().map(|outcome| outcome.as_ref().err().map(PublishError::class)).collect();
    let expected: Vec<_> = (0..21).map(|place| (place == 7).then_some(Permanent)).collect();
    assert_eq!(classes, expected, "{outcomes:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_its_stream_refuses_takes_no_neighbour_of_its_batch_with_it() {
    let server = server::start().await;
    client(&server).await.ask::<()>("SET k7 text").await;
    let publisher = RedisPublisher::new(server.url())
        .expect("a URL")
        .stream_of(|message| message.key.clone().unwrap_or_default());
    let batch: Vec<_> = (0..20).map(|n| numbered(n, &format!("k{n}"))).collect();
    let outcomes = publish_all(&publisher, &batch).await;
    for (place, outcome) in outcomes.iter().enumerate() {
        let class = outcome.as_ref().err().map(PublishError::class);
        assert_eq!(class, (place == 7).then_some(Transient), "message {place}: {outcome:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_silent_or_gone_is_unavailable_and_found_again_without_a_restart() {
    const TIMEOUT: Duration = Duration::from_millis(500);
    let mut server = server::start().await;
    let publisher = publisher(&server).timeout(TIMEOUT);
    let mut subscriber = subscriber(&server).timeout(TIMEOUT);
    publisher.publish(&full()).await.expect("confirmed");
    next(&mut subscriber).await.ack().await.expect("acknowledged");

    server.pause();
    let error = failure(&publisher).await;
    assert_eq!(error.class(), Unavailable, "{error}");
    assert!(error.to_string().contains("did not reply within 500ms"), "{error}");
    let error = failure(&publisher).await;
    assert!(error.to_string().contains("did not accept the connection"), "{error}");
    assert!(next_failure(&mut subscriber).await.contains("did not"));
    server.resume();
    let goes = async || publisher.publish(&full()).await.is_ok();
    wait_until(SOON, "the publisher goes on", goes).await;
    // What was not confirmed may be there all the same: it is delivered too.
    crate::support::next_at_last(&mut subscriber).await.ack().await.expect("acknowledged");

    server.stop().await;
    let error = failure(&publisher).await;
    assert_eq!(error.class(), Unavailable, "{error}");
    server.start().await;
    wait_until(SOON, "the publisher goes on", goes).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_publishes_share_the_wait_for_a_server_that_accepts_nothing() {
    const TIMEOUT: Duration = Duration::from_millis(500);
    // Connections are accepted by the system and never served.
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("redis://{}", listener.local_addr().expect("an address"));
    let publisher = RedisPublisher::new(url).expect("a URL").timeout(TIMEOUT);
    let batch: Vec<_> = (0..50).map(|n| numbered(n, &format!("k{n}"))).collect();
    let publishes = batch.iter().map(|message| publisher.publish(message));
    let all = futures_util::future::join_all(publishes);
    let outcomes = tokio::time::timeout(TIMEOUT * 10, all).await.expect("not one after the other");
    for outcome in outcomes {
        assert_eq!(outcome.expect_err("not served").class(), Unavailable);
    }
}

/// A server that takes its time for each XADD, ended when it is dropped.
struct SlowServer {
    url: String,
    connections: Arc<AtomicUsize>,
    _task: JoinSet<()>,
}

impl SlowServer {
    async fn start(each: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("redis://{}", listener.local_addr().expect("an address"));
        let (connections, mut task) = (Arc::<AtomicUsize>::default(), JoinSet::new());
        let counted = connections.clone();
        task.spawn(async move {
            let mut clients = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                counted.fetch_add(1, Ordering::Relaxed);
                // A client that is gone is no matter of the server.
                clients.spawn(async move { drop(serve(stream, each).await) });
            }
        });
        Self { url, connections, _task: task }
    }
}

async fn serve(mut stream: TcpStream, each: Duration) -> std::io::Result<()> {
    let mut bytes = Vec::new();
    loop {
        while let Some(command) = take_command(&mut bytes) {
            if command == "XADD" {
                sleep(each).await;
                stream.write_all(b"$3\r\n1-0\r\n").await?;
            } else {
                stream.write_all(b"+OK\r\n").await?;
            }
        }
        if stream.read_buf(&mut bytes).await? == 0 {
            return Ok(());
        }
    }
}

/// Takes a whole command off the bytes that were received, and gives its name.
fn take_command(bytes: &mut Vec<u8>) -> Option<String> {
    let header = |from: usize| {
        let rest = bytes.get(from..)?;
        let end = from + rest.windows(2).position(|two| two == b"\r\n")?;
        let number = std::str::from_utf8(bytes.get(from + 1..end)?).ok()?;
        Some((number.parse::<usize>().ok()?, end + 2))
    };
    let (parts, mut at) = header(0)?;
    let mut name = None;
    for _ in 0..parts {
        let (length, begin) = header(at)?;
        let part = bytes.get(begin..begin + length + 2)?;
        name.get_or_insert_with(|| String::from_utf8_lossy(&part[..length]).into_owned());
        at = begin + length + 2;
    }
    bytes.drain(..at);
    name
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_that_wait_longer_than_the_timeout_end_no_connection_that_replies_to_others() {
    const TIMEOUT: Duration = Duration::from_secs(1);
    let server = SlowServer::start(TIMEOUT / 5).await;
    let publisher = RedisPublisher::new(&server.url).expect("a URL").timeout(TIMEOUT);
    // One after the other, the last one after twice the timeout.
    let batch: Vec<_> = (1..=10).map(|n| numbered(n, &format!("k{n}"))).collect();
    let outcomes = publish_all(&publisher.stream(STREAM), &batch).await;
    assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
    assert_eq!(server.connections.load(Ordering::Relaxed), 1);
}
