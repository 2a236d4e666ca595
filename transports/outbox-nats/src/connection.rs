//! Connections to NATS: servers and login, TLS, and what a connection reports about itself.
//!
//! The client library would connect again by itself and then send what had waited in it, messages
//! among them whose publishes have failed by then. So a lost connection is never used again: its
//! publishes and ack decisions fail at once, and the next one gets a new connection, on which
//! streams and consumers are declared first.

use crate::{
    classify::{Failure, Health},
    config::{ConfigError, ConfigFault},
    quiet::{self, ConnectionThread},
    topology::{self, Stream},
};
use async_nats::{Client, ConnectOptions, ServerAddr, jetstream};
use outbox_core::transport::is_loopback;
use percent_encoding::percent_decode_str;
use rustls::{
    ClientConfig,
    pki_types::{CertificateDer, pem::PemObject},
};
use rustls_platform_verifier::Verifier;
use std::{
    fmt::Display,
    future::pending,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::{sync::watch, time::timeout};

/// How long the server may take for one reply, unless set.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Time between two pings: the library gives a silent server up after three of them.
const PING_INTERVAL: Duration = Duration::from_secs(10);
/// The largest message of a server that does not say otherwise, headers included.
const USUAL_MAX_PAYLOAD: usize = 1024 * 1024;

/// Where the servers are and how to reach them: what publishers and subscribers configure alike.
#[derive(Clone)]
pub(crate) struct Servers {
    addresses: Vec<ServerAddr>,
    login: Login,
    pub(crate) credentials: Option<String>,
    pub(crate) roots: Vec<Vec<u8>>,
    pub(crate) timeout: Duration,
    /// Whether the warning about unencrypted events was logged.
    warned: Arc<AtomicBool>,
}

/// The login that the URL names.
#[derive(Clone)]
enum Login {
    Nobody,
    Password { user: String, password: String },
    Token(String),
}

impl Login {
    fn parse(user_info: &str) -> Option<Self> {
        let decoded = |text: &str| Some(percent_decode_str(text).decode_utf8().ok()?.into_owned());
        Some(match user_info.split_once(':') {
            Some((user, password)) => {
                Self::Password { user: decoded(user)?, password: decoded(password)? }
            }
            None => Self::Token(decoded(user_info)?),
        })
    }
}

impl Servers {
    /// Reads a URL, or several with commas between them.
    pub(crate) fn parse(urls: &str) -> Result<Self, ConfigError> {
        let (mut addresses, mut login) = (Vec::new(), Login::Nobody);
        for url in urls.split(',') {
            let (scheme, rest) = url.trim().split_once("://").ok_or(ConfigFault::Url)?;
            let (user_info, host) = match rest.trim_end_matches('/').rsplit_once('@') {
                Some((user_info, host)) => (Some(user_info), host),
                None => (None, rest.trim_end_matches('/')),
            };
            if !["nats", "tls"].contains(&scheme)
                || host.is_empty()
                || host.contains(['/', '?', '#'])
            {
                return Err(ConfigFault::Url.into());
            }
            if let Some(user_info) = user_info {
                login = Login::parse(user_info).ok_or(ConfigFault::Url)?;
            }
            // Without the login: the library logs addresses.
            let address = format!("{scheme}://{host}").parse::<ServerAddr>();
            addresses.push(address.map_err(|_| ConfigFault::Url)?);
        }
        Ok(Self {
            addresses,
            login,
            credentials: None,
            roots: Vec::new(),
            timeout: TIMEOUT,
            warned: Arc::default(),
        })
    }

    /// Gives hosts and ports: the parts of the URLs that hold no secret.
    pub(crate) fn destination(&self) -> String {
        let places: Vec<String> =
            self.addresses.iter().map(|at| format!("{}:{}", at.host(), at.port())).collect();
        places.join(",")
    }

    /// Checks the settings and makes the connector; pushes what is wrong to `faults`.
    pub(crate) fn connector(&self, faults: &mut Vec<ConfigFault>) -> Option<Connector> {
        if self.timeout.is_zero() {
            faults
                .push(ConfigFault::Range { what: "the timeout", rule: "must be longer than zero" });
        }
        if let Some(text) = &self.credentials
            && ConnectOptions::with_credentials(text).is_err()
        {
            faults.push(ConfigFault::Credentials);
        }
        let needs_tls = self.addresses.iter().any(ServerAddr::tls_required);
        let tls = match tls(&self.roots) {
            Ok(tls) => Some(tls),
            // A server may ask for TLS under nats:// too; one without it needs no certificates.
            Err(_) if !needs_tls && self.roots.is_empty() => None,
            Err(fault) => {
                faults.push(fault);
                return None;
            }
        };
        Some(Connector { servers: self.clone(), tls })
    }
}

/// Sets TLS up with this crate's own crypto provider, whatever the process has installed.
fn tls(roots: &[Vec<u8>]) -> Result<ClientConfig, ConfigFault> {
    let fault = |error: &dyn Display| ConfigFault::Tls(error.to_string());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|e| fault(&e))?;
    let mut trusted = Vec::new();
    for pem in roots {
        let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
        match found {
            Ok(found) if !found.is_empty() => trusted.extend(found),
            _ => return Err(fault(&"a certificate given to trust() is no PEM certificate")),
        }
    }
    let verifier = Verifier::new_with_extra_roots(trusted, provider).map_err(|e| fault(&e))?;
    Ok(builder
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth())
}

