//! How a consumer is put together.

use super::{
    commands::CommandSources,
    fault::{ConsumerFault, MAX_NAME, of_commands},
    flow::{Core, KillSwitch, Reader, Switch, leave},
    handle::{ConsumerError, ConsumerHandle, ConsumerStats},
    handler::{
        EventHandler, EventHandlers, HandlerLayer, HandlerOptions, HandlerSet, Layers, Route,
        UnhandledPolicy,
    },
    instance::{Instance, Isolation},
    retrier::Retrier,
    settings::{AckMode, DeadLetters, Settings, stored_beside},
    work::{Commands, ConsumerReports, Others, Worker},
};
use crate::{
    event::{DecodeEvent, RelayId},
    failure::{DeadLetter, LetterListener, RetryPolicy, full_text},
    outbox::ConsumerStore,
    runtime::{Restarts, Shutdown, Supervisor, TIME_LIMIT, Use, Wake, mailbox, now, spawn, take},
    saga::{SagaSource, Sagas},
    transport::Subscriber,
};
use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex as SyncMutex, atomic::AtomicUsize},
    time::Duration,
};
use tokio::sync::{Mutex, watch};
use tracing::Instrument;

/// A consumer takes half of a pool, and of stored deliveries a quarter as many run beside the others.
const CONNECTIONS: Use = Use {
    one_of: 2,
    at_once: |concurrency| concurrency.saturating_add(stored_beside(concurrency)),
};
/// Deliveries that may wait for each that may run, unless set: a hot key then holds the others up later, and memory
/// stays small.
const PREFETCH_PER_SLOT: usize = 4;
/// Keys that may be stuck before there is no place left, unless set: more than one goes wrong at a time is rare.
const KEYS_THAT_MAY_WAIT: usize = 4;
/// How long a delivery is held unless set: the waits of the usual policy, and far below the 30 s in which brokers and
/// HTTP clients lose patience.
const HOLD: Duration = Duration::from_secs(10);
/// How long a stored delivery belongs to whoever took it, unless prolonged: as soon as that, others go on after a crash.
const LEASE: Duration = Duration::from_secs(30);
/// How long a delivery waits for an instance that knows it, unless set: rollouts take minutes, and are looked at for a while.
const KEEP_UNKNOWN: Duration = Duration::from_hours(1);
/// For how long a message may be delivered again unless set: what a relay's route tries.
const REDELIVERED_FOR: Duration = Duration::from_hours(24);

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
/// let consumer = Consumer::new("receipts", &outbox).on("send-receipt", send_receipt).subscribe(subscriber).start().await?;
/// consumer.shutdown(std::time::Duration::from_secs(10)).await?;
/// # Ok(()) }
/// ```
#[must_use = "a consumer does nothing until it is started"]
pub struct Consumer<S: ConsumerStore> {
    name: String,
    store: S,
    pub(super) routes: Vec<Route<S>>,
    pub(super) commands: CommandSources,
    layers: Layers<S::Tx>,
    subscribers: Vec<Box<dyn Subscriber>>,
    settings: Settings,
    concurrency: Option<usize>,
    prefetch: Option<usize>,
    prefetch_per_key: Option<usize>,
    switch: Option<KillSwitch>,
    dead: Vec<LetterListener>,
}

impl<S: ConsumerStore> std::fmt::Debug for Consumer<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let handlers: Vec<_> = self.routes.iter().map(|r| &r.name).collect();
        f.debug_struct("Consumer")
            .field("name", &self.name)
            .field("handlers", &handlers)
            .finish_non_exhaustive()
    }
}

