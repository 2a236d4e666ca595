//! The sending client: one for all records of a publisher, replaced after a fatal error.

use crate::{
    classify::{Failure, Health},
    config::{Cluster, ConfigError, ConfigFault, check_combination},
    topics::{self, Topic},
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

/// Default settings of every producer, which the user may change.
const DEFAULTS: [(&str, &str); 5] = [
    // The relay publishes whole batches, so that a linger would only add delay.
    ("linger.ms", "0"),
    // The brokers' own default, envelope of the record included.
    ("message.max.bytes", "1048588"),
    // As Java's producers choose, so that both put a key into the same partition.
    ("partitioner", "murmur2_random"),
    // A missing topic is an error soon, instead of a long wait.
    ("topic.metadata.propagation.max.ms", "2000"),
    ("client.id", "outbox"),
];

/// Settings on which the guarantees depend.
const FIXED: [(&str, &str, &str); 2] = [
    (
        "enable.idempotence",
        "true",
        "without it a record could be doubled or overtake another of its key",
    ),
    ("acks", "all", "a record counts as delivered when all replicas that are in sync have it"),
];

/// Wait before the next attempt to submit a record to a client with a full queue.
const QUEUE_FULL_BACKOFF: Duration = Duration::from_millis(5);
/// How much later than the timeout the client may report that a record was not confirmed.
const REPORT_GRACE: Duration = Duration::from_secs(2);

/// An encoded record with its topic and key.
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
    active: Mutex<Option<Arc<ActiveProducer>>>,
}

/// The client in use.
struct ActiveProducer {
    /// Taken out on drop, to be closed on another thread.
    client: Option<Client>,
    health: Arc<Health>,
    declared: AsyncMutex<bool>,
}

type Client = FutureProducer<ProducerCallbacks>;

/// The callbacks of the library: logs, and errors of brokers.
#[derive(Clone)]
struct ProducerCallbacks(Arc<Health>);

impl ClientContext for ProducerCallbacks {
    fn log(&self, _: RDKafkaLogLevel, facility: &str, text: &str) {
        tracing::debug!(facility, "librdkafka: {text}");
    }

    fn error(&self, error: KafkaError, text: &str) {
        tracing::debug!(%error, "librdkafka: {text}");
        self.0.record_error(&error, text);
    }
}

impl Drop for ActiveProducer {
    /// Closes the client on another thread, because closing waits for the client's threads.
    fn drop(&mut self) {
        if let Some(client) = self.client.take()
            && let Err(error) = thread("kafka-producer-end", move || drop(client))
        {
            tracing::warn!(%error, "no thread could be started to close a Kafka producer");
        }
    }
}

impl Producer {
    /// Checks the configuration. Opens no connection.
    pub(crate) fn new(
        cluster: &Cluster,
        topics: &[Topic],
        mut faults: Vec<ConfigFault>,
    ) -> Result<Self, ConfigError> {
        faults.extend(cluster.faults(&FIXED));
        faults.extend(topics::faults(topics));
        ConfigError::check(faults)?;
        let mut config = cluster.client(&DEFAULTS, &FIXED);
        config.set("message.timeout.ms", cluster.timeout.as_millis().to_string());
        check_combination(&config)?;
        Ok(Self {
            config,
            topics: topics.to_vec(),
            timeout: cluster.timeout,
            active: Mutex::new(None),
        })
    }

    /// Sends records, and reports the outcome of each by its index when its delivery report comes.
    pub(crate) async fn send(
        &self,
        records: &[Outgoing],
        mut report: impl FnMut(usize, Result<Delivery, Failure>),
    ) {
        let active = match self.ready().await {
            Ok(active) => active,
            Err(failure) => {
                return (0..records.len()).for_each(|index| report(index, Err(failure.clone())));
            }
        };
        let end = now() + self.timeout;
        let reports = FuturesUnordered::new();
        for (index, record) in records.iter().enumerate() {
            let submitted = active.submit(record, end).await;
            let active = &active;
            reports.push(async move {
                match submitted {
                    Ok(report) => {
                        (index, active.outcome(report, self.timeout + REPORT_GRACE).await)
                    }
                    Err(failure) => (index, Err(failure)),
                }
            });
        }
        let mut reports = reports;
        while let Some((index, outcome)) = reports.next().await {
            if let Err(failure) = &outcome {
                self.handle_failure(&active, failure);
            }
            report(index, outcome);
        }
    }

