//! Requests that can be spoiled, sent byte by byte.

use crate::support::{SECRET, Server, serve};
use axum::Router;
use outbox_http::{HttpSubscriber, ReceiverBuilder, Secret};
use percent_encoding::percent_decode_str;
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

pub(crate) const ID: &str = "01890a5d-ac96-774b-bcce-b302099a8057";

/// A request that can be spoiled, in the form in which it travels.
#[derive(Clone)]
pub(crate) struct Request {
    pub(crate) method: &'static str,
    pub(crate) path: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    pub(crate) length: bool,
}

/// A response: its status and its whole text.
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) text: String,
}

pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs()
}

impl Request {
    /// A right one in binary mode, unsigned.
    pub(crate) fn binary() -> Self {
        let headers = [
            ("host", "localhost"),
            ("content-type", "application/json"),
            ("ce-specversion", "1.0"),
            ("ce-id", ID),
            ("ce-source", "/shop"),
            ("ce-type", "order.placed"),
        ];
        let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        Self {
            method: "POST",
            path: "/events".into(),
            headers,
            body: b"{\"n\":1}".to_vec(),
            length: true,
        }
    }

    /// A right one in structured mode, unsigned.
    pub(crate) fn structured() -> Self {
        let body = format!(
            "{{\"specversion\":\"1.0\",\"id\":\"{ID}\",\"source\":\"/shop\",\"type\":\"order.placed\",\"data\":{{\"n\":1}}}}"
        );
        let media = "application/cloudevents+json; charset=UTF-8";
        Self {
            headers: vec![("host".into(), "localhost".into())],
            body: body.into(),
            ..Self::binary()
        }
        .with("content-type", media)
    }

    /// Sets a header, replacing it.
    pub(crate) fn with(self, name: &str, value: &str) -> Self {
        self.without(name).and(name, value)
    }

    /// Adds a header, beside one of the same name.
    pub(crate) fn and(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn without(mut self, name: &str) -> Self {
        self.headers.retain(|(other, _)| other != name);
        self
    }

    pub(crate) fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    /// Signs the body, and in binary mode the attributes, as a sender of ours does.
    pub(crate) fn signed_by(self, secret: &str, id: &str, timestamp: u64) -> Self {
        let of_attributes = Secret::parse(secret).expect("a secret").sign_attributes(
            id,
            timestamp,
            &self.body,
            self.attributes().iter().map(|(name, value)| (name.as_str(), value.as_str())),
        );
        let is_structured = |(name, value): &(String, String)| {
            name == "content-type" && value.contains("cloudevents")
        };
        let structured = self.headers.iter().any(is_structured);
        let request = if structured { self } else { self.with("outbox-signature", &of_attributes) };
        request.body_signed_by(secret, id, timestamp)
    }

    /// Signs the body alone, as Standard Webhooks says.
    pub(crate) fn body_signed_by(self, secret: &str, id: &str, timestamp: u64) -> Self {
        let signature = Secret::parse(secret).expect("a secret").sign(id, timestamp, &self.body);
        self.with("webhook-id", id)
            .with("webhook-timestamp", &timestamp.to_string())
            .with("webhook-signature", &signature)
    }

    fn attributes(&self) -> Vec<(String, String)> {
        let named = self.headers.iter().filter_map(|(name, value)| {
            let name =
                if name == "content-type" { "datacontenttype" } else { name.strip_prefix("ce-")? };
            Some((name.to_owned(), percent_decode_str(value).decode_utf8_lossy().into_owned()))
        });
        named.collect()
    }

    pub(crate) fn signed(self) -> Self {
        self.signed_by(SECRET, ID, now())
    }

    pub(crate) async fn open(&self, server: &Server) -> TcpStream {
        let mut stream = TcpStream::connect(server.address).await.expect("the server listens");
        let mut head =
            format!("{} {} HTTP/1.1\r\nconnection: close\r\n", self.method, self.path).into_bytes();
        for (name, value) in &self.headers {
            // Header bytes as they are, so that a test can send what no client would.
            head.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
        }
        if self.length {
            head.extend_from_slice(format!("content-length: {}\r\n", self.body.len()).as_bytes());
        }
        head.extend_from_slice(b"\r\n");
        stream.write_all(&head).await.expect("the server reads");
        stream
    }

    pub(crate) async fn send(&self, server: &Server) -> Response {
        let mut stream = self.open(server).await;
        // A server that has refused already may have closed.
        let _ = stream.write_all(&self.body).await;
        read_response(stream).await
    }
}

pub(crate) async fn read_response(mut stream: impl AsyncRead + Unpin) -> Response {
    let mut bytes = Vec::new();
    // A server that closes with bytes unread resets; what it said before that counts.
    let _ = stream.read_to_end(&mut bytes).await;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let status = text.split(' ').nth(1).and_then(|status| status.parse().ok());
    Response { status: status.unwrap_or_else(|| panic!("no response: {text:?}")), text }
}

pub(crate) async fn receiver(builder: ReceiverBuilder) -> (Server, HttpSubscriber) {
    let (router, subscriber): (Router, _) = builder.build().expect("configured");
    (serve(router).await, subscriber)
}
