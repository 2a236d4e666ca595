//! The sending half: one message is one signed POST.

use crate::{
    config::{ConfigError, ConfigFault},
    guard::{Guard, Resolver, SystemResolver},
    headers,
    line::Line,
    signature::{self, Secret, sign_all, sign_attributes},
    verdict::{Verdict, refusal, unanswered, verdict},
};
use async_trait::async_trait;
use http::{HeaderMap, HeaderName, HeaderValue, header::CONTENT_TYPE};
use outbox_core::{
    event::Message,
    runtime::wall_clock,
    transport::{Encoding, Limits, PublishError, Publisher, Receipt, cloudevents},
};
use reqwest::Url;
use sha2::{Digest, Sha256};
use std::{
    fmt,
    sync::{Arc, OnceLock},
    time::{Duration, UNIX_EPOCH},
};

/// Time for a whole request: longer than a receiver of ours takes to give up on its handler.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Longest time to connect, unless half the request's time is less.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Requests under way at once: what one destination takes without being flooded, and far below a process's open files.
const MAX_CONNECTIONS: usize = 128;
/// Bytes of an answer that are read so that its connection can be used again.
const MAX_ANSWER: usize = 64 * 1024;

/// Publishes messages as signed CloudEvents to one URL.
///
/// Made by [`new`](Self::new) and refined by the methods that follow; [`build`](Self::build) reports everything that is wrong
/// with it at once. A publisher that was not built and is wrong publishes nothing and answers "unavailable", so that no
/// message is lost to a typing error.
///
/// Private, loopback and other inside addresses are refused unless allowed; redirects are not followed; no proxy is taken from
/// the environment.
///
/// ```
/// use outbox_http::HttpPublisher;
/// use std::time::Duration;
/// let publisher = HttpPublisher::new("https://billing.example/events")?
///     .signed("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
///     .timeout(Duration::from_secs(5))
///     .build()?;
/// # let _ = publisher;
/// # Ok::<(), outbox_http::ConfigError>(())
/// ```
pub struct HttpPublisher {
    pub(crate) config: Config,
    line: OnceLock<Result<Line, ConfigError>>,
}

/// Everything that was configured, with what was wrong in it.
pub(crate) struct Config {
    pub(crate) url: Url,
    pub(crate) secrets: Vec<Secret>,
    pub(crate) headers: HeaderMap,
    pub(crate) structured: bool,
    pub(crate) timeout: Duration,
    pub(crate) connect_timeout: Option<Duration>,
    pub(crate) guard: Guard,
    pub(crate) resolver: Arc<dyn Resolver>,
    pub(crate) roots: Vec<Vec<u8>>,
    pub(crate) max_answer: usize,
    pub(crate) quotes: bool,
    pub(crate) max_connections: usize,
    pub(crate) limits: Limits,
    pub(crate) faults: Vec<ConfigFault>,
    signings: usize,
    added_headers: usize,
}

impl fmt::Debug for HttpPublisher {
    /// Shows where it publishes; neither keys, headers, path nor query.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpPublisher")
            .field("destination", &self.config.destination())
            .field("signed", &!self.config.secrets.is_empty())
            .field("structured", &self.config.structured)
            .finish_non_exhaustive()
    }
}

