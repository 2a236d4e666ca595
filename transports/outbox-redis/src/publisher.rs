//! The sending half: one entry of a stream for each message, confirmed by the server's reply.

use crate::{
    classify::Failure,
    config::{ConfigError, ConfigFault, NAME_RULE, is_name, name_fault},
    connection::{ConnectionSlot, RedisConnection, ServerUrl},
    group::added,
    headers,
};
use async_trait::async_trait;
use futures_util::{StreamExt, stream::FuturesUnordered};
use outbox_core::{
    event::Message,
    runtime::wall_clock,
    transport::{Batch, Encoding, Limits, PublishError, Publisher, Receipt, printable},
};
use redis::{Cmd, cmd};
use std::{
    fmt,
    sync::{Arc, OnceLock},
    time::{Duration, SystemTime},
};

/// Bytes of a field, and so of a message at most, that the server takes unless its
/// `proto-max-bulk-len` is configured otherwise.
const MAX_MESSAGE: usize = 512 * 1024 * 1024;

type ChooseStream = Arc<dyn Fn(&Message) -> String + Send + Sync>;

/// Publishes messages to streams of Redis or Valkey.
///
/// A message is delivered when the server has replied to its XADD; the [crate](crate) says what
/// that reply is worth. The publishes share one connection, over which their commands go one behind
/// the other without waiting for replies. [`new`](Self::new) makes the publisher without a
/// connection, and the methods that follow configure it; [`build`](Self::build) reports every
/// configuration fault at once. It connects at the first publish, and again when the connection was
/// lost.
///
/// The receipt names the stream, and as position the milliseconds of the entry's id.
///
/// ```
/// use outbox_redis::RedisPublisher;
/// use std::time::Duration;
/// let publisher = RedisPublisher::new("redis://127.0.0.1:6379")?
///     .prefix("shop:")
///     .max_age(Duration::from_hours(24 * 7))
///     .build()?;
/// # let _ = publisher;
/// # Ok::<(), outbox_redis::ConfigError>(())
/// ```
pub struct RedisPublisher {
    config: Config,
    connection: OnceLock<Result<ConnectionSlot, ConfigError>>,
}

struct Config {
    server: ServerUrl,
    stream: StreamChoice,
    prefix: String,
    trim: Option<Trim>,
    structured: bool,
    limits: Limits,
}

/// Which stream a message goes to.
enum StreamChoice {
    Topic,
    Fixed(String),
    Chosen(ChooseStream),
}

/// What an XADD removes from the other end of its stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trim {
    /// Entries beyond so many.
    Length(u64),
    /// Entries that are older.
    Age(Duration),
}

impl fmt::Debug for RedisPublisher {
    /// Shows where it publishes; neither user nor password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisPublisher")
            .field("destination", &self.config.destination())
            .field("trim", &self.config.trim)
            .field("structured", &self.config.structured)
            .finish_non_exhaustive()
    }
}

impl RedisPublisher {
    /// Makes a publisher for the server at a URL: `redis://user:password@host:port/database`, or
    /// `rediss://` for TLS; `valkey://` and `valkeys://` mean the same.
    ///
    /// Unless configured otherwise a message goes to the stream that has the name of its topic.
    ///
    /// # Errors
    /// [`ConfigError`] when the text is no such URL.
    pub fn new(url: impl AsRef<str>) -> Result<Self, ConfigError> {
        let config = Config {
            server: ServerUrl::parse(url.as_ref())?,
            stream: StreamChoice::Topic,
            prefix: String::new(),
            trim: None,
            structured: false,
            limits: Limits::default().max_message(MAX_MESSAGE),
        };
        Ok(Self { config, connection: OnceLock::new() })
    }

