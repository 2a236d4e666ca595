//! A connection that has been accepted, until it is lost. A lost one is never used again: its
//! publishes and ack decisions fail at once, and the next one begins with nothing to repeat.
//!
//! The client library encodes and decodes packets. The rest is ours: its event loop repeats after a
//! reconnection what has failed already, refuses to subscribe on a session that the server kept, and
//! waits without a limit for a socket that takes nothing.

mod ack_handle;
mod inbound;
mod packets;
mod pending;
mod task;

pub(crate) use ack_handle::{AckHandle, AckRules};
pub(crate) use inbound::{Carried, Inbound, InboundOptions, Received};
pub(crate) use packets::topic_of;

use crate::classify::Failure;
use bytes::BytesMut;
use outbox_core::runtime::spawn;
use packets::Welcome;
use rumqttc::mqttbytes::v5::{Connect, ConnectAuth, Packet, Publish, Subscribe, SubscribeFilter};
use std::{sync::Arc, time::Duration};
use task::{Command, InFlight, SessionTask};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, split},
    sync::{Semaphore, mpsc, oneshot, watch},
    time::timeout,
};

/// A stream of bytes, encrypted or not.
pub(crate) trait ByteStream: AsyncRead + AsyncWrite + Unpin + Send + 'static {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send + 'static> ByteStream for T {}

/// Most messages of one connection without a confirmation, where the server allows more: enough
/// to keep a server busy over a slow network.
const MAX_WINDOW: u16 = 1_024;
/// Most bytes of a packet, by the standard.
pub(crate) const MAX_PACKET: usize = 268_435_455;

/// What the server has announced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Announced {
    /// Whether it has kept the session of an earlier connection.
    pub(crate) session_present: bool,
    /// Most bytes of a packet that it takes.
    pub(crate) max_packet: usize,
    /// How many messages may wait for its confirmation.
    pub(crate) window: u16,
    /// For how many seconds it keeps the session, where that is not what was asked for.
    pub(crate) session_expiry: Option<u32>,
    /// How often it wants to hear from this client.
    keep_alive: Option<u16>,
}

impl Announced {
    fn of(welcome: &Welcome) -> Result<Self, Failure> {
        let properties = welcome.properties.as_ref();
        if properties.and_then(|p| p.max_qos) == Some(0) {
            return Err(Failure::ended("the server takes no QoS 1: it could confirm nothing"));
        }
        let max_packet = properties.and_then(|p| p.max_packet_size);
        let max_packet = max_packet.and_then(|bytes| usize::try_from(bytes).ok());
        let window = properties.and_then(|p| p.receive_max).unwrap_or(u16::MAX);
        Ok(Self {
            session_present: welcome.session_present,
            max_packet: max_packet.unwrap_or(MAX_PACKET).min(MAX_PACKET),
            window: window.clamp(1, MAX_WINDOW),
            session_expiry: properties.and_then(|p| p.session_expiry_interval),
            keep_alive: properties.and_then(|p| p.server_keep_alive),
        })
    }
}

/// The handle of a connection. When the last one is dropped, the connection is ended orderly.
pub(crate) struct Session {
    commands: mpsc::UnboundedSender<Command>,
    end: watch::Receiver<Option<Failure>>,
    window: Arc<Semaphore>,
    pub(crate) announced: Announced,
    timeout: Duration,
}

impl Session {
    /// Sends CONNECT over a new stream and waits for the server's answer, within the time for one
    /// reply. Messages go to `inbound`.
    ///
    /// # Cancel safety
    /// A call that is dropped closes the stream.
    pub(crate) async fn open(
        stream: Box<dyn ByteStream>,
        connect: Connect,
        auth: ConnectAuth,
        inbound: Option<Arc<Inbound>>,
        within: Duration,
    ) -> Result<Self, Failure> {
        let keep_alive = connect.keep_alive;
        let shaking = handshake(stream, Packet::Connect(connect, None, auth));
        let (stream, welcome, rest) = match timeout(within, shaking).await {
            Ok(welcome) => welcome?,
            Err(_) => return Err(Failure::timed_out("did not accept the connection", within)),
        };
        let announced = Announced::of(&welcome)?;
        let keep_alive = announced.keep_alive.unwrap_or(keep_alive);
        // Publishes are bounded by the window, ack decisions by what the server may send.
        let (commands, mailbox) = mpsc::unbounded_channel();
        let (report, end) = watch::channel(None);
        let (reader, writer) = split(stream);
        let keep_alive = Duration::from_secs(keep_alive.into());
        let task = SessionTask::new(reader, writer, rest, inbound, keep_alive);
        spawn(task.run(mailbox, report)).detach();
        let window = Arc::new(Semaphore::new(announced.window.into()));
        Ok(Self { commands, end, window, announced, timeout: within })
    }

