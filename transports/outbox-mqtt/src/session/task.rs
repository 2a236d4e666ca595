//! The task of a connection: it reads, writes, and watches whether the server lives.

use super::{
    ByteStream, Inbound,
    packets::{self, Answer, Incoming},
};
use crate::classify::Failure;
use bytes::BytesMut;
use outbox_core::runtime::now;
use rumqttc::mqttbytes::v5::{
    Disconnect, DisconnectReasonCode, Packet, PubAck, Publish, Subscribe,
};
use std::{
    collections::{HashMap, VecDeque},
    future::pending,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf},
    sync::{OwnedSemaphorePermit, mpsc, oneshot, watch},
    time::{Interval, MissedTickBehavior, interval},
};

/// Bytes that may wait to be written before no further command is taken.
const MAX_UNWRITTEN: usize = 1 << 20;
/// How often a keep alive's time is looked at.
const TICKS: u32 = 4;
/// How long a server may take to end a connection that it was told to end.
const CLOSED_WITHIN: Duration = Duration::from_secs(5);

/// What the handles of a connection ask of it.
pub(super) enum Command {
    Publish(Publish, InFlight),
    Subscribe(Subscribe, oneshot::Sender<Vec<u8>>),
    /// The server may forget these messages; says when it has.
    Acknowledge(Vec<u16>, oneshot::Sender<()>),
    /// Ends it orderly.
    Close,
    /// Ends it for a reason.
    End(Failure),
}

/// A message that was sent and is not confirmed yet.
pub(super) struct InFlight {
    pub(super) outcome: oneshot::Sender<Result<Answer, Failure>>,
    /// Its place in the window, which the server frees and not the caller.
    pub(super) _permit: OwnedSemaphorePermit,
}

/// Messages whose acknowledgements go out before a ping: the server has forgotten them when it
/// answers that.
struct Acknowledged {
    ids: Vec<u16>,
    /// Who waits for that, if anybody does.
    done: Option<oneshot::Sender<()>>,
}

/// Why the task ends.
enum End {
    Closed,
    Failed(Failure),
}

impl From<Failure> for End {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

type Stream = Box<dyn ByteStream>;

/// The state of a connection.
pub(super) struct SessionTask {
    reader: ReadHalf<Stream>,
    writer: WriteHalf<Stream>,
    received: BytesMut,
    unwritten: BytesMut,
    /// Whether the stream may have kept bytes back.
    unflushed: bool,
    /// Since when the server is waited for, which ends the connection after DISCONNECT.
    closing_at: Option<Instant>,
    inbound: Option<Arc<Inbound>>,
    in_flight: HashMap<u16, InFlight>,
    subscribing: HashMap<u16, oneshot::Sender<Vec<u8>>>,
    /// What went out before each ping that is out.
    pings: VecDeque<Vec<Acknowledged>>,
    /// What goes out before the next one.
    for_next_ping: Vec<Acknowledged>,
    last_id: u16,
    /// How many messages the server has answered.
    answered: Arc<AtomicU64>,
    keep_alive: Duration,
    heard_at: Instant,
    sent_at: Instant,
}

impl SessionTask {
    pub(super) fn new(
        reader: ReadHalf<Stream>,
        writer: WriteHalf<Stream>,
        received: BytesMut,
        inbound: Option<Arc<Inbound>>,
        answered: Arc<AtomicU64>,
        keep_alive: Duration,
    ) -> Self {
        Self {
            reader,
            writer,
            received,
            unwritten: BytesMut::new(),
            unflushed: false,
            closing_at: None,
            inbound,
            in_flight: HashMap::new(),
            subscribing: HashMap::new(),
            pings: VecDeque::new(),
            for_next_ping: Vec::new(),
            last_id: 0,
            answered,
            keep_alive,
            heard_at: now(),
            sent_at: now(),
        }
    }

    /// Works until the connection ends, and then fails whatever waits for it.
    pub(super) async fn run(
        mut self,
        mut commands: mpsc::UnboundedReceiver<Command>,
        report: watch::Sender<Option<Failure>>,
    ) {
        let failure = match self.work(&mut commands).await {
            End::Closed => Failure::ended("the connection is closed"),
            End::Failed(failure) => failure,
        };
        report.send_replace(Some(failure.clone()));
        commands.close();
        for (_, in_flight) in self.in_flight.drain() {
            // The caller may have given up.
            let _ = in_flight.outcome.send(Err(failure.clone()));
        }
        while let Ok(command) = commands.try_recv() {
            if let Command::Publish(_, in_flight) = command {
                let _ = in_flight.outcome.send(Err(failure.clone().unsent()));
            }
        }
        if let Some(inbound) = &self.inbound {
            inbound.end(failure);
        }
    }

