//! The board against a model: a database of a few lines, publishers that fail in every way, commits out of order, lost
//! partitions, failing reads, crashes, relays that leave and relays with other routes. All of it in one thread and from one
//! seed, so that a failure can be replayed.

mod arriving;
mod doings;
mod rollouts;
mod store;

use super::*;
use crate::{
    event::{Headers, Message, MessageId, MessageParts, Timestamp},
    failure::FailureClass,
    outbox::{DueRetry, PartitionRows, RouteRow, RouteState, StoredEvent, partition_of},
    relay::messages::ParkedKey,
    transport::{Limits, PublishError, Publisher, Receipt, everything, topic},
};
use async_trait::async_trait;
use fastrand::Rng;
use std::collections::{BTreeSet, HashSet};
use xxhash_rust::xxh3::xxh3_64;

struct Nowhere;

#[async_trait]
impl Publisher for Nowhere {
    async fn publish(&self, _: &Message) -> Result<Receipt, PublishError> {
        Ok(Receipt::new())
    }
}

const PARTITIONS: u16 = 4;

/// One stored event of the model.
struct Row {
    message: Message,
    partition: PartitionNo,
    visible: bool,
    rows: BTreeMap<Arc<str>, (RouteRow, Option<Instant>)>,
}

/// An answer on its way to the board.
enum Pending {
    Read(ReadAnswer),
    Failed,
    Batch(RouteBatch),
    /// The rest of a batch, which hangs until its deadline.
    Hung(RouteBatch, Instant),
    Finished(Vec<(PartitionNo, Epoch, EventId)>),
    /// The letters that were written, and then what was recorded.
    Recorded(Vec<(EventId, Arc<str>, LetterId)>, Vec<(PartitionNo, Epoch, EventId)>),
}

struct Model {
    rng: Rng,
    now: Instant,
    board: Board,
    routes: Arc<[Route]>,
    config: RelayConfig,
    table: BTreeMap<EventId, Row>,
    /// Letters about which nothing was decided; `true` where the key waits.
    letters: BTreeMap<(EventId, RouteNo), (LetterId, bool)>,
    last_letter: i64,
    /// Decisions about parked keys, until a renewal has told them.
    decided: Vec<DecidedPark>,
    /// All letters that were ever written.
    buried: HashSet<(EventId, RouteNo)>,
    /// Those of them that the destination had rejected.
    rejected: HashSet<(EventId, RouteNo)>,
    owned: BTreeMap<PartitionNo, Epoch>,
    last_id: i64,
    /// Keys whose transaction is open: its locks keep others of the key out.
    open: BTreeMap<EventId, Option<String>>,
    pending: Vec<Pending>,
    writes: VecDeque<(bool, Writes)>,
    timers: BTreeSet<(Instant, EventId, RouteNo)>,
    /// Deliveries by route, in the order of the confirmations.
    delivered: Vec<Vec<EventId>>,
    all: BTreeMap<EventId, (Option<String>, String)>,
    messages: BTreeMap<EventId, Message>,
    in_flight: HashSet<(RouteNo, String)>,
    /// Until when the destination of a route rejects everything.
    rejecting: Vec<Instant>,
    failing: bool,
    crashes: u32,
    /// Whether relays leave and hand partitions over.
    leaves: bool,
    /// Whether the one that runs is asked to end.
    stopping: bool,
    /// How many of the routes the one that runs has, the first ones.
    has_routes: usize,
    /// Whether others are deployed, and taken back, that have all routes or all but the last.
    deploys: bool,
    /// Whether there are events of a third topic.
    has_third: bool,
    /// Events that were given up because no route took them.
    unroutable: HashSet<EventId>,
}

/// Tells whether destinations reject an event for itself, as long as anything fails.
fn is_poison(id: EventId) -> bool {
    id.0 % 7 == 0
}

fn no_jitter(up_to: Duration) -> Duration {
    up_to / 2
}

