//! The builder of a consumer.

use super::{
    batch::Batching,
    commands::CommandSources,
    fault::of_consumer,
    handle::{Consumer, ConsumerError, ConsumerStats},
    handler::{
        EventHandler, EventHandlers, HandlerEntry, HandlerLayer, HandlerOptions, HandlerSet,
        Layers, UnhandledPolicy,
    },
    instance::{Instance, Isolation, OperatorState},
    intake::{Dispatcher, KillSwitch, Reader, Switch, close_all},
    metrics::ConsumerMetrics,
    retrier::Retrier,
    settings::{AckMode, DeadLetters, Settings, deferred_beside},
    work::{Commands, ConsumerReports, Decoding, PeerCache, Worker},
};
use crate::{
    event::{DecodeEvent, RelayId},
    failure::{DeadLetter, DeadLetterListener, RetryPolicy},
    outbox::ConsumerStore,
    runtime::{
        ConnectionGrant, ConnectionUse, Restarts, Shutdown, Supervisor, TIME_LIMIT, Wake, mailbox,
        now, reserve_connections, spawn,
    },
    saga::{SagaSource, Sagas},
    telemetry::{HealthCheck, Heartbeats, Metrics},
    transport::Subscriber,
};
use std::{
    sync::{Arc, Mutex as SyncMutex, atomic::AtomicUsize},
    time::Duration,
};
use tokio::sync::{Mutex, watch};
use tracing::Instrument;

/// A consumer takes half of a pool, and of stored deliveries a quarter as many run beside the others.
const CONNECTIONS: ConnectionUse = ConnectionUse {
    share_divisor: 2,
    connections: |concurrency| concurrency.saturating_add(deferred_beside(concurrency)),
};
/// Keys that may be stuck before no slot is left, unless set: several rarely are stuck at a time.
const STUCK_KEYS: usize = 4;
/// How long a delivery stays unacknowledged unless set: the waits of the default retry policy, and far below
/// the 30 s after which brokers and HTTP clients time out.
const MAX_UNACKED_TIME: Duration = Duration::from_secs(10);
/// How long a claim on a stored delivery lasts, unless extended: so soon other instances go on after a crash.
const LEASE: Duration = Duration::from_secs(30);
/// How long a delivery waits for an instance that knows it, unless set: rollouts take minutes, and are watched
/// for a while.
const KEEP_UNKNOWN: Duration = Duration::from_hours(1);
/// For how long a message may be delivered again unless set: as long as a relay's route retries.
const REDELIVERY_WINDOW: Duration = Duration::from_hours(24);

/// Receives messages and hands them to handlers, each message once to each handler.
///
/// ```
/// # use outbox_core::{consumer::*, event::*, outbox::ConsumerStore, transport::Subscriber};
/// # struct OrderPlaced;
/// # impl EventContract for OrderPlaced { const TYPES: &'static [EventType] = &[]; }
/// # impl DecodeEvent for OrderPlaced { fn decode(_: &Message) -> Result<Self, DecodeError> { Ok(Self) } }
/// # #[derive(Debug, Clone)] struct Sql;
/// # async fn example<S: ConsumerStore<Tx = Sql>>(outbox: S, subscriber: impl Subscriber) -> Result<(), ConsumerError> {
/// async fn send_receipt(event: OrderPlaced, cx: &HandlerContext<Sql>) -> Result<(), std::io::Error> {
///     // .. write through `cx.tx` ..
/// #   let _ = (event, &cx.tx);
///     Ok(())
/// }
/// let consumer = Consumer::builder("receipts", &outbox).on("send-receipt", send_receipt).subscribe(subscriber).start().await?;
/// consumer.shutdown(std::time::Duration::from_secs(10)).await?;
/// # Ok(()) }
/// ```
#[must_use = "a consumer does nothing until it is started"]
pub struct ConsumerBuilder<S: ConsumerStore> {
    name: String,
    store: S,
    pub(super) handlers: Vec<HandlerEntry<S>>,
    pub(super) commands: CommandSources,
    layers: Layers<S::Tx>,
    subscribers: Vec<Box<dyn Subscriber>>,
    pub(super) settings: Settings,
    concurrency: Option<usize>,
    prefetch: Option<usize>,
    prefetch_per_key: Option<usize>,
    switch: Option<KillSwitch>,
    dead_letter_listeners: Vec<DeadLetterListener>,
    metrics: Metrics,
}

