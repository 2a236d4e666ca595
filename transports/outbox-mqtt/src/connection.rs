//! Connecting to one server: its URL with the credentials, TLS, and the session of a client.

use crate::{
    classify::Failure,
    config::{ConfigError, ConfigFault, MAX_TEXT, USER_RULE, is_text},
    session::{ByteStream, Inbound, MAX_PACKET, Session},
};
use bytes::Bytes;
use outbox_core::{event::random_u64, runtime::now, transport::is_loopback};
use percent_encoding::percent_decode_str;
use rumqttc::mqttbytes::v5::{Connect, ConnectAuth, ConnectProperties};
use rustls::{
    ClientConfig,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use rustls_platform_verifier::Verifier;
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::{net::TcpStream, sync::Mutex, time::timeout};
use tokio_rustls::TlsConnector;

/// How long the server may take for one reply, unless set.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How often both sides want to hear from each other, unless set: a server that is silent is given
/// up after one and a half times as long.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// The longest that the protocol can say.
const MAX_KEEP_ALIVE: Duration = Duration::from_secs(u16::MAX as u64);
/// Schemes of a URL, each with its usual port and whether it means TLS.
const SCHEMES: [(&str, u16, bool); 2] = [("mqtt://", 1883, false), ("mqtts://", 8883, true)];

/// Where a server is and how to reach it: what publishers and subscribers configure alike.
#[derive(Clone)]
pub(crate) struct ServerUrl {
    host: String,
    port: u16,
    login: Login,
    encrypted: bool,
    pub(crate) roots: Vec<Vec<u8>>,
    pub(crate) timeout: Duration,
    pub(crate) keep_alive: Duration,
    /// Whether the warning about unencrypted events was logged.
    warned: Arc<AtomicBool>,
}

/// The login that the URL names.
#[derive(Clone)]
struct Login {
    user: Option<String>,
    password: Option<String>,
}

impl Login {
    fn parse(user_info: Option<&str>) -> Option<Self> {
        let Some(user_info) = user_info else {
            return Some(Self { user: None, password: None });
        };
        let decoded = |text: &str| Some(percent_decode_str(text).decode_utf8().ok()?.into_owned());
        let (user, password) = match user_info.split_once(':') {
            Some((user, password)) => (user, Some(decoded(password)?)),
            None => (user_info, None),
        };
        Some(Self { user: Some(decoded(user)?), password })
    }

    /// Gives what MQTT cannot carry of it, without quoting it.
    fn faults(&self) -> impl Iterator<Item = ConfigFault> {
        let user = self.user.as_ref().is_some_and(|user| !is_text(user));
        let password = self.password.as_ref().is_some_and(|text| text.len() > MAX_TEXT);
        let faults = [
            (user, "the user of the URL", USER_RULE),
            (password, "the password of the URL", "must have at most 65535 bytes"),
        ];
        let fault = |(is_wrong, what, rule): (bool, _, _)| {
            is_wrong.then_some(ConfigFault::Range { what, rule })
        };
        faults.into_iter().filter_map(fault)
    }

    fn auth(&self) -> ConnectAuth {
        match (self.user.clone(), self.password.clone().map(Bytes::from)) {
            (Some(username), Some(password)) => {
                ConnectAuth::UsernamePassword { username, password }
            }
            (Some(username), None) => ConnectAuth::Username { username },
            (None, _) => ConnectAuth::None,
        }
    }
}

impl ServerUrl {
    /// Reads a URL.
    pub(crate) fn parse(url: &str) -> Result<Self, ConfigError> {
        let scheme = SCHEMES
            .iter()
            .find_map(|(scheme, port, tls)| Some((url.strip_prefix(scheme)?, *port, *tls)));
        let (rest, usual_port, encrypted) = scheme.ok_or(ConfigFault::Url)?;
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (user_info, place) = match rest.rsplit_once('@') {
            Some((user_info, place)) => (Some(user_info), place),
            None => (None, rest),
        };
        let (host, port) = host_and_port(place).ok_or(ConfigFault::Url)?;
        Ok(Self {
            host,
            port: port.unwrap_or(usual_port),
            login: Login::parse(user_info).ok_or(ConfigFault::Url)?,
            encrypted,
            roots: Vec::new(),
            timeout: TIMEOUT,
            keep_alive: KEEP_ALIVE,
            warned: Arc::default(),
        })
    }

    /// Gives host and port: the parts of the URL that hold no secret.
    pub(crate) fn destination(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    /// Checks the settings and makes the connector; pushes what is wrong to `faults`.
    pub(crate) fn connector(&self, faults: &mut Vec<ConfigFault>) -> Option<Connector> {
        if self.timeout.is_zero() {
            faults
                .push(ConfigFault::Range { what: "the timeout", rule: "must be longer than zero" });
        }
        if !(Duration::from_secs(1)..=MAX_KEEP_ALIVE).contains(&self.keep_alive) {
            let (what, rule) = ("the keep alive", "must have 1 to 65535 s");
            faults.push(ConfigFault::Range { what, rule });
        }
        faults.extend(self.login.faults());
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
                "events go unencrypted: the URL is mqtt and the host is not loopback"
            );
        }
        Some(Connector { server: self.clone(), tls })
    }
}

