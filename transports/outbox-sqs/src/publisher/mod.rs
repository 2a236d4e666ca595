//! The sending half: batches to queues and topics, with an outcome for each entry.

mod gather;
mod plan;
mod request;
mod sns;
mod sqs;

pub use sns::SnsPublisher;
pub use sqs::SqsPublisher;

use crate::{
    classify::{Failure, Kind},
    config::{
        ConfigError, ConfigFault, FIFO, QUEUE_RULE, TOPIC_RULE, is_fifo, is_queue,
        is_stem_of_queue, is_stem_of_topic, is_topic, queue_fault, topic_fault,
    },
    connection::ServiceUrl,
    headers::{self, EncodedMessage, MOST_COPIES},
    topology::{Directory, PlaceKind, Topology},
};
use futures_util::{StreamExt, future::join_all, stream::FuturesUnordered};
use gather::Gather;
use outbox_core::{
    event::Message,
    failure::FailureClass,
    transport::{Encoding, Limits, Receipt, TopicRule, printable},
};
use plan::{Item, Stopped, requests, rounds};
use sha2::{Digest, Sha256};
use std::{fmt::Write, sync::Arc};
use tokio::sync::Semaphore;

/// Requests of a publisher in flight: each has a connection of its own, as HTTP/1 goes.
const MAX_REQUESTS: usize = 32;
/// Messages of one call of the relay: ten requests side by side.
const MAX_BATCH: usize = 100;
/// Longest group of a FIFO queue, in characters.
const MAX_GROUP: usize = 128;

type ChoosePlace = Arc<dyn Fn(&Message) -> String + Send + Sync>;

/// The service that takes the messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Service {
    Sqs,
    Sns,
}

/// Which queue or topic a message goes to.
#[derive(Clone)]
enum PlaceChoice {
    /// The one with the name of its topic, which is made FIFO where that is set.
    Topic {
        fifo: bool,
    },
    Fixed(String),
    Chosen(ChoosePlace),
}

/// What both publishers configure.
#[derive(Clone)]
struct Config {
    service: Service,
    url: ServiceUrl,
    place: PlaceChoice,
    prefix: String,
    binary: bool,
    topology: Topology,
    /// Most bytes of a request, and so of a message.
    max_request: usize,
    limits: Option<Limits>,
}

/// A message on its way.
struct Outgoing {
    index: usize,
    place: String,
    /// Group and deduplication id of a FIFO queue or topic.
    fifo: Option<(String, String)>,
    encoded: EncodedMessage,
    size: usize,
}

impl Outgoing {
    fn item(&self) -> Item<'_> {
        let group = self.fifo.as_ref().map(|(group, _)| group.as_str());
        Item { place: &self.place, group, size: self.size }
    }
}

/// How a publish of one message ended.
type Outcome = Result<Receipt, Failure>;

impl Config {
    fn new(service: Service, url: &str, max_request: usize) -> Result<Self, ConfigError> {
        Ok(Self {
            service,
            url: ServiceUrl::parse(url)?,
            place: PlaceChoice::Topic { fifo: false },
            prefix: String::new(),
            binary: false,
            topology: Topology::default(),
            max_request,
            limits: None,
        })
    }

    const fn kind(&self) -> PlaceKind {
        match self.service {
            Service::Sqs => PlaceKind::Queue,
            Service::Sns => PlaceKind::Topic,
        }
    }

