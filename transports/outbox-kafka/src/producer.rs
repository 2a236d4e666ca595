//! The client that sends: one for all records of a publisher, made anew when it can no longer keep its promise.

use crate::{
    config::{Cluster, ConfigError, ConfigFault, fits},
    topics::{self, Topic},
    verdict::{Health, Refused},
};
use futures_util::{StreamExt, stream::FuturesUnordered};
use outbox_core::runtime::{now, thread};
use rdkafka::{
    ClientConfig, ClientContext,
    config::{FromClientConfigAndContext, RDKafkaLogLevel},
    error::KafkaError,
    message::OwnedHeaders,
    producer::{
        FutureProducer, FutureRecord, Producer as _,
        future_producer::{Delivery, DeliveryFuture},
    },
    types::RDKafkaErrorCode as Code,
};
use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};
use tokio::{
    sync::{Mutex as AsyncMutex, oneshot},
    time::{sleep, timeout},
};

/// Settings of every producer of ours that the user may change.
const DEFAULTS: [(&str, &str); 5] = [
    // The relay hands over whole batches: there is nothing more to wait for.
    ("linger.ms", "0"),
    // The brokers' own default, of which the record's envelope is a part.
    ("message.max.bytes", "1048588"),
    // As Java's producers choose, so that both put a key into the same partition.
    ("partitioner", "murmur2_random"),
    // A topic that is not there is told of, rather than waited for.
    ("topic.metadata.propagation.max.ms", "2000"),
    ("client.id", "outbox"),
];

/// Settings on which the promises rest.
const OURS: [(&str, &str, &str); 2] = [
    (
        "enable.idempotence",
        "true",
        "without it a record could be doubled or overtake another of its key",
    ),
    ("acks", "all", "a record counts as delivered when all replicas that are in sync have it"),
];

/// Wait before a record is handed over again to a client whose queue is full.
const QUEUE_PAUSE: Duration = Duration::from_millis(5);
/// How much later than its time the client may say that a record was not confirmed.
const GRACE: Duration = Duration::from_secs(2);

/// A record that goes out.
#[derive(Debug)]
pub(crate) struct Outgoing {
    pub(crate) topic: String,
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) headers: OwnedHeaders,
    /// The value; `None` is a tombstone.
    pub(crate) body: Option<bytes::Bytes>,
}

/// Sends records and waits for their delivery reports.
pub(crate) struct Producer {
    config: ClientConfig,
    topics: Vec<Topic>,
    timeout: Duration,
    live: Mutex<Option<Arc<Live>>>,
}

/// A client that is in use.
struct Live {
    /// Taken out when it ends, which takes a while.
    client: Option<Client>,
    health: Arc<Health>,
    declared: AsyncMutex<bool>,
}

type Client = FutureProducer<Watch>;

/// Hears what the client says of its brokers.
#[derive(Clone)]
struct Watch(Arc<Health>);

impl ClientContext for Watch {
    fn log(&self, _: RDKafkaLogLevel, facility: &str, words: &str) {
        tracing::debug!(facility, "librdkafka: {words}");
    }

    fn error(&self, error: KafkaError, words: &str) {
        tracing::debug!(%error, "librdkafka: {words}");
        self.0.note(&error, words);
    }
}

impl Drop for Live {
    /// Ends the client elsewhere: it waits for its own threads.
    fn drop(&mut self) {
        if let Some(client) = self.client.take()
            && let Err(error) = thread("kafka-producer-end", move || drop(client))
        {
            tracing::warn!(%error, "no thread for the end of a Kafka producer");
        }
    }
}

impl Producer {
    /// Checks a configuration and makes ready; opens no connection.
    pub(crate) fn new(
        cluster: &Cluster,
        topics: &[Topic],
        mut faults: Vec<ConfigFault>,
    ) -> Result<Self, ConfigError> {
        faults.extend(cluster.faults(&OURS));
        faults.extend(topics::faults(topics));
        ConfigError::check(faults)?;
        let mut config = cluster.client(&DEFAULTS, &OURS);
        config.set("message.timeout.ms", cluster.timeout.as_millis().to_string());
        fits(&config)?;
        Ok(Self {
            config,
            topics: topics.to_vec(),
            timeout: cluster.timeout,
            live: Mutex::new(None),
        })
    }

    /// Sends records, and reports what became of each, by its place among them, as its delivery report comes.
    pub(crate) async fn send(
        &self,
        records: &[Outgoing],
        mut report: impl FnMut(usize, Result<Delivery, Refused>),
    ) {
        let live = match self.ready().await {
            Ok(live) => live,
            Err(refused) => {
                return (0..records.len()).for_each(|place| report(place, Err(refused.clone())));
            }
        };
        let end = now() + self.timeout;
        let reports = FuturesUnordered::new();
        for (place, record) in records.iter().enumerate() {
            let handed = live.hand_over(record, end).await;
            let live = &live;
            reports.push(async move {
                match handed {
                    Ok(handed) => (place, live.verdict(handed, self.timeout + GRACE).await),
                    Err(refused) => (place, Err(refused)),
                }
            });
        }
        let mut reports = reports;
        while let Some((place, verdict)) = reports.next().await {
            if let Err(refused) = &verdict {
                self.conclude(&live, refused);
            }
            report(place, verdict);
        }
    }

