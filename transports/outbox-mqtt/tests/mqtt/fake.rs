//! A server that does what a test wants: for answers that no real one gives when it is asked to.

use bytes::BytesMut;
use rumqttc::mqttbytes::v5::{Packet, Publish, SubAck, SubscribeReasonCode};
use std::sync::Arc;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    task::JoinSet,
};

/// An accepted connection: without properties.
pub(crate) const WELCOME: &[u8] = &[0x20, 3, 0, 0, 0];

/// What the server does about a message.
pub(crate) enum Reaction {
    /// Sends bytes; none is silence.
    Send(Vec<u8>),
    /// Closes the connection without a word.
    Close,
}

/// Confirms a message with a reason code.
pub(crate) fn puback(publish: &Publish, code: u8) -> Reaction {
    let [high, low] = publish.pkid.to_be_bytes();
    Reaction::Send(vec![0x40, 4, high, low, code, 0])
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