    /// Makes a publisher as [`new`](Self::new) does, and connects: for services that should not
    /// start without the server.
    ///
    /// # Errors
    /// [`PublishError`] when the URL cannot be read or the server does not accept the connection.
    ///
    /// # Cancel safety
    /// A call that is dropped leaves no connection.
    pub async fn connect(url: impl AsRef<str>) -> Result<Self, PublishError> {
        let unusable = |error: ConfigError| PublishError::unavailable(error.to_string());
        let publisher = Self::new(url).map_err(unusable)?;
        publisher.connection().map_err(unusable)?.acquire().await?;
        Ok(publisher)
    }

    /// Publishes everything to one stream.
    #[must_use]
    pub fn stream(self, name: impl Into<String>) -> Self {
        self.with(|config| config.stream = StreamChoice::Fixed(name.into()))
    }

    /// Sets the stream of a message: the one with the name of its topic, unless set. A function
    /// that chooses one of several streams by the key keeps the order of each key, and each stream
    /// may have its own consumer.
    #[must_use]
    pub fn stream_of(self, stream: impl Fn(&Message) -> String + Send + Sync + 'static) -> Self {
        self.with(|config| config.stream = StreamChoice::Chosen(Arc::new(stream)))
    }

    /// Puts a text before the name of every stream, such as `shop:`.
    #[must_use]
    pub fn prefix(self, prefix: impl Into<String>) -> Self {
        self.with(|config| config.prefix = prefix.into())
    }

    /// Trims a stream to about so many entries with each message (`MAXLEN ~`). Without this setting
    /// and [`max_age`](Self::max_age), of which the last one counts, streams grow without a limit.
    ///
    /// The server removes entries that no group has read yet or that are pending, too: a consumer
    /// that is behind by more loses them.
    #[must_use]
    pub fn max_len(self, entries: u64) -> Self {
        self.with(|config| config.trim = Some(Trim::Length(entries)))
    }

    /// Trims entries from a stream that are older than that, with each message (`MINID ~`). The
    /// server gives entries the time of its clock; the age is taken from this machine's.
    ///
    /// The server removes entries that no group has read yet or that are pending, too: a consumer
    /// that is behind by more loses them.
    #[must_use]
    pub fn max_age(self, age: Duration) -> Self {
        self.with(|config| config.trim = Some(Trim::Age(age)))
    }

    /// Sends each message as one JSON object (`application/cloudevents+json`). Without this setting
    /// the publisher does so only for a message whose payload is itself a CloudEvent.
    #[must_use]
    pub fn structured(self) -> Self {
        self.with(|config| config.structured = true)
    }

    /// Sets how long the server may take for one reply; 10 s unless set. A message waits longer
    /// while the replies to those before it come. Keep it below the route's deadline.
    #[must_use]
    pub fn timeout(self, timeout: Duration) -> Self {
        self.with(|config| config.server.timeout = timeout)
    }

    /// Trusts one more certificate authority, in PEM, besides the system's.
    #[must_use]
    pub fn trust(self, pem: impl AsRef<[u8]>) -> Self {
        self.with(|config| config.server.roots.push(pem.as_ref().to_vec()))
    }

    /// Sets the limits that enqueue and relay apply: 512 MiB of payload, key and attributes, and
    /// four batches of 256, unless set. Set a smaller one where the server's `proto-max-bulk-len`
    /// is smaller: it closes the connection over a larger payload.
    #[must_use]
    pub fn with_limits(self, limits: Limits) -> Self {
        self.with(|config| config.limits = limits)
    }

    /// Checks the configuration. Opens no connection.
    ///
    /// # Errors
    /// [`ConfigError`] with all faults.
    pub fn build(self) -> Result<Self, ConfigError> {
        self.connection()?;
        Ok(self)
    }

    /// Changes the configuration and drops the connection that was made from the former one.
    fn with(mut self, change: impl FnOnce(&mut Config)) -> Self {
        change(&mut self.config);
        self.connection = OnceLock::new();
        self
    }

    fn connection(&self) -> Result<&ConnectionSlot, ConfigError> {
        self.connection.get_or_init(|| self.config.slot()).as_ref().map_err(Clone::clone)
    }