/// Connects to one of the servers.
#[derive(Clone)]
pub(crate) struct Connector {
    servers: Servers,
    tls: Option<ClientConfig>,
}

impl Connector {
    /// Connects, within the time for one reply.
    ///
    /// # Cancel safety
    /// A call that is dropped leaves no connection.
    pub(crate) async fn connect(&self) -> Result<NatsConnection, Failure> {
        let Servers { addresses, timeout: within, .. } = &self.servers;
        let (report, health) = watch::channel(Health::default());
        let options = self.options()?.event_callback(move |event| {
            report.send_modify(|health| health.observe(&event));
            std::future::ready(())
        });
        let connecting = quiet::connect(options, addresses.clone(), *within);
        let (client, thread) = match timeout(*within, connecting).await {
            Ok(Ok(connected)) => connected,
            Ok(Err(error)) => return Err(Failure::from_connect(&error)),
            Err(_) => return Err(Failure::timed_out("did not accept the connection", *within)),
        };
        self.warn_if_unencrypted(&client);
        let mut context = jetstream::new(client.clone());
        context.set_timeout(*within);
        Ok(NatsConnection { client, context, health, timeout: *within, _thread: thread })
    }

    fn options(&self) -> Result<ConnectOptions, Failure> {
        let Servers { addresses, login, credentials, timeout, .. } = &self.servers;
        let mut options = ConnectOptions::new()
            .name(concat!("outbox-nats/", env!("CARGO_PKG_VERSION")))
            .connection_timeout(*timeout)
            .request_timeout(Some(*timeout))
            .ping_interval(PING_INTERVAL)
            // Each server once; more, and the library would go on for a connection that is not used
            // again.
            .max_reconnects(addresses.len());
        options = match login {
            Login::Nobody => options,
            Login::Password { user, password } => {
                options.user_and_password(user.clone(), password.clone())
            }
            Login::Token(token) => options.token(token.clone()),
        };
        if let Some(text) = credentials {
            let with_credentials = options.credentials(text);
            options = with_credentials
                .map_err(|_| Failure::unavailable(ConfigFault::Credentials.to_string()))?;
        }
        if let Some(tls) = &self.tls {
            options = options.tls_client_config(tls.clone());
        }
        Ok(options)
    }

    fn warn_if_unencrypted(&self, client: &Client) {
        let Servers { addresses, warned, .. } = &self.servers;
        let remote = addresses.iter().find(|at| !at.tls_required() && !is_loopback(at.host()));
        if let Some(address) = remote
            && !client.server_info().tls_required
            && !warned.swap(true, Ordering::Relaxed)
        {
            tracing::warn!(
                host = address.host(),
                "events go unencrypted: the URL is nats, the server asks for no TLS and the host is \
                 not loopback"
            );
        }
    }
}

/// A connection, until it is lost. On drop it still sends what the library has, such as ack
/// decisions.
pub(crate) struct NatsConnection {
    pub(crate) client: Client,
    pub(crate) context: jetstream::Context,
    health: watch::Receiver<Health>,
    pub(crate) timeout: Duration,
    _thread: ConnectionThread,
}

impl NatsConnection {
    /// Tells whether it was lost.
    pub(crate) fn is_lost(&self) -> bool {
        self.health.borrow().lost || self.health.has_changed().is_err()
    }

    /// Gives the most bytes that the server takes as one message, headers included.
    pub(crate) fn max_payload(&self) -> usize {
        self.client.server_info().max_payload
    }

    /// Waits until it is lost.
    pub(crate) async fn lost(&self) -> Failure {
        let mut health = self.health.clone();
        let reason = match health.wait_for(|health| health.lost).await {
            Ok(health) => health.reason.clone(),
            // The library has ended the connection for good.
            Err(_) => None,
        };
        Failure::lost(reason.as_deref())
    }

    /// Gives how many publishes the server has denied so far.
    pub(crate) fn denials(&self) -> u64 {
        self.health.borrow().denials
    }

