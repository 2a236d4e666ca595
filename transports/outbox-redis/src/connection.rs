//! Connecting to one server: its URL with the credentials, TLS, and timeouts.

use crate::{
    classify::{Failure, Kind},
    config::{ConfigError, ConfigFault},
};
use outbox_core::{
    runtime::{Task, now, spawn},
    transport::is_loopback,
};
use redis::{
    AsyncConnectionConfig, Cmd, ConnectionAddr, ConnectionInfo, ProtocolVersion,
    RedisConnectionInfo, Value, aio::MultiplexedConnection,
};
use rustls::{
    ClientConfig,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use rustls_platform_verifier::Verifier;
use std::{
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    sync::Mutex,
    time::timeout,
};
use tokio_rustls::TlsConnector;

/// How long the server may take for one reply, unless set.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Schemes of a URL, each with the one that the client library reads, and whether it means TLS.
const SCHEMES: [(&str, bool); 4] =
    [("redis://", false), ("rediss://", true), ("valkey://", false), ("valkeys://", true)];

/// Where a server is and how to reach it: what publishers and subscribers configure alike.
#[derive(Clone)]
pub(crate) struct ServerUrl {
    host: String,
    port: u16,
    settings: RedisConnectionInfo,
    encrypted: bool,
    pub(crate) roots: Vec<Vec<u8>>,
    pub(crate) timeout: Duration,
    /// Whether the warning about unencrypted events was logged.
    warned: Arc<AtomicBool>,
}

impl ServerUrl {
    /// Reads a URL.
    pub(crate) fn parse(url: &str) -> Result<Self, ConfigError> {
        let scheme =
            SCHEMES.iter().find_map(|(scheme, tls)| Some((url.strip_prefix(scheme)?, *tls)));
        let (rest, encrypted) = scheme.ok_or(ConfigFault::Url)?;
        // Behind `#` the library takes a setting that switches the check of certificates off.
        if rest.contains('#') {
            return Err(ConfigFault::Url.into());
        }
        // Without its feature for TLS the library refuses the other schemes.
        let info: ConnectionInfo =
            format!("redis://{rest}").parse().map_err(|_| ConfigFault::Url)?;
        let ConnectionAddr::Tcp(host, port) = info.addr() else {
            return Err(ConfigFault::Url.into());
        };
        let settings = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP2);
        let (host, port) = (host.clone(), *port);
        Ok(Self {
            host,
            port,
            settings,
            encrypted,
            roots: Vec::new(),
            timeout: TIMEOUT,
            warned: Arc::default(),
        })
    }

    /// Gives host, port and database: the parts of the URL that hold no secret.
    pub(crate) fn destination(&self) -> String {
        format!("{}:{}/{}", self.host, self.port, self.settings.db())
    }

    /// Checks the settings and makes the connector; pushes what is wrong to `faults`.
    pub(crate) fn connector(&self, faults: &mut Vec<ConfigFault>) -> Option<Connector> {
        if self.timeout.is_zero() {
            faults
                .push(ConfigFault::Range { what: "the timeout", rule: "must be longer than zero" });
        }
        let tls = if self.encrypted {
            match tls(&self.roots) {
                Ok(tls) => Some(tls),
                Err(fault) => {
                    faults.push(fault);
                    return None;
                }
            }
        } else {
            None
        };
        let is_unencrypted = tls.is_none() && !is_loopback(&self.host);
        if is_unencrypted && !self.warned.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                host = self.host,
                "events go unencrypted: the URL is redis and the host is not loopback"
            );
        }
        Some(Connector { server: self.clone(), tls, timeout: self.timeout })
    }
}