    /// Connects to a broker, for services that should not start without one.
    pub(crate) async fn connect(&self) -> Result<(), Failure> {
        let active = self.ready().await?;
        let (within, (sender, fetched)) = (self.timeout, oneshot::channel());
        let on_thread = active.clone();
        let started = thread("kafka-connect", move || {
            let result = on_thread
                .client
                .as_ref()
                .map(|client| client.client().fetch_metadata(None, within).map(|_| ()));
            let _ = sender.send(result);
        });
        let failure = |error: String| Failure::unavailable(active.health.outage().unwrap_or(error));
        started.map_err(|error| failure(error.to_string()))?;
        match fetched.await {
            Ok(Some(result)) => result.map_err(|error| failure(error.to_string())),
            _ => Err(failure("the client has ended".to_owned())),
        }
    }

    /// Gives the client, after its topics are declared.
    async fn ready(&self) -> Result<Arc<ActiveProducer>, Failure> {
        let active = self.active()?;
        let mut declared = active.declared.lock().await;
        if !*declared {
            topics::declare(&self.config, &self.topics, self.timeout).await?;
            active.health.record_success();
            *declared = true;
        }
        drop(declared);
        Ok(active)
    }

    fn active(&self) -> Result<Arc<ActiveProducer>, Failure> {
        let mut active = self.active.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(active) = active.as_ref().filter(|active| active.is_usable()) {
            return Ok(active.clone());
        }
        let health = Arc::new(Health::default());
        let callbacks = ProducerCallbacks(health.clone());
        let client = Client::from_config_and_context(&self.config, callbacks);
        let client = client
            .map_err(|error| Failure::unavailable(format!("the producer cannot start: {error}")))?;
        let new = Arc::new(ActiveProducer {
            client: Some(client),
            health,
            declared: AsyncMutex::new(self.topics.is_empty()),
        });
        *active = Some(new.clone());
        Ok(new)
    }

    /// Reacts to a failure: has the topics declared again where one is or may be missing (a record
    /// to a deleted topic that the client knows waits until its timeout), and drops a client after
    /// a fatal error, such as when the brokers no longer know it.
    fn handle_failure(&self, active: &Arc<ActiveProducer>, failure: &Failure) {
        if matches!(
            failure.code,
            Some(Code::UnknownTopic | Code::UnknownTopicOrPartition | Code::MessageTimedOut)
        ) && !self.topics.is_empty()
            && let Ok(mut declared) = active.declared.try_lock()
        {
            *declared = false;
        }
        if !active.is_usable() {
            let mut current = self.active.lock().unwrap_or_else(PoisonError::into_inner);
            if current.as_ref().is_some_and(|current| Arc::ptr_eq(current, active)) {
                tracing::warn!("the Kafka producer failed for good; a new one replaces it");
                *current = None;
            }
        }
    }
}

impl ActiveProducer {
    /// Tells whether the client has had no fatal error.
    fn is_usable(&self) -> bool {
        self.client.as_ref().is_some_and(|client| client.client().fatal_error().is_none())
    }

    /// Submits a record to the client; waits for room while the client's queue is full.
    async fn submit(&self, record: &Outgoing, end: Instant) -> Result<DeliveryFuture, Failure> {
        let Some(client) = &self.client else {
            return Err(Failure::unavailable("the client has ended"));
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
                    sleep(QUEUE_FULL_BACKOFF).await;
                }
                Err((error, _)) => return Err(self.health.failure(&error)),
            }
        }
    }

    /// Waits for the delivery report of a record.
    async fn outcome(&self, report: DeliveryFuture, within: Duration) -> Result<Delivery, Failure> {
        match timeout(within, report).await {
            Ok(Ok(Ok(delivery))) => {
                self.health.record_success();
                Ok(delivery)
            }
            Ok(Ok(Err((error, _)))) => Err(self.health.failure(&error)),
            Ok(Err(_)) => {
                Err(Failure::unavailable("the client ended before the record was confirmed"))
            }
            Err(_) => {
                Err(Failure::unavailable(format!("the client sent no report within {within:?}")))
            }
        }
    }
}
