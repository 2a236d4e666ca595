//! Names in the code take the field's words: a private word that was renamed does not come back.

use super::{
    code::Part,
    tree::{File, none, sources},
};
use std::collections::BTreeMap;

/// Private words, and what a name says in place of each. Underscores stand between the parts of a
/// word; a plural in `s` counts as the word.
const COINAGES: [(&str, &str); 21] = [
    ("lane", "`KeyQueue`, `order_hash`, `StatementQueue`, `RelayConnection` or `ConfirmChannel`"),
    ("desk", "`ReceiverState`, `Handoff` or `worker`"),
    ("leg", "`RouteLeg`"),
    ("doom", "`Terminal`"),
    ("seat", "`FrameHandle`"),
    ("fell", "`AttemptFailure`"),
    ("put_by", "`defer`"),
    ("onward", "`RunToCompletion`"),
    ("verdict", "`outcome`, `RouteUpdate` or `Classification`"),
    ("goodbye", "`close` or `deregister`"),
    ("lives", "`MAX_CRASHES`, `RunMode` or `crashes`"),
    ("suspect", "`unproven_rejections`, `CrashIsolation` or `commit_unverified`"),
    ("parcel", "`Outgoing`"),
    ("manners", "`MemberConfig`"),
    ("letgo", "`release`"),
    ("let_go", "`release`"),
    ("ring", "`timers_fired`, `notify` or `cycle`"),
    ("bell", "`NotifyTask`"),
    ("greeting", "`session_setup`"),
    ("patience", "`timeout`, or the limit that it is"),
    ("breath", "`WAL_RETRY`, or the pause that it is"),
];

/// As the name of a type or a module only: a field or a function may say that it takes care.
const CARE: (&str, &str) = ("care", "`CrashIsolation` or `IsolationMode`");

/// A name that keeps a word of the list.
struct Exception {
    /// A file, a folder that ends in a slash, or nothing for the whole tree.
    place: &'static str,
    /// An identifier, or a word of the list for every identifier with it.
    name: &'static str,
    reason: &'static str,
}

const EXCEPTIONS: [Exception; 14] = [
    Exception {
        place: "outbox-dashboard/",
        name: "lane",
        reason: "what a service did, drawn along the time: the drawing's word, one meaning",
    },
    Exception {
        place: "outbox-otel/src/otlp/client.rs",
        name: "ring",
        reason: "the crate of that name: rustls::crypto::ring",
    },
    Exception {
        place: "",
        name: "RouteLeg",
        reason: "the word of the vocabulary for one event on one route",
    },
    Exception {
        place: "outbox-core/src/relay/board/",
        name: "leg",
        reason: "a `RouteLeg`, in fields, variables and functions beside the type",
    },
    Exception {
        place: "outbox-core/src/consumer/",
        name: "CRASH_SUSPECT_ATTEMPT",
        reason: "the attempt from which a delivery may be the cause of crashes: one meaning",
    },
    Exception {
        place: "examples/shop/",
        name: "parcel",
        reason: "what the shop's shipping service sends: a word of its domain",
    },
    Exception {
        place: "examples/shop/src/lib.rs",
        name: "ring",
        reason: "the crate of that name: rustls::crypto::ring",
    },
    Exception {
        place: "transports/outbox-amqp/src/connection.rs",
        name: "ring",
        reason: "the crate of that name: rustls::crypto::ring",
    },
    Exception {
        place: "transports/outbox-nats/src/connection.rs",
        name: "ring",
        reason: "the crate of that name: rustls::crypto::ring",
    },
    Exception {
        place: "outbox-cli/",
        name: "ring",
        reason: "the crate of that name: rustls::crypto::ring",
    },
    Exception {
        place: "transports/outbox-redis/src/connection.rs",
        name: "ring",
        reason: "the crate of that name: rustls::crypto::ring",
    },
    Exception {
        place: "transports/outbox-sqs/src/connection.rs",
        name: "ring",
        reason: "the crate of that name: the SDK's CryptoMode::Ring",
    },
    Exception {
        place: "transports/outbox-mqtt/src/connection.rs",
        name: "ring",
        reason: "the crate of that name: rustls::crypto::ring",
    },
    Exception {
        place: "transports/outbox-http/src/client.rs",
        name: "ring",
        reason: "the crate of that name: rustls::crypto::ring",
    },
];

/// The name of a function with so many parts is a sentence, as those of tests are: prose.
const SENTENCE: usize = 6;

/// An identifier with a private word.
struct Found {
    path: &'static str,
    line: usize,
    name: String,
    word: &'static str,
    instead: &'static str,
}

impl Exception {
    fn covers(&self, found: &Found) -> bool {
        let is_there = match self.place {
            "" => true,
            place if place.ends_with('/') => found.path.starts_with(place),
            place => found.path == place,
        };
        is_there && (self.name == found.name || self.name == found.word)
    }
}