    async fn acquire(&self) -> Result<Arc<RedisConnection>, Failure> {
        let slot = self.connection().map_err(|error| Failure::unavailable(error.to_string()))?;
        slot.acquire().await
    }
}

/// Sends an XADD and waits for the id of the entry.
async fn add(
    connection: &RedisConnection,
    add: Result<(String, Cmd), Failure>,
) -> Result<Receipt, PublishError> {
    let (stream, command) = add?;
    let reply = connection.send(&command).await.and_then(added);
    let id = reply.map_err(|failure| failure.on_stream(&stream))?;
    Ok(Receipt::new().to(stream).at(id.millis()))
}

#[async_trait]
impl Publisher for RedisPublisher {
    async fn publish(&self, message: &Message) -> Result<Receipt, PublishError> {
        let command = self.config.command(message)?;
        let connection = self.acquire().await?;
        add(&connection, Ok(command)).await
    }

    /// Each message is a command of its own, so that each has its outcome when its reply comes;
    /// what the server says of one is not said of the others, as it would be of a MULTI.
    async fn publish_batch(&self, batch: &mut Batch) {
        let messages = batch.messages();
        let connection = match self.acquire().await {
            Ok(connection) => connection,
            Err(failure) => return batch.rest(|| Err(failure.clone().into())),
        };
        let publish = |(index, message)| {
            let command = self.config.command(message);
            let connection = &connection;
            async move { (index, add(connection, command).await) }
        };
        let mut publishing: FuturesUnordered<_> =
            messages.iter().enumerate().map(publish).collect();
        while let Some((index, outcome)) = publishing.next().await {
            batch.done(index, outcome);
        }
    }

    fn limits(&self) -> Limits {
        let encoding =
            if self.config.structured { Encoding::StructuredRecord } else { Encoding::Record };
        self.config.limits.encoding(encoding)
    }

    fn timeout(&self) -> Option<Duration> {
        Some(self.config.server.timeout)
    }

    fn destination(&self) -> Option<String> {
        Some(self.config.destination())
    }

    fn check(&self) -> Result<(), PublishError> {
        self.connection().map(|_| ()).map_err(|error| PublishError::permanent(error.to_string()))
    }
}

impl Config {
    /// Checks the configuration. Opens no connection.
    fn slot(&self) -> Result<ConnectionSlot, ConfigError> {
        let mut faults = Vec::new();
        if let StreamChoice::Fixed(name) = &self.stream {
            faults.extend(name_fault("stream", &format!("{}{name}", self.prefix)));
        }
        let no_trim = match self.trim {
            Some(Trim::Length(entries)) => entries == 0,
            Some(Trim::Age(age)) => age.is_zero(),
            None => false,
        };
        if no_trim {
            let what = "the length or age of a stream";
            faults.push(ConfigFault::Range { what, rule: "must be more than zero" });
        }
        match self.server.connector(&mut faults) {
            Some(connector) if faults.is_empty() => Ok(ConnectionSlot::new(connector)),
            _ => Err(ConfigError::new(faults)),
        }
    }

    fn destination(&self) -> String {
        let stream = match &self.stream {
            StreamChoice::Topic => "the event's topic",
            StreamChoice::Fixed(name) => name.as_str(),
            StreamChoice::Chosen(_) => "a chosen stream",
        };
        format!("{}#{}{stream}", self.server.destination(), self.prefix)
    }