    async fn work(&mut self, commands: &mut mpsc::UnboundedReceiver<Command>) -> End {
        // However long the keep alive is, there is still the end to be looked at.
        let mut ticks = interval((self.keep_alive / TICKS).min(CLOSED_WITHIN));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            if let Err(end) = self.turn(commands, &mut ticks).await {
                return end;
            }
        }
    }

    /// Takes what has come, and does the next thing that can be done.
    async fn turn(
        &mut self,
        commands: &mut mpsc::UnboundedReceiver<Command>,
        ticks: &mut Interval,
    ) -> Result<(), End> {
        self.take_packets()?;
        if self.closing_at.is_some_and(|at| now() - at >= CLOSED_WITHIN) {
            return Err(End::Closed);
        }
        let inbound = self.inbound.clone();
        let is_full =
            self.closing_at.is_none() && inbound.as_ref().is_some_and(|inbound| inbound.is_full());
        if is_full {
            // The answers stand behind messages that are not read before something is handled.
            self.answer_waiting();
        }
        let room = async {
            match &inbound {
                Some(inbound) if is_full => inbound.room().await,
                _ => pending().await,
            }
        };
        let has_bytes = !self.unwritten.is_empty();
        let writes = has_bytes || self.unflushed;
        let takes_commands = self.closing_at.is_none() && self.unwritten.len() < MAX_UNWRITTEN;
        let (writer, unwritten) = (&mut self.writer, &mut self.unwritten);
        let writing = async {
            if has_bytes {
                writer.write_buf(unwritten).await.map(|_| true)
            } else {
                writer.flush().await.map(|()| false)
            }
        };
        tokio::select! {
            read = self.reader.read_buf(&mut self.received), if !is_full => match read {
                // It has taken all that was sent before the end.
                Ok(0) if self.closing_at.is_some() => return Err(End::Closed),
                Ok(0) => return Err(Failure::lost("the server closed it").into()),
                Ok(_) => self.heard_at = now(),
                Err(error) => return Err(Failure::lost(error).into()),
            },
            written = writing, if writes => match written {
                Ok(unflushed) => (self.unflushed, self.sent_at) = (unflushed, now()),
                Err(error) => return Err(self.gone(error).into()),
            },
            command = commands.recv(), if takes_commands => self.obey(command)?,
            () = room => self.heard_at = now(),
            _ = ticks.tick() => self.watch(is_full)?,
        }
        Ok(())
    }

    /// Gives why a connection takes nothing more: the server's own words may have come before.
    fn gone(&mut self, error: std::io::Error) -> Failure {
        match self.take_packets() {
            Err(End::Failed(failure)) => failure,
            _ => Failure::lost(error),
        }
    }

    fn obey(&mut self, command: Option<Command>) -> Result<(), Failure> {
        match command {
            Some(Command::Publish(publish, in_flight)) => self.publish(publish, in_flight),
            Some(Command::Subscribe(mut subscribe, outcome)) => {
                subscribe.pkid = self.free_id();
                self.subscribing.insert(subscribe.pkid, outcome);
                packets::write(&Packet::Subscribe(subscribe), &mut self.unwritten)?;
            }
            Some(Command::Acknowledge(ids, done)) => {
                self.acknowledge(ids, Some(done))?;
                // One at a time: those that come meanwhile share the next one.
                if self.pings.is_empty() {
                    self.ping()?;
                }
            }
            Some(Command::End(failure)) => return Err(failure),
            // The last handle was dropped.
            Some(Command::Close) | None => {
                self.closing_at = Some(now());
                let disconnect = Disconnect::new(DisconnectReasonCode::NormalDisconnection);
                packets::write(&Packet::Disconnect(disconnect), &mut self.unwritten)?;
            }
        }
        Ok(())
    }

    fn publish(&mut self, mut publish: Publish, in_flight: InFlight) {
        if in_flight.outcome.is_closed() {
            // Its caller has given up: it need not be sent.
            return;
        }
        publish.pkid = self.free_id();
        let id = publish.pkid;
        match packets::write_message(publish, &mut self.unwritten) {
            Ok(()) => _ = self.in_flight.insert(id, in_flight),
            Err(failure) => _ = in_flight.outcome.send(Err(failure)),
        }
    }

