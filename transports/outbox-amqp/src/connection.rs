//! The way to one server: where it is, who we are there, and how long we wait for it.

use crate::{
    config::{ConfigError, ConfigFault},
    verdict::Failure,
};
use futures_util::{FutureExt, StreamExt, stream::BoxStream};
use lapin::{
    AsyncTcpStream, Channel, Connection, ConnectionProperties, Event,
    tcp::RustlsConnector,
    types::FrameSize,
    uri::{AMQPScheme, AMQPUri},
};
use rustls::{
    ClientConfig,
    pki_types::{CertificateDer, pem::PemObject},
};
use rustls_platform_verifier::Verifier;
use socket2::{SockRef, Socket};
use std::{
    net::{IpAddr, Shutdown},
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::{net::lookup_host, time::timeout};
use tracing::{Dispatch, instrument::WithSubscriber};

/// Seconds between heartbeats, unless the URL has others: a server that is gone without a word is found in twice that.
const HEARTBEAT: u16 = 10;
/// How long the server may take for one answer, unless set.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Where a server is and how it is reached: what publishers and subscribers configure alike.
#[derive(Clone)]
pub(crate) struct Address {
    pub(crate) uri: AMQPUri,
    pub(crate) roots: Vec<Vec<u8>>,
    pub(crate) timeout: Duration,
    /// Whether it was said that events go unencrypted.
    told: Arc<AtomicBool>,
}

impl Address {
    /// Reads a URL.
    pub(crate) fn parse(url: &str) -> Result<Self, ConfigError> {
        // Without an authority the library takes everything for its defaults.
        let authority = url.split_once("://").map(|(_, rest)| rest).filter(|rest| !rest.is_empty());
        let mut uri: AMQPUri = authority.and_then(|_| url.parse().ok()).ok_or(ConfigFault::Url)?;
        // The library takes an IPv6 address for no host at all, and then means this machine.
        if let Some(address) = ipv6_of(url) {
            uri.authority.host = address.to_owned();
        }
        // A slash at the end means the vhost that everybody has, not one without a name, which nobody has.
        if uri.vhost.is_empty() {
            "/".clone_into(&mut uri.vhost);
        }
        uri.query.heartbeat.get_or_insert(HEARTBEAT);
        Ok(Self { uri, roots: Vec::new(), timeout: TIMEOUT, told: Arc::default() })
    }

    /// Gives host, port and vhost: the parts of the URL that hold no secret.
    pub(crate) fn destination(&self) -> String {
        let vhost = if self.uri.vhost == "/" { "" } else { self.uri.vhost.as_str() };
        format!("{}:{}/{vhost}", self.uri.authority.host, self.uri.authority.port)
    }

    /// Checks the settings and makes ready for connecting.
    pub(crate) fn dial(&self, faults: &mut Vec<ConfigFault>) -> Option<Dial> {
        if self.timeout.is_zero() {
            faults
                .push(ConfigFault::Range { what: "the timeout", rule: "must be longer than zero" });
        }
        let connector = match self.uri.scheme {
            AMQPScheme::AMQP => None,
            AMQPScheme::AMQPS => match tls(&self.roots) {
                Ok(connector) => Some(connector),
                Err(fault) => {
                    faults.push(fault);
                    return None;
                }
            },
        };
        let is_open = connector.is_none() && !is_loopback(&self.uri.authority.host);
        if is_open && !self.told.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                host = self.uri.authority.host,
                "events go unencrypted: the URL is amqp and the host is not loopback"
            );
        }
        Some(Dial { uri: self.uri.clone(), connector, timeout: self.timeout })
    }
}

fn ipv6_of(url: &str) -> Option<&str> {
    let authority = url.split_once("://")?.1.split(['/', '?']).next()?;
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let inner = host.strip_prefix('[')?.split_once(']')?.0;
    inner.parse::<std::net::Ipv6Addr>().is_ok().then_some(inner)
}

fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Sets TLS up with the provider of this crate's choice, whatever the process has installed.
fn tls(roots: &[Vec<u8>]) -> Result<RustlsConnector, ConfigFault> {
    let fault = |error: &dyn std::fmt::Display| ConfigFault::Tls(error.to_string());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|e| fault(&e))?;
    let mut trusted = Vec::new();
    for pem in roots {
        let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
        match found {
            Ok(found) if !found.is_empty() => trusted.extend(found),
            _ => {
                return Err(ConfigFault::Tls(
                    "a certificate given to trust() is no PEM certificate".into(),
                ));
            }
        }
    }
    let verifier = Verifier::new_with_extra_roots(trusted, provider).map_err(|e| fault(&e))?;
    Ok(builder
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth()
        .into())
}

/// Connects to one server.
#[derive(Clone)]
pub(crate) struct Dial {
    uri: AMQPUri,
    connector: Option<RustlsConnector>,
    pub(crate) timeout: Duration,
}

impl Dial {
    /// Connects, within the time for one answer.
    ///
    /// # Cancel safety
    /// A call that is dropped leaves no connection.
    pub(crate) async fn connect(&self) -> Result<Link, Failure> {
        let cut = Arc::new(Cut::default());
        let (connector, opened) = (self.connector.clone(), cut.clone());
        let connect = async move || -> Result<Connection, lapin::Error> {
            let runtime = lapin::runtime::default_runtime()?;
            let name = concat!("outbox-amqp/", env!("CARGO_PKG_VERSION"));
            let properties = ConnectionProperties::default().with_connection_name(name.into());
            Connection::connector(
                self.uri.clone(),
                runtime,
                async move |uri: AMQPUri, runtime| {
                    silence();
                    let host = uri.authority.host.as_str();
                    let addresses: Vec<_> =
                        lookup_host((host, uri.authority.port)).await?.collect();
                    let plain = AsyncTcpStream::connect(&runtime, addresses).await?;
                    if let AsyncTcpStream::Plain(stream) = &plain {
                        opened.hold(SockRef::from(stream.get_ref()).try_clone()?);
                    }
                    match &connector {
                        None => Ok(plain),
                        Some(connector) => Ok(plain.into_rustls(connector, host).await?),
                    }
                },
                properties,
            )
            .await
        };
        // Whatever cuts this short, the socket goes too: a server that accepts and never answers would keep it for ever.
        let guard = CutUnlessOpen(Some(cut.clone()));
        match timeout(self.timeout, quiet(connect())).await {
            Ok(Ok(connection)) => {
                guard.open();
                let events = connection.events_listener().boxed();
                let blocked = Mutex::new(Blocked { events, reason: None });
                Ok(Link {
                    connection,
                    blocked,
                    cut,
                    given_up: AtomicBool::new(false),
                    timeout: self.timeout,
                })
            }
            Ok(Err(error)) => Err(Failure::of(&error)),
            Err(_) => Err(Failure::silent("did not let us in", self.timeout)),
        }
    }
}

/// An open connection.
pub(crate) struct Link {
    connection: Connection,
    blocked: Mutex<Blocked>,
    cut: Arc<Cut>,
    given_up: AtomicBool,
    timeout: Duration,
}

struct Blocked {
    events: BoxStream<'static, Event>,
    reason: Option<String>,
}

impl Link {
    /// Tells whether it can be used.
    pub(crate) fn is_up(&self) -> bool {
        self.connection.status().connected() && !self.given_up.load(Ordering::Acquire)
    }

    /// Gives the largest frame that both sides take.
    pub(crate) fn frame_max(&self) -> FrameSize {
        self.connection.configuration().frame_max()
    }