impl<S: ConsumerStore> std::fmt::Debug for ConsumerBuilder<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let handlers: Vec<_> = self.handlers.iter().map(|r| &r.name).collect();
        f.debug_struct("ConsumerBuilder")
            .field("name", &self.name)
            .field("handlers", &handlers)
            .finish_non_exhaustive()
    }
}

impl<S: ConsumerStore> ConsumerBuilder<S> {
    pub(super) fn new(name: String, store: &S) -> Self {
        Self {
            name,
            store: store.clone(),
            handlers: Vec::new(),
            commands: CommandSources::default(),
            layers: Vec::new(),
            subscribers: Vec::new(),
            settings: Settings {
                unhandled: UnhandledPolicy::default(),
                keep_unknown: KEEP_UNKNOWN,
                ack: AckMode::default(),
                letters: DeadLetters::default(),
                retry: RetryPolicy::attempts(3, Duration::from_secs(1))
                    .max_backoff(Duration::from_secs(2)),
                timeout: Some(TIME_LIMIT),
                max_unacked_time: MAX_UNACKED_TIME,
                lease: LEASE,
                redelivery_window: REDELIVERY_WINDOW,
                concurrency: 1,
                batching: Batching::usual(),
                prefetch: 0,
                prefetch_per_key: 0,
            },
            concurrency: None,
            prefetch: None,
            prefetch_per_key: None,
            switch: None,
            dead_letter_listeners: Vec::new(),
            metrics: Metrics::global(),
        }
    }

    /// Adds a handler for the event's types. Several may take one type: each has its own transaction, in this order. A command
    /// of a saga is an event to it; [`on_command`](Self::on_command) adds a handler of commands.
    ///
    /// The name is stored with each inbox row; under a new name, the handler runs again for old messages that are
    /// delivered again.
    ///
    /// ```
    /// # use outbox_core::{consumer::{ConsumerBuilder, HandlerContext, HandlerError}, outbox::ConsumerStore};
    /// # struct OrderPlaced { order_id: i64 }
    /// # impl outbox_core::event::EventContract for OrderPlaced { const TYPES: &'static [outbox_core::event::EventType] = &[]; }
    /// # impl outbox_core::event::DecodeEvent for OrderPlaced {
    /// #     fn decode(_: &outbox_core::event::Message) -> Result<Self, outbox_core::event::DecodeError> { Ok(Self { order_id: 7 }) }
    /// # }
    /// # struct Sql;
    /// async fn send_receipt(order: OrderPlaced, cx: &HandlerContext<Sql>) -> Result<(), HandlerError> {
    ///     println!("a receipt for order {}, attempt {}", order.order_id, cx.attempt());
    ///     Ok(())
    /// }
    /// # fn example<S: ConsumerStore<Tx = Sql>>(consumer: ConsumerBuilder<S>) -> ConsumerBuilder<S> {
    /// consumer.on("send-receipt", send_receipt)
    /// # }
    /// ```
    pub fn on<E, H>(self, name: impl AsRef<str>, handler: H) -> Self
    where
        E: DecodeEvent + Send + 'static,
        H: EventHandler<E, S>,
    {
        self.on_with(name, HandlerOptions::new(), handler)
    }

    /// Adds a handler as [`on`](Self::on) does, with options of its own.
    ///
    /// ```
    /// # use outbox_core::{consumer::{ConsumerBuilder, HandlerContext, HandlerError, HandlerOptions}, outbox::ConsumerStore};
    /// # use std::time::Duration;
    /// # struct OrderPlaced { order_id: i64 }
    /// # impl outbox_core::event::EventContract for OrderPlaced { const TYPES: &'static [outbox_core::event::EventType] = &[]; }
    /// # impl outbox_core::event::DecodeEvent for OrderPlaced {
    /// #     fn decode(_: &outbox_core::event::Message) -> Result<Self, outbox_core::event::DecodeError> { Ok(Self { order_id: 7 }) }
    /// # }
    /// # struct Sql;
    /// # async fn print_label(_: OrderPlaced, _: &HandlerContext<Sql>) -> Result<(), HandlerError> { Ok(()) }
    /// # fn example<S: ConsumerStore<Tx = Sql>>(consumer: ConsumerBuilder<S>) -> ConsumerBuilder<S> {
    /// let options = HandlerOptions::new().timeout(Duration::from_secs(20)).renamed_from("label");
    /// consumer.on_with("print-label", options, print_label)
    /// # }
    /// ```
    pub fn on_with<E, H>(
        mut self,
        name: impl AsRef<str>,
        options: HandlerOptions,
        handler: H,
    ) -> Self
    where
        E: DecodeEvent + Send + 'static,
        H: EventHandler<E, S>,
    {
        self.handlers.push(HandlerEntry::new(name.as_ref(), options, handler));
        self
    }

