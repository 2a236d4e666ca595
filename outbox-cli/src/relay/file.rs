//! The file of a relay process.

use crate::{error::CliError, file_fault::without_value, urls::check_database};
use serde::{Deserialize, Deserializer, de::Error};
use std::{collections::BTreeMap, net::SocketAddr, path::Path, time::Duration};

/// The file.
#[derive(Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    pub(super) outbox: OutboxPart,
    pub(super) metrics: Option<MetricsPart>,
    #[serde(default)]
    pub(super) route: Vec<RoutePart>,
}

/// Where metrics and health are served.
#[derive(Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct MetricsPart {
    pub(super) listen: SocketAddr,
}

/// The outbox.
#[derive(Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OutboxPart {
    #[serde(deserialize_with = "filled")]
    pub(super) database: String,
    #[serde(default)]
    pub(super) namespace: String,
    pub(super) lease: Option<Span>,
    #[serde(default)]
    pub(super) behind_pooler: bool,
}

/// A route.
#[derive(Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RoutePart {
    pub(super) name: String,
    /// The topics that it takes; all, where none is named.
    #[serde(default)]
    pub(super) topics: Vec<String>,
    /// The event types that it takes of these; all, where none is named.
    #[serde(default)]
    pub(super) types: Vec<String>,
    #[serde(deserialize_with = "filled")]
    pub(super) url: String,
    #[serde(default)]
    pub(super) structured: bool,
    #[serde(default)]
    pub(super) at_most_once: bool,
    #[serde(default)]
    pub(super) park_when_dead: bool,
    /// How long a publish may take.
    pub(super) timeout: Option<Span>,
    pub(super) retry: Option<RetryPart>,
    /// HTTP: secrets `whsec_..` of signatures.
    #[serde(default)]
    pub(super) signed: Vec<Filled>,
    /// HTTP: further headers.
    #[serde(default)]
    pub(super) headers: BTreeMap<String, Filled>,
    /// HTTP: whether the URL may be on this host.
    #[serde(default)]
    pub(super) allow_loopback: bool,
    /// HTTP: subnets that the URL may be in, beside public ones.
    #[serde(default)]
    pub(super) allow_subnets: Vec<String>,
    /// RabbitMQ: the exchange.
    pub(super) exchange: Option<String>,
    /// RabbitMQ: the queue, in place of an exchange. SQS: the queue, in place of that of the topic.
    pub(super) queue: Option<String>,
    /// Kafka and SNS: the one topic for all events of the route.
    pub(super) topic: Option<String>,
}

/// A retry policy.
#[derive(Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RetryPart {
    pub(super) max_attempts: Option<u32>,
    pub(super) backoff: Option<Span>,
    pub(super) factor: Option<f64>,
    pub(super) max_backoff: Option<Span>,
    pub(super) give_up_after: Option<Span>,
    #[serde(default)]
    pub(super) endless: bool,
}

/// A span of time, such as `90s` or `5m`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span(pub(super) Duration);

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        humantime::parse_duration(&text)
            .map(Self)
            .map_err(|error| D::Error::custom(format!("`{text}`: {error}; write 90s, 5m or 2h")))
    }
}

/// A text with variables of the environment in place of `${NAME}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Filled(pub(super) String);

impl<'de> Deserialize<'de> for Filled {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        fill(&text, |name| std::env::var(name).ok()).map(Self).map_err(D::Error::custom)
    }
}

fn filled<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    Filled::deserialize(deserializer).map(|filled| filled.0)
}

/// Puts the values of variables in place of `${NAME}`.
fn fill(text: &str, value: impl Fn(&str) -> Option<String>) -> Result<String, String> {
    let mut filled = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        let Some((name, behind)) = after.split_once('}') else {
            return Err("a `${` has no `}`".to_owned());
        };
        filled.push_str(before);
        filled.push_str(&value(name).ok_or_else(|| format!("the variable {name} is not set"))?);
        rest = behind;
    }
    filled.push_str(rest);
    Ok(filled)
}

impl File {
    /// Reads a file.
    pub(super) fn read(path: &Path) -> Result<Self, CliError> {
        let wrong = |why: String| CliError::Usage(format!("{}: {why}", path.display()));
        let text = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
        Self::parse(&text).map_err(wrong)
    }

    fn parse(text: &str) -> Result<Self, String> {
        let file: Self = toml::from_str(text).map_err(|error| without_value(text, &error))?;
        check_database(&file.outbox.database).map_err(|why| format!("`database`: {why}"))?;
        if file.route.is_empty() {
            return Err("it has no [[route]]: every event would be a dead letter".to_owned());
        }
        Ok(file)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_of_the_environment_are_filled_in() {
        let value = |name: &str| (name == "PASSWORD").then(|| "s3cret".to_owned());
        assert_eq!(fill("postgres://me:${PASSWORD}@db", value).unwrap(), "postgres://me:s3cret@db");
        assert_eq!(fill("nothing", value).unwrap(), "nothing");
        assert_eq!(fill("${OTHER}", value).unwrap_err(), "the variable OTHER is not set");
        assert_eq!(fill("${OTHER", value).unwrap_err(), "a `${` has no `}`");
    }

    #[test]
    fn mistakes_in_the_file_are_told_with_their_line_and_without_its_text() {
        let outbox = "[outbox]\ndatabase = 'sqlite::memory:'\n";
        for (more, told) in [
            ("", "it has no [[route]]"),
            ("[[route]]\nname = 'a'\n", "missing field `url`"),
            ("[[route]]\nname = 'a'\nurl = 'http://a'\nurls = 1\n", "line 6: unknown field `urls`"),
            ("[[route]]\nname = 'a'\nurl = 'http://a'\ntimeout = '10'\n", "write 90s, 5m or 2h"),
            ("[[route]]\nname = 'a'\nurl = '${NOT_SET_ANYWHERE}'\n", "NOT_SET_ANYWHERE is not set"),
            (
                "[[route]]\nname = 'a'\nurl = 'http://a'\nsigned = 'whsec_memory'\n",
                "line 6: invalid type: string, expected a sequence",
            ),
        ] {
            let why = File::parse(&format!("{outbox}{more}")).unwrap_err();
            assert!(why.contains(told), "{told}: {why}");
            assert!(!why.contains("memory"), "{why}");
        }
    }

    #[test]
    fn the_url_of_a_database_is_checked_with_the_file_and_not_quoted() {
        let route = "[[route]]\nname = 'a'\nurl = 'http://a'\n";
        for url in ["mariadb://me:secret@db/orders", "postgres://me:s/ecret@db/orders"] {
            let why = File::parse(&format!("[outbox]\ndatabase = '{url}'\n{route}")).unwrap_err();
            assert!(why.starts_with("`database`: ") && !why.contains("ecret"), "{why}");
        }
    }
}