    /// Checks the configuration. Opens no connection.
    fn sending(&self) -> Result<Arc<Sending>, ConfigError> {
        let mut faults = Vec::new();
        if let PlaceChoice::Fixed(name) = &self.place {
            let name = self.named(name.clone());
            match self.service {
                Service::Sqs => faults.extend(queue_fault(&name)),
                Service::Sns => {
                    faults.extend(topic_fault(&name));
                    if is_topic(&name) && self.known_arn(&name).is_none() {
                        faults.extend(
                            (!self.topology.has_topic(&name))
                                .then(|| ConfigFault::NoAccount(printable(&name))),
                        );
                    }
                }
            }
        }
        self.topology.faults(&mut faults);
        match self.url.clients(&mut faults) {
            Some(clients) if faults.is_empty() => Ok(Arc::new(Sending {
                config: self.clone(),
                directory: Directory::new(clients, &self.url, self.topology.clone()),
                permits: Semaphore::new(MAX_REQUESTS),
                gather: Gather::new(),
            })),
            _ => Err(ConfigError::new(faults)),
        }
    }

    fn destination(&self) -> String {
        let place = match &self.place {
            PlaceChoice::Topic { fifo: false } => "the event's topic",
            PlaceChoice::Topic { fifo: true } => "the event's topic.fifo",
            PlaceChoice::Fixed(name) => name.as_str(),
            PlaceChoice::Chosen(_) => "a chosen one",
        };
        format!("{}#{}{place}", self.url.destination(), self.prefix)
    }

    fn limits(&self) -> Limits {
        let usual = || {
            let room = self.max_request.saturating_sub(MOST_COPIES);
            Limits::default().max_message(room).max_batch(MAX_BATCH)
        };
        let limits = self.limits.unwrap_or_else(usual).encoding(Encoding::Structured);
        let (rule, holds): (_, fn(&str) -> bool) = match (&self.place, self.service) {
            (PlaceChoice::Topic { fifo: false }, Service::Sqs) => (QUEUE_RULE, is_queue),
            (PlaceChoice::Topic { fifo: true }, Service::Sqs) => (QUEUE_RULE, is_stem_of_queue),
            (PlaceChoice::Topic { fifo: false }, Service::Sns) => (TOPIC_RULE, is_topic),
            (PlaceChoice::Topic { fifo: true }, Service::Sns) => (TOPIC_RULE, is_stem_of_topic),
            _ => return limits,
        };
        limits.topics(TopicRule::new(rule, holds))
    }

    /// Puts the prefix before a name; an ARN stays as it is.
    fn named(&self, name: String) -> String {
        if self.prefix.is_empty() || name.starts_with("arn:") {
            return name;
        }
        [self.prefix.as_str(), &name].concat()
    }

    fn place_of(&self, message: &Message) -> Result<String, Failure> {
        let name = self.named(match &self.place {
            PlaceChoice::Topic { fifo: false } => message.topic.clone(),
            PlaceChoice::Topic { fifo: true } => [&message.topic, FIFO].concat(),
            PlaceChoice::Fixed(name) => name.clone(),
            PlaceChoice::Chosen(choose) => choose(message),
        });
        let (is_legal, rule) = match self.service {
            Service::Sqs => (is_queue(&name), QUEUE_RULE),
            Service::Sns => (is_topic(&name), TOPIC_RULE),
        };
        if is_legal {
            return Ok(name);
        }
        let (what, name) = (self.kind().as_str(), printable(&name));
        Err(Failure::permanent(format!("the {what} `{name}` {rule}")))
    }

    /// Gives the ARN of a topic that is named by it or whose account is known.
    fn known_arn(&self, name: &str) -> Option<String> {
        if name.starts_with("arn:") { Some(name.to_owned()) } else { self.url.topic_arn(name) }
    }

    fn outgoing(&self, index: usize, message: &Message) -> Result<Outgoing, Failure> {
        let place = self.place_of(message)?;
        let encoded = headers::write(message, self.binary);
        let size = encoded.size();
        let limits = self.limits.unwrap_or_default();
        for (what, size, limit) in [
            ("payload", message.payload.len(), limits.max_payload.unwrap_or(usize::MAX)),
            ("message", size, self.max_request),
        ] {
            if size > limit {
                return Err(Failure::permanent(format!(
                    "the {what} has {size} bytes, of at most {limit}"
                )));
            }
        }
        let fifo = is_fifo(&place).then(|| (group_of(message), message.id.to_string()));
        Ok(Outgoing { index, place, fifo, encoded, size })
    }
}