    /// Gives why it was lost, where it was.
    pub(crate) fn failure(&self) -> Option<Failure> {
        let lost = self.end.borrow().clone();
        lost.or_else(|| self.commands.is_closed().then(|| Failure::lost("it was closed")))
    }

    /// Waits until it is lost.
    pub(crate) async fn lost(&self) -> Failure {
        let mut end = self.end.clone();
        let lost = end.wait_for(Option::is_some).await.ok().and_then(|end| end.clone());
        lost.unwrap_or_else(|| Failure::lost("it was closed"))
    }

    /// Publishes a message and waits for its confirmation. The time for it begins when the server
    /// has room for the message.
    ///
    /// # Cancel safety
    /// A message of a call that is dropped may have been sent.
    pub(crate) async fn publish(&self, publish: Publish) -> Result<(), Failure> {
        let topic = topic_of(&publish.topic);
        let room = timeout(self.timeout, Arc::clone(&self.window).acquire_owned());
        let permit = tokio::select! {
            permit = room => permit,
            failure = self.lost() => return Err(failure.unsent()),
        };
        let Ok(Ok(permit)) = permit else {
            // Nothing was confirmed for so long: a new connection starts with an empty window.
            let failure = Failure::timed_out("confirmed none of its messages", self.timeout);
            let _ = self.commands.send(Command::End(failure));
            return Err(self.lost().await);
        };
        let (outcome, confirmed) = oneshot::channel();
        let command = Command::Publish(publish, InFlight { outcome, _permit: permit });
        if self.commands.send(command).is_err() {
            return Err(self.lost().await.unsent());
        }
        match timeout(self.timeout, confirmed).await {
            Ok(Ok(Ok(answer))) => {
                match Failure::from_puback(answer.code, answer.words.as_deref(), &topic) {
                    None => Ok(()),
                    Some(failure) => Err(failure),
                }
            }
            Ok(Ok(Err(failure))) => Err(failure),
            Ok(Err(_)) => Err(self.lost().await),
            Err(_) => Err(Failure::not_confirmed(self.timeout)),
        }
    }

    /// Subscribes, and waits until the server has granted all of it.
    pub(crate) async fn subscribe(&self, filters: Vec<SubscribeFilter>) -> Result<(), Failure> {
        let names: Vec<String> = filters.iter().map(|filter| filter.path.clone()).collect();
        let (outcome, granted) = oneshot::channel();
        let subscribe = Subscribe::new_many(filters, None);
        if self.commands.send(Command::Subscribe(subscribe, outcome)).is_err() {
            return Err(self.lost().await);
        }
        let codes = match timeout(self.timeout, granted).await {
            Ok(Ok(codes)) => codes,
            Ok(Err(_)) => return Err(self.lost().await),
            Err(_) => return Err(Failure::timed_out("answered no subscription", self.timeout)),
        };
        let refused =
            names.iter().zip(codes).find_map(|(name, code)| Failure::from_suback(code, name));
        refused.map_or(Ok(()), Err)
    }

    /// Tells the server to forget messages, and waits until it has. The protocol has no answer to an
    /// acknowledgement, but one to a ping that is sent behind it.
    async fn acknowledge(&self, ids: Vec<u16>) -> Result<(), Failure> {
        if ids.is_empty() {
            return Ok(());
        }
        let (done, answered) = oneshot::channel();
        if self.commands.send(Command::Acknowledge(ids, done)).is_err() {
            return Err(self.lost().await);
        }
        match timeout(self.timeout, answered).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(self.lost().await),
            Err(_) => Err(Failure::timed_out("answered no acknowledgement", self.timeout)),
        }
    }

    /// Ends the connection orderly, and waits until the server has taken what was sent.
    pub(crate) async fn close(&self) {
        if self.commands.send(Command::Close).is_ok() {
            // A server that takes nothing is not waited for.
            let _ = timeout(self.timeout, self.commands.closed()).await;
        }
    }
}

/// Sends CONNECT and reads the answer. Gives what was received behind it too.
async fn handshake(
    mut stream: Box<dyn ByteStream>,
    connect: Packet,
) -> Result<(Box<dyn ByteStream>, Welcome, BytesMut), Failure> {
    let mut bytes = BytesMut::new();
    packets::write(&connect, &mut bytes)?;
    let io = |error: std::io::Error| {
        Failure::ended(format!("the server ended the connection before it accepted it: {error}"))
    };
    stream.write_all(&bytes).await.map_err(io)?;
    stream.flush().await.map_err(io)?;
    bytes.clear();
    loop {
        packets::check_first(&bytes)?;
        if let Some(frame) = packets::next_frame(&mut bytes)? {
            return Ok((stream, packets::read_welcome(frame)?, bytes));
        }
        if stream.read_buf(&mut bytes).await.map_err(io)? == 0 {
            return Err(Failure::ended(
                "the server closed the connection before it accepted it; see its log",
            ));
        }
    }
}
