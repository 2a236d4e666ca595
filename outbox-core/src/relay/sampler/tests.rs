//! The sampler under paused time, with a store whose clock is that time.

use super::*;
use crate::outbox::{Bounded, SampledRelay};
use async_trait::async_trait;
use std::sync::Mutex;

const MINUTE: Duration = Duration::from_mins(1);
/// The database's clock at the beginning of a test: 20 seconds into a minute.
const BEGIN: i64 = 1_800_000_020_000_000;

/// What the tests set and see.
#[derive(Default)]
struct Shown {
    is_elected: bool,
    is_down: bool,
    others: Vec<SampledRelay>,
    written: Vec<Sample>,
    asked: u32,
}

struct Store {
    begun: Instant,
    shown: Mutex<Shown>,
}

impl Store {
    fn set<T>(&self, change: impl FnOnce(&mut Shown) -> T) -> T {
        change(&mut self.shown.lock().unwrap())
    }
}

#[async_trait]
impl SampleWriter for Store {
    async fn sample_basis(&self, relay: &str) -> Result<SampleBasis, StoreError> {
        assert_eq!(relay, "me");
        let gone = i64::try_from(now().duration_since(self.begun).as_micros()).unwrap();
        self.set(|shown| {
            shown.asked += 1;
            if shown.is_down {
                return Err(StoreError::Unavailable("the server is away".into()));
            }
            Ok(SampleBasis {
                now: Timestamp::from_micros(BEGIN + gone),
                is_elected: shown.is_elected,
                backlog: Bounded { count: 10_000, or_more: true },
                oldest: Some(Duration::from_secs(3)),
                relays: shown.others.clone(),
            })
        })
    }

    async fn write_samples(&self, samples: &[Sample]) -> Result<(), StoreError> {
        self.set(|shown| shown.written.extend_from_slice(samples));
        Ok(())
    }
}

fn elected() -> (Arc<Store>, Sampler) {
    let shown = Mutex::new(Shown { is_elected: true, ..Shown::default() });
    let store = Arc::new(Store { begun: now(), shown });
    let mut sampler = Sampler::new(store.clone(), RelayId::from_stored("me"), MINUTE, MINUTE / 12);
    sampler.elect(true);
    (store, sampler)
}

/// A relay's row: its route `billing` has confirmed and failed so many, each in 4 ms.
fn relay(delivered: u64, failed: u64) -> RelayLive {
    let mut route = RouteLive {
        route: "billing".to_owned(),
        delivered,
        retried: failed,
        dead: failed / 5,
        waiting: 7,
        ..RouteLive::default()
    };
    route.handovers.record(Duration::from_millis(4), delivered);
    RelayLive { routes: vec![route], ..RelayLive::default() }
}

fn other(id: &str, live: bool, state: RelayLive) -> SampledRelay {
    SampledRelay { id: id.to_owned(), live, state }
}

/// Waits until a sample is due, and writes it.
async fn next(sampler: &mut Sampler, own: RelayLive) {
    sampler.due().await;
    sampler.sample(own).await;
}

/// The beginning of a minute after that in which the test began, in whole seconds.
fn seconds(minutes: i64) -> i64 {
    BEGIN / 1_000_000 - 20 + 60 * minutes
}

#[tokio::test(start_paused = true)]
async fn a_row_a_minute_and_route_has_what_was_counted_in_it() {
    let (store, mut sampler) = elected();
    for delivered in [100, 150, 150, 400] {
        next(&mut sampler, relay(delivered, delivered / 50)).await;
    }
    let seen = store.set(|shown| std::mem::take(&mut shown.written));
    let rows: Vec<_> = seen
        .iter()
        .map(|Sample { at, figures, .. }| {
            (at.as_micros() / 1_000_000, figures.over_ms, figures.delivered, figures.failed)
        })
        .collect();
    let expected =
        [(seconds(0), 40_000, 50, 1), (seconds(1), 60_000, 0, 0), (seconds(2), 60_000, 250, 5)];
    assert_eq!(rows, expected, "the first one is of the rest of its minute");
    let figures = SampleFigures {
        over_ms: 60_000,
        delivered: 250,
        failed: 5,
        dead: 1,
        waiting: 7,
        backlog: Bounded { count: 10_000, or_more: true },
        oldest_ms: Some(3_000),
        p50_ms: Some(4),
        p99_ms: Some(5),
    };
    assert_eq!((seen[2].route.as_str(), seen[2].figures), ("billing", figures));
    assert_eq!(seen[1].figures.p50_ms, None, "nothing was delivered");
    assert!((figures.rate() - 250.0 / 60.0).abs() < 1e-9);
}

