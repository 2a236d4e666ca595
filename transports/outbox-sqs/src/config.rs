//! The faults of a configuration, reported all at once and without a secret.

use outbox_core::transport::printable;

/// One thing that is wrong with the configuration of a publisher, a subscriber, a queue or a topic.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigFault {
    /// The text is no URL of SQS or SNS. The error does not quote it, since it may hold a secret.
    #[error(
        "the URL cannot be read; it is sqs://REGION or sqs://REGION/ACCOUNT for AWS, and \
         sqs+http://KEY:SECRET@host:port or sqs+https://.. for another endpoint (?region=.. behind \
         it); sns.. in place of sqs.. for topics"
    )]
    Url,
    /// The name of a queue or a topic is not legal.
    #[error("the {what} `{name}` {rule}")]
    Name {
        /// What is named.
        what: &'static str,
        /// The name, shortened.
        name: String,
        /// Its rule, such as "must have 1 to 80 characters".
        rule: &'static str,
    },
    /// A topic is named without its account, so that its ARN is not known.
    #[error(
        "the topic `{0}` has no account: name it by its ARN, declare it, or put the account behind \
         the region: sns://REGION/ACCOUNT"
    )]
    NoAccount(String),
    /// There are no credentials.
    #[error(
        "there are no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, put them into \
         the URL, or give a provider by `credentials`"
    )]
    NoCredentials,
    /// A queue or topic is declared with settings that cannot work.
    #[error("the {what} `{name}`: {problem}")]
    Declared {
        /// Whether it is a queue or a topic.
        what: &'static str,
        /// Its name.
        name: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A certificate cannot be read.
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
    const TRANSPORT: &'static str = "SQS";
}

/// The end of the name of a FIFO queue or topic; SQS and SNS tell the kinds apart by it.
pub(crate) const FIFO: &str = ".fifo";

/// The rule for names of queues.
pub(crate) const QUEUE_RULE: &str = "must have 1 to 80 letters, digits, `-` and `_`, with `.fifo` \
     at the end if it is FIFO";

/// The rule for names of topics.
pub(crate) const TOPIC_RULE: &str = "must be an ARN, or have 1 to 256 letters, digits, `-` and `_`, \
     with `.fifo` at the end if it is FIFO";

/// Longest name of a queue, in bytes.
const MAX_QUEUE: usize = 80;
/// Longest name of a topic, in bytes.
const MAX_TOPIC: usize = 256;

/// Tells whether a queue or a topic is FIFO.
pub(crate) fn is_fifo(name: &str) -> bool {
    name.ends_with(FIFO)
}

fn is_name(name: &str, longest: usize) -> bool {
    let stem = name.strip_suffix(FIFO).unwrap_or(name);
    (1..=longest).contains(&name.len())
        && !stem.is_empty()
        && stem.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

/// Tells whether a text is the name of a queue.
pub(crate) fn is_queue(name: &str) -> bool {
    is_name(name, MAX_QUEUE)
}

/// Tells whether a text, with `.fifo` behind it, is the name of a queue.
pub(crate) fn is_stem_of_queue(stem: &str) -> bool {
    !is_fifo(stem) && is_queue(&format!("{stem}{FIFO}"))
}

/// Tells whether a text is the name or the ARN of a topic.
pub(crate) fn is_topic(name: &str) -> bool {
    match name.strip_prefix("arn:") {
        Some(rest) => {
            let mut parts = rest.splitn(5, ':');
            let mut part = || parts.next().filter(|part| !part.is_empty());
            let before = [part(), part(), part(), part()];
            before.iter().all(Option::is_some)
                && before[1] == Some("sns")
                && part().is_some_and(|name| is_name(name, MAX_TOPIC))
        }
        None => is_name(name, MAX_TOPIC),
    }
}

/// Tells whether a text, with `.fifo` behind it, is the name of a topic.
pub(crate) fn is_stem_of_topic(stem: &str) -> bool {
    !is_fifo(stem) && !stem.starts_with("arn:") && is_topic(&format!("{stem}{FIFO}"))
}

/// Gives the fault of the name of a queue, if it has one.
pub(crate) fn queue_fault(name: &str) -> Option<ConfigFault> {
    let fault = || ConfigFault::Name { what: "queue", name: printable(name), rule: QUEUE_RULE };
    (!is_queue(name)).then(fault)
}

/// Gives the fault of the name of a topic, if it has one.
pub(crate) fn topic_fault(name: &str) -> Option<ConfigFault> {
    let fault = || ConfigFault::Name { what: "topic", name: printable(name), rule: TOPIC_RULE };
    (!is_topic(name)).then(fault)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_has_letters_digits_hyphens_and_underscores_and_may_end_in_fifo() {
        let longest = "q".repeat(80);
        for legal in ["orders", "a-b_1", "orders.fifo", longest.as_str()] {
            assert_eq!(queue_fault(legal), None, "{legal}");
        }
        let long = format!("{}.fifo", "q".repeat(76));
        for illegal in ["", ".fifo", "a.b", "a b", "ордеры", "a/b", "a.fifo.fifo", long.as_str()]
        {
            assert!(queue_fault(illegal).is_some(), "{illegal}");
        }
        assert!(is_stem_of_queue("orders") && !is_stem_of_queue("orders.fifo"));
        assert!(!is_stem_of_queue(&longest), "`.fifo` counts");
    }

    #[test]
    fn a_topic_is_a_name_or_an_arn() {
        for legal in ["orders", "orders.fifo", "arn:aws:sns:eu-central-1:123456789012:orders.fifo"]
        {
            assert_eq!(topic_fault(legal), None, "{legal}");
        }
        for illegal in [
            "",
            "orders.placed",
            "arn:aws:sqs:eu-central-1:123456789012:orders",
            "arn:aws:sns:eu-central-1::orders",
            "arn:aws:sns:eu-central-1:123456789012",
            "arn:aws:sns:eu-central-1:123456789012:a:b",
        ] {
            assert!(topic_fault(illegal).is_some(), "{illegal}");
        }
    }
}