    /// Waits until the server denies publishing to a subject, counted from a number of denials: the
    /// error names no message.
    pub(crate) async fn denied(&self, subject: &str, since: u64) -> Failure {
        let mut health = self.health.clone();
        if health.wait_for(|health| health.has_denied(subject, since)).await.is_err() {
            return pending().await;
        }
        Failure::denied(subject)
    }

    /// Waits for the server's reply to a request. `omission` says what the server did not do where
    /// it does not reply in time.
    pub(crate) async fn request<T>(
        &self,
        omission: &str,
        reply: impl Future<Output = T>,
    ) -> Result<T, Failure> {
        tokio::select! {
            biased;
            reply = timeout(self.timeout, reply) => {
                reply.map_err(|_| Failure::timed_out(omission, self.timeout))
            }
            failure = self.lost() => Err(failure),
        }
    }
}

/// The connection that all publishes of a publisher share.
pub(crate) struct SharedConnection {
    connector: Connector,
    streams: Vec<Stream>,
    /// How often connecting has failed: callers that waited for one attempt share its failure.
    failures: AtomicU64,
    max_payload: AtomicUsize,
    slot: tokio::sync::Mutex<Slot>,
}

#[derive(Default)]
struct Slot {
    open: Option<Arc<NatsConnection>>,
    failure: Option<Failure>,
}

impl SharedConnection {
    pub(crate) fn new(connector: Connector, streams: Vec<Stream>) -> Self {
        Self {
            connector,
            streams,
            failures: AtomicU64::new(0),
            max_payload: AtomicUsize::new(USUAL_MAX_PAYLOAD),
            slot: tokio::sync::Mutex::default(),
        }
    }

    /// Gives the most bytes that the server takes as one message, as far as that is known before a
    /// connection.
    pub(crate) fn max_payload(&self) -> usize {
        self.max_payload.load(Ordering::Relaxed)
    }

    /// Gives the connection; connects and declares the streams where that is not done.
    ///
    /// # Cancel safety
    /// The next caller that gets the lock begins again where a dropped call stopped.
    pub(crate) async fn get(&self) -> Result<Arc<NatsConnection>, Failure> {
        let seen = self.failures.load(Ordering::Acquire);
        let mut slot = self.slot.lock().await;
        if let Some(open) = slot.open.as_ref().filter(|open| !open.is_lost()) {
            return Ok(open.clone());
        }
        if let Some(failure) = &slot.failure
            && self.failures.load(Ordering::Acquire) != seen
        {
            return Err(failure.clone());
        }
        match self.open().await {
            Ok(open) => {
                let open = Arc::new(open);
                *slot = Slot { open: Some(open.clone()), failure: None };
                Ok(open)
            }
            Err(failure) => {
                *slot = Slot { open: None, failure: Some(failure.clone()) };
                self.failures.fetch_add(1, Ordering::AcqRel);
                Err(failure)
            }
        }
    }

    async fn open(&self) -> Result<NatsConnection, Failure> {
        let connection = self.connector.connect().await?;
        topology::declare(&connection, &self.streams).await?;
        self.max_payload.store(connection.max_payload(), Ordering::Relaxed);
        Ok(connection)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(urls: &str) -> String {
        Servers::parse(urls).expect("a URL").destination()
    }

    #[test]
    fn a_url_names_hosts_and_ports_and_its_password_is_not_shown() {
        assert_eq!(parsed("nats://127.0.0.1"), "127.0.0.1:4222");
        assert_eq!(parsed("nats://u:p@mq.example:1234/"), "mq.example:1234");
        assert_eq!(parsed("tls://token@mq.example"), "mq.example:4222");
        assert_eq!(parsed("nats://u:p@a:1, nats://u:p@b:2"), "a:1,b:2");
        for wrong in [
            "",
            "http://h",
            "127.0.0.1:4222",
            "nats://",
            "nats://u:secret@",
            "nats://u:secret@h:port",
            "nats://u:secret@h/path",
            "nats://h,amqp://u:secret@h",
            "nats://u:%ff@h",
        ] {
            let error = Servers::parse(wrong).err().expect("no URL of NATS");
            assert!(!error.to_string().contains("secret"), "{error}");
        }
    }

    #[test]
    fn a_login_is_a_user_with_a_password_or_a_token() {
        let login = |url: &str| Servers::parse(url).expect("a URL").login;
        assert!(matches!(login("nats://h"), Login::Nobody));
        assert!(matches!(login("nats://t%40ken@h"), Login::Token(token) if token == "t@ken"));
        assert!(matches!(
            login("nats://ann:p%3Aw@h"),
            Login::Password { user, password } if user == "ann" && password == "p:w"
        ));
    }
}
