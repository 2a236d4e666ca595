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
use std::{
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};
use task::{Command, InFlight, SessionTask};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, split},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch},
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

    /// Gives how often both sides hear from each other, in seconds: as often as this client wants
    /// to, and more often where the server does. A server that does not ask for it, or only for
    /// less, is watched all the same.
    fn keep_alive(&self, ours: u16) -> u16 {
        match self.keep_alive {
            None | Some(0) => ours,
            Some(servers) => servers.min(ours),
        }
    }
}

/// The handle of a connection. When the last one is dropped, the connection is ended orderly.
pub(crate) struct Session {
    commands: mpsc::UnboundedSender<Command>,
    end: watch::Receiver<Option<Failure>>,
    window: Arc<Semaphore>,
    /// How many messages the server has answered.
    answered: Arc<AtomicU64>,
    pub(crate) announced: Announced,
    timeout: Duration,
    /// Whether the server has refused a message: it may end the connection over it later.
    has_refused: AtomicBool,
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
        let keep_alive = Duration::from_secs(announced.keep_alive(keep_alive).into());
        // Publishes are bounded by the window, ack decisions by what the server may send.
        let (commands, mailbox) = mpsc::unbounded_channel();
        let (report, end) = watch::channel(None);
        let (reader, writer) = split(stream);
        let answered = Arc::<AtomicU64>::default();
        let task =
            SessionTask::new(reader, writer, rest, inbound, Arc::clone(&answered), keep_alive);
        spawn(task.run(mailbox, report)).detach();
        let window = Arc::new(Semaphore::new(announced.window.into()));
        Ok(Self {
            commands,
            end,
            window,
            answered,
            announced,
            timeout: within,
            has_refused: AtomicBool::new(false),
        })
    }

    /// Gives why it was lost, where it was.
    pub(crate) fn failure(&self) -> Option<Failure> {
        let lost = self.end.borrow().clone();
        lost.or_else(|| self.commands.is_closed().then(|| Failure::lost("it was closed")))
    }

    /// Tells whether the server has refused a message. Mosquitto confirms one with a refusal and may
    /// end the connection a moment later, when another message is in flight.
    pub(crate) fn has_refused(&self) -> bool {
        self.has_refused.load(Ordering::Relaxed)
    }

    /// Waits until it is lost.
    pub(crate) async fn lost(&self) -> Failure {
        let mut end = self.end.clone();
        let lost = end.wait_for(Option::is_some).await.ok().and_then(|end| end.clone());
        lost.unwrap_or_else(|| Failure::lost("it was closed"))
    }

    /// Publishes a message and waits for its confirmation. The time for it begins when the server
    /// has room for the message. One that is larger than the server takes is not sent: the server
    /// would end the connection.
    ///
    /// # Cancel safety
    /// A message of a call that is dropped may have been sent.
    pub(crate) async fn publish(&self, mut publish: Publish) -> Result<(), Failure> {
        let topic = topic_of(&publish.topic);
        // Any number has the same size; the task gives it its own.
        publish.pkid = publish.pkid.max(1);
        let (size, most) = (publish.size(), self.announced.max_packet);
        if size > most {
            return Err(Failure::too_large(size, most));
        }
        let permit = self.room().await?;
        let (outcome, confirmed) = oneshot::channel();
        let command = Command::Publish(publish, InFlight { outcome, _permit: permit });
        if self.commands.send(command).is_err() {
            return Err(self.lost().await.unsent());
        }
        match timeout(self.timeout, confirmed).await {
            Ok(Ok(Ok(answer))) => {
                match Failure::from_puback(answer.code, answer.words.as_deref(), &topic) {
                    None => Ok(()),
                    Some(failure) => {
                        self.has_refused.store(true, Ordering::Relaxed);
                        Err(failure)
                    }
                }
            }
            Ok(Ok(Err(failure))) => Err(failure),
            Ok(Err(_)) => Err(self.lost().await),
            Err(_) => Err(Failure::not_confirmed(self.timeout)),
        }
    }

    /// Waits until the server has room for a message, however long that takes while it answers
    /// others. Where it answers none of those that it has for the time of one reply, the connection
    /// is ended: a new one starts with an empty window.
    async fn room(&self) -> Result<OwnedSemaphorePermit, Failure> {
        // One future, which keeps its place among those that wait.
        let mut room = pin!(Arc::clone(&self.window).acquire_owned());
        loop {
            let answered = self.answered.load(Ordering::Relaxed);
            let permit = tokio::select! {
                permit = timeout(self.timeout, room.as_mut()) => permit,
                failure = self.lost() => return Err(failure.unsent()),
            };
            match permit {
                Ok(Ok(permit)) => return Ok(permit),
                Err(_) if self.answered.load(Ordering::Relaxed) != answered => {}
                Ok(Err(_)) | Err(_) => {
                    let text = "confirmed none of its messages";
                    let failure = Failure::timed_out(text, self.timeout);
                    let _ = self.commands.send(Command::End(failure));
                    return Err(self.lost().await);
                }
            }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_wants_to_hear_less_is_watched_as_often_as_without_its_wish() {
        let announced = |keep_alive| Announced {
            session_present: false,
            max_packet: MAX_PACKET,
            window: 1,
            session_expiry: None,
            keep_alive,
        };
        for (servers, expected) in
            [(None, 15), (Some(0), 15), (Some(5), 5), (Some(15), 15), (Some(65_535), 15)]
        {
            assert_eq!(announced(servers).keep_alive(15), expected, "{servers:?}");
        }
    }
}
