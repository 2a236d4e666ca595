//! Tells an open port from a server that answers.

use std::time::Duration;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

/// How long an answer may take before it counts as none.
const ANSWERED_WITHIN: Duration = Duration::from_secs(1);

/// The opening of a protocol.
pub(super) struct Probe {
    /// What the client says first; empty where the server speaks first.
    pub(super) hello: &'static [u8],
    /// Whether the bytes that came so far are the answer of a server that serves.
    pub(super) is_answer: fn(&[u8]) -> bool,
}

impl Probe {
    /// Tells whether the server on the port answers now.
    pub(super) async fn answers(&self, port: u16) -> bool {
        timeout(ANSWERED_WITHIN, self.converse(port))
            .await
            .is_ok_and(|answered| answered.unwrap_or(false))
    }

    async fn converse(&self, port: u16) -> std::io::Result<bool> {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
        stream.write_all(self.hello).await?;
        let mut answer = Vec::new();
        while !(self.is_answer)(&answer) {
            if stream.read_buf(&mut answer).await? == 0 {
                return Ok(false);
            }
        }
        Ok(true)
    }
}
