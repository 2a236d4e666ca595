//! The faults of a configuration, reported all at once and without a secret.

use outbox_core::transport::printable;

/// One thing that is wrong with the configuration of a publisher, a subscriber or a stream.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigFault {
    /// The text is no URL of NATS. The error does not quote it, since it may hold a password.
    #[error(
        "the URL cannot be read; it is nats://user:password@host:port, or tls:// for TLS, and \
         several servers of a cluster stand behind one another with commas"
    )]
    Url,
    /// The name of a stream or a consumer, or a subject, is not legal.
    #[error("the {what} `{name}` {rule}")]
    Name {
        /// What is named.
        what: &'static str,
        /// The name, shortened.
        name: String,
        /// Its rule.
        rule: &'static str,
    },
    /// A stream is declared twice.
    #[error("the stream `{0}` is declared twice")]
    Twice(String),
    /// A stream has settings that cannot work.
    #[error("the stream `{stream}`: {problem}")]
    Stream {
        /// Its name.
        stream: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The text of a `.creds` file cannot be read. The error does not quote it.
    #[error("the credentials cannot be read; they are the text of a .creds file of NATS")]
    Credentials,
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
    const TRANSPORT: &'static str = "NATS";
}

/// The rule for subjects that a message is published to.
pub(crate) const SUBJECT_RULE: &str = "must be a subject of NATS: words with `.` between them, \
     none empty, without spaces, control characters, `*` and `>`, with a first word that does not \
     begin with `$`";

/// The rule for subjects of a stream and filters of a consumer, which may hold wildcards.
const PATTERN_RULE: &str = "must be a subject of NATS: words with `.` between them, none empty and \
     without spaces; `*` stands for a whole word, and `>` for all words at the end";

/// The rule for names of streams and consumers.
const NAME_RULE: &str = "must have 1 to 255 bytes, without spaces, control characters, `.`, `*`, \
     `>`, `/` and `\\`";

/// Longest subject in bytes: a topic has 255, and the server takes 4 KiB for subject, reply subject
/// and sizes together.
const MAX_SUBJECT: usize = 1024;

/// Longest name in bytes: the server makes a folder of it.
const MAX_NAME: usize = 255;

/// Tells whether a message can be published to a subject. Subjects that begin with `$` belong to
/// the server, whose interface would read the message as a request.
pub(crate) fn is_subject(subject: &str) -> bool {
    (1..=MAX_SUBJECT).contains(&subject.len())
        && !subject.starts_with('$')
        && subject.split('.').all(|word| is_word(word) && !word.contains(['*', '>']))
}

fn is_word(word: &str) -> bool {
    !word.is_empty() && !word.chars().any(|c| c.is_whitespace() || c.is_control())
}

fn is_pattern(subject: &str) -> bool {
    let words: Vec<&str> = subject.split('.').collect();
    let is_legal = |(at, word): (usize, &&str)| match *word {
        "*" => true,
        ">" => at + 1 == words.len(),
        word => is_word(word),
    };
    subject.len() <= MAX_SUBJECT && words.iter().enumerate().all(is_legal)
}

/// Gives the fault of a subject of a stream or a filter of a consumer, if it has one.
pub(crate) fn pattern_fault(what: &'static str, subject: &str) -> Option<ConfigFault> {
    (!is_pattern(subject)).then(|| ConfigFault::Name {
        what,
        name: printable(subject),
        rule: PATTERN_RULE,
    })
}

/// Gives the fault of the name of a stream or a consumer, if it has one.
pub(crate) fn name_fault(what: &'static str, name: &str) -> Option<ConfigFault> {
    let is_legal = (1..=MAX_NAME).contains(&name.len())
        && is_word(name)
        && !name.contains(['.', '*', '>', '/', '\\']);
    (!is_legal).then(|| ConfigFault::Name { what, name: printable(name), rule: NAME_RULE })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subject_has_words_and_no_wildcard_and_is_not_the_servers() {
        for legal in ["orders", "orders.placed", "ордеры.é", "a-b_c.1", "a$b"] {
            assert!(is_subject(legal), "{legal}");
        }
        let long = "x".repeat(1025);
        for illegal in [
            "",
            ".",
            "a.",
            ".a",
            "a..b",
            "a b",
            "a.*",
            "a.>",
            "a*b",
            "a>b",
            "a\r\nb",
            "a\tb",
            "a\u{a0}b",
            "$JS.API.STREAM.DELETE.ORDERS",
            long.as_str(),
        ] {
            assert!(!is_subject(illegal), "{illegal:?}");
        }
    }

    #[test]
    fn a_pattern_may_have_wildcards_in_their_places() {
        for legal in ["orders", "orders.*", "*.placed", ">", "orders.>", "a*b.c"] {
            assert_eq!(pattern_fault("subject", legal), None, "{legal}");
        }
        for illegal in ["", "a..b", ">.a", "a b", "a.>.b"] {
            assert!(pattern_fault("subject", illegal).is_some(), "{illegal:?}");
        }
    }

    #[test]
    fn a_name_is_one_word() {
        assert_eq!(name_fault("stream", "ORDERS_1-é"), None);
        let long = "x".repeat(256);
        for illegal in ["", "a.b", "a b", "a*", ">", "a/b", "a\\b", "a\0", long.as_str()] {
            assert!(name_fault("stream", illegal).is_some(), "{illegal:?}");
        }
    }
}