    /// Looks for the brokers, for those who would rather not start than wait.
    pub(crate) async fn reach(&self) -> Result<(), Refused> {
        let live = self.ready().await?;
        let (within, (say, heard)) = (self.timeout, oneshot::channel());
        let asking = live.clone();
        let asked = thread("kafka-reach", move || {
            let found = asking
                .client
                .as_ref()
                .map(|client| client.client().fetch_metadata(None, within).map(|_| ()));
            let _ = say.send(found);
        });
        let refused = |error: String| Refused::unavailable(live.health.trouble().unwrap_or(error));
        asked.map_err(|error| refused(error.to_string()))?;
        match heard.await {
            Ok(Some(found)) => found.map_err(|error| refused(error.to_string())),
            _ => Err(refused("the client has ended".to_owned())),
        }
    }

    /// Gives the client, with its topics declared.
    async fn ready(&self) -> Result<Arc<Live>, Refused> {
        let live = self.live()?;
        let mut declared = live.declared.lock().await;
        if !*declared {
            topics::declare(&self.config, &self.topics, self.timeout).await?;
            live.health.well();
            *declared = true;
        }
        drop(declared);
        Ok(live)
    }

    fn live(&self) -> Result<Arc<Live>, Refused> {
        let mut live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(live) = live.as_ref().filter(|live| live.is_usable()) {
            return Ok(live.clone());
        }
        let health = Arc::new(Health::default());
        let client = Client::from_config_and_context(&self.config, Watch(health.clone()));
        let client = client
            .map_err(|error| Refused::unavailable(format!("the producer cannot start: {error}")))?;
        let new = Arc::new(Live {
            client: Some(client),
            health,
            declared: AsyncMutex::new(self.topics.is_empty()),
        });
        *live = Some(new.clone());
        Ok(new)
    }

    /// Draws the conclusions from a failure: topics are declared again where one is missing, or may be (records to a topic that
    /// the client has known before wait for it until their time is up), and a client that has lost its place in the brokers'
    /// memory is given up.
    fn conclude(&self, live: &Arc<Live>, refused: &Refused) {
        if matches!(
            refused.code,
            Some(Code::UnknownTopic | Code::UnknownTopicOrPartition | Code::MessageTimedOut)
        ) && !self.topics.is_empty()
            && let Ok(mut declared) = live.declared.try_lock()
        {
            *declared = false;
        }
        if !live.is_usable() {
            let mut current = self.live.lock().unwrap_or_else(PoisonError::into_inner);
            if current.as_ref().is_some_and(|current| Arc::ptr_eq(current, live)) {
                tracing::warn!(
                    "the Kafka producer can no longer keep its promise; a new one is made"
                );
                *current = None;
            }
        }
    }
}

impl Live {
    /// Tells whether the client can still keep its promise.
    fn is_usable(&self) -> bool {
        self.client.as_ref().is_some_and(|client| client.client().fatal_error().is_none())
    }

    /// Hands a record over; waits for room while the client's queue is full.
    async fn hand_over(&self, record: &Outgoing, end: Instant) -> Result<DeliveryFuture, Refused> {
        let Some(client) = &self.client else {
            return Err(Refused::unavailable("the client has ended"));
        };
        let mut next = FutureRecord::to(&record.topic).headers(record.headers.clone());
        if let Some(body) = &record.body {
            next = next.payload(&body[..]);
        }
        if let Some(key) = &record.key {
            next = next.key(&key[..]);
        }
        loop {
            match client.send_result(next) {
                Ok(report) => return Ok(report),
                Err((KafkaError::MessageProduction(Code::QueueFull), back)) if now() < end => {
                    next = back;
                    sleep(QUEUE_PAUSE).await;
                }
                Err((error, _)) => return Err(self.health.verdict(&error)),
            }
        }
    }

    /// Waits for what the brokers say of a record.
    async fn verdict(&self, report: DeliveryFuture, within: Duration) -> Result<Delivery, Refused> {
        match timeout(within, report).await {
            Ok(Ok(Ok(delivery))) => {
                self.health.well();
                Ok(delivery)
            }
            Ok(Ok(Err((error, _)))) => Err(self.health.verdict(&error)),
            Ok(Err(_)) => {
                Err(Refused::unavailable("the client ended before the record was confirmed"))
            }
            Err(_) => {
                Err(Refused::unavailable(format!("the client said nothing within {within:?}")))
            }
        }
    }
}