/// Sets TLS up with this crate's own crypto provider, whatever the process has installed.
fn tls(roots: &[Vec<u8>]) -> Result<TlsConnector, ConfigFault> {
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
    let config = builder
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

/// Connects to one server.
#[derive(Clone)]
pub(crate) struct Connector {
    server: ServerUrl,
    tls: Option<TlsConnector>,
    pub(crate) timeout: Duration,
}

/// A stream of bytes, encrypted or not.
trait ByteStream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> ByteStream for T {}

impl Connector {
    /// Connects and authenticates, within the time for one reply.
    ///
    /// # Cancel safety
    /// A call that is dropped leaves no connection.
    pub(crate) async fn connect(&self) -> Result<RedisConnection, Failure> {
        self.connect_for(self.timeout).await
    }

    /// Connects as [`connect`](Self::connect) does, for commands to which the server may reply only
    /// after `blocked`.
    ///
    /// # Cancel safety
    /// A call that is dropped leaves no connection.
    pub(crate) async fn connect_blocking(
        &self,
        blocked: Duration,
    ) -> Result<RedisConnection, Failure> {
        self.connect_for(self.timeout + blocked).await
    }

    async fn connect_for(&self, reply_within: Duration) -> Result<RedisConnection, Failure> {
        // The library's own limit of a reply, half a second unless set, would cut a blocked read
        // off and leave the entries that it was given pending. It counts from when a command is
        // called, also where the replies to many before it are still coming.
        let config = AsyncConnectionConfig::new().set_response_timeout(None);
        let open = async {
            let stream = self.stream().await?;
            MultiplexedConnection::new_with_config(&self.server.settings, stream, config)
                .await
                .map_err(|error| Failure::from_redis(&error, self.timeout))
        };
        match timeout(self.timeout, open).await {
            Ok(Ok((inner, driver))) => {
                let lost = Arc::new(AtomicBool::new(false));
                let ended = lost.clone();
                // The driver reads all the time, and so notices the end of an idle connection too.
                let driver = spawn(async move {
                    driver.await;
                    ended.store(true, Ordering::Release);
                });
                let replies = AtomicU64::new(0);
                Ok(RedisConnection { inner, driver, lost, replies, timeout: reply_within })
            }
            Ok(Err(failure)) => Err(failure.of_connecting()),
            Err(_) => Err(Failure::timed_out("did not accept the connection", self.timeout)),
        }
    }

    async fn stream(&self) -> Result<Box<dyn ByteStream>, Failure> {
        let lost = |what: &str, error: &std::io::Error| {
            let at = format!("{}:{}", self.server.host, self.server.port);
            Failure::lost(format!("{what} to {at}: {error}"))
        };
        let host = self.server.host.as_str();
        let plain = TcpStream::connect((host, self.server.port))
            .await
            .map_err(|error| lost("no connection", &error))?;
        plain.set_nodelay(true).map_err(|error| lost("no connection", &error))?;
        let Some(tls) = &self.tls else { return Ok(Box::new(plain)) };
        let name = ServerName::try_from(host.to_owned()).map_err(|_| {
            Failure::unavailable("the host of the URL is no name for a certificate")
        })?;
        let encrypted =
            tls.connect(name, plain).await.map_err(|error| lost("no TLS connection", &error))?;
        Ok(Box::new(encrypted))
    }
}

/// An open connection, which sends commands of many callers one behind the other without waiting
/// for their replies. Dropped, it closes.
pub(crate) struct RedisConnection {
    inner: MultiplexedConnection,
    driver: Task<()>,
    lost: Arc<AtomicBool>,
    /// How many replies have come.
    replies: AtomicU64,
    timeout: Duration,
}

impl RedisConnection {
    /// Tells whether it can be used, as far as is known.
    pub(crate) fn is_usable(&self) -> bool {
        !self.lost.load(Ordering::Acquire)
    }

    /// Sends a command and waits for its reply, however long that takes while the server replies
    /// to those before it. Where no reply comes for the time of one, the connection is lost.
    ///
    /// # Errors
    /// The server's error, or the loss of the connection: the command may have been carried out
    /// then.
    ///
    /// # Cancel safety
    /// The server may carry out the command of a call that is dropped.
    pub(crate) async fn send(&self, command: &Cmd) -> Result<Value, Failure> {
        let result = match self.reply(command).await {
            Ok(Value::ServerError(error)) => {
                Err(Failure::from_server(error.code(), error.details().unwrap_or_default()))
            }
            other => other,
        };
        match &result {
            Err(failure) if failure.kind == Kind::Lost => self.lost.store(true, Ordering::Release),
            _ => _ = self.replies.fetch_add(1, Ordering::Relaxed),
        }
        result
    }

    async fn reply(&self, command: &Cmd) -> Result<Value, Failure> {
        // Clones share the connection.
        let mut inner = self.inner.clone();
        let mut reply = pin!(inner.send_packed_command(command));
        loop {
            let replies = self.replies.load(Ordering::Relaxed);
            match timeout(self.timeout, reply.as_mut()).await {
                Ok(reply) => {
                    return reply.map_err(|error| Failure::from_redis(&error, self.timeout));
                }
                // They come in the order of the commands: this one's turn is still to come.
                Err(_) if self.replies.load(Ordering::Relaxed) != replies => {}
                Err(_) => return Err(Failure::timed_out("did not reply", self.timeout)),
            }
        }
    }
}

impl Drop for RedisConnection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// The one connection that the publishes of a publisher share, opened again after it was lost.
pub(crate) struct ConnectionSlot {
    connector: Connector,
    state: Mutex<SlotState>,
}

#[derive(Default)]
struct SlotState {
    open: Option<Arc<RedisConnection>>,
    /// The last attempt to connect that failed, and when it began.
    failed: Option<(Instant, Failure)>,
}

impl ConnectionSlot {
    pub(crate) fn new(connector: Connector) -> Self {
        Self { connector, state: Mutex::default() }
    }

    /// Gives the open connection, or opens one. Callers that wait while an attempt to connect is
    /// under way share its failure: one after the other, they would wait for a silent server for
    /// hours.
    ///
    /// # Cancel safety
    /// A call that is dropped leaves no connection.
    pub(crate) async fn acquire(&self) -> Result<Arc<RedisConnection>, Failure> {
        let arrived = now();
        let mut state = self.state.lock().await;
        if let Some(open) = state.open.as_ref().filter(|open| open.is_usable()) {
            return Ok(open.clone());
        }
        state.open = None;
        if let Some((_, failure)) = state.failed.as_ref().filter(|(begun, _)| *begun >= arrived) {
            return Err(failure.clone());
        }
        let begun = now();
        match self.connector.connect().await {
            Ok(connection) => {
                let connection = Arc::new(connection);
                *state = SlotState { open: Some(connection.clone()), failed: None };
                Ok(connection)
            }
            Err(failure) => {
                state.failed = Some((begun, failure.clone()));
                Err(failure)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_names_host_port_and_database_and_its_password_is_not_shown() {
        for (url, destination) in [
            ("redis://127.0.0.1", "127.0.0.1:6379/0"),
            ("redis://user:canary@redis.example:7000/3", "redis.example:7000/3"),
            ("redis://:canary@localhost", "localhost:6379/0"),
            ("rediss://redis.example", "redis.example:6379/0"),
            ("valkey://[::1]:7000", "::1:7000/0"),
            ("valkeys://u:c%40nary@h", "h:6379/0"),
        ] {
            assert_eq!(ServerUrl::parse(url).expect("a URL").destination(), destination, "{url}");
        }
        for wrong in [
            "",
            "127.0.0.1:6379",
            "http://h",
            "redis://",
            "redis://h:port",
            "redis://u:canary@h/database",
            "rediss://u:canary@h/#insecure",
            "unix:///redis.sock",
        ] {
            let error = ServerUrl::parse(wrong).err().expect("no URL of Redis");
            assert_eq!(error.faults(), [ConfigFault::Url], "{wrong}");
            assert!(!error.to_string().contains("canary"), "{error}");
        }
    }
}