    /// Encodes one message: its stream, and its XADD.
    fn command(&self, message: &Message) -> Result<(String, Cmd), Failure> {
        let name = match &self.stream {
            StreamChoice::Topic => message.topic.clone(),
            StreamChoice::Fixed(name) => name.clone(),
            StreamChoice::Chosen(choose) => choose(message),
        };
        let stream = format!("{}{name}", self.prefix);
        if !is_name(&stream) {
            let stream = printable(&stream);
            return Err(Failure::permanent(format!("the stream `{stream}` {NAME_RULE}")));
        }
        let fields = headers::write(message, self.structured);
        let size: usize = fields.iter().map(|(name, value)| name.len() + value.len()).sum();
        for (what, size, limit) in [
            ("payload", message.payload.len(), self.limits.max_payload),
            ("message", size, self.limits.max_message),
        ] {
            if let Some(limit) = limit.filter(|limit| size > *limit) {
                return Err(Failure::permanent(format!(
                    "the {what} has {size} bytes, of at most {limit}"
                )));
            }
        }
        let mut add = cmd("XADD");
        add.arg(&stream);
        if let Some(trim) = self.trim {
            trim.arguments(wall_clock(), &mut add);
        }
        add.arg("*");
        fields.iter().for_each(|(name, value)| _ = add.arg(&**name).arg(&value[..]));
        Ok((stream, add))
    }
}

impl Trim {
    /// Adds the arguments of XADD.
    fn arguments(self, now: SystemTime, add: &mut Cmd) {
        match self {
            Self::Length(entries) => add.arg("MAXLEN").arg("~").arg(entries),
            Self::Age(age) => {
                let since = now.checked_sub(age).and_then(|since| {
                    since.duration_since(SystemTime::UNIX_EPOCH).ok().map(|since| since.as_millis())
                });
                let millis = since.and_then(|millis| u64::try_from(millis).ok()).unwrap_or(0);
                add.arg("MINID").arg("~").arg(millis)
            }
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use outbox_core::testing::transport::full;

    fn publisher() -> RedisPublisher {
        RedisPublisher::new("redis://127.0.0.1").expect("a URL")
    }

    fn command(publisher: &RedisPublisher) -> (String, String) {
        let (stream, command) = publisher.config.command(&full()).expect("encoded");
        (stream, String::from_utf8_lossy(&command.get_packed_command()).replace("\r\n", " "))
    }

    #[test]
    fn the_stream_is_the_topic_or_as_configured_and_the_prefix_stands_before_it() {
        let stream = |publisher: RedisPublisher| command(&publisher).0;
        assert_eq!(stream(publisher()), "orders");
        assert_eq!(stream(publisher().prefix("shop:")), "shop:orders");
        assert_eq!(stream(publisher().prefix("shop:").stream("all")), "shop:all");
        let by_key = |message: &Message| format!("{{{}}}", message.key.as_deref().unwrap_or(""));
        assert_eq!(stream(publisher().stream_of(by_key)), "{order-7}");
    }

    #[test]
    fn nothing_is_trimmed_unless_configured() {
        let trimmed = |publisher: RedisPublisher| command(&publisher).1;
        let plain = trimmed(publisher());
        assert!(plain.contains("XADD $6 orders $1 * $14 ce_specversion"), "{plain}");
        let by_length = trimmed(publisher().max_age(Duration::from_secs(1)).max_len(1_000));
        assert!(by_length.contains("orders $6 MAXLEN $1 ~ $4 1000 $1 *"), "{by_length}");
        let mut by_age = cmd("XADD");
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(100);
        Trim::Age(Duration::from_secs(40)).arguments(now, &mut by_age);
        Trim::Age(Duration::from_secs(400)).arguments(now, &mut by_age);
        let by_age = String::from_utf8_lossy(&by_age.get_packed_command()).replace("\r\n", " ");
        assert!(by_age.ends_with("MINID $1 ~ $5 60000 $5 MINID $1 ~ $1 0 "), "{by_age}");
    }

    #[test]
    fn a_message_beyond_the_limits_is_refused_before_it_is_sent() {
        let refused = |limits: Limits| {
            publisher().with_limits(limits).config.command(&full()).expect_err("too large").text
        };
        assert_eq!(
            refused(Limits::default().max_payload(5)),
            "the payload has 13 bytes, of at most 5"
        );
        assert!(refused(Limits::default().max_message(100)).ends_with("of at most 100"));
        let nameless = publisher().stream_of(|_| String::new());
        let failure = nameless.config.command(&full()).expect_err("no name");
        assert!(failure.text.contains("must have 1 to 65535 bytes"), "{failure:?}");
    }
}