/// Gives the group of a message: its key where that can be one, else the key's hash. A message
/// without a key has an order with no other one, and so a group of its own.
fn group_of(message: &Message) -> String {
    let Some(key) = &message.key else { return message.id.to_string() };
    let is_legal = |b: u8| b.is_ascii_alphanumeric() || b.is_ascii_punctuation();
    if (1..=MAX_GROUP).contains(&key.len()) && key.bytes().all(is_legal) {
        return key.clone();
    }
    let mut hash = String::with_capacity(64);
    for byte in Sha256::digest(key.as_bytes()) {
        // Writing to a text cannot fail.
        let _ = write!(hash, "{byte:02x}");
    }
    hash
}

/// What sends, made from a configuration that is right.
struct Sending {
    config: Config,
    directory: Directory,
    permits: Semaphore,
    gather: Gather,
}

impl Sending {
    /// Sends messages and reports the outcome of each as soon as it is there.
    async fn send(&self, messages: &[Message], mut report: impl FnMut(usize, Outcome)) {
        let config = &self.config;
        let mut all = Vec::with_capacity(messages.len());
        for (index, message) in messages.iter().enumerate() {
            match config.outgoing(index, message) {
                Ok(outgoing) => all.push(outgoing),
                Err(failure) => report(index, Err(failure)),
            }
        }
        let items: Vec<Item<'_>> = all.iter().map(Outgoing::item).collect();
        let mut stopped = Stopped::default();
        for round in rounds(&items) {
            let (held, round): (Vec<_>, Vec<_>) =
                round.into_iter().partition(|index| stopped.covers(&items[*index]));
            for index in held {
                let text = "not sent: an earlier message of its key was not confirmed";
                report(all[index].index, Err(Failure::transient(text)));
            }
            let mut sending: FuturesUnordered<_> = requests(&items, &round, config.max_request)
                .into_iter()
                .map(|request| self.request(&all, request))
                .collect();
            while let Some(outcomes) = sending.next().await {
                for (index, outcome) in outcomes {
                    if outcome.is_err() {
                        stopped.add(&items[index]);
                    }
                    report(all[index].index, outcome);
                }
            }
        }
    }

    /// Sends one request. Where the service refuses it as a whole for what is in it, each entry goes
    /// alone: one that is refused takes no other with it.
    async fn request(&self, all: &[Outgoing], request: Vec<usize>) -> Vec<(usize, Outcome)> {
        let failure = match self.attempt(all, &request).await {
            Ok(outcomes) => return request.into_iter().zip(outcomes).collect(),
            Err(failure) => failure,
        };
        if failure.class != FailureClass::Permanent || request.len() == 1 {
            return request.into_iter().map(|index| (index, Err(failure.clone()))).collect();
        }
        let alone = request.iter().map(|&index| async move {
            let outcome = self.attempt(all, &[index]).await;
            (index, outcome.and_then(|mut outcomes| outcomes.pop().unwrap_or_else(unanswered)))
        });
        join_all(alone).await
    }

    /// Sends one request, and gives the outcome of each entry, in their order.
    async fn attempt(&self, all: &[Outgoing], request: &[usize]) -> Result<Vec<Outcome>, Failure> {
        let config = &self.config;
        let entries: Vec<&Outgoing> = request.iter().map(|index| &all[*index]).collect();
        let Some(place) = entries.first().map(|first| first.place.as_str()) else {
            return Ok(Vec::new());
        };
        let closed = |_| Failure::unavailable("the publisher is closed");
        let _permit = self.permits.acquire().await.map_err(closed)?;
        let result = match config.service {
            Service::Sqs => request::send_to_queue(&self.directory, place, &entries).await,
            Service::Sns => {
                let known = config.known_arn(place).filter(|_| !config.topology.has_topic(place));
                request::publish_to_topic(&self.directory, place, known, &entries).await
            }
        };
        if result.as_ref().is_err_and(|failure| failure.kind == Kind::Missing) {
            self.directory.forget(config.kind(), place).await;
        }
        result
    }
}