    /// Sets the time limit of handlers that have none of their own, 5 min unless set. At its limit a run is dropped:
    /// its transaction rolls back, and it counts as a failed attempt. After a tenth of that time the run is logged, and
    /// counted in [`ConsumerStats::slow`].
    ///
    /// ```
    /// # use outbox_core::{consumer::ConsumerBuilder, outbox::ConsumerStore};
    /// # use std::time::Duration;
    /// # fn example<S: ConsumerStore>(consumer: ConsumerBuilder<S>) -> ConsumerBuilder<S> {
    /// consumer.timeout(Duration::from_secs(30))
    /// # }
    /// ```
    pub fn timeout(mut self, limit: Duration) -> Self {
        self.settings.timeout = Some(limit);
        self
    }

    /// Lets handlers run that have no time limit of their own for as long as they take. One that never returns keeps its
    /// slot, its connection and its locks for ever.
    pub fn no_timeout(mut self) -> Self {
        self.settings.timeout = None;
        self
    }

    /// Adds all handlers of a type, on whose impl block `#[event_handler]` stands.
    pub fn handlers(mut self, handlers: impl EventHandlers<S>) -> Self {
        let mut set = HandlerSet(self.handlers);
        handlers.add_to(&mut set);
        self.handlers = set.0;
        self
    }

    /// Handles the replies of other services to the commands of this service's sagas, from the topic that was named
    /// with [`reply_to`](crate::saga::SagasBuilder::reply_to). A reply that belongs to no saga or does not decode becomes
    /// a dead letter with the reason; a reply to a version of a saga that is not registered here is
    /// [kept](Self::keep_unknown) for an instance that has it.
    ///
    /// ```
    /// # use outbox_core::{consumer::{Consumer, ConsumerBuilder}, outbox::ConsumerStore, saga::{SagaSource, Sagas}};
    /// # fn example<S: ConsumerStore + SagaSource>(outbox: &S, sagas: &Sagas<S>) -> ConsumerBuilder<S> {
    /// Consumer::builder("checkout", outbox).replies(sagas)
    /// # }
    /// ```
    pub fn replies(mut self, sagas: &Sagas<S>) -> Self
    where
        S: SagaSource,
    {
        self.handlers.push(HandlerEntry::for_replies(sagas.replies()));
        self
    }

    /// Adds a layer around every handler, inside those that were added before. Panics are caught and spans opened
    /// without one.
    ///
    /// ```
    /// # use outbox_core::{consumer::{ConcurrencyLimit, ConsumerBuilder, Timeout}, outbox::ConsumerStore};
    /// # use std::time::Duration;
    /// # fn example<S: ConsumerStore>(consumer: ConsumerBuilder<S>) -> ConsumerBuilder<S> {
    /// consumer.layer(ConcurrencyLimit::new(8)).layer(Timeout(Duration::from_secs(10)))
    /// # }
    /// ```
    pub fn layer(mut self, layer: impl HandlerLayer<S::Tx>) -> Self {
        self.layers.push(Arc::new(layer));
        self
    }

    /// Adds a subscriber to receive from.
    pub fn subscribe(mut self, subscriber: impl Subscriber) -> Self {
        self.subscribers.push(Box::new(subscriber));
        self
    }

    /// Sets the policy for messages whose type no handler takes, here or in another instance of this consumer; such
    /// a message is acknowledged unless set.
    ///
    /// ```
    /// # use outbox_core::{consumer::{ConsumerBuilder, UnhandledPolicy}, outbox::ConsumerStore};
    /// # fn example<S: ConsumerStore>(consumer: ConsumerBuilder<S>) -> ConsumerBuilder<S> {
    /// consumer.unhandled(UnhandledPolicy::DeadLetter) // every message of the queue is for this consumer
    /// # }
    /// ```
    pub fn unhandled(mut self, policy: UnhandledPolicy) -> Self {
        self.settings.unhandled = policy;
        self
    }