    /// Says why the server holds publishers back, if it does.
    pub(crate) fn blocked(&self) -> Option<String> {
        let mut blocked = self.blocked.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(Some(event)) = blocked.events.next().now_or_never() {
            match event {
                Event::ConnectionBlocked(reason) => blocked.reason = Some(reason),
                Event::ConnectionUnblocked => blocked.reason = None,
                _ => {}
            }
        }
        let is_blocked = self.connection.status().blocked();
        is_blocked.then(|| blocked.reason.clone().unwrap_or_else(|| "no reason given".to_owned()))
    }

    /// Opens a channel. A server that does not answer has lost the connection with it.
    pub(crate) async fn channel(&self) -> Result<Channel, Failure> {
        self.ask("opened no channel", self.connection.create_channel()).await
    }

    /// Waits for an answer of the server. One that does not come has lost the connection.
    pub(crate) async fn ask<T>(
        &self,
        what: &str,
        answer: impl Future<Output = Result<T, lapin::Error>>,
    ) -> Result<T, Failure> {
        match timeout(self.timeout, quiet(answer)).await {
            Ok(answer) => answer.map_err(|error| Failure::of(&error)),
            Err(_) => {
                let blocked = self.blocked();
                self.give_up();
                Err(blocked.map_or_else(
                    || Failure::silent(what, self.timeout),
                    |reason| Failure::blocked(&reason),
                ))
            }
        }
    }

    /// Ends the connection at once, with what was not yet written.
    pub(crate) fn give_up(&self) {
        self.given_up.store(true, Ordering::Release);
        self.cut.now();
    }
}

impl Drop for Link {
    /// Says goodbye, unless the server would not hear it.
    fn drop(&mut self) {
        if self.connection.status().blocked() {
            self.cut.now();
        }
    }
}

/// The means to end a connection whose server does not answer, from outside the library.
#[derive(Default)]
struct Cut(OnceLock<Socket>);

impl Cut {
    fn hold(&self, socket: Socket) {
        // One connection is one dialling: the library is told to try once.
        let _ = self.0.set(socket);
    }

    fn now(&self) {
        if let Some(socket) = self.0.get() {
            // An error means that it has ended by itself.
            let _ = socket.shutdown(Shutdown::Both);
        }
    }
}

struct CutUnlessOpen(Option<Arc<Cut>>);

impl CutUnlessOpen {
    fn open(mut self) {
        self.0 = None;
    }
}

impl Drop for CutUnlessOpen {
    fn drop(&mut self) {
        if let Some(cut) = &self.0 {
            cut.now();
        }
    }
}

/// Keeps the library's own log quiet while a future of it runs: it logs whole frames, with payloads and passwords.
pub(crate) fn quiet<F: Future>(work: F) -> impl Future<Output = F::Output> {
    work.with_subscriber(Dispatch::none())
}

/// Keeps the library's own log quiet on the thread on which it reads and writes: it logs returned messages whole.
fn silence() {
    // The thread is the library's, lives as long as the connection, and runs no code of anybody else.
    std::mem::forget(tracing::dispatcher::set_default(&Dispatch::none()));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(url: &str) -> String {
        Address::parse(url).expect("a URL").destination()
    }

    #[test]
    fn a_url_names_host_port_and_vhost_and_its_password_is_not_shown() {
        assert_eq!(parsed("amqp://guest:guest@127.0.0.1"), "127.0.0.1:5672/");
        assert_eq!(parsed("amqp://u:p@mq.example:1234/shop"), "mq.example:1234/shop");
        assert_eq!(parsed("amqps://mq.example/%2f"), "mq.example:5671/");
        assert_eq!(parsed("amqp://localhost/"), "localhost:5672/");
        assert_eq!(parsed("amqp://u:p@[::1]:5673/v"), "::1:5673/v");
        for wrong in ["http://h", "amqp:/", "", "amqp://h:port", "mailto:u:secret@h"] {
            let error = Address::parse(wrong).err().expect("no URL of RabbitMQ");
            assert!(!error.to_string().contains("secret"), "{error}");
        }
    }
}
