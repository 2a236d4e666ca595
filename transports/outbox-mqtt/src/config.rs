//! The faults of a configuration, reported all at once and without a secret; the rules for names.

use outbox_core::transport::printable;

/// One thing that is wrong with the configuration of a publisher or a subscriber.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigFault {
    /// The text is no URL of MQTT. The error does not quote it, since it may hold a password.
    #[error(
        "the URL cannot be read; it is mqtt://user:password@host:port, or mqtts:// for TLS, with \
         `%40` for an `@` in the password"
    )]
    Url,
    /// A topic, a filter, the name of a group or a client id is not legal.
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
    /// A topic is named twice.
    #[error("the topic `{0}` is named twice")]
    Twice(String),
    /// A certificate cannot be read, or the system's cannot be loaded.
    #[error("TLS cannot be set up: {0}")]
    Tls(String),
    /// A number or a span of time is out of range.
    #[error("{what} {rule}")]
    Range {
        /// Which setting.
        what: &'static str,
        /// Its rule, such as "must be longer than zero".
        rule: &'static str,
    },
}

/// A configuration that cannot work, with everything that is wrong with it.
pub type ConfigError = outbox_core::transport::ConfigError<ConfigFault>;

impl outbox_core::transport::TransportFault for ConfigFault {
    const TRANSPORT: &'static str = "MQTT";
}

/// Most bytes of a text on the wire: its length has two bytes.
pub(crate) const MAX_TEXT: usize = 65_535;

/// The rule for topics that a message is published to.
pub(crate) const TOPIC_RULE: &str = "must be a topic of MQTT: 1 to 65535 bytes without `+`, `#`, \
     control characters and Unicode's non-characters, and without `$` at its beginning";

/// The rule for filters of a subscription.
const FILTER_RULE: &str = "must be a filter of MQTT: 1 to 65535 bytes without control characters; \
     `+` stands for a whole level, `#` for all levels at the end, and a group of a shared \
     subscription is named with `share`";

/// The rule for the name of a group.
const GROUP_RULE: &str = "must have 1 to 65535 bytes without `/`, `+`, `#` and control characters";

/// The rule for the user of a login.
pub(crate) const USER_RULE: &str = "must have at most 65535 bytes without control characters and \
     Unicode's non-characters";

/// The rule for client ids.
const CLIENT_RULE: &str = "must have 1 to 65535 bytes without control characters";

/// Tells whether MQTT can carry a text. The standard lets a server end the connection of a client
/// that sends control characters or non-characters, and Mosquitto does.
///
/// # Source
/// MQTT 5.0, section 1.5.4.
pub(crate) fn is_text(text: &str) -> bool {
    text.len() <= MAX_TEXT && !text.chars().any(|c| c.is_control() || is_noncharacter(c))
}

/// Tells whether a code point is one of Unicode's 66 non-characters.
fn is_noncharacter(c: char) -> bool {
    let point = u32::from(c);
    (0xfdd0..=0xfdef).contains(&point) || point & 0xfffe == 0xfffe
}

/// Tells whether a message can be published to a topic. Topics that begin with `$` belong to the
/// server.
pub(crate) fn is_topic(topic: &str) -> bool {
    !topic.is_empty() && is_text(topic) && !topic.starts_with('$') && !topic.contains(['+', '#'])
}

fn is_filter(filter: &str) -> bool {
    let levels: Vec<&str> = filter.split('/').collect();
    let is_legal = |(at, level): (usize, &&str)| match *level {
        "+" => true,
        "#" => at + 1 == levels.len(),
        level => !level.contains(['+', '#']),
    };
    !filter.is_empty()
        && is_text(filter)
        && !filter.starts_with("$share/")
        && levels.iter().enumerate().all(is_legal)
}

fn fault(
    what: &'static str,
    name: &str,
    rule: &'static str,
    is_legal: bool,
) -> Option<ConfigFault> {
    (!is_legal).then(|| ConfigFault::Name { what, name: printable(name), rule })
}

/// Gives the fault of a topic, if it has one.
pub(crate) fn topic_fault(what: &'static str, topic: &str) -> Option<ConfigFault> {
    fault(what, topic, TOPIC_RULE, is_topic(topic))
}

/// Gives the fault of a filter, if it has one.
pub(crate) fn filter_fault(filter: &str) -> Option<ConfigFault> {
    fault("topic", filter, FILTER_RULE, is_filter(filter))
}

/// Gives the fault of the name of a group, if it has one.
pub(crate) fn group_fault(group: &str) -> Option<ConfigFault> {
    let is_legal = !group.is_empty() && is_text(group) && !group.contains(['/', '+', '#']);
    fault("group", group, GROUP_RULE, is_legal)
}

/// Gives the fault of a client id, if it has one.
pub(crate) fn client_fault(client: &str) -> Option<ConfigFault> {
    fault("client id", client, CLIENT_RULE, !client.is_empty() && is_text(client))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_has_no_wildcard_and_is_not_the_servers() {
        for legal in ["orders", "orders/placed", "/", "a//b", "a b", "орders", "a$b", "a*b"] {
            assert!(is_topic(legal), "{legal}");
        }
        let long = "x".repeat(65_536);
        for illegal in [
            "",
            "a/+",
            "#",
            "a/#",
            "a+b",
            "a\0b",
            "a\nb",
            "a\u{7f}",
            "a\u{85}",
            "\u{ffff}",
            "\u{fdd0}",
            "\u{10ffff}",
            "$SYS/broker",
            long.as_str(),
        ] {
            assert!(!is_topic(illegal), "{illegal:?}");
        }
    }

    #[test]
    fn a_filter_may_have_wildcards_in_their_places() {
        for legal in ["orders", "orders/+", "+/placed", "#", "orders/#", "/", "$SYS/#"] {
            assert_eq!(filter_fault(legal), None, "{legal}");
        }
        for illegal in ["", "a+", "#/a", "a/#/b", "a#", "a\0", "$share/g/orders"] {
            assert!(filter_fault(illegal).is_some(), "{illegal:?}");
        }
    }

    #[test]
    fn a_group_is_one_level_and_a_client_id_any_text() {
        assert_eq!(group_fault("billing-1"), None);
        for illegal in ["", "a/b", "+", "a#", "a\n"] {
            assert!(group_fault(illegal).is_some(), "{illegal:?}");
        }
        assert_eq!(client_fault("billing/1 é"), None);
        assert!(client_fault("").is_some() && client_fault("a\0").is_some());
    }
}