impl<S: ConsumerStore> Consumer<S> {
    /// Makes a consumer without handlers. The name is stored with each inbox row: keep it when the code around it moves.
    pub fn new(name: impl Into<String>, store: &S) -> Self {
        Self {
            name: name.into(),
            store: store.clone(),
            routes: Vec::new(),
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
                hold: HOLD,
                lease: LEASE,
                redelivered_for: REDELIVERED_FOR,
                concurrency: 1,
                batch: 1,
                prefetch: 0,
                prefetch_per_key: 0,
            },
            concurrency: None,
            prefetch: None,
            prefetch_per_key: None,
            switch: None,
            dead: Vec::new(),
        }
    }

    /// Adds a handler for the event's types. Several may take one type: each has its own transaction, in this order. A command
    /// of a saga is an event to it; [`on_command`](Self::on_command) adds the one that answers.
    ///
    /// The name is stored with each inbox row; under a new name, messages of the past are handled again if they come
    /// again.
    pub fn on<E, H>(self, name: impl AsRef<str>, handler: H) -> Self
    where
        E: DecodeEvent + Send + 'static,
        H: EventHandler<E, S>,
    {
        self.on_with(name, HandlerOptions::new(), handler)
    }

    /// Adds a handler as [`on`](Self::on) does, with options of its own.
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
        self.routes.push(Route::new(name.as_ref(), options, handler));
        self
    }

    /// Sets after which time the run of a handler is dropped that has no time limit of its own, 5 min unless set. Its
    /// transaction rolls back, and it counts as a failed attempt. After a tenth of that time it is told in the log, and shown
    /// in [`ConsumerStats::slow`].
    pub fn timeout(mut self, limit: Duration) -> Self {
        self.settings.timeout = Some(limit);
        self
    }

    /// Lets handlers run that have no time limit of their own for as long as they take. One that never returns holds its
    /// place, its connection and its locks for ever.
    pub fn no_timeout(mut self) -> Self {
        self.settings.timeout = None;
        self
    }

    /// Adds all handlers of a type, on whose impl block `#[event_handler]` stands.
    pub fn handlers(mut self, handlers: impl EventHandlers<S>) -> Self {
        let mut set = HandlerSet(self.routes);
        handlers.add_to(&mut set);
        self.routes = set.0;
        self
    }

    /// Takes the answers of others to the commands of this service's sagas, which come to the topic that was named with
    /// [`reply_to`](crate::saga::SagasBuilder::reply_to). An answer that belongs to no saga or does not decode becomes a dead
    /// letter with the reason; one to a version of a saga that is not registered here is
    /// [kept](Self::keep_unknown) for an instance that has it.
    pub fn replies(mut self, sagas: &Sagas<S>) -> Self
    where
        S: SagaSource,
    {
        self.routes.push(Route::answers(sagas.replies()));
        self
    }

    /// Adds a layer around every handler, inside those that were added before. Panics are caught and spans opened
    /// without one.
    pub fn layer(mut self, layer: impl HandlerLayer<S::Tx>) -> Self {
        self.layers.push(Arc::new(layer));
        self
    }

    /// Adds a subscriber to receive from.
    pub fn subscribe(mut self, subscriber: impl Subscriber) -> Self {
        self.subscribers.push(Box::new(subscriber));
        self
    }

    /// Sets what becomes of messages of other types than handlers take, here or in another instance of this consumer;
    /// acknowledged unless set.
    pub fn others(mut self, policy: UnhandledPolicy) -> Self {
        self.settings.unhandled = policy;
        self
    }

    /// Sets for how long a delivery is kept that this instance does not know, 1 h unless set: as long as a rollout lasts, and the
    /// decision to take it back.
    ///
    /// What it does not know is a newer version of a type that its handlers take, a type that only another instance of this
    /// consumer takes, and an answer to a version of a saga that is not registered here. Such a delivery is stored, and claimed by
    /// instances that know it, whenever they start. When its time is over and no instance knows it, it becomes a dead letter.
    pub fn keep_unknown(mut self, longest: Duration) -> Self {
        self.settings.keep_unknown = longest;
        self
    }

    /// Sets when deliveries are acknowledged; after their handlers unless set.
    pub fn acknowledge(mut self, mode: AckMode) -> Self {
        self.settings.ack = mode;
        self
    }

    /// Sets where messages go that are given up; into the consumer's database unless set.
    pub fn dead_letters(mut self, to: DeadLetters) -> Self {
        self.settings.letters = to;
        self
    }

    /// Is told of every dead letter after it was written, before the delivery is acknowledged. What dies with the process
    /// before that is not told again; the letter stays.
    pub fn on_dead_letter<F>(
        mut self,
        tell: impl Fn(Arc<DeadLetter>) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.dead.push(Box::new(move |letter| Box::pin(tell(letter))));
        self
    }

    /// Sets how many deliveries are handled at once; zero counts as one. Each uses one connection, and so do stored deliveries, of
    /// which a quarter as many run beside them, one at least.
    ///
    /// Unless set it is what fits the store's pool: half of its connections with the stored ones, no more than what the consumers and
    /// sagas that were started before leave, and 16 at most; with a pool of 10 it is 4. Where the pool is the application's too, as on
    /// SQLite, a quarter is left to that first. A start that leads to more transactions at once than the pool has connections is
    /// warned of, with both numbers.
    pub fn concurrency(mut self, deliveries: usize) -> Self {
        self.concurrency = Some(deliveries.max(1));
        self
    }

    /// Handles up to so many deliveries in one transaction, behind a savepoint each; zero counts as one, and one is what
    /// is unless set. A batch counts as one of those that are [handled at once](Self::concurrency): set that low.
    ///
    /// Verdicts are for each delivery: what fails is taken out and handled by itself. Faster by far where the commit is
    /// what costs; locks are held until the whole batch is done. Only for deliveries that are acknowledged
    /// [after their handlers](AckMode::AfterHandlers).
    pub fn batched(mut self, deliveries: usize) -> Self {
        self.settings.batch = deliveries.max(1);
        self
    }

    /// Sets how many deliveries may wait, unacknowledged, beside those that are handled, for a place or for their key's
    /// turn: four times as many unless set; zero counts as one. How many a broker sends is the subscriber's setting.
    pub fn prefetch(mut self, deliveries: usize) -> Self {
        self.prefetch = Some(deliveries.max(1));
        self
    }

    /// Sets how many of these places the deliveries of one key may take that wait behind one of theirs: a quarter unless set;
    /// zero counts as one. One key that is stuck, behind a lock or a slow handler, then leaves places to the others.
    ///
    /// What comes of the key beyond its places is returned where its sender sends it again in its order, as over HTTP. Elsewhere
    /// it stays where it is, in order, and takes no place: with Kafka at the subscriber, which gives out one of a key at a time;
    /// with other brokers in memory, up to four deliveries for each place of [`prefetch`](Self::prefetch). A queue that sends
    /// nothing but one key cannot be looked past.
    pub fn prefetch_per_key(mut self, deliveries: usize) -> Self {
        self.prefetch_per_key = Some(deliveries.max(1));
        self
    }

    /// Sets how failed handlers are run again: 3 attempts, 1 s, doubled, at most 2 s unless set.
    ///
    /// Waits that fit the [hold time](Self::hold) are spent while the delivery is unacknowledged; for longer ones it is
    /// stored in the database and acknowledged. After the last attempt the message becomes a dead letter.
    pub fn retry(mut self, policy: RetryPolicy) -> Self {
        self.settings.retry = policy;
        self
    }

    /// Sets for how long a delivery may be held unacknowledged while handlers are tried again, 10 s unless set. It must
    /// stay below the time that the transport waits for an answer. With zero, every retry is stored.
    pub fn hold(mut self, longest: Duration) -> Self {
        self.settings.hold = longest;
        self
    }

    /// Sets for how long a stored delivery belongs to the instance that took it, 30 s unless set, at least 100 ms. It is
    /// prolonged while the handler runs; after a crash others go on when it has ended. For as long, an instance counts as
    /// alive that does not renew its row, which it does every third of it.
    ///
    /// When an instance ends without signing off, a delivery may have ended its process, and comes again. The other instances,
    /// and one that is started in its place, then store each delivery before they run it, so that the runs that never end are
    /// counted, and bury one that ended its process five times. This lasts until as many deliveries as the instance may have had
    /// in flight have settled, and as long as its broker may take to notice its end (Kafka's session timeout); after a day it is
    /// over in any case. A broker that counts deliveries itself, as RabbitMQ's quorum queues do, tells which one ends its
    /// process, and nothing is stored for that. Nothing is written for a delivery while all instances are well.
    pub fn lease(mut self, lease: Duration) -> Self {
        self.settings.lease = lease.max(Duration::from_millis(100));
        self
    }

    /// Says for how long senders and brokers may deliver a message again: 24 h unless set, as a relay's routes try. The
    /// inbox must remember for longer.
    pub fn redelivered_for(mut self, longest: Duration) -> Self {
        self.settings.redelivered_for = longest;
        self
    }

    /// Pauses the consumer while most of what it does fails; there is no kill switch unless set.
    pub fn kill_switch(mut self, switch: KillSwitch) -> Self {
        self.switch = Some(switch);
        self
    }

    /// Starts receiving. The consumer runs until it is shut down or all its subscribers are closed; what is stored then waits for the next start.
    ///
    /// # Errors
    /// [`ConsumerError::Invalid`] with all faults of the configuration.
    ///
    /// # Cancel safety
    /// Nothing is started before it returns.
    pub async fn start(self) -> Result<ConsumerHandle, ConsumerError> {
        let faults = self.faults();
        if !faults.is_empty() {
            return Err(ConsumerError::Invalid(faults));
        }
        let span = tracing::info_span!(parent: None, "consumer", name = self.name);
        let shutdown = Shutdown::default();
        let stats = Arc::new(watch::Sender::new(ConsumerStats {
            isolating: true,
            ..ConsumerStats::default()
        }));
        let mut settings = self.settings;
        if settings.ack != AckMode::AfterHandlers {
            // There is nothing to gather: each is acknowledged by itself, before or in the middle.
            settings.batch = 1;
        }
        let taken = span.in_scope(|| {
            take(
                self.store.connections(),
                &format!("consumer `{}`", self.name),
                self.concurrency,
                CONNECTIONS,
            )
        });
        settings.concurrency = taken.concurrency;
        let most = settings.concurrency.saturating_mul(settings.batch);
        settings.prefetch = self.prefetch.unwrap_or_else(|| most.saturating_mul(PREFETCH_PER_SLOT));
        settings.prefetch_per_key = self
            .prefetch_per_key
            .unwrap_or_else(|| (settings.prefetch / KEYS_THAT_MAY_WAIT).max(1));
        let id = RelayId::generate();
        let redelivers =
            self.subscribers.iter().map(|subscriber| subscriber.redelivers_within()).max();
        let redelivered_within = redelivers.unwrap_or_default().saturating_sub(settings.lease);
        let worker = Arc::new(Worker {
            consumer: self.name.into(),
            by: id.as_str().into(),
            store: self.store,
            declared: self.routes.iter().map(Route::declared).collect(),
            routes: self.routes,
            commands: Commands::new(self.commands),
            others: Others::default(),
            started_at: now(),
            layers: self.layers,
            settings,
            _taken: taken,
            dead: self.dead,
            switch: self.switch.map(|settings| SyncMutex::new(Switch::new(settings))),
            stored: Wake::default(),
            stats: stats.clone(),
            isolation: Isolation::new(redelivered_within),
            reports: ConsumerReports::default(),
            shutdown: shutdown.clone(),
        });
        // What waits is counted by the lanes; the mailbox only hands over, one at a time from each reader.
        let (address, arrivals) = mailbox(self.subscribers.len());
        let (open, done) =
            (Arc::new(AtomicUsize::new(self.subscribers.len())), Shutdown::default());
        let core = Core::new(worker.clone(), arrivals, open.clone(), done.clone());
        let instance = Instance::new(worker.clone(), id.as_str(), done.clone());
        let retrier = Retrier::new(worker.clone(), id.as_str(), done);
        let (last, keeps) = (instance.clone(), move || instance.clone().run());
        let mut supervisor = Supervisor::new(shutdown.clone(), Restarts::default())
            .actor("instance", keeps)
            .actor("core", move || core.clone().run())
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
            let outcome = supervisor.run().await;
            tokio::join!(leave(subscribers, &stopping), last.sign_off());
            outcome
        };
        let task = span.in_scope(|| spawn(running.in_current_span()));
        Ok(ConsumerHandle::new(shutdown, task, stats.subscribe(), exits))
    }

    fn faults(&self) -> Vec<ConsumerFault> {
        let mut faults = Vec::new();
        let names =
            std::iter::once(self.name.as_str()).chain(self.routes.iter().flat_map(Route::names));
        for name in names {
            if name.is_empty() || name.len() > MAX_NAME || name.chars().any(char::is_control) {
                faults.push(ConsumerFault::Name(name.to_owned()));
            }
        }
        if self.name.contains('/') {
            faults.push(ConsumerFault::Slash(self.name.clone()));
        }
        let mut seen = BTreeSet::new();
        let doubled: BTreeSet<_> =
            self.routes.iter().map(|r| &r.name).filter(|name| !seen.insert(*name)).collect();
        faults.extend(
            doubled.into_iter().map(|name| ConsumerFault::DoubledHandler(name.to_string())),
        );
        for route in &self.routes {
            let Some(before) = route.options.renamed_from else { continue };
            let is_taken =
                |other: &Route<S>| &*other.name == before || is_same(route, other, before);
            if self.routes.iter().any(is_taken) {
                let (handler, before) = (route.name.to_string(), before.to_owned());
                faults.push(ConsumerFault::RenamedFrom { handler, before });
            }
        }
        faults.extend(of_commands(&self.routes, &self.commands));
        if self.routes.is_empty() {
            faults.push(ConsumerFault::NoHandler);
        }
        if self.subscribers.is_empty() {
            faults.push(ConsumerFault::NoSubscriber);
        }
        let wrong = self.subscribers.iter().filter_map(|subscriber| subscriber.check().err());
        faults.extend(wrong.map(|error| ConsumerFault::Subscriber(full_text(&*error.0))));
        let (redelivered_for, retention) =
            (self.settings.redelivered_for, self.store.inbox_retention());
        // What is retried for ever is stored, and needs no inbox row but those of the waits before that.
        let retried_for = self.settings.retry.longest().unwrap_or(self.settings.hold);
        if redelivered_for.saturating_add(retried_for) > retention {
            faults.push(ConsumerFault::InboxForgets { redelivered_for, retried_for, retention });
        }
        faults
    }
}

/// Tells whether another handler says that it had the same name before.
fn is_same<S: ConsumerStore>(one: &Route<S>, other: &Route<S>, before: &str) -> bool {
    one.name != other.name && other.options.renamed_from == Some(before)
}
