//! How a consumer is put together.

use super::{
    flow::{Core, KillSwitch, Reader, Switch, leave},
    handle::{ConsumerError, ConsumerHandle, ConsumerStats},
    handler::{EventHandler, EventHandlers, HandlerLayer, HandlerSet, Layers, Route, UnknownPolicy},
    retrier::Retrier,
    work::Worker,
};
use crate::{
    event::{DecodeEvent, RelayId},
    failure::{DeadLetter, LetterListener, RetryPolicy},
    outbox::ConsumerStore,
    runtime::{Restarts, Shutdown, Supervisor, Wake, mailbox, spawn},
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

/// Longest name of a consumer and of a handler in bytes: two of them, the source and the id fit a key of every database.
const MAX_NAME: usize = 100;
/// Deliveries handled at once unless set: a few for each connection of a usual pool.
const CONCURRENCY: usize = 16;
/// Deliveries that may wait for each that may run, unless set: a hot key then holds the others up later, and memory
/// stays small.
const PREFETCH_PER_SLOT: usize = 4;
/// How long a delivery is held unless set: the waits of the usual policy, and far below the 30 s in which brokers and
/// HTTP clients lose patience.
const HOLD: Duration = Duration::from_secs(10);
/// How long a stored delivery belongs to whoever took it, unless prolonged: as soon as that, others go on after a crash.
const LEASE: Duration = Duration::from_secs(30);
/// For how long a message may be delivered again unless set: what a relay's route tries.
const REDELIVERED_FOR: Duration = Duration::from_hours(24);

/// When a delivery is acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AckMode {
    /// After its handlers' transactions are committed, or it is stored for later, or a dead letter is written: at least
    /// once, with effects that happen once.
    #[default]
    AfterHandlers,
    /// Before its handlers run: at most once. A handler that fails is not tried again, its message becomes a dead letter;
    /// a crash loses what had begun.
    Before,
    /// By the handlers, which [take the delivery](super::HandlerContext::take_delivery). Nothing is retried or stored: an
    /// error rolls back and returns the delivery, if the handler left it.
    Manual,
}

/// Where messages go that a consumer gives up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DeadLetters {
    /// Into the dead letters of its own database, to be listed and redriven there; the delivery is acknowledged.
    #[default]
    Stored,
    /// To the transport: the delivery is rejected, and the broker does with it what it does with those, such as a
    /// dead-letter queue. What was stored for later has no delivery any more, and becomes a letter all the same.
    Transport,
}

/// How a consumer works.
#[derive(Debug, Clone, Copy)]
pub(super) struct Settings {
    pub(super) unknown: UnknownPolicy,
    pub(super) ack: AckMode,
    pub(super) letters: DeadLetters,
    pub(super) retry: RetryPolicy,
    pub(super) hold: Duration,
    pub(super) lease: Duration,
    pub(super) redelivered_for: Duration,
    pub(super) concurrency: usize,
    pub(super) batch: usize,
    pub(super) prefetch: usize,
}

impl Settings {
    /// How many stored deliveries run at once: a quarter, since they are those that fail.
    pub(super) fn stored_at_once(&self) -> usize {
        (self.concurrency / 4).max(1)
    }
}

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
    routes: Vec<Route<S>>,
    layers: Layers<S::Tx>,
    subscribers: Vec<Box<dyn Subscriber>>,
    settings: Settings,
    prefetch: Option<usize>,
    switch: Option<KillSwitch>,
    dead: Vec<LetterListener>,
}

/// What is wrong with a consumer's configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConsumerFault {
    /// The consumer's or a handler's name does not fit the inbox.
    #[error("the name `{0}` does not have 1 to {MAX_NAME} bytes without control characters")]
    Name(String),
    /// The consumer's name has a slash, which parts it from a handler's in dead letters.
    #[error("the consumer's name `{0}` has a slash")]
    Slash(String),
    /// Two handlers have one name.
    #[error("two handlers are called `{0}`")]
    DoubledHandler(String),
    /// There is nobody to handle anything.
    #[error("there is no handler; add one with `on`")]
    NoHandler,
    /// There is nothing to receive from.
    #[error("there is no subscriber; add one with `subscribe`")]
    NoSubscriber,
    /// A message may come again after the inbox has forgotten it.
    #[error(
        "a message may come again for {redelivered_for:?} (what the sender repeats) + {retried_for:?} (what is retried \
         here) = {:?}, longer than the {retention:?} that the inbox remembers",
        .redelivered_for.saturating_add(*.retried_for)
    )]
    InboxForgets {
        /// For how long senders and brokers deliver it again.
        redelivered_for: Duration,
        /// The sum of the consumer's own waits.
        retried_for: Duration,
        /// For how long the inbox remembers.
        retention: Duration,
    },
}

impl<S: ConsumerStore> std::fmt::Debug for Consumer<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let handlers: Vec<_> = self.routes.iter().map(|r| &r.name).collect();
        f.debug_struct("Consumer").field("name", &self.name).field("handlers", &handlers).finish_non_exhaustive()
    }
}