impl HttpPublisher {
    /// Makes a publisher that posts to the URL.
    ///
    /// # Errors
    /// [`ConfigError`] when the text is no http or https URL.
    pub fn new(url: impl AsRef<str>) -> Result<Self, ConfigError> {
        let url: Url = url.as_ref().parse().map_err(|e| ConfigFault::Url(format!("{e}")))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(ConfigFault::Scheme(url.scheme().to_owned()).into());
        }
        let config = Config {
            url,
            secrets: Vec::new(),
            headers: HeaderMap::new(),
            structured: false,
            timeout: TIMEOUT,
            connect_timeout: None,
            guard: Guard::default(),
            resolver: Arc::new(SystemResolver),
            roots: Vec::new(),
            max_answer: MAX_ANSWER,
            quotes: false,
            max_connections: MAX_CONNECTIONS,
            limits: Limits::default().max_batch(64),
            faults: Vec::new(),
            signings: 0,
            added_headers: 0,
        };
        Ok(Self { config, line: OnceLock::new() })
    }

    /// Signs every request with a secret `whsec_...`. Called again, it signs with every one of them, so that keys can be
    /// changed without a gap: add the new one here, then at the receiver, then take the old one away.
    #[must_use]
    pub fn signed(self, secret: impl AsRef<str>) -> Self {
        self.with(|config| {
            config.signings += 1;
            match Secret::parse(secret.as_ref()) {
                Ok(secret) => config.secrets.push(secret),
                Err(problem) => {
                    config.faults.push(ConfigFault::Secret { number: config.signings, problem })
                }
            }
        })
    }

    /// Sends each message as one JSON object (`application/cloudevents+json`), all of it under the signature. A message that
    /// binary mode cannot carry goes so anyway: one with more than 80 headers or 12 KiB of them, or whose payload is itself a
    /// CloudEvent.
    #[must_use]
    pub fn structured(self) -> Self {
        self.with(|config| config.structured = true)
    }

    /// Sets the time for a whole request, answer included; 10 s unless set.
    #[must_use]
    pub fn timeout(self, timeout: Duration) -> Self {
        self.with(|config| config.timeout = timeout)
    }

    /// Sets the time to connect, TLS included; 5 s or half the whole time unless set.
    #[must_use]
    pub fn connect_timeout(self, timeout: Duration) -> Self {
        self.with(|config| config.connect_timeout = Some(timeout))
    }

    /// Adds a header to every request, such as `authorization`. Its value is treated as a secret.
    #[must_use]
    pub fn header(self, name: impl AsRef<str>, value: impl AsRef<str>) -> Self {
        self.with(|config| {
            config.added_headers += 1;
            match checked_header(name.as_ref(), value.as_ref()) {
                Ok((name, value)) => {
                    config.headers.insert(name, value);
                }
                Err(problem) => config
                    .faults
                    .push(ConfigFault::Header { number: config.added_headers, problem }),
            }
        })
    }

    /// Allows the addresses of a subnet such as `10.1.0.0/16`, though they are not public.
    #[must_use]
    pub fn allow_subnet(self, subnet: impl AsRef<str>) -> Self {
        let text = subnet.as_ref();
        self.with(|config| match text.parse() {
            Ok(subnet) => config.guard.allow(subnet),
            Err(_) => config.faults.push(ConfigFault::Subnet(text.chars().take(64).collect())),
        })
    }

    /// Allows this host's own addresses, `127.0.0.0/8` and `::1`.
    #[must_use]
    pub fn allow_loopback(self) -> Self {
        self.with(|config| config.guard.allow_loopback())
    }

    /// Resolves names by another resolver. Its answers are judged like the system's.
    #[must_use]
    pub fn resolver(self, resolver: impl Resolver) -> Self {
        self.with(|config| config.resolver = Arc::new(resolver))
    }

    /// Trusts one more certificate authority, in PEM, besides the system's.
    #[must_use]
    pub fn trust(self, pem: impl AsRef<[u8]>) -> Self {
        self.with(|config| config.roots.push(pem.as_ref().to_vec()))
    }

    /// Sets how many bytes of an answer are read, so that its connection can be used again; 64 KiB unless set.
    #[must_use]
    pub fn max_answer(self, bytes: usize) -> Self {
        self.with(|config| config.max_answer = bytes)
    }

    /// Keeps the first words of a refusal's body in the error that is stored. Off unless called, because a destination may
    /// echo the payload; a reason from a receiver of this crate is kept always.
    #[must_use]
    pub fn quote_answers(self) -> Self {
        self.with(|config| config.quotes = true)
    }

    /// Sets how many requests may be under way at once, whatever the relay asks for; 128 unless set.
    #[must_use]
    pub fn max_connections(self, connections: usize) -> Self {
        self.with(|config| config.max_connections = connections)
    }

    /// Sets the limits that enqueue and relay heed: longest payload and texts, batch, batches in flight. No limit of size,
    /// and four batches of 64, unless set.
    #[must_use]
    pub fn with_limits(self, limits: Limits) -> Self {
        self.with(|config| config.limits = limits)
    }

    /// Checks everything that was configured. Opens no connection.
    ///
    /// # Errors
    /// [`ConfigError`] with all faults.
    pub fn build(self) -> Result<Self, ConfigError> {
        self.line()?;
        Ok(self)
    }

    /// Changes the configuration; what was made from the former one is made again.
    fn with(mut self, change: impl FnOnce(&mut Config)) -> Self {
        change(&mut self.config);
        self.line = OnceLock::new();
        self
    }

    fn line(&self) -> Result<&Line, ConfigError> {
        self.line.get_or_init(|| Line::open(&self.config)).as_ref().map_err(Clone::clone)
    }

    /// Writes the headers of binary mode; `None` where the message goes in structured mode, because it was asked for or
    /// because binary mode cannot carry it: a payload that is itself a CloudEvent would be taken for this message, and headers
    /// that are too many or too large are refused by servers.
    fn binary(&self, message: &Message) -> Result<Option<HeaderMap>, PublishError> {
        if self.config.structured || cloudevents::is_cloudevents(&message.content_type) {
            return Ok(None);
        }
        match headers::write(message) {
            Ok(headers) => Ok(Some(headers).filter(headers::fit)),
            Err(name) => {
                Err(PublishError::permanent(format!("no header can carry the attribute `{name}`")))
            }
        }
    }

    /// Puts one request together.
    fn request(
        &self,
        line: &Line,
        message: &Message,
    ) -> Result<reqwest::RequestBuilder, PublishError> {
        let binary = self.binary(message)?;
        let structured = binary.is_none();
        let (mut headers, body) = match binary {
            Some(headers) => (headers, message.payload.clone()),
            None => {
                let mut headers = HeaderMap::new();
                headers
                    .insert(CONTENT_TYPE, HeaderValue::from_static(cloudevents::JSON_MEDIA_TYPE));
                (headers, cloudevents::to_json(message))
            }
        };
        if !self.config.secrets.is_empty() {
            let now = wall_clock().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
            let id = message.id.to_string();
            let signatures = sign_all(&self.config.secrets, &id, now, &body);
            let beside = if structured {
                None
            } else {
                Some(self.sign_attributes(&headers, &id, now, &body)?)
            };
            let standard = [
                (signature::ID, id),
                (signature::TIMESTAMP, now.to_string()),
                (signature::SIGNATURE, signatures),
            ];
            for (name, value) in
                standard.into_iter().chain(beside.map(|value| (signature::ATTRIBUTES, value)))
            {
                let value = HeaderValue::from_str(&value).map_err(|e| {
                    PublishError::permanent("the request cannot be signed").caused_by(e)
                })?;
                headers.insert(HeaderName::from_static(name), value);
            }
        }
        Ok(line
            .client
            .post(self.config.url.clone())
            .headers(self.config.headers.clone())
            .headers(headers)
            .body(body))
    }

    /// Signs the attributes as the receiver will read them.
    fn sign_attributes(
        &self,
        headers: &HeaderMap,
        id: &str,
        now: u64,
        body: &[u8],
    ) -> Result<String, PublishError> {
        let attributes = headers::attributes(headers)
            .map_err(|e| PublishError::permanent("the attributes cannot be signed").caused_by(e))?;
        Ok(sign_attributes(&self.config.secrets, id, now, body, &attributes))
    }
}