impl Model {
    fn new(seed: u64, routes: usize) -> Self {
        Self::with_memory(seed, routes, 1..4_000)
    }

    /// Makes one whose routes hold so many bytes each.
    fn with_memory(seed: u64, routes: usize, bytes: std::ops::Range<usize>) -> Self {
        let mut rng = Rng::with_seed(seed);
        let route = |n: usize| {
            let selector = if n == 0 { everything() } else { topic("b") };
            let limits =
                Limits::default().max_batch(rng.usize(1..6)).max_in_flight(rng.usize(1..4));
            let route = Route::new(format!("route-{n}"), selector, Nowhere).limits(limits);
            let route = route.max_in_memory(rng.usize(bytes.clone()));
            match n {
                1 => route.park_when_dead(),
                2 => route.at_most_once(),
                _ => route,
            }
        };
        let routes: Arc<[Route]> = (0..routes).map(route).collect();
        let config = RelayConfig {
            per_route: rng.usize(4..40),
            per_key: rng.usize(2..8),
            read_batch: rng.usize(2..50),
            order_window: if rng.bool() { 10_000 } else { 40 },
            ..RelayConfig::default()
        };
        let board = Board::new(config, routes.clone(), no_jitter);
        let routes_count = routes.len();
        let delivered = routes.iter().map(|_| Vec::new()).collect();
        let start = Instant::now();
        let mut model = Self {
            rng,
            now: start,
            board,
            routes,
            config,
            table: BTreeMap::new(),
            letters: BTreeMap::new(),
            last_letter: 0,
            decided: Vec::new(),
            buried: HashSet::new(),
            rejected: HashSet::new(),
            owned: BTreeMap::new(),
            last_id: 0,
            open: BTreeMap::new(),
            pending: Vec::new(),
            writes: VecDeque::new(),
            timers: BTreeSet::new(),
            delivered,
            all: BTreeMap::new(),
            messages: BTreeMap::new(),
            in_flight: HashSet::new(),
            rejecting: Vec::new(),
            failing: true,
            crashes: 0,
            leaves: false,
            stopping: false,
            has_routes: routes_count,
            deploys: false,
            has_third: false,
            unroutable: HashSet::new(),
        };
        model.rejecting = vec![start; routes_count];
        for no in 0..PARTITIONS {
            model.gain(PartitionNo(no), false);
        }
        model
    }

    fn gain(&mut self, no: PartitionNo, crashed: bool) {
        let epoch = Epoch(self.owned.get(&no).map_or(1, |e| e.0 + 1));
        self.owned.insert(no, epoch);
        self.board.gain(no, epoch, crashed);
        if self.stopping {
            self.board.release(no);
        }
        let of_partition = |id: &EventId| {
            let message = &self.messages[id];
            (partition_of(message.key.as_deref(), message.id, PARTITIONS) == no)
                .then(|| message.key.clone())?
        };
        let parks: Vec<ParkedKey> = self
            .letters
            .iter()
            .filter_map(|((id, route), (letter, parks))| {
                let key = xxh3_64(of_partition(id).filter(|_| *parks)?.as_bytes());
                Some(ParkedKey { route: self.routes[*route].name.clone(), key, letter: *letter })
            })
            .collect();
        self.board.parked(no, &parks);
    }