/// Splits `host:port`, `host` and `[::1]:port`.
fn host_and_port(place: &str) -> Option<(String, Option<u16>)> {
    let (host, port) = match place.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, "")) => (host, None),
        Some((host, port)) => (host, Some(port.strip_prefix(':')?)),
        None => match place.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (place, None),
        },
    };
    let is_legal = !host.is_empty() && !host.contains(['/', '?', '#', ' ', '[', ']']);
    let port = port.map(str::parse).transpose().ok()?;
    is_legal.then(|| (host.to_owned(), port))
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

/// A client that connects: under which id, and what the server keeps for it.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    pub(crate) id: String,
    /// For how many seconds the server keeps the session after a loss; `None` begins with none.
    pub(crate) session_expiry: Option<u32>,
    /// How many messages the server may send before it waits for acknowledgements.
    pub(crate) receive_maximum: Option<u16>,
}

impl Client {
    /// Makes one whose session ends with its connection. Every server takes an id of so few bytes.
    pub(crate) fn passing() -> Self {
        let id = format!("outbox{:016x}", random_u64());
        Self { id, session_expiry: None, receive_maximum: None }
    }
}

/// Connects to one server.
#[derive(Clone)]
pub(crate) struct Connector {
    server: ServerUrl,
    tls: Option<TlsConnector>,
}

impl Connector {
    /// Connects and logs in, within the time for one reply each. Messages go to `inbound`. A
    /// failure is never that of the message for which this is done.
    ///
    /// # Cancel safety
    /// A call that is dropped leaves no connection.
    pub(crate) async fn connect(
        &self,
        client: &Client,
        inbound: Option<Arc<Inbound>>,
    ) -> Result<Session, Failure> {
        self.open(client, inbound).await.map_err(Failure::of_connecting)
    }

    async fn open(
        &self,
        client: &Client,
        inbound: Option<Arc<Inbound>>,
    ) -> Result<Session, Failure> {
        let within = self.server.timeout;
        let stream = match timeout(within, self.stream()).await {
            Ok(stream) => stream?,
            Err(_) => return Err(Failure::timed_out("did not accept the connection", within)),
        };
        let connect = Connect {
            keep_alive: u16::try_from(self.server.keep_alive.as_secs()).unwrap_or(u16::MAX),
            client_id: client.id.clone(),
            clean_start: client.session_expiry.is_none(),
            properties: Some(ConnectProperties {
                session_expiry_interval: client.session_expiry,
                receive_maximum: client.receive_maximum,
                ..ConnectProperties::new()
            }),
        };
        Session::open(stream, connect, self.server.login.auth(), inbound, within).await
    }

    async fn stream(&self) -> Result<Box<dyn ByteStream>, Failure> {
        let ended = |what: &str, error: &std::io::Error| {
            Failure::ended(format!("{what} to {}: {error}", self.server.destination()))
        };
        let host = self.server.host.as_str();
        let plain = TcpStream::connect((host, self.server.port))
            .await
            .map_err(|error| ended("no connection", &error))?;
        plain.set_nodelay(true).map_err(|error| ended("no connection", &error))?;
        let Some(tls) = &self.tls else { return Ok(Box::new(plain)) };
        let name = ServerName::try_from(host.to_owned())
            .map_err(|_| Failure::ended("the host of the URL is no name for a certificate"))?;
        let encrypted =
            tls.connect(name, plain).await.map_err(|error| ended("no TLS connection", &error))?;
        Ok(Box::new(encrypted))
    }
}

/// The one connection that the publishes of a publisher share, opened again after it was lost.
pub(crate) struct ConnectionSlot {
    connector: Connector,
    client: Client,
    max_packet: AtomicUsize,
    state: Mutex<SlotState>,
}

