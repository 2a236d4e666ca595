//! The sending half: one message is one signed POST.

use crate::{
    classify::{Classification, classify, request_error, response_error},
    client::HttpClient,
    config::{ConfigError, ConfigFault},
    guard::{Guard, Resolver, SystemResolver},
    headers,
    signature::{self, Secret, sign_all, sign_attributes},
};
use async_trait::async_trait;
use http::{HeaderMap, HeaderName, HeaderValue, header::CONTENT_TYPE};
use outbox_core::{
    event::Message,
    runtime::wall_clock,
    telemetry::{TraceContext, current_context},
    transport::{Encoding, Limits, PublishError, Publisher, Receipt, cloudevents},
};
use reqwest::Url;
use sha2::{Digest, Sha256};
use std::{
    fmt,
    sync::{Arc, OnceLock},
    time::{Duration, UNIX_EPOCH},
};

/// Time for a whole request: longer than this crate's receiver waits for its handler.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Longest time to connect, unless half the request's time is less.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Requests under way at once: what one destination takes without being flooded, and far below a
/// process's limit of open files.
const MAX_CONNECTIONS: usize = 128;
/// Bytes of a response body that the publisher reads so that its connection can be used again.
const MAX_RESPONSE: usize = 64 * 1024;

/// Publishes messages as signed CloudEvents to one URL.
///
/// [`new`](Self::new) makes it and the methods that follow configure it; [`build`](Self::build)
/// reports every configuration fault at once. A publisher with a fault that was not built publishes
/// nothing and fails as "unavailable", so that no message is lost to a typing error.
///
/// The publisher refuses private, loopback and other internal addresses unless the configuration
/// allows them. It follows no redirect and takes no proxy from the environment.
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
    client: OnceLock<Result<HttpClient, ConfigError>>,
}