    /// Sets for how long a delivery is kept that this instance does not know, 1 h unless set: as long as a rollout lasts,
    /// and the decision to roll it back.
    ///
    /// An instance does not know a newer version of a type that its handlers take, a type that only another instance of
    /// this consumer takes, a reply to a version of a saga that is not registered here, and a payload whose codec or key it
    /// does not have. Such a delivery is stored, and
    /// claimed by instances that know it, whenever they start. When its time is over and no instance knows it, it becomes a
    /// dead letter.
    ///
    /// ```
    /// # use outbox_core::{consumer::ConsumerBuilder, outbox::ConsumerStore};
    /// # use std::time::Duration;
    /// # fn example<S: ConsumerStore>(consumer: ConsumerBuilder<S>) -> ConsumerBuilder<S> {
    /// consumer.keep_unknown(Duration::from_hours(8)) // the longest rollout
    /// # }
    /// ```
    pub fn keep_unknown(mut self, longest: Duration) -> Self {
        self.settings.keep_unknown = longest;
        self
    }

    /// Sets when deliveries are acknowledged; after their handlers unless set.
    ///
    /// ```
    /// # use outbox_core::{consumer::{AckMode, ConsumerBuilder}, outbox::ConsumerStore};
    /// # fn example<S: ConsumerStore>(consumer: ConsumerBuilder<S>) -> ConsumerBuilder<S> {
    /// consumer.acknowledge(AckMode::Manual) // each handler calls `cx.ack_after_commit()`
    /// # }
    /// ```
    pub fn acknowledge(mut self, mode: AckMode) -> Self {
        self.settings.ack = mode;
        self
    }

    /// Sets where the messages go that the consumer gives up; into its database unless set.
    ///
    /// ```
    /// # use outbox_core::{consumer::{ConsumerBuilder, DeadLetters}, outbox::ConsumerStore};
    /// # fn example<S: ConsumerStore>(consumer: ConsumerBuilder<S>) -> ConsumerBuilder<S> {
    /// consumer.dead_letters(DeadLetters::Transport) // into the broker's dead-letter queue
    /// # }
    /// ```
    pub fn dead_letters(mut self, to: DeadLetters) -> Self {
        self.settings.letters = to;
        self
    }

    /// Adds a listener for dead letters, which is called after each was written, before the delivery is acknowledged. A
    /// call that is lost with the process is not repeated; the letter stays.
    ///
    /// ```
    /// # use outbox_core::{consumer::ConsumerBuilder, outbox::ConsumerStore};
    /// # async fn page_the_operator(_: String) {}
    /// # fn example<S: ConsumerStore>(consumer: ConsumerBuilder<S>) -> ConsumerBuilder<S> {
    /// consumer.on_dead_letter(|letter| async move {
    ///     page_the_operator(format!("letter {}: {}", letter.id, letter.reason)).await;
    /// })
    /// # }
    /// ```
    pub fn on_dead_letter<F>(
        mut self,
        listener: impl Fn(Arc<DeadLetter>) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.dead_letter_listeners.push(Box::new(move |letter| Box::pin(listener(letter))));
        self
    }

    /// Sets how many deliveries are handled at once; zero counts as one. Each uses one connection, and so do stored deliveries, of
    /// which a quarter as many run beside them, one at least.
    ///
    /// Unless set it is what fits the store's pool: half of its connections with the stored ones, no more than the consumers
    /// and sagas that were started before leave, and 16 at most; with a pool of 10 it is 4. Where the application uses the pool
    /// too, as on SQLite, a quarter is left to that first. A start that allows more transactions at once than the pool has
    /// connections logs a warning, with both numbers.
    ///
    /// ```
    /// # use outbox_core::{consumer::ConsumerBuilder, outbox::ConsumerStore};
    /// # fn example<S: ConsumerStore>(consumer: ConsumerBuilder<S>) -> ConsumerBuilder<S> {
    /// consumer.concurrency(8) // and two stored deliveries beside them
    /// # }
    /// ```
    pub fn concurrency(mut self, deliveries: usize) -> Self {
        self.concurrency = Some(deliveries.max(1));
        self
    }

    /// Sets how many deliveries may wait, unacknowledged, beside those that are handled, for a slot or
    /// for earlier ones of their key: four times as many unless set; zero counts as one. How many a broker sends is the subscriber's setting.
    pub fn prefetch(mut self, deliveries: usize) -> Self {
        self.prefetch = Some(deliveries.max(1));
        self
    }

