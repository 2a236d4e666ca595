//! Connecting to one server: its URI with the credentials, TLS, and timeouts.

use crate::{
    classify::Failure,
    config::{ConfigError, ConfigFault},
};
use futures_util::{FutureExt, StreamExt, stream::BoxStream};
use lapin::{
    AsyncTcpStream, Channel, Connection, ConnectionProperties, Event,
    tcp::RustlsConnector,
    types::FrameSize,
    uri::{AMQPScheme, AMQPUri},
};
use outbox_core::transport::is_loopback;
use rustls::{
    ClientConfig,
    pki_types::{CertificateDer, pem::PemObject},
};
use rustls_platform_verifier::Verifier;
use socket2::{SockRef, Socket};
use std::{
    net::Shutdown,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::{net::lookup_host, time::timeout};
use tracing::{Dispatch, instrument::WithSubscriber};

/// Seconds between heartbeats, unless the URL sets them: the client notices a dead server after
/// twice that.
const HEARTBEAT: u16 = 10;
/// How long the server may take for one reply, unless set.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Where a server is and how to reach it: what publishers and subscribers configure alike.
#[derive(Clone)]
pub(crate) struct ServerUri {
    pub(crate) uri: AMQPUri,
    pub(crate) roots: Vec<Vec<u8>>,
    pub(crate) timeout: Duration,
    /// Whether the warning about unencrypted events was logged.
    warned: Arc<AtomicBool>,
}

impl ServerUri {
    /// Reads a URL.
    pub(crate) fn parse(url: &str) -> Result<Self, ConfigError> {
        // Without an authority the library uses its defaults for every part.
        let authority = url.split_once("://").map(|(_, rest)| rest).filter(|rest| !rest.is_empty());
        // A password with a `/` that is not encoded ends before it, and its rest would be shown as
        // the vhost: an `@` behind the authority says so.
        let authority = authority.filter(|rest| {
            !rest.split_once(['/', '?', '#']).is_some_and(|(_, behind)| behind.contains('@'))
        });
        let mut uri: AMQPUri = authority.and_then(|_| url.parse().ok()).ok_or(ConfigFault::Url)?;
        // The library reads an IPv6 address as no host and then connects to this machine.
        if let Some(address) = ipv6_of(url) {
            uri.authority.host = address.to_owned();
        }
        // A slash at the end means the default vhost, not one with an empty name, which no server
        // has.
        if uri.vhost.is_empty() {
            "/".clone_into(&mut uri.vhost);
        }
        uri.query.heartbeat.get_or_insert(HEARTBEAT);
        Ok(Self { uri, roots: Vec::new(), timeout: TIMEOUT, warned: Arc::default() })
    }

    /// Gives host, port and vhost: the parts of the URL that hold no secret.
    pub(crate) fn destination(&self) -> String {
        let vhost = if self.uri.vhost == "/" { "" } else { self.uri.vhost.as_str() };
        format!("{}:{}/{vhost}", self.uri.authority.host, self.uri.authority.port)
    }

    /// Checks the settings and makes the connector; pushes what is wrong to `faults`.
    pub(crate) fn connector(&self, faults: &mut Vec<ConfigFault>) -> Option<Connector> {
        if self.timeout.is_zero() {
            faults
                .push(ConfigFault::Range { what: "the timeout", rule: "must be longer than zero" });
        }
        let tls = match self.uri.scheme {
            AMQPScheme::AMQP => None,
            AMQPScheme::AMQPS => match tls(&self.roots) {
                Ok(tls) => Some(tls),
                Err(fault) => {
                    faults.push(fault);
                    return None;
                }
            },
        };
        let is_unencrypted = tls.is_none() && !is_loopback(&self.uri.authority.host);
        if is_unencrypted && !self.warned.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                host = self.uri.authority.host,
                "events go unencrypted: the URL is amqp and the host is not loopback"
            );
        }
        Some(Connector { uri: self.uri.clone(), tls, timeout: self.timeout })
    }
}