impl<S: ConsumerStore> Consumer<S> {
    /// Makes a consumer without handlers. The name is stored with each inbox row: keep it when the code around it moves.
    pub fn new(name: impl Into<String>, store: &S) -> Self {
        Self {
            name: name.into(),
            store: store.clone(),
            routes: Vec::new(),
            layers: Vec::new(),
            subscribers: Vec::new(),
            settings: Settings {
                unknown: UnknownPolicy::default(),
                ack: AckMode::default(),
                letters: DeadLetters::default(),
                retry: RetryPolicy::attempts(3, Duration::from_secs(1)).max_backoff(Duration::from_secs(2)),
                hold: HOLD,
                lease: LEASE,
                redelivered_for: REDELIVERED_FOR,
                concurrency: CONCURRENCY,
                batch: 1,
                prefetch: 0,
            },
            prefetch: None,
            switch: None,
            dead: Vec::new(),
        }
    }

    /// Adds a handler for the event's types. Several may take one type: each has its own transaction, in this order.
    ///
    /// The name is stored with each inbox row; under a new name, messages of the past are handled again if they come
    /// again.
    pub fn on<E, H>(mut self, name: impl AsRef<str>, handler: H) -> Self
    where
        E: DecodeEvent + Send + 'static,
        H: EventHandler<E, S>,
    {
        self.routes.push(Route::new(name.as_ref(), handler));
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
    /// [`reply_to`](crate::saga::SagasBuilder::reply_to). An answer that belongs to no saga, comes from another version, or
    /// does not decode becomes a dead letter with the reason.
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

    /// Sets what becomes of messages that no handler takes; acknowledged unless set.
    pub fn unknown(mut self, policy: UnknownPolicy) -> Self {
        self.settings.unknown = policy;
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
    pub fn on_dead_letter<F>(mut self, tell: impl Fn(Arc<DeadLetter>) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.dead.push(Box::new(move |letter| Box::pin(tell(letter))));
        self
    }

    /// Sets how many deliveries are handled at once, 16 unless set; zero counts as one. Each uses one connection, and so
    /// do stored deliveries, of which a quarter as many run beside them.
    pub fn concurrency(mut self, deliveries: usize) -> Self {
        self.settings.concurrency = deliveries.max(1);
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
    /// prolonged while the handler runs; after a crash others go on when it has ended.
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
        let stats = Arc::new(watch::Sender::new(ConsumerStats::default()));
        let mut settings = self.settings;
        if settings.ack != AckMode::AfterHandlers {
            // There is nothing to gather: each is acknowledged by itself, before or in the middle.
            settings.batch = 1;
        }
        let most = settings.concurrency.saturating_mul(settings.batch);
        settings.prefetch = self.prefetch.unwrap_or_else(|| most.saturating_mul(PREFETCH_PER_SLOT));
        let worker = Arc::new(Worker {
            consumer: self.name.into(),
            store: self.store,
            routes: self.routes,
            layers: self.layers,
            settings,
            dead: self.dead,
            switch: self.switch.map(|settings| SyncMutex::new(Switch::new(settings))),
            stored: Wake::default(),
            stats: stats.clone(),
            shutdown: shutdown.clone(),
        });
        // What waits is counted by the lanes; the mailbox only hands over, one at a time from each reader.
        let (address, arrivals) = mailbox(self.subscribers.len());
        let (open, done) = (Arc::new(AtomicUsize::new(self.subscribers.len())), Shutdown::default());
        let core = Core::new(worker.clone(), arrivals, open.clone(), done.clone());
        let retrier = Retrier::new(worker, RelayId::generate().as_str(), done);
        let mut supervisor = Supervisor::new(shutdown.clone(), Restarts::default())
            .actor("core", move || core.clone().run())
            .actor("retrier", move || retrier.clone().run());
        let subscribers: Vec<_> = self.subscribers.into_iter().map(|one| Arc::new(Mutex::new(one))).collect();
        for subscriber in &subscribers {
            let reader = Reader::new(subscriber.clone(), address.clone(), open.clone(), shutdown.clone());
            supervisor = supervisor.actor("reader", move || reader.clone().run());
        }
        let exits = supervisor.exits();
        let stopping = shutdown.clone();
        let running = async move {
            let outcome = supervisor.run().await;
            leave(subscribers, &stopping).await;
            outcome
        };
        let task = span.in_scope(|| spawn(running.in_current_span()));
        Ok(ConsumerHandle::new(shutdown, task, stats.subscribe(), exits))
    }

    fn faults(&self) -> Vec<ConsumerFault> {
        let mut faults = Vec::new();
        let names = std::iter::once(self.name.as_str()).chain(self.routes.iter().map(|r| &*r.name));
        for name in names {
            if name.is_empty() || name.len() > MAX_NAME || name.chars().any(char::is_control) {
                faults.push(ConsumerFault::Name(name.to_owned()));
            }
        }
        if self.name.contains('/') {
            faults.push(ConsumerFault::Slash(self.name.clone()));
        }
        let mut seen = BTreeSet::new();
        let doubled: BTreeSet<_> = self.routes.iter().map(|r| &r.name).filter(|name| !seen.insert(*name)).collect();
        faults.extend(doubled.into_iter().map(|name| ConsumerFault::DoubledHandler(name.to_string())));
        if self.routes.is_empty() {
            faults.push(ConsumerFault::NoHandler);
        }
        if self.subscribers.is_empty() {
            faults.push(ConsumerFault::NoSubscriber);
        }
        let (redelivered_for, retention) = (self.settings.redelivered_for, self.store.inbox_retention());
        // What is retried for ever is stored, and needs no inbox row but those of the waits before that.
        let retried_for = self.settings.retry.longest().unwrap_or(self.settings.hold);
        if redelivered_for.saturating_add(retried_for) > retention {
            faults.push(ConsumerFault::InboxForgets { redelivered_for, retried_for, retention });
        }
        faults
    }
}