    /// Sets how many of these slots the deliveries of one key may take that wait behind one of theirs: a quarter unless set;
    /// zero counts as one. One key that is stuck, behind a lock or a slow handler, then leaves slots to the others.
    ///
    /// Deliveries of the key beyond its slots are returned where their sender sends them again in order, as over HTTP.
    /// Elsewhere they wait, in order, and take no slot: with Kafka at the subscriber, which gives out one of a key at a time;
    /// with other brokers in memory, up to four deliveries for each slot of [`prefetch`](Self::prefetch). A queue that sends
    /// nothing but one key blocks the keys behind it.
    pub fn prefetch_per_key(mut self, deliveries: usize) -> Self {
        self.prefetch_per_key = Some(deliveries.max(1));
        self
    }

    /// Sets how failed handlers are run again: 3 attempts, 1 s, doubled, at most 2 s unless set.
    ///
    /// During waits that fit the [limit](Self::max_unacked_time) the delivery stays unacknowledged; for longer ones it is
    /// stored in the database and acknowledged. After the last attempt the message becomes a dead letter.
    ///
    /// ```
    /// # use outbox_core::{consumer::ConsumerBuilder, failure::RetryPolicy, outbox::ConsumerStore};
    /// # use std::time::Duration;
    /// # fn example<S: ConsumerStore>(consumer: ConsumerBuilder<S>) -> ConsumerBuilder<S> {
    /// consumer.retry(RetryPolicy::attempts(8, Duration::from_secs(2))) // its later waits are stored
    /// # }
    /// ```
    pub fn retry(mut self, policy: RetryPolicy) -> Self {
        self.settings.retry = policy;
        self
    }

    /// Sets for how long a delivery may stay unacknowledged while handlers are retried, 10 s unless set. It must stay
    /// below the time that the transport waits for an acknowledgement. With zero, every retry is stored.
    pub fn max_unacked_time(mut self, longest: Duration) -> Self {
        self.settings.max_unacked_time = longest;
        self
    }

    /// Sets how long an instance's claim on a stored delivery lasts, 100 ms to 24 h, 30 s unless
    /// set. The instance extends the claim while the handler runs; after a crash another instance
    /// claims the delivery when the claim has expired. An instance that does not renew its row
    /// counts as alive for the same time; it renews the row every third of it.
    ///
    /// When an instance ends without deregistering, a delivery may have ended its process, and is delivered again. The other
    /// instances, and one that is started in its place, then store each delivery before they run it, so that runs which never
    /// end are counted, and write a dead letter for a delivery that ended its process five times. This lasts until as many
    /// deliveries as the instance may have had in flight have settled, and as long as its broker may take to notice its end
    /// (Kafka's session timeout); after a day it is over in any case. The count of a broker that counts deliveries itself, as
    /// RabbitMQ's quorum queues do, shows which one ends its process, and nothing is stored for that. Nothing is written for a
    /// delivery while all instances are alive.
    pub fn lease(mut self, lease: Duration) -> Self {
        self.settings.lease = lease.clamp(Duration::from_millis(100), Duration::from_hours(24));
        self
    }

    /// Sets for how long senders and brokers may deliver a message again: 24 h unless set, as a relay's routes retry. The
    /// inbox must keep its rows for longer.
    pub fn redelivery_window(mut self, longest: Duration) -> Self {
        self.settings.redelivery_window = longest;
        self
    }

    /// Pauses the consumer while most runs of its handlers fail; there is no kill switch unless set.
    ///
    /// ```
    /// # use outbox_core::{consumer::{ConsumerBuilder, KillSwitch}, outbox::ConsumerStore};
    /// # fn example<S: ConsumerStore>(consumer: ConsumerBuilder<S>) -> ConsumerBuilder<S> {
    /// consumer.kill_switch(KillSwitch::default().window(50))
    /// # }
    /// ```
    pub fn kill_switch(mut self, switch: KillSwitch) -> Self {
        self.switch = Some(switch);
        self
    }

    /// Counts into this registry; into that of the process unless set.
    pub fn metrics(mut self, metrics: Metrics) -> Self {
        self.metrics = metrics;
        self
    }

    /// Reserves the connections of the deliveries that are handled at once.
    fn reserve(&self) -> ConnectionGrant {
        let part = format!("consumer `{}`", self.name);
        reserve_connections(self.store.connections(), &part, self.concurrency, CONNECTIONS)
    }

