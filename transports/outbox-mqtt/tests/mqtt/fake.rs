//! A server that does what a test wants: for answers that no real one gives when it is asked to.

use bytes::BytesMut;
use rumqttc::mqttbytes::v5::{Packet, Publish, SubAck, SubscribeReasonCode};
use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    task::JoinSet,
    time::sleep,
};

/// An accepted connection: without properties.
pub(crate) const WELCOME: &[u8] = &[0x20, 3, 0, 0, 0];

/// What the server does about a message.
pub(crate) enum Reaction {
    /// Sends bytes; none is silence.
    Send(Vec<u8>),
    /// Sends bytes after a while, and does nothing else meanwhile.
    Late(Duration, Vec<u8>),
    /// Closes the connection without a word.
    Close,
}

/// Confirms a message with a reason code.
pub(crate) fn puback(publish: &Publish, code: u8) -> Reaction {
    let [high, low] = publish.pkid.to_be_bytes();
    Reaction::Send(vec![0x40, 4, high, low, code, 0])
}

/// Ends the connection with a reason code.
pub(crate) fn disconnect(code: u8) -> Reaction {
    Reaction::Send(vec![0xe0, 2, code, 0])
}

/// A server, ended when it is dropped.
pub(crate) struct Fake {
    url: String,
    /// The messages that came.
    pub(crate) came: mpsc::UnboundedReceiver<Publish>,
    _task: JoinSet<()>,
}

impl Fake {
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Starts one that answers CONNECT with these bytes and reacts to each message.
    pub(crate) async fn start(
        welcome: &'static [u8],
        react: impl Fn(&Publish) -> Reaction + Send + Sync + 'static,
    ) -> Self {
        Self::start_anew(welcome, || {}, react).await
    }

    /// As `start`, with what happens at each new connection.
    pub(crate) async fn start_anew(
        welcome: &'static [u8],
        connected: impl Fn() + Send + 'static,
        react: impl Fn(&Publish) -> Reaction + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let (report, came) = mpsc::unbounded_channel();
        let (react, mut task) = (Arc::new(react), JoinSet::new());
        task.spawn(async move {
            let mut clients = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connected();
                let (react, report) = (react.clone(), report.clone());
                clients.spawn(async move {
                    // A client that is gone is no matter of the server.
                    let _ = serve(stream, welcome, react.as_ref(), &report).await;
                });
            }
        });
        Self { url: format!("mqtt://{address}"), came, _task: task }
    }
}

async fn serve(
    mut stream: TcpStream,
    welcome: &[u8],
    react: &(impl Fn(&Publish) -> Reaction + Sync),
    report: &mpsc::UnboundedSender<Publish>,
) -> std::io::Result<()> {
    let mut bytes = BytesMut::new();
    loop {
        while let Ok(packet) = Packet::read(&mut bytes, None) {
            match packet {
                Packet::Connect(..) => stream.write_all(welcome).await?,
                Packet::PingReq => stream.write_all(&[0xd0, 0]).await?,
                Packet::Subscribe(subscribe) => {
                    let granted = SubAck {
                        pkid: subscribe.pkid,
                        return_codes: vec![
                            SubscribeReasonCode::Success(rumqttc::QoS::AtLeastOnce);
                            subscribe.filters.len()
                        ],
                        properties: None,
                    };
                    let mut out = BytesMut::new();
                    granted.write(&mut out).expect("encoded");
                    stream.write_all(&out).await?;
                }
                Packet::Publish(publish) => {
                    let reaction = react(&publish);
                    let _ = report.send(publish);
                    match reaction {
                        Reaction::Send(answer) => stream.write_all(&answer).await?,
                        Reaction::Late(after, answer) => {
                            sleep(after).await;
                            stream.write_all(&answer).await?;
                        }
                        Reaction::Close => return Ok(()),
                    }
                }
                _ => {}
            }
        }
        if stream.read_buf(&mut bytes).await? == 0 {
            return Ok(());
        }
    }
}

/// A server that confirms what is published and sends it to each subscriber, as it came and as a
/// repeat from the second connection on. It ends the first connection at its first acknowledgement,
/// which it has not had then.
pub(crate) struct Forgetful {
    url: String,
    _task: JoinSet<()>,
}

impl Forgetful {
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let (kept, mut task) = (Arc::<Mutex<Kept>>::default(), JoinSet::new());
        task.spawn(async move {
            let mut clients = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                // A client that is gone is no matter of the server.
                let kept = kept.clone();
                clients.spawn(async move { drop(deliver(stream, &kept).await) });
            }
        });
        Self { url: format!("mqtt://{address}"), _task: task }
    }
}

/// What a forgetful server keeps.
#[derive(Default)]
struct Kept {
    messages: Vec<Publish>,
    /// How often it was subscribed to.
    subscriptions: usize,
}

impl Kept {
    /// Grants a subscription and sends what is kept.
    fn subscribe(&mut self, id: u16, out: &mut BytesMut) {
        self.subscriptions += 1;
        let return_codes = vec![SubscribeReasonCode::Success(rumqttc::QoS::AtLeastOnce)];
        let granted = SubAck { pkid: id, return_codes, properties: None };
        granted.write(out).expect("encoded");
        for (number, message) in (1..).zip(&self.messages) {
            let dup = self.subscriptions > 1;
            let message = Publish { pkid: number, dup, ..message.clone() };
            message.write(out).expect("encoded");
        }
    }
}

async fn deliver(mut stream: TcpStream, kept: &Mutex<Kept>) -> std::io::Result<()> {
    let mut bytes = BytesMut::new();
    loop {
        while let Ok(packet) = Packet::read(&mut bytes, None) {
            let mut out = BytesMut::new();
            {
                let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
                match packet {
                    Packet::Connect(..) if kept.subscriptions > 0 => {
                        // It has kept the session.
                        out.extend_from_slice(&[0x20, 3, 1, 0, 0]);
                    }
                    Packet::Connect(..) => out.extend_from_slice(WELCOME),
                    Packet::PingReq => out.extend_from_slice(&[0xd0, 0]),
                    Packet::Subscribe(subscribe) => kept.subscribe(subscribe.pkid, &mut out),
                    Packet::Publish(publish) => {
                        let [high, low] = publish.pkid.to_be_bytes();
                        out.extend_from_slice(&[0x40, 2, high, low]);
                        kept.messages.push(publish);
                    }
                    Packet::PubAck(_) if kept.subscriptions == 1 => return Ok(()),
                    _ => {}
                }
            }
            stream.write_all(&out).await?;
        }
        if stream.read_buf(&mut bytes).await? == 0 {
            return Ok(());
        }
    }
}