fn ipv6_of(url: &str) -> Option<&str> {
    let authority = url.split_once("://")?.1.split(['/', '?']).next()?;
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let inner = host.strip_prefix('[')?.split_once(']')?.0;
    inner.parse::<std::net::Ipv6Addr>().is_ok().then_some(inner)
}

/// Sets TLS up with this crate's own crypto provider, whatever the process has installed.
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
pub(crate) struct Connector {
    uri: AMQPUri,
    tls: Option<RustlsConnector>,
    pub(crate) timeout: Duration,
}

impl Connector {
    /// Connects, within the time for one reply.
    ///
    /// # Cancel safety
    /// A call that is dropped leaves no connection.
    pub(crate) async fn connect(&self) -> Result<AmqpConnection, Failure> {
        let closer = Arc::new(SocketCloser::default());
        let (tls, opened) = (self.tls.clone(), closer.clone());
        let connect = async move || -> Result<Connection, lapin::Error> {
            let runtime = lapin::runtime::default_runtime()?;
            let name = concat!("outbox-amqp/", env!("CARGO_PKG_VERSION"));
            let properties = ConnectionProperties::default().with_connection_name(name.into());
            Connection::connector(
                self.uri.clone(),
                runtime,
                async move |uri: AMQPUri, runtime| {
                    mute_thread();
                    let host = uri.authority.host.as_str();
                    let addresses: Vec<_> =
                        lookup_host((host, uri.authority.port)).await?.collect();
                    let plain = AsyncTcpStream::connect(&runtime, addresses).await?;
                    if let AsyncTcpStream::Plain(stream) = &plain {
                        opened.set(SockRef::from(stream.get_ref()).try_clone()?);
                    }
                    match &tls {
                        None => Ok(plain),
                        Some(tls) => Ok(plain.into_rustls(tls, host).await?),
                    }
                },
                properties,
            )
            .await
        };
        // Whatever ends this early also closes the socket: a server that accepts and never replies
        // would keep it open for ever.
        let guard = CloseUnlessOpen(Some(closer.clone()));
        match timeout(self.timeout, quiet(connect())).await {
            Ok(Ok(connection)) => {
                guard.keep_open();
                let events = connection.events_listener().boxed();
                let blocked = Mutex::new(Blocked { events, reason: None });
                Ok(AmqpConnection {
                    inner: connection,
                    blocked,
                    closer,
                    closed: AtomicBool::new(false),
                    timeout: self.timeout,
                })
            }
            Ok(Err(error)) => Err(Failure::from_lapin(&error)),
            Err(_) => Err(Failure::timed_out("did not accept the connection", self.timeout)),
        }
    }
}

/// An open connection.
pub(crate) struct AmqpConnection {
    inner: Connection,
    blocked: Mutex<Blocked>,
    closer: Arc<SocketCloser>,
    /// Set by [`close_now`](Self::close_now).
    closed: AtomicBool,
    timeout: Duration,
}

struct Blocked {
    events: BoxStream<'static, Event>,
    reason: Option<String>,
}

impl AmqpConnection {
    /// Tells whether it can be used.
    pub(crate) fn is_usable(&self) -> bool {
        self.inner.status().connected() && !self.closed.load(Ordering::Acquire)
    }

    /// Gives the largest frame that both sides take.
    pub(crate) fn frame_max(&self) -> FrameSize {
        self.inner.configuration().frame_max()
    }

    /// Says why the server blocks publishers, if it does.
    pub(crate) fn blocked(&self) -> Option<String> {
        let mut blocked = self.blocked.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(Some(event)) = blocked.events.next().now_or_never() {
            match event {
                Event::ConnectionBlocked(reason) => blocked.reason = Some(reason),
                Event::ConnectionUnblocked => blocked.reason = None,
                _ => {}
            }
        }
        let is_blocked = self.inner.status().blocked();
        is_blocked.then(|| blocked.reason.clone().unwrap_or_else(|| "no reason given".to_owned()))
    }

