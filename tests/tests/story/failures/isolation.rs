//! Events that wait for one route or one key slow down no other.

use crate::support::{Answer, Destination, LATE, LEASE, SOON, Sample, World, relay};
use outbox_sea_orm::{
    OutboxEvent,
    failure::RetryPolicy,
    relay::Relay,
    transport::{Route, topic},
};
use sea_orm::TransactionTrait;
use serde::Serialize;
use std::time::{Duration, Instant};
use tests::{databases::TempDatabase, on_every_database, wait_until};

/// Events whose rate is measured, over many keys.
const MEASURED: usize = 6_000;
const KEYS: usize = 200;
/// Rounds with and without the backlog alternate, and each pair has a ratio; the test takes the
/// median of so many pairs, or of up to so many while it is too low, since other load on the
/// machine slows some rounds of either kind.
const ROUNDS: usize = 5;
const MOST_ROUNDS: usize = 41;
/// The least ratio to the rate without the backlog.
const KEPT: f64 = 0.9;

/// An event of the route that is down.
#[derive(Serialize, OutboxEvent)]
#[outbox(type = "story.burden", topic = "burden", encode_only)]
struct Burden {
    #[outbox(key)]
    key: String,
}

/// Events that wait for the key.
const OF_THE_KEY: u64 = 100_000;

/// Events that wait for the route; a million in the long form.
fn of_the_route() -> usize {
    if std::env::var_os("OUTBOX_LONG").is_some() { 1_000_000 } else { 200_000 }
}

/// A world with a relay whose route `up` publishes the measured events.
struct Runner {
    world: World,
    destination: Destination,
    relay: Relay,
}

impl Runner {
    async fn start(db: &TempDatabase) -> Self {
        let world = World::open(db).await;
        let destination =
            Destination::scripted(|sent, _| match (sent.route.as_str(), sent.key.as_deref()) {
                ("down", _) => Answer::Unavailable,
                (_, Some("stuck")) => Answer::Transient,
                _ => Answer::Confirmed,
            });
        let source = world.source();
        let later = RetryPolicy::default()
            .backoff(Duration::from_hours(1))
            .max_backoff(Duration::from_hours(2));
        let up = Route::new("up", topic("story"), destination.publisher("up")).retry(later);
        let down = Route::new("down", topic("burden"), destination.publisher("down"));
        let relay = relay(&source, LEASE * 2).add_route(up).add_route(down).start().await.unwrap();
        let runner = Self { world, destination, relay };
        runner.world.wait_for_shares(&[16], "it owns everything").await;
        runner
    }

    async fn save<E: OutboxEvent>(&self, events: &[E]) {
        for chunk in events.chunks(500) {
            let txn = self.world.db.begin().await.unwrap();
            self.world.outbox.enqueue_many(&txn, chunk).await.unwrap();
            txn.commit().await.unwrap();
        }
    }

    /// Saves events and gives the deliveries a second, from the first save to the last delivery.
    async fn rate(&self, round: u64) -> f64 {
        let events: Vec<Sample> = (0..MEASURED)
            .map(|n| Sample::new(format!("r{}", n % KEYS), round * 1_000 + (n / KEYS) as u64))
            .collect();
        let before = self.destination.count();
        let begun = Instant::now();
        self.save(&events).await;
        self.world.outbox.wake();
        self.destination.wait_for(before + MEASURED, LATE).await;
        MEASURED as f64 / begun.elapsed().as_secs_f64()
    }

    async fn end(self) {
        self.relay.shutdown(SOON).await.unwrap();
    }
}

/// Measures a world with a backlog of so many events beside one without.
async fn keeps_its_rate(burdened: Runner, free: Runner, (what, burden): (&str, u64)) {
    let (mut with, mut without, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0.. {
        // They alternate in who comes first: work that one leaves to the server slows the other.
        let (first, second) = if round % 2 == 0 { (&free, &burdened) } else { (&burdened, &free) };
        let rates = (first.rate(round).await, second.rate(round).await);
        let (free_rate, burdened_rate) = if round % 2 == 0 { rates } else { (rates.1, rates.0) };
        with.push(burdened_rate);
        without.push(free_rate);
        ratios.push(burdened_rate / free_rate);
        if ratios.len() >= MOST_ROUNDS || (ratios.len() >= ROUNDS && median(&ratios) >= KEPT) {
            break;
        }
    }
    let ratio = median(&ratios);
    let stats = *burdened.relay.stats().borrow();
    let found = format!(
        "{what}: {:.0}/s with it, {:.0}/s without, ratio {ratio:.2} of {} pairs; {stats:?}",
        median(&with),
        median(&without),
        ratios.len()
    );
    print_rates(&found);
    assert!(ratio >= KEPT, "{found}; {ratios:.2?}");
    // Each waiting event is evicted once, and the measured ones hardly ever: the relay does not
    // read waiting events again and again.
    assert!(
        stats.evicted <= burden + burden / 10,
        "{found}: events that wait are read again and again"
    );
    burdened.end().await;
    free.end().await;
}

fn print_rates(figure: &str) {
    println!("{figure}");
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

on_every_database! {
    async fn a_route_that_is_down_does_not_slow_another_one(db: &TempDatabase) {
        let other = TempDatabase::create(db.database()).await;
        let (burdened, free) = (Runner::start(db).await, Runner::start(&other).await);
        let burden: Vec<Burden> =
            (0..of_the_route()).map(|n| Burden { key: format!("b{}", n % 1_000) }).collect();
        burdened.save(&burden).await;
        let all = i64::try_from(burden.len()).unwrap();
        assert_eq!(burdened.world.count("outbox_events").await, all, "all of it waits");
        wait_until(SOON, "the breaker opens", async || tests::equals(burdened.relay.stats().borrow().open_breakers, 1)).await;
        keeps_its_rate(burdened, free, ("a route that is down", burden.len() as u64)).await;
    }

    async fn a_key_that_waits_does_not_slow_the_others(db: &TempDatabase) {
        let other = TempDatabase::create(db.database()).await;
        let (burdened, free) = (Runner::start(db).await, Runner::start(&other).await);
        let burden: Vec<Sample> = (1..=OF_THE_KEY).map(|n| Sample::new("stuck", n)).collect();
        burdened.save(&burden).await;
        wait_until(SOON, "its head has failed", async || tests::above(burdened.world.count("outbox_retries").await, 0)).await;
        keeps_its_rate(burdened, free, ("a key that waits", OF_THE_KEY)).await;
    }
}