    /// Starts receiving. The consumer runs until it is shut down or all its subscribers are closed; stored deliveries
    /// then wait for the next start.
    ///
    /// # Errors
    /// [`ConsumerError::Invalid`] with all faults of the configuration.
    ///
    /// # Cancel safety
    /// Nothing is started before it returns.
    pub async fn start(self) -> Result<Consumer, ConsumerError> {
        let faults = of_consumer(
            &self.name,
            (&self.handlers[..], &self.commands),
            &self.subscribers,
            &self.settings,
            self.store.inbox_retention(),
        );
        if !faults.is_empty() {
            return Err(ConsumerError::Invalid(faults));
        }
        let span = tracing::info_span!(parent: None, "consumer", name = self.name);
        let shutdown = Shutdown::default();
        let isolating = ConsumerStats { isolating: true, ..ConsumerStats::default() };
        let stats = Arc::new(watch::Sender::new(isolating));
        let mut settings = self.settings;
        let layers_wait = self.layers.iter().any(|layer| layer.waits_any());
        settings.batching = settings.batching.allowed(settings.ack, layers_wait);
        let taken = span.in_scope(|| self.reserve());
        settings.concurrency = taken.concurrency;
        settings.prefetch = self.prefetch.unwrap_or_else(|| settings.usual_prefetch());
        settings.prefetch_per_key =
            self.prefetch_per_key.unwrap_or_else(|| (settings.prefetch / STUCK_KEYS).max(1));
        let id = RelayId::generate();
        let redelivers =
            self.subscribers.iter().map(|subscriber| subscriber.redelivers_within()).max();
        let redelivery_delay = redelivers.unwrap_or_default().saturating_sub(settings.lease);
        let (consumer, heartbeats): (Arc<str>, _) =
            (self.name.into(), Arc::new(Heartbeats::default()));
        let check = format!("consumer `{consumer}`");
        let check = HealthCheck::new(check, heartbeats.clone(), settings.lease);
        let worker = Arc::new(Worker {
            metrics: ConsumerMetrics::new(self.metrics, &consumer),
            heartbeats: heartbeats.clone(),
            consumer,
            by: id.as_str().into(),
            operator: OperatorState::new(self.store.operator()),
            decoding: Decoding::new(self.store.payload_codecs()),
            store: self.store,
            declared: self.handlers.iter().map(HandlerEntry::declared).collect(),
            handlers: self.handlers,
            commands: Commands::new(self.commands),
            peer_cache: PeerCache::default(),
            started_at: now(),
            layers: self.layers,
            settings,
            _connections: taken,
            dead_letter_listeners: self.dead_letter_listeners,
            switch: self.switch.map(|settings| SyncMutex::new(Switch::new(settings))),
            stored: Wake::default(),
            stats,
            isolation: Isolation::new(redelivery_delay),
            reports: ConsumerReports::default(),
            shutdown: shutdown.clone(),
        });
        // The key queues bound the waiting deliveries; the mailbox holds one of each reader at most.
        let (address, incoming) = mailbox(self.subscribers.len());
        let (open, done) =
            (Arc::new(AtomicUsize::new(self.subscribers.len())), Shutdown::default());
        let dispatcher = Dispatcher::new(worker.clone(), incoming, open.clone(), done.clone());
        let instance = Instance::new(worker.clone(), id.as_str(), done.clone());
        let retrier = Retrier::new(worker.clone(), id.as_str(), done);
        let (last, keeps) = (instance.clone(), move || instance.clone().run());
        let mut supervisor = Supervisor::new(shutdown.clone(), Restarts::default())
            .actor("instance", keeps)
            .actor("dispatcher", move || dispatcher.clone().run())
            .actor("retrier", move || retrier.clone().run());
        let subscribers: Vec<_> =
            self.subscribers.into_iter().map(|one| Arc::new(Mutex::new(one))).collect();
        for subscriber in &subscribers {
            let name = worker.consumer.clone();
            let reader = Reader::new(
                subscriber.clone(),
                address.clone(),
                open.clone(),
                shutdown.clone(),
                name,
            );
            supervisor = supervisor.actor("reader", move || reader.clone().run());
        }
        let exits = supervisor.exits();
        let stopping = shutdown.clone();
        let running = async move {
            let outcome = heartbeats.while_running(supervisor.run()).await;
            tokio::join!(close_all(subscribers, &stopping), last.deregister());
            outcome
        };
        let task = span.in_scope(|| spawn(running.in_current_span()));
        Ok(Consumer::running(&worker, task, exits, check))
    }
}
