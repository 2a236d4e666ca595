//! Servers on loopback and messages to send.

use axum::Router;
use bytes::Bytes;
use outbox_core::event::{EventId, Headers, Message, MessageId, MessageParts, Timestamp};
use outbox_http::HttpPublisher;
use std::net::SocketAddr;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

/// A signing key with a value that no log, error or `Debug` may show.
pub(crate) const SECRET: &str = "whsec_Y2FuYXJ5LXRoYXQtbXVzdC1uZXZlci1iZS1zZWVu";
/// A second one.
pub(crate) const OTHER_SECRET: &str = "whsec_c2Vjb25kLWNhbmFyeS1uZXZlci1zZWVuLWVpdGhlcg==";

/// A server that runs until it is dropped.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    _tasks: JoinSet<()>,
}

impl Server {
    pub(crate) fn url(&self) -> String {
        format!("http://{}/events", self.address)
    }

    /// A publisher that may reach this server.
    pub(crate) fn publisher(&self) -> HttpPublisher {
        HttpPublisher::new(self.url()).expect("a URL").allow_loopback()
    }
}

/// Serves a router.
pub(crate) async fn serve(router: Router) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        axum::serve(listener, router).await.expect("serves until it is dropped");
    });
    Server { address, _tasks: tasks }
}

/// Serves raw connections: what the closure does with each is all that happens.
pub(crate) async fn serve_raw<F, T>(each: F) -> Server
where
    F: Fn(TcpStream) -> T + Send + Sync + 'static,
    T: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            connections.spawn(each(stream));
        }
    });
    Server { address, _tasks: tasks }
}

/// Serves one fixed response to every request, then closes.
pub(crate) async fn serve_response(response: &'static str) -> Server {
    serve_raw(move |mut stream| async move {
        read_request(&mut stream).await;
        stream.write_all(response.as_bytes()).await.expect("the client reads");
        stream.shutdown().await.expect("the client reads");
    })
    .await
}

/// Reads one request, head and body, as text.
pub(crate) async fn read_request(stream: &mut TcpStream) -> String {
    read_request_from(stream).await
}

/// Reads one request from any stream; gives up where the stream ends or breaks.
pub(crate) async fn read_request_from(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut bytes = Vec::new();
    loop {
        let mut chunk = [0; 4096];
        let read = stream.read(&mut chunk).await.unwrap_or(0);
        bytes.extend_from_slice(&chunk[..read]);
        let text = String::from_utf8_lossy(&bytes);
        if read == 0 {
            return text.into_owned();
        }
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok());
            if body.len() >= length.unwrap_or(0) {
                return text.into_owned();
            }
        }
    }
}

/// An address without a listener.
pub(crate) async fn closed_port() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    listener.local_addr().expect("an address")
}

/// A message with every attribute set.
pub(crate) fn message() -> Message {
    message_with(|_| ())
}

/// A message with every attribute set and something changed.
pub(crate) fn message_with(change: impl FnOnce(&mut MessageParts)) -> Message {
    let mut headers = Headers::new();
    headers.insert("tenant", "Zoë & Søn, 100% \"quoted\"").expect("legal");
    headers.insert("correlationid", "c-1").expect("legal");
    let mut parts = MessageParts {
        id: MessageId::generate(),
        sequence: Some(EventId(42)),
        source: "/shop".into(),
        event_type: "order.placed".into(),
        event_version: 2,
        topic: "orders".into(),
        aggregate_type: Some("order".into()),
        key: Some("7".into()),
        content_type: "application/json".into(),
        payload: Bytes::from_static(b"{\"total\" : 1.50}"),
        headers,
        created_at: Timestamp::from_micros(1_700_000_000_123_456),
        expires_at: Some(Timestamp::from_micros(1_700_000_600_000_000)),
        retry: None,
    };
    change(&mut parts);
    Message::new(parts)
}