/// Cuts a name in `snake_case`, `CamelCase` or `UPPER_CASE` into its parts, in lower case.
fn parts(name: &str) -> Vec<String> {
    let chars: Vec<char> = name.chars().collect();
    let mut parts = vec![String::new()];
    for (at, &letter) in chars.iter().enumerate() {
        let before = at.checked_sub(1).map(|before| chars[before]);
        let begins = letter.is_uppercase()
            && (before.is_some_and(|before| !before.is_uppercase())
                || chars.get(at + 1).is_some_and(|next| next.is_lowercase()));
        if letter == '_' || begins {
            parts.push(String::new());
        }
        if let Some(part) = parts.last_mut()
            && letter != '_'
        {
            part.extend(letter.to_lowercase());
        }
    }
    parts.retain(|part| !part.is_empty());
    parts
}

/// Tells whether a word stands among the parts of a name, whole.
fn has(parts: &[String], word: &str) -> bool {
    let wanted: Vec<&str> = word.split('_').collect();
    let is = |part: &str, wanted: &str| part == wanted || part.strip_suffix('s') == Some(wanted);
    parts
        .windows(wanted.len())
        .any(|window| window.iter().zip(&wanted).all(|(part, wanted)| is(part, wanted)))
}

fn is_identifier(text: &str) -> bool {
    text.starts_with(|first: char| first.is_alphabetic() || first == '_')
        && text.chars().all(|letter| letter.is_alphanumeric() || letter == '_')
}

/// Lists the names in a file of a `src` folder, each with its first line and whether it is a
/// module's: the parts of its path, and the identifiers of its code.
fn names(file: &'static File) -> BTreeMap<(String, bool), usize> {
    let mut names = BTreeMap::new();
    let Some((_, inside)) = file.path.split_once("/src/") else { return names };
    for module in inside.trim_end_matches(".rs").split('/') {
        names.insert((module.to_owned(), true), 1);
    }
    let code = file.code(Part::Whole);
    let mut before = "";
    for token in code.tokens() {
        let name = token.text.trim_start_matches("r#").trim_start_matches('\'');
        let is_sentence = before == "fn" && parts(name).len() >= SENTENCE;
        if is_identifier(name) && !is_sentence {
            names.entry((name.to_owned(), before == "mod")).or_insert(token.line);
        }
        before = &token.text;
    }
    names
}

/// Lists the identifiers of a file that have a private word.
fn uses(file: &'static File) -> Vec<Found> {
    let mut found = Vec::new();
    for ((name, is_module), line) in names(file) {
        let parts = parts(&name);
        let is_type = name.starts_with(char::is_uppercase);
        let care = (is_module || is_type).then_some(CARE);
        for (word, instead) in COINAGES.into_iter().chain(care) {
            if has(&parts, word) {
                found.push(Found { path: &file.path, line, name: name.clone(), word, instead });
            }
        }
    }
    found
}

#[test]
fn no_identifier_has_a_private_word() {
    let found: Vec<Found> = sources().flat_map(uses).collect();
    let is_exception = |found: &&Found| EXCEPTIONS.iter().any(|exception| exception.covers(found));
    let wrong = found.iter().filter(|found| !is_exception(found)).map(|found| {
        let Found { path, line, name, word, instead } = found;
        format!("{path}:{line}: `{name}` has the private word `{word}`: use {instead}")
    });
    none(
        "rename it, or add an exception with its reason to \
         tests/tests/workspace/invariants/vocabulary.rs",
        wrong.collect(),
    );

    let unused = EXCEPTIONS.iter().filter(|it| !found.iter().any(|found| it.covers(found)));
    none(
        "an exception that no name needs any more: delete it",
        unused.map(|it| format!("`{}` in `{}`: {}", it.name, it.place, it.reason)).collect(),
    );
}

#[test]
fn a_private_word_is_found_as_a_whole_part_of_a_name_only() {
    let has = |name: &str, word: &str| has(&parts(name), word);
    for (name, word) in [
        ("lane", "lane"),
        ("LANES", "lane"),
        ("KeyLane", "lane"),
        ("closed_lanes", "lane"),
        ("LaneOfTLS", "lane"),
        ("put_by", "put_by"),
        ("PutBy", "put_by"),
        ("is_let_go", "let_go"),
    ] {
        assert!(has(name, word), "{name} has {word}: {:?}", parts(name));
    }
    for (name, word) in [
        ("planes", "lane"),
        ("legal", "leg"),
        ("string", "ring"),
        ("Ringing", "ring"),
        ("put_it_by", "put_by"),
        ("let_goods", "let_go"),
    ] {
        assert!(!has(name, word), "{name} has no {word}: {:?}", parts(name));
    }
    assert_eq!(parts("HTTPServer_v2"), ["http", "server", "v2"]);
}