    fn check(&self) {
        for (number, route) in self.routes.iter().enumerate() {
            let mut seen = HashSet::new();
            let mut last: BTreeMap<&str, EventId> = BTreeMap::new();
            for id in &self.delivered[number] {
                let (key, _) = &self.all[id];
                if !seen.insert(*id) {
                    assert!(!self.is_once(number), "{id} twice on {number}");
                    continue;
                }
                // A letter leaves the order of its key, unless the key waits for it; at most once promises no order
                // across a takeover.
                if self.is_once(number) || (number != 1 && self.buried.contains(&(*id, number))) {
                    continue;
                }
                if let Some(key) = key {
                    let before = last.insert(key, *id);
                    let in_window = self.config.order_window == 10_000;
                    assert!(
                        !in_window || before.is_none_or(|b| b < *id),
                        "{before:?} before {id} of {key} on {number}"
                    );
                }
            }
            for id in self.all.keys() {
                if route.selector.takes(&self.messages[id]) {
                    let may_be_lost = self.is_once(number)
                        && (self.crashes > 0 || self.buried.contains(&(*id, number)));
                    let is_known = self.unroutable.contains(id);
                    assert!(
                        seen.contains(id) || may_be_lost || is_known,
                        "{id} lost on {}",
                        route.name
                    );
                }
            }
        }
        for (id, route) in &self.rejected {
            assert!(
                is_poison(*id),
                "{id} was buried on {route} though its destination rejected everything or nothing"
            );
        }
        let stats = self.board.stats();
        assert_eq!((stats.in_flight, stats.partitions), (0, usize::from(PARTITIONS)), "{stats:?}");
    }
}

#[test]
fn nothing_is_lost_and_keys_keep_their_order_whatever_happens() {
    /// Worlds in which something was wrong once: a letter is redriven while another route of its event is written down; an
    /// event of a parked key comes without its payload; a fetch fails whose partition was lost and gained meanwhile; a decision
    /// about a parked key is told while the route is full, or while a page waits for payloads.
    const ONCE_WRONG: [u64; 6] = [23, 182, 254, 280, 1_142, 2_492];
    let seeds = if std::env::var_os("OUTBOX_LONG").is_some() { 5_000 } else { 60 };
    // One world again: `OUTBOX_SEED=17`.
    let one = std::env::var("OUTBOX_SEED").ok().map(|seed| seed.parse().expect("a number"));
    let seeds = one.map_or(0..seeds, |seed: u64| seed..seed + 1);
    for seed in ONCE_WRONG.into_iter().chain(seeds) {
        let mut model = Model::new(seed, 1 + usize::try_from(seed % 3).expect("small"));
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            model.run(400);
            model.check();
        }));
        if let Err(panic) = outcome {
            eprintln!("seed {seed}, config {:?}", model.config);
            std::panic::resume_unwind(panic);
        }
    }
}

#[test]
fn without_crashes_and_failures_nothing_is_delivered_twice() {
    for seed in 0..30 {
        let mut model = Model::new(seed, 2);
        model.failing = false;
        model.run(300);
        for delivered in &model.delivered {
            let distinct: HashSet<_> = delivered.iter().collect();
            assert_eq!(distinct.len(), delivered.len(), "seed {seed}");
        }
        model.check();
    }
}

/// A relay that is killed while it makes its connection dies with the event that it tried first. One that has met
/// death four times does not go first again.
#[test]
fn an_event_with_one_life_left_goes_when_another_was_confirmed_or_none_is_there() {
    for (others, seed) in [(0, 1), (1, 2), (30, 3), (30, 4)] {
        let mut model = Model::with_memory(seed, 1, 1_000_000..1_000_001);
        model.failing = false;
        while i64::try_from(model.table.len()).expect("few") <= others {
            model.produce();
            model.commit_one();
        }
        let first = *model.table.keys().next().expect("there is one");
        let row = RouteRow {
            attempts_started: 4,
            due_in: None,
            ..RouteRow::waiting(model.routes[0].name.clone())
        };
        model
            .table
            .get_mut(&first)
            .expect("stored")
            .rows
            .insert(model.routes[0].name.clone(), (row, None));
        model.crash();
        model.run(model.last_id);
        let place = model.delivered[0].iter().position(|id| *id == first);
        assert!(
            place.is_some_and(|place| (place > 0) == (others > 0)),
            "{others} others: {:?}",
            model.delivered[0]
        );
        assert!(model.buried.is_empty(), "{:?}", model.buried);
    }
}