    fn acknowledge(
        &mut self,
        ids: Vec<u16>,
        done: Option<oneshot::Sender<()>>,
    ) -> Result<(), Failure> {
        for id in &ids {
            packets::write(&Packet::PubAck(PubAck::new(*id, None)), &mut self.unwritten)?;
        }
        if !ids.is_empty() {
            self.for_next_ping.push(Acknowledged { ids, done });
        }
        Ok(())
    }

    /// Gives a number that no packet in flight has. The window has far fewer than there are.
    fn free_id(&mut self) -> u16 {
        loop {
            self.last_id = self.last_id.checked_add(1).unwrap_or(1);
            let is_taken = self.in_flight.contains_key(&self.last_id)
                || self.subscribing.contains_key(&self.last_id);
            if !is_taken {
                return self.last_id;
            }
        }
    }

    /// Takes all packets that are there.
    fn take_packets(&mut self) -> Result<(), End> {
        while let Some(frame) = packets::next_frame(&mut self.received)? {
            match packets::read(frame)? {
                Incoming::Publish(publish) => {
                    let Some(inbound) = &self.inbound else {
                        return Err(Failure::ended("the server sent a message unasked").into());
                    };
                    let acknowledged = inbound.accept(publish)?;
                    self.acknowledge(acknowledged, None)?;
                }
                Incoming::PubAck(answer) => {
                    // An answer to nothing is ignored: the server has had its say.
                    if let Some(in_flight) = self.in_flight.remove(&answer.id) {
                        self.answered.fetch_add(1, Ordering::Relaxed);
                        let _ = in_flight.outcome.send(Ok(answer));
                    }
                }
                Incoming::SubAck { id, codes } => {
                    if let Some(outcome) = self.subscribing.remove(&id) {
                        let _ = outcome.send(codes);
                    }
                }
                Incoming::PingResp => {
                    let forgotten = self.pings.pop_front().unwrap_or_default();
                    self.forgotten(forgotten);
                    if !self.for_next_ping.is_empty() && self.pings.is_empty() {
                        self.ping()?;
                    }
                }
                Incoming::Disconnect(answer) => {
                    let words = answer.words.as_deref();
                    return Err(Failure::from_disconnect(answer.code, words).into());
                }
            }
        }
        Ok(())
    }

    /// Pings a server that is silent, and gives up one that stays so: within one and a half times
    /// the keep alive, as the server does with its clients.
    fn watch(&mut self, is_full: bool) -> Result<(), Failure> {
        let now = now();
        let silent = now.saturating_duration_since(self.heard_at);
        // What is not read cannot be heard.
        if !is_full && silent > self.keep_alive + self.keep_alive / 2 {
            return Err(Failure::ended(format!(
                "the server was silent for {silent:?}, longer than the keep alive of {:?}",
                self.keep_alive
            )));
        }
        let idle = now.saturating_duration_since(self.sent_at.min(self.heard_at));
        if idle >= self.keep_alive / 2 && self.unwritten.is_empty() {
            self.ping()?;
        }
        Ok(())
    }

    /// Notes that the server has forgotten messages, and tells those who wait for that.
    fn forgotten(&self, forgotten: Vec<Acknowledged>) {
        for Acknowledged { ids, done } in forgotten {
            if let Some(inbound) = &self.inbound {
                inbound.forgotten(&ids);
            }
            // Its caller may have given up.
            let _ = done.map(|done| done.send(()));
        }
    }

    /// Tells those who wait for an answer that there will be none for now: what they sent is on its
    /// way. Should it not arrive, their messages are not delivered again.
    fn answer_waiting(&mut self) {
        for sent in self.pings.iter_mut().flatten().chain(&mut self.for_next_ping) {
            let is_told = sent.done.take().is_some_and(|done| done.send(()).is_ok());
            if let Some(inbound) = self.inbound.as_ref().filter(|_| is_told) {
                inbound.reported(&sent.ids);
            }
        }
    }

    /// Sends a ping, behind what was acknowledged.
    fn ping(&mut self) -> Result<(), Failure> {
        self.pings.push_back(std::mem::take(&mut self.for_next_ping));
        packets::write(&Packet::PingReq, &mut self.unwritten)
    }
}