#[derive(Default)]
struct SlotState {
    open: Option<Arc<Session>>,
    /// The last attempt to connect that failed, and when it began.
    failed: Option<(Instant, Failure)>,
}

impl ConnectionSlot {
    pub(crate) fn new(connector: Connector, client: Client) -> Self {
        let max_packet = AtomicUsize::new(MAX_PACKET);
        Self { connector, client, max_packet, state: Mutex::default() }
    }

    /// Gives the most bytes of a packet that the server takes, as far as that is known before a
    /// connection.
    pub(crate) fn max_packet(&self) -> usize {
        self.max_packet.load(Ordering::Relaxed)
    }

    /// Gives the open connection, or opens one. An attempt to connect that has failed since
    /// `arrived` is not made again: one after the other, callers would wait for a silent server for
    /// hours.
    ///
    /// # Cancel safety
    /// A call that is dropped leaves no connection.
    pub(crate) async fn acquire(&self, arrived: Instant) -> Result<Arc<Session>, Failure> {
        self.acquire_if(arrived, |_| true).await
    }

    /// Gives an open connection on which no message was refused, or opens one: what happens on it
    /// to one message is about that message.
    ///
    /// # Cancel safety
    /// A call that is dropped leaves no connection.
    pub(crate) async fn acquire_blameless(
        &self,
        arrived: Instant,
    ) -> Result<Arc<Session>, Failure> {
        self.acquire_if(arrived, |open| !open.has_refused()).await
    }

    async fn acquire_if(
        &self,
        arrived: Instant,
        may_be_used: impl Fn(&Session) -> bool,
    ) -> Result<Arc<Session>, Failure> {
        let mut state = self.state.lock().await;
        let usable = |open: &&Arc<Session>| open.failure().is_none() && may_be_used(open);
        if let Some(open) = state.open.as_ref().filter(usable) {
            return Ok(open.clone());
        }
        state.open = None;
        if let Some((_, failure)) = state.failed.as_ref().filter(|(begun, _)| *begun >= arrived) {
            return Err(failure.clone());
        }
        let begun = now();
        match self.connector.connect(&self.client, None).await {
            Ok(session) => {
                self.max_packet.store(session.announced.max_packet, Ordering::Relaxed);
                let session = Arc::new(session);
                *state = SlotState { open: Some(session.clone()), failed: None };
                Ok(session)
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
    fn a_url_names_host_and_port_and_its_password_is_not_shown() {
        for (url, destination) in [
            ("mqtt://127.0.0.1", "127.0.0.1:1883"),
            ("mqtt://user:canary@mq.example:7000/", "mq.example:7000"),
            ("mqtts://mq.example", "mq.example:8883"),
            ("mqtt://[::1]:7000", "::1:7000"),
            ("mqtts://u:c%40nary@h", "h:8883"),
        ] {
            assert_eq!(ServerUrl::parse(url).expect("a URL").destination(), destination, "{url}");
        }
        for wrong in [
            "",
            "127.0.0.1:1883",
            "http://h",
            "mqtt://",
            "mqtt://u:canary@",
            "mqtt://h:port",
            "mqtt://u:canary@h/topic",
            "mqtt://u:canary@h?a=b",
            "mqtt://u:%ff@h",
            "tcp://h",
        ] {
            let error = ServerUrl::parse(wrong).err().expect("no URL of MQTT");
            assert_eq!(error.faults(), [ConfigFault::Url], "{wrong}");
            assert!(!error.to_string().contains("canary"), "{error}");
        }
    }

    #[test]
    fn a_login_is_a_user_with_or_without_a_password() {
        let auth = |url: &str| ServerUrl::parse(url).expect("a URL").login.auth();
        assert_eq!(auth("mqtt://h"), ConnectAuth::None);
        assert_eq!(auth("mqtt://ann@h"), ConnectAuth::Username { username: "ann".into() });
        let password = Bytes::from_static(b"p@ss:word");
        let expected = ConnectAuth::UsernamePassword { username: "ann".into(), password };
        assert_eq!(auth("mqtt://ann:p%40ss%3Aword@h"), expected);
    }

    #[test]
    fn a_passing_client_has_an_id_that_every_server_takes() {
        let (one, other) = (Client::passing().id, Client::passing().id);
        assert!(one.len() <= 23 && one.bytes().all(|b| b.is_ascii_alphanumeric()), "{one}");
        assert_ne!(one, other);
    }
}
