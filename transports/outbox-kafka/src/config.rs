//! The brokers and the client's settings, and their faults, reported all at once and without a
//! secret.

use outbox_core::transport::printable;
use rdkafka::{ClientConfig, error::KafkaError};
use std::{collections::BTreeMap, fmt, time::Duration};

/// One thing that is wrong with the configuration of a publisher, a subscriber or a topic.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigFault {
    /// The list of brokers cannot be read.
    #[error(
        "the brokers cannot be read; they are host:port[,host:port], with or without kafka:// before them"
    )]
    Brokers,
    /// A name is not legal.
    #[error("the {what} `{name}` {rule}")]
    Name {
        /// What is named.
        what: &'static str,
        /// The name, shortened.
        name: String,
        /// Its rule.
        rule: &'static str,
    },
    /// The subscriber has no topic.
    #[error("no topic is subscribed to; name at least one with `topic`")]
    NoTopic,
    /// A topic is declared twice.
    #[error("the topic `{0}` is declared twice")]
    Twice(String),
    /// The client library does not know a setting or does not accept its value. The error does not
    /// quote the value, since it may be a secret.
    #[error("the setting `{0}` is not one of librdkafka's, or has a value that it does not take")]
    Setting(String),
    /// A setting that this transport fixes, because its guarantees depend on it.
    #[error("the setting `{0}` cannot be changed; {1}")]
    Reserved(String, &'static str),
    /// A number or a span of time is out of range.
    #[error("{what} {rule}")]
    Range {
        /// Which setting.
        what: &'static str,
        /// Its rule, such as "must be longer than zero".
        rule: &'static str,
    },
    /// The client library was built without what a setting needs.
    #[error("{0}")]
    Missing(&'static str),
}

/// A configuration that cannot work, with everything that is wrong with it.
pub type ConfigError = outbox_core::transport::ConfigError<ConfigFault>;

impl outbox_core::transport::TransportFault for ConfigFault {
    const TRANSPORT: &'static str = "Kafka";
}

/// The rule for names of topics.
pub(crate) const TOPIC_RULE: &str =
    "must have 1 to 249 characters of a-z, A-Z, 0-9, `.`, `_` and `-`, and be neither `.` nor `..`";

/// Tells whether the name of a topic is legal.
pub(crate) fn is_topic(name: &str) -> bool {
    let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    (1..=249).contains(&name.len()) && name.bytes().all(legal) && name != "." && name != ".."
}

/// Gives the fault of a topic's name, if it has one.
pub(crate) fn topic_fault(name: &str) -> Option<ConfigFault> {
    (!is_topic(name)).then(|| ConfigFault::Name {
        what: "topic",
        name: printable(name),
        rule: TOPIC_RULE,
    })
}

/// The brokers, and the user's settings of the client library.
#[derive(Clone)]
pub(crate) struct Cluster {
    pub(crate) brokers: String,
    settings: BTreeMap<String, String>,
    pub(crate) timeout: Duration,
}

/// How long the brokers may take to confirm, unless set.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Shortest timeout that librdkafka can keep.
const SHORTEST_TIMEOUT: Duration = Duration::from_millis(100);
/// Shortest timeout that librdkafka accepts for connecting.
const SHORTEST_CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// Longest wait before librdkafka tries to reconnect to a broker.
const MAX_RECONNECT_BACKOFF_MS: u32 = 1_000;

impl Cluster {
    /// Reads a list of brokers: `host:port[,host:port]`, with or without `kafka://` before it.
    pub(crate) fn parse(brokers: &str) -> Result<Self, ConfigError> {
        let list = brokers.strip_prefix("kafka://").unwrap_or(brokers).trim_end_matches('/');
        let is_broker = |broker: &str| {
            let (host, port) = broker.rsplit_once(':').unwrap_or((broker, "9092"));
            !host.is_empty()
                && !host.contains(['/', '@', ' '])
                && port.parse::<u16>().is_ok_and(|port| port > 0)
        };
        if !list.split(',').all(is_broker) {
            return Err(ConfigFault::Brokers.into());
        }
        Ok(Self { brokers: list.to_owned(), settings: BTreeMap::new(), timeout: TIMEOUT })
    }

    /// Sets a setting of the client library.
    pub(crate) fn set(&mut self, name: String, value: String) {
        self.settings.insert(name, value);
    }

    /// Gives a user's setting that is a number of milliseconds.
    pub(crate) fn milliseconds(&self, name: &str) -> Option<Duration> {
        self.settings.get(name)?.parse().ok().map(Duration::from_millis)
    }

    /// Makes the configuration of a client: the defaults that the user may change, then the user's
    /// settings, then the settings on which the guarantees depend.
    pub(crate) fn client(
        &self,
        defaults: &[(&str, &str)],
        fixed: &[(&str, &str, &'static str)],
    ) -> ClientConfig {
        let mut config = ClientConfig::new();
        let connect_timeout = self.timeout.max(SHORTEST_CONNECT_TIMEOUT).as_millis().to_string();
        config.set("bootstrap.servers", &self.brokers);
        config.set("reconnect.backoff.max.ms", MAX_RECONNECT_BACKOFF_MS.to_string());
        config.set("socket.connection.setup.timeout.ms", connect_timeout);
        for (name, value) in defaults {
            config.set(*name, *value);
        }
        for (name, value) in &self.settings {
            config.set(name, value);
        }
        for (name, value, _) in fixed {
            config.set(*name, *value);
        }
        config
    }

    /// Lists the faults of the settings.
    pub(crate) fn faults(&self, fixed: &[(&str, &str, &'static str)]) -> Vec<ConfigFault> {
        let mut faults = Vec::new();
        if self.timeout < SHORTEST_TIMEOUT {
            faults
                .push(ConfigFault::Range { what: "the timeout", rule: "must be at least 100 ms" });
        }
        for (name, value) in &self.settings {
            let reserved =
                fixed.iter().find(|(reserved, ..)| reserved == name).map(|(.., reason)| *reason);
            let reserved = reserved
                .or((name == "bootstrap.servers")
                    .then_some("the brokers are named when it is made"));
            if let Some(reason) = reserved {
                faults.push(ConfigFault::Reserved(printable(name), reason));
                continue;
            }
            let mut single = ClientConfig::new();
            single.set(name, value);
            match single.create_native_config() {
                Ok(_) => {}
                Err(KafkaError::ClientConfig(_, description, ..)) if is_not_built(&description) => {
                    faults.push(ConfigFault::Missing(
                        "TLS and SASL/SCRAM need librdkafka with OpenSSL: add rdkafka with the feature `ssl` to your program",
                    ));
                }
                Err(_) => faults.push(ConfigFault::Setting(printable(name))),
            }
        }
        faults
    }
}

/// Checks that the settings, each of them legal, are legal together.
pub(crate) fn check_combination(config: &ClientConfig) -> Result<(), ConfigError> {
    let fault = |_| ConfigFault::Setting("all of them together".to_owned());
    config.create_native_config().map(|_| ()).map_err(|error| fault(error).into())
}

/// Tells whether the client library knows a setting but was built without support for it.
fn is_not_built(description: &str) -> bool {
    description.contains("not supported in this build") || description.contains("not built with")
}

impl fmt::Debug for Cluster {
    /// Shows the brokers and the names of settings; no value, which may be a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cluster")
            .field("brokers", &self.brokers)
            .field("settings", &self.settings.keys())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIXED: [(&str, &str, &str); 1] =
        [("acks", "all", "nothing is confirmed before all have it")];

    #[test]
    fn brokers_are_a_list_with_or_without_a_scheme() {
        for (text, brokers) in [
            ("127.0.0.1:9092", Some("127.0.0.1:9092")),
            ("kafka://a:9092,b:9093", Some("a:9092,b:9093")),
            ("kafka://a:9092/", Some("a:9092")),
            ("localhost", Some("localhost")),
            ("[::1]:9092", Some("[::1]:9092")),
            ("", None),
            ("a:9092,", None),
            ("a:0", None),
            ("a:nine", None),
            ("amqp://a:5672", None),
            ("kafka://user:password@a:9092", None),
        ] {
            assert_eq!(
                Cluster::parse(text).ok().map(|cluster| cluster.brokers).as_deref(),
                brokers,
                "{text}"
            );
        }
    }

    #[test]
    fn every_fault_of_a_setting_is_reported_without_its_value() {
        let mut cluster = Cluster::parse("a:9092").unwrap();
        for (name, value) in [
            ("acks", "1"),
            ("linger.ms", "canary"),
            ("no.such.setting", "canary"),
            ("client.id", "shop"),
        ] {
            cluster.set(name.to_owned(), value.to_owned());
        }
        cluster.timeout = Duration::from_millis(1);
        let error = ConfigError::check(cluster.faults(&FIXED)).unwrap_err().to_string();
        for part in [
            "`acks` cannot be changed; nothing",
            "`linger.ms` is not one",
            "`no.such.setting`",
            "at least 100 ms",
        ] {
            assert!(error.contains(part), "{part}: {error}");
        }
        assert!(!error.contains("canary") && !error.contains("client.id"), "{error}");
    }

    #[test]
    fn a_setting_that_librdkafka_was_built_without_is_reported_with_the_feature_to_add() {
        let mut cluster = Cluster::parse("a:9092").unwrap();
        cluster.set("ssl.ca.location".to_owned(), "/canary.pem".to_owned());
        let error = ConfigError::check(cluster.faults(&FIXED)).unwrap_err().to_string();
        assert!(
            error.contains("rdkafka with the feature `ssl`") && !error.contains("canary"),
            "{error}"
        );
    }

    #[test]
    fn a_topic_has_the_letters_that_kafka_accepts() {
        for (name, legal) in [
            ("orders", true),
            ("a.b_c-D9", true),
            ("", false),
            (".", false),
            ("..", false),
            ("a b", false),
            ("ä", false),
        ] {
            assert_eq!(is_topic(name), legal, "{name}");
        }
        assert!(is_topic(&"x".repeat(249)) && !is_topic(&"x".repeat(250)));
    }
}