/// The configuration with the faults found so far.
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
    pub(crate) max_response: usize,
    pub(crate) quote_responses: bool,
    pub(crate) max_connections: usize,
    pub(crate) limits: Limits,
    pub(crate) faults: Vec<ConfigFault>,
    secrets_given: usize,
    headers_given: usize,
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
            max_response: MAX_RESPONSE,
            quote_responses: false,
            max_connections: MAX_CONNECTIONS,
            limits: Limits::default().max_batch(64),
            faults: Vec::new(),
            secrets_given: 0,
            headers_given: 0,
        };
        Ok(Self { config, client: OnceLock::new() })
    }

    /// Signs every request with a secret `whsec_...`. Called again, it signs with each secret, so
    /// that keys can be rotated without a gap: add the new one here, then at the receiver, then
    /// remove the old one.
    ///
    /// ```
    /// # use outbox_http::HttpPublisher;
    /// # const OLD: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    /// # const NEW: &str = "whsec_YW5vdGhlciBrZXkgb2YgMjQgYnl0ZXMu";
    /// let publisher = HttpPublisher::new("https://billing.example/events")?
    ///     .signed(OLD)
    ///     .signed(NEW) // until every receiver verifies with the new one
    ///     .build()?;
    /// # let _ = publisher;
    /// # Ok::<(), outbox_http::ConfigError>(())
    /// ```
    #[must_use]
    pub fn signed(self, secret: impl AsRef<str>) -> Self {
        self.with(|config| {
            config.secrets_given += 1;
            match Secret::parse(secret.as_ref()) {
                Ok(secret) => config.secrets.push(secret),
                Err(problem) => config
                    .faults
                    .push(ConfigFault::Secret { number: config.secrets_given, problem }),
            }
        })
    }

    /// Sends each message as one JSON object (`application/cloudevents+json`), all of it under the
    /// signature. Without this setting the publisher does so only for a message that binary mode
    /// cannot carry: one with more than 80 headers or 12 KiB of them, or whose payload is itself a
    /// CloudEvent.
    #[must_use]
    pub fn structured(self) -> Self {
        self.with(|config| config.structured = true)
    }

    /// Sets the time for a whole request, response included; 10 s unless set.
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
    ///
    /// ```
    /// # use outbox_http::HttpPublisher;
    /// # fn example(token: &str) -> Result<HttpPublisher, outbox_http::ConfigError> {
    /// HttpPublisher::new("https://gateway.example/events")?
    ///     .header("authorization", format!("Bearer {token}"))
    ///     .build()
    /// # }
    /// ```
    #[must_use]
    pub fn header(self, name: impl AsRef<str>, value: impl AsRef<str>) -> Self {
        self.with(|config| {
            config.headers_given += 1;
            match checked_header(name.as_ref(), value.as_ref()) {
                Ok((name, value)) => {
                    config.headers.insert(name, value);
                }
                Err(problem) => config
                    .faults
                    .push(ConfigFault::Header { number: config.headers_given, problem }),
            }
        })
    }

    /// Allows the addresses of a subnet such as `10.1.0.0/16`, though they are not public.
    ///
    /// ```
    /// # use outbox_http::HttpPublisher;
    /// let inside_the_cluster = HttpPublisher::new("http://billing.svc.cluster.local/events")?
    ///     .allow_subnet("10.0.0.0/8")
    ///     .build()?;
    /// # let _ = inside_the_cluster;
    /// # Ok::<(), outbox_http::ConfigError>(())
    /// ```
    #[must_use]
    pub fn allow_subnet(self, subnet: impl AsRef<str>) -> Self {
        let text = subnet.as_ref();
        self.with(|config| match text.parse() {
            Ok(subnet) => config.guard.allow(subnet),
            Err(_) => config.faults.push(ConfigFault::Subnet(text.chars().take(64).collect())),
        })
    }

    /// Allows this host's own addresses, `127.0.0.0/8` and `::1`.
    ///
    /// ```
    /// # use outbox_http::HttpPublisher;
    /// let publisher = HttpPublisher::new("http://127.0.0.1:3000/events")?.allow_loopback().build()?;
    /// # let _ = publisher;
    /// # Ok::<(), outbox_http::ConfigError>(())
    /// ```
    #[must_use]
    pub fn allow_loopback(self) -> Self {
        self.with(|config| config.guard.allow_loopback())
    }

    /// Resolves names by another resolver. The publisher checks its addresses like the system's.
    #[must_use]
    pub fn resolver(self, resolver: impl Resolver) -> Self {
        self.with(|config| config.resolver = Arc::new(resolver))
    }

    /// Trusts one more certificate authority, in PEM, besides the system's.
    #[must_use]
    pub fn trust(self, pem: impl AsRef<[u8]>) -> Self {
        self.with(|config| config.roots.push(pem.as_ref().to_vec()))
    }

    /// Sets how many bytes of a response body the publisher reads, so that its connection can be
    /// used again; 64 KiB unless set.
    #[must_use]
    pub fn max_response(self, bytes: usize) -> Self {
        self.with(|config| config.max_response = bytes)
    }

    /// Keeps the first words of an error response's body in the stored error. Off unless called,
    /// because a destination may echo the payload; the reason that a receiver of this crate gives
    /// is always kept.
    #[must_use]
    pub fn quote_responses(self) -> Self {
        self.with(|config| config.quote_responses = true)
    }

    /// Sets how many requests may be under way at once, whatever the relay asks for; 128 unless
    /// set.
    #[must_use]
    pub fn max_connections(self, connections: usize) -> Self {
        self.with(|config| config.max_connections = connections)
    }

    /// Sets the limits that enqueue and relay apply: longest payload and texts, batch, batches in
    /// flight. No limit of size, and four batches of 64, unless set.
    ///
    /// ```
    /// # use outbox_core::transport::Limits;
    /// # use outbox_http::HttpPublisher;
    /// let limits = Limits::default().max_payload(262_144).max_in_flight(1);
    /// let publisher = HttpPublisher::new("https://billing.example/events")?.with_limits(limits).build()?;
    /// # let _ = publisher;
    /// # Ok::<(), outbox_http::ConfigError>(())
    /// ```
    #[must_use]
    pub fn with_limits(self, limits: Limits) -> Self {
        self.with(|config| config.limits = limits)
    }

    /// Checks the configuration. Opens no connection.
    ///
    /// ```
    /// # use outbox_http::HttpPublisher;
    /// let publisher = HttpPublisher::new("https://billing.example/events")?;
    /// let error = publisher.signed("not a secret").allow_subnet("10.0.0.0/99").build().unwrap_err();
    /// assert_eq!(error.faults().len(), 2, "all faults at once");
    /// # Ok::<(), outbox_http::ConfigError>(())
    /// ```
    ///
    /// # Errors
    /// [`ConfigError`] with all faults.
    pub fn build(self) -> Result<Self, ConfigError> {
        self.client()?;
        Ok(self)
    }

    /// Changes the configuration and drops the client that was built from the former one.
    fn with(mut self, change: impl FnOnce(&mut Config)) -> Self {
        change(&mut self.config);
        self.client = OnceLock::new();
        self
    }

    fn client(&self) -> Result<&HttpClient, ConfigError> {
        self.client.get_or_init(|| HttpClient::new(&self.config)).as_ref().map_err(Clone::clone)
    }

    /// Writes the headers of binary mode; `None` where the message goes in structured mode, because
    /// the configuration says so or because binary mode cannot carry it: a receiver would read a
    /// payload that is itself a CloudEvent as this message, and servers refuse headers that are too
    /// many or too large.
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

    /// Builds one request.
    fn request(
        &self,
        client: &HttpClient,
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
            let attribute_signatures = if structured {
                None
            } else {
                Some(self.sign_attributes(&headers, &id, now, &body)?)
            };
            let standard = [
                (signature::ID, id),
                (signature::TIMESTAMP, now.to_string()),
                (signature::SIGNATURE, signatures),
            ];
            for (name, value) in standard
                .into_iter()
                .chain(attribute_signatures.map(|value| (signature::ATTRIBUTES, value)))
            {
                let value = HeaderValue::from_str(&value).map_err(|e| {
                    PublishError::permanent("the request cannot be signed").caused_by(e)
                })?;
                headers.insert(HeaderName::from_static(name), value);
            }
        }
        self.trace(&mut headers);
        Ok(client
            .inner
            .post(self.config.url.clone())
            .headers(self.config.headers.clone())
            .headers(headers)
            .body(body))
    }

    /// Adds the context of the span in which the request is sent, unless the configuration has headers
    /// of that name. The context in which the event was created is an attribute.
    fn trace(&self, headers: &mut HeaderMap) {
        for (name, value) in current_context().iter().flat_map(TraceContext::headers) {
            if !self.config.headers.contains_key(name)
                && let Ok(value) = HeaderValue::from_str(value)
            {
                headers.insert(HeaderName::from_static(name), value);
            }
        }
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
        let client = self.client().map_err(|e| PublishError::unavailable(e.to_string()))?;
        let _permit = client
            .permits
            .acquire()
            .await
            .map_err(|e| PublishError::unavailable("closed").caused_by(e))?;
        let mut response = self.request(client, message)?.send().await.map_err(request_error)?;
        let status = response.status();
        let class = match classify(status) {
            Classification::Delivered => None,
            Classification::Failed(class) => Some(class),
        };
        let body = client.read_body(&mut response, self.config.max_response).await;
        match class {
            None => Ok(Receipt::new().to(self.config.destination())),
            Some(class) => {
                let text = String::from_utf8_lossy(&body);
                let quoted = self.config.quote_responses.then_some(&*text);
                Err(response_error(class, status, response.headers(), quoted))
            }
        }
    }

    fn system(&self) -> &'static str {
        "http"
    }

    fn limits(&self) -> Limits {
        let encoding = if self.config.structured { Encoding::Structured } else { Encoding::Body };
        self.config.limits.encoding(encoding)
    }

    fn timeout(&self) -> Option<Duration> {
        Some(self.config.timeout)
    }

    fn destination(&self) -> Option<String> {
        // The path may itself be a secret: the hash tells paths apart without showing them.
        let hash = Sha256::digest(self.config.url.path());
        Some(format!(
            "{}/#{}",
            self.config.destination(),
            hash[..4].iter().map(|b| format!("{b:02x}")).collect::<String>()
        ))
    }

    fn check(&self) -> Result<(), PublishError> {
        self.client().map(|_| ()).map_err(|e| PublishError::permanent(e.to_string()))
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
    const RESERVED: [&str; 6] =
        ["content-type", "content-length", "transfer-encoding", "connection", "host", "upgrade"];
    let name = HeaderName::try_from(name).map_err(|_| "has a name that is no header's")?;
    if RESERVED.contains(&name.as_str())
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