#[tokio::test(start_paused = true)]
async fn the_counters_of_other_relays_are_added_and_those_that_start_count_from_zero() {
    let (store, mut sampler) = elected();
    store.set(|shown| shown.others = vec![other("long", true, relay(9_000, 90))]);
    next(&mut sampler, relay(0, 0)).await;
    store.set(|shown| {
        shown.others = vec![
            other("long", true, relay(9_010, 90)),
            other("new", true, relay(5, 1)),
            other("crashed", false, relay(2, 0)),
            other("me", true, relay(1_000, 0)),
        ];
    });
    next(&mut sampler, relay(1, 0)).await;
    // It did not write for a minute, and goes on: its counters are no news.
    store.set(|shown| shown.others.clear());
    next(&mut sampler, relay(1, 0)).await;
    store.set(|shown| shown.others = vec![other("long", true, relay(9_011, 90))]);
    next(&mut sampler, relay(1, 0)).await;
    let seen = store.set(|shown| std::mem::take(&mut shown.written));
    let counts: Vec<_> = seen
        .iter()
        .map(|Sample { figures, .. }| (figures.delivered, figures.failed, figures.waiting))
        .collect();
    assert_eq!(counts, [(18, 1, 21), (0, 0, 7), (1, 0, 14)], "what crashed has nothing waiting");
}

#[tokio::test(start_paused = true)]
async fn a_route_that_a_row_leaves_out_for_a_while_did_not_start_since() {
    let (store, mut sampler) = elected();
    let left_out = || RelayLive { omitted: 1, ..RelayLive::default() };
    let mut counts = Vec::new();
    // By the minute: the rows of a relay that had room for its route at first, and of another that
    // had none.
    for (first, second) in [
        (relay(9_000, 90), left_out()),
        (relay(9_010, 90), left_out()),
        (left_out(), relay(5_000, 50)),
        (relay(9_025, 95), left_out()),
        (left_out(), relay(5_004, 50)),
        (relay(9_025, 95), relay(5_005, 51)),
    ] {
        store.set(|shown| {
            shown.others = vec![other("first", true, first), other("second", true, second)];
        });
        next(&mut sampler, relay(0, 0)).await;
        let figures = store.set(|shown| shown.written.pop()).map(|sample| sample.figures);
        counts.extend(figures.map(|figures| (figures.delivered, figures.failed)));
    }
    assert_eq!(counts, [(10, 0), (0, 0), (15, 5), (4, 0), (1, 1)]);
}

#[tokio::test(start_paused = true)]
async fn the_owner_of_partition_0_writes_and_no_other() {
    let (store, mut sampler) = elected();
    next(&mut sampler, relay(0, 0)).await;
    sampler.elect(false);
    let long = MINUTE * 10;
    assert!(timeout(long, sampler.due()).await.is_err(), "nothing is due");
    // By the renewal it is elected, and another relay has taken partition 0 since.
    store.set(|shown| shown.is_elected = false);
    sampler.elect(true);
    next(&mut sampler, relay(5, 0)).await;
    assert!(timeout(long, sampler.due()).await.is_err(), "nothing is due before the next renewal");
    store.set(|shown| shown.is_elected = true);
    sampler.elect(true);
    next(&mut sampler, relay(8, 0)).await;
    assert!(
        store.set(|shown| shown.written.is_empty()),
        "the counters of another time do not count"
    );
    next(&mut sampler, relay(9, 0)).await;
    let delivered: Vec<_> =
        store.set(|shown| shown.written.iter().map(|s| s.figures.delivered).collect());
    assert_eq!(delivered, [1]);
}

#[tokio::test(start_paused = true)]
async fn after_an_outage_the_next_row_has_the_counts_and_the_time_that_they_cover() {
    let (store, mut sampler) = elected();
    next(&mut sampler, relay(0, 0)).await;
    store.set(|shown| (shown.is_down, shown.asked) = (true, 0));
    let begun = now();
    // The database is away for two and a half minutes.
    while now().duration_since(begun) < MINUTE * 5 / 2 {
        next(&mut sampler, relay(10, 0)).await;
    }
    assert!(store.set(|shown| shown.asked) < 60, "failures have a pause");
    store.set(|shown| shown.is_down = false);
    next(&mut sampler, relay(30, 0)).await;
    next(&mut sampler, relay(31, 0)).await;
    let seen: Vec<_> = store.set(|shown| {
        let row =
            |s: &Sample| (s.at.as_micros() / 1_000_000, s.figures.over_ms, s.figures.delivered);
        shown.written.iter().map(row).collect()
    });
    let (covered, rest) = (seen[0].1, seen[1].1);
    assert_eq!(seen[0], (seconds(1), covered, 30));
    assert_eq!(seen[1], (seconds(2), rest, 1));
    assert_eq!(covered + rest, 160_000, "both cover the whole time to the end of the third minute");
}

#[test]
fn a_row_is_of_the_minute_that_ends() {
    let second = |second: i64| Timestamp::from_micros(second * 1_000_000);
    for (at, minute, left) in [
        (second(120), 60, 60_000_000),
        (Timestamp::from_micros(119_999_000), 60, 60_001_000),
        (second(160), 60, 20_000_000),
        (Timestamp::from_micros(179_500_000), 120, 60_500_000),
    ] {
        assert_eq!(minute_of(at, MINUTE), second(minute), "{at}");
        assert_eq!(until_next(at, MINUTE), Duration::from_micros(left), "{at}");
    }
}