    /// Opens a channel. Where the server does not reply in time, it closes the connection.
    pub(crate) async fn channel(&self) -> Result<Channel, Failure> {
        self.request("opened no channel", self.inner.create_channel()).await
    }

    /// Waits for the server's reply to a request. Where none comes in time, it closes the
    /// connection; `omission` then says what the server did not do.
    pub(crate) async fn request<T>(
        &self,
        omission: &str,
        reply: impl Future<Output = Result<T, lapin::Error>>,
    ) -> Result<T, Failure> {
        match timeout(self.timeout, quiet(reply)).await {
            Ok(reply) => reply.map_err(|error| Failure::from_lapin(&error)),
            Err(_) => {
                let blocked = self.blocked();
                self.close_now();
                Err(blocked.map_or_else(
                    || Failure::timed_out(omission, self.timeout),
                    |reason| Failure::blocked(&reason),
                ))
            }
        }
    }

    /// Closes the socket at once and drops what was not yet written.
    pub(crate) fn close_now(&self) {
        self.closed.store(true, Ordering::Release);
        self.closer.close();
    }
}

impl Drop for AmqpConnection {
    /// Closes the socket where the server is blocked and would not read the orderly close, which
    /// the library sends otherwise.
    fn drop(&mut self) {
        if self.inner.status().blocked() {
            self.closer.close();
        }
    }
}

/// Closes the socket of a connection whose server does not reply, from outside the library.
#[derive(Default)]
struct SocketCloser(OnceLock<Socket>);

impl SocketCloser {
    fn set(&self, socket: Socket) {
        // The library connects once, so that there is one socket.
        let _ = self.0.set(socket);
    }

    fn close(&self) {
        if let Some(socket) = self.0.get() {
            // An error means that the socket is closed already.
            let _ = socket.shutdown(Shutdown::Both);
        }
    }
}

struct CloseUnlessOpen(Option<Arc<SocketCloser>>);

impl CloseUnlessOpen {
    fn keep_open(mut self) {
        self.0 = None;
    }
}

impl Drop for CloseUnlessOpen {
    fn drop(&mut self) {
        if let Some(closer) = &self.0 {
            closer.close();
        }
    }
}

/// Mutes the library's log while one of its futures runs: it logs whole frames, with payloads and
/// passwords.
pub(crate) fn quiet<F: Future>(work: F) -> impl Future<Output = F::Output> {
    work.with_subscriber(Dispatch::none())
}

/// Mutes the library's log on the thread on which it reads and writes: it logs whole returned
/// messages.
fn mute_thread() {
    // The thread is the library's, lives as long as the connection, and runs no other code.
    std::mem::forget(tracing::dispatcher::set_default(&Dispatch::none()));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(url: &str) -> String {
        ServerUri::parse(url).expect("a URL").destination()
    }

    #[test]
    fn a_url_names_host_port_and_vhost_and_its_password_is_not_shown() {
        assert_eq!(parsed("amqp://guest:guest@127.0.0.1"), "127.0.0.1:5672/");
        assert_eq!(parsed("amqp://u:p@mq.example:1234/shop"), "mq.example:1234/shop");
        assert_eq!(parsed("amqps://mq.example/%2f"), "mq.example:5671/");
        assert_eq!(parsed("amqp://localhost/"), "localhost:5672/");
        assert_eq!(parsed("amqp://u:p@[::1]:5673/v"), "::1:5673/v");
        assert_eq!(parsed("amqp://h/a%40b"), "h:5672/a@b");
        for wrong in [
            "http://h",
            "amqp:/",
            "",
            "amqp://h:port",
            "mailto:u:secret@h",
            "amqp://u:12/secret@h/v",
            "amqp://u:12?secret@h",
        ] {
            let error = ServerUri::parse(wrong).err().expect("no URL of RabbitMQ");
            assert!(!error.to_string().contains("secret"), "{error}");
        }
    }
}