#[async_trait]
impl Publisher for HttpPublisher {
    async fn publish(&self, message: &Message) -> Result<Receipt, PublishError> {
        let line = self.line().map_err(|e| PublishError::unavailable(e.to_string()))?;
        let _permit = line
            .permits
            .acquire()
            .await
            .map_err(|e| PublishError::unavailable("closed").caused_by(e))?;
        let mut answer = self.request(line, message)?.send().await.map_err(unanswered)?;
        let status = answer.status();
        let class = match verdict(status) {
            Verdict::Delivered => None,
            Verdict::Failed(class) => Some(class),
        };
        let body = line.read(&mut answer, self.config.max_answer).await;
        match class {
            None => Ok(Receipt::new().to(self.config.destination())),
            Some(class) => {
                let words = String::from_utf8_lossy(&body);
                Err(refusal(class, status, answer.headers(), self.config.quotes.then_some(&*words)))
            }
        }
    }

    fn limits(&self) -> Limits {
        let encoding = if self.config.structured { Encoding::Structured } else { Encoding::Body };
        self.config.limits.encoding(encoding)
    }

    fn timeout(&self) -> Option<Duration> {
        Some(self.config.timeout)
    }

    fn destination(&self) -> Option<String> {
        // The path may be a secret of its own: what is shown tells paths apart, and says none.
        let hash = Sha256::digest(self.config.url.path());
        Some(format!(
            "{}/#{}",
            self.config.destination(),
            hash[..4].iter().map(|b| format!("{b:02x}")).collect::<String>()
        ))
    }

    fn check(&self) -> Result<(), PublishError> {
        self.line().map(|_| ()).map_err(|e| PublishError::permanent(e.to_string()))
    }
}

impl Config {
    /// Gives host and port: the parts of the URL that hold no secret.
    pub(crate) fn destination(&self) -> String {
        let host = self.url.host_str().unwrap_or_default();
        match self.url.port() {
            Some(port) => format!("{host}:{port}"),
            None => host.to_owned(),
        }
    }

    pub(crate) fn connect_timeout(&self) -> Duration {
        self.connect_timeout.unwrap_or(CONNECT_TIMEOUT.min(self.timeout / 2))
    }
}

fn checked_header(name: &str, value: &str) -> Result<(HeaderName, HeaderValue), &'static str> {
    const OURS: [&str; 6] =
        ["content-type", "content-length", "transfer-encoding", "connection", "host", "upgrade"];
    let name = HeaderName::try_from(name).map_err(|_| "has a name that is no header's")?;
    if OURS.contains(&name.as_str())
        || name.as_str().starts_with(headers::PREFIX)
        || name.as_str().starts_with("webhook-")
        || name.as_str() == signature::ATTRIBUTES
    {
        return Err("has a name that the transport sets itself");
    }
    let mut value =
        HeaderValue::from_str(value).map_err(|_| "has a value that no header can carry")?;
    value.set_sensitive(true);
    Ok((name, value))
}