fn unanswered() -> Outcome {
    Err(Failure::transient("the service's reply says nothing of this message"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use outbox_core::{
        event::MessageParts,
        testing::transport::{full, numbered},
    };

    fn config(service: Service) -> Config {
        Config::new(service, "sqs+http://127.0.0.1:4566", 1_000).expect("a URL")
    }

    fn with(change: impl FnOnce(&mut MessageParts)) -> Message {
        let mut parts = full().into_parts();
        change(&mut parts);
        Message::new(parts)
    }

    #[test]
    fn the_queue_is_the_topic_or_as_configured_and_the_prefix_stands_before_it() {
        let place = |change: fn(&mut Config)| {
            let mut config = config(Service::Sqs);
            change(&mut config);
            config.place_of(&full()).map_err(|failure| failure.text)
        };
        assert_eq!(place(|_| {}).as_deref(), Ok("orders"));
        assert_eq!(
            place(|c| c.place = PlaceChoice::Topic { fifo: true }).as_deref(),
            Ok("orders.fifo")
        );
        assert_eq!(
            place(|c| {
                c.prefix = "shop-".into();
                c.place = PlaceChoice::Fixed("all.fifo".into());
            })
            .as_deref(),
            Ok("shop-all.fifo")
        );
        let illegal = place(|c| c.place = PlaceChoice::Chosen(Arc::new(|_| "a.b".into())));
        assert!(illegal.is_err_and(|text| text.contains("1 to 80 letters")));
        let mut topics = config(Service::Sns);
        topics.prefix = "shop-".into();
        let arn = "arn:aws:sns:eu-central-1:123456789012:all";
        topics.place = PlaceChoice::Fixed(arn.into());
        assert_eq!(topics.place_of(&full()).as_deref(), Ok(arn));
    }

    #[test]
    fn a_fifo_queue_gets_the_key_as_group_and_the_id_against_repeats_and_another_one_neither() {
        let mut config = config(Service::Sqs);
        let sent = numbered(1, "order-7");
        assert_eq!(config.outgoing(0, &sent).expect("encoded").fifo, None);
        config.place = PlaceChoice::Topic { fifo: true };
        let fifo = config.outgoing(0, &sent).expect("encoded").fifo;
        assert_eq!(fifo, Some(("order-7".to_owned(), sent.id.to_string())));
    }

    #[test]
    fn a_group_is_the_key_its_hash_or_the_messages_own() {
        let group = |key: Option<&str>| group_of(&with(|m| m.key = key.map(str::to_owned)));
        assert_eq!(group(Some("a/b:1@#~")), "a/b:1@#~");
        for hashed in ["a b", "ключ", "k".repeat(129).as_str()] {
            let group = group(Some(hashed));
            assert!(group.len() == 64 && group.bytes().all(|b| b.is_ascii_hexdigit()), "{group}");
        }
        assert_eq!(group(Some("a b")), group(Some("a b")));
        assert_ne!(group(Some("a b")), group(Some("a c")));
        assert_ne!(group(None), group(None), "no order with another one");
    }

    #[test]
    fn a_message_beyond_the_limits_is_refused_before_it_is_sent() {
        let large = with(|m| m.payload = vec![b'x'; 1_001].into());
        let failure = config(Service::Sqs).outgoing(0, &large).err().expect("too large");
        assert!(failure.text.ends_with("of at most 1000"), "{failure:?}");
        let mut small = config(Service::Sqs);
        small.limits = Some(Limits::default().max_payload(5));
        small.max_request = 10_000;
        let failure = small.outgoing(0, &full()).err().expect("too large");
        assert_eq!(failure.text, "the payload has 13 bytes, of at most 5");
    }
}
