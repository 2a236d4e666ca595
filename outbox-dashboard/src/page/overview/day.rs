//! The last day of a database, from the samples that one of its relays writes.

use crate::{
    draw::chart::{self, Line},
    page::text::{Markup, number, rate},
    store::Database,
};
use outbox_core::{
    admin::{Sample, span_text},
    event::Timestamp,
    outbox::StoreError,
    runtime::now,
};
use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// How far back samples are kept.
const DAY: Duration = Duration::from_hours(24);
/// Parts of the day that are drawn: five minutes each, about as many as a small picture has pixels.
const PARTS: usize = 288;
/// Samples of one read, as many as a store gives.
const READ: u32 = 10_000;
/// Reads of one day at most, beside the one of its newest minutes: a day of 31 routes.
const MOST_READS: u32 = 5;
/// Samples that are drawn at most: each read asks for the last minute of the one before again.
const MOST_SAMPLES: u64 = 45_000;
/// The minutes in which the routes are counted that write samples now.
const NEWEST: Duration = Duration::from_mins(2);
/// How long a day is kept: samples come once a minute.
const KEPT: Duration = Duration::from_secs(30);

/// A figure of the day.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Figure {
    pub(crate) title: &'static str,
    /// The lines' names with their newest values, each with its class.
    pub(crate) keys: Vec<(&'static str, String)>,
    pub(crate) chart: Markup,
}

/// The days that were read last, so that live pages do not read thousands of samples every other
/// second.
#[derive(Debug, Default)]
pub(crate) struct Days(Mutex<ByDatabase>);

/// What was read of each database, and when.
type ByDatabase = HashMap<Arc<str>, (Instant, Arc<[Figure]>)>;

impl Days {
    /// Entries are only inserted whole, so that a panic leaves them as they were.
    fn lock(&self) -> MutexGuard<'_, ByDatabase> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives the day of a database; nothing where no relay has written a sample of it.
    pub(crate) async fn of(
        &self,
        database: &Database,
        at: Timestamp,
    ) -> Result<Arc<[Figure]>, StoreError> {
        let kept = self.lock().get(&database.name).cloned();
        if let Some((read_at, day)) = kept
            && now().saturating_duration_since(read_at) < KEPT
        {
            return Ok(day);
        }
        let read = |since, limit| database.store.samples(since, limit);
        let day: Arc<[Figure]> = figures(&samples(read, at).await?, at).into();
        self.lock().insert(Arc::clone(&database.name), (now(), Arc::clone(&day)));
        Ok(day)
    }
}

fn before(at: Timestamp, span: Duration) -> Timestamp {
    let span = i64::try_from(span.as_micros()).unwrap_or(i64::MAX);
    Timestamp::from_micros(at.as_micros().saturating_sub(span))
}

/// Gives the part of a day whose samples are read, where so many routes write one a minute.
fn read_back(routes: usize) -> Duration {
    let minutes = MOST_SAMPLES / u64::try_from(routes).unwrap_or(u64::MAX).max(1);
    Duration::from_mins(minutes).min(DAY)
}

/// Reads the samples of the last day; of more than are drawn, the oldest are left out. The newest
/// minutes are read first, and are there whatever the others are: what is said of now is of now.
async fn samples<F>(
    read: impl Fn(Timestamp, u32) -> F,
    at: Timestamp,
) -> Result<Vec<Sample>, StoreError>
where
    F: Future<Output = Result<Vec<Sample>, StoreError>>,
{
    let newest = read(before(at, NEWEST), READ).await?;
    let routes: BTreeSet<&str> = newest.iter().map(|sample| sample.route.as_str()).collect();
    let mut since = before(at, read_back(routes.len()));
    let mut all: Vec<Sample> = Vec::new();
    for _ in 0..MOST_READS {
        let read = read(since, READ).await?;
        let is_full = read.len() >= READ as usize;
        // A full answer may lack routes of its last minute, which is asked for again.
        let last = read.last().map(|sample| sample.at).filter(|last| is_full && *last > since);
        let Some(last) = last else {
            all.extend(read);
            break;
        };
        all.extend(read.into_iter().filter(|sample| sample.at < last));
        since = last;
    }
    // Where more routes wrote samples earlier, the reads have ended before these.
    let last = all.last().map(|sample| sample.at);
    all.extend(newest.into_iter().filter(|sample| last.is_none_or(|last| sample.at > last)));
    Ok(all)
}

/// What is added up of a part of the day.
#[derive(Debug, Clone, Copy, Default)]
struct Part {
    /// Deliveries and failures a second, added up over the routes of each minute.
    delivered: f64,
    failed: f64,
    minutes: u32,
    minute: Option<Timestamp>,
    backlog: Option<u64>,
    oldest_ms: Option<u64>,
    p50_ms: Option<u64>,
    p99_ms: Option<u64>,
}

impl Part {
    fn add(&mut self, sample: &Sample) {
        let figures = &sample.figures;
        if self.minute != Some(sample.at) {
            self.minute = Some(sample.at);
            self.minutes += 1;
        }
        let over = Duration::from_millis(figures.over_ms).as_secs_f64();
        if over > 0.0 {
            // Counts of a minute are far below the numbers that have no neighbour as a float.
            self.delivered += figures.delivered as f64 / over;
            self.failed += figures.failed as f64 / over;
        }
        self.backlog = self.backlog.max(Some(figures.backlog.count));
        // While nothing waits, the oldest has no age.
        self.oldest_ms = self.oldest_ms.max(figures.oldest_ms.or(Some(0)));
        self.p50_ms = self.p50_ms.max(figures.p50_ms);
        self.p99_ms = self.p99_ms.max(figures.p99_ms);
    }

    fn a_second(&self, sum: f64) -> Option<f64> {
        (self.minutes > 0).then(|| sum / f64::from(self.minutes))
    }
}

/// Gives the figures of a day; nothing where there is no sample.
fn figures(samples: &[Sample], at: Timestamp) -> Vec<Figure> {
    if samples.is_empty() {
        return Vec::new();
    }
    let mut parts = vec![Part::default(); PARTS];
    let width = DAY.as_micros() / PARTS as u128;
    for sample in samples {
        let back = at.since(sample.at).as_micros() / width;
        if let Some(part) =
            usize::try_from(back).ok().and_then(|back| (PARTS - 1).checked_sub(back))
        {
            parts[part].add(sample);
        }
    }
    let line = |name, class, value: &dyn Fn(&Part) -> Option<f64>| Line {
        name,
        class,
        values: parts.iter().map(value).collect(),
    };
    let of = |value: Option<u64>| value.map(|value| value as f64);
    vec![
        figure(
            "Events a second",
            vec![
                line("delivered", "good", &|part| part.a_second(part.delivered)),
                line("failed", "bad", &|part| part.a_second(part.failed)),
            ],
            &|value| format!("{}/s", rate(value)),
        ),
        figure("Waiting", vec![line("events", "busy", &|part| of(part.backlog))], &whole),
        figure("Oldest that waits", vec![line("age", "busy", &|part| of(part.oldest_ms))], &millis),
        figure(
            "Handover, the slowest route",
            vec![
                line("p50", "busy", &|part| of(part.p50_ms)),
                line("p99", "warn", &|part| of(part.p99_ms)),
            ],
            &millis,
        ),
    ]
}

fn figure(title: &'static str, lines: Vec<Line>, written: &dyn Fn(f64) -> String) -> Figure {
    let told = |value: Option<f64>| value.map_or_else(|| "none".to_owned(), written);
    let keys = lines.iter().map(|line| (line.class, format!("{} {}", line.name, told(line.now()))));
    let say = lines.iter().map(|line| {
        format!("{}: now {}, at most {}", line.name, told(line.now()), told(line.highest()))
    });
    let say = format!("{title} over 24 hours. {}", say.collect::<Vec<_>>().join("; "));
    Figure { title, keys: keys.collect(), chart: chart::draw(&lines, &say, written) }
}

/// Rounds a value that is never negative; what is too large for a number is the largest one.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a cast of a float saturates, which is what is wanted here"
)]
fn rounded(value: f64) -> u64 {
    value.round() as u64
}

fn whole(value: f64) -> String {
    number(rounded(value))
}

fn millis(value: f64) -> String {
    span_text(Duration::from_millis(rounded(value)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use outbox_core::admin::{Bounded, SampleFigures};

    const MINUTE: i64 = 60_000_000;

    fn sample(minute: i64, route: &str, delivered: u64, backlog: u64) -> Sample {
        let figures = SampleFigures {
            over_ms: 60_000,
            delivered,
            backlog: Bounded { count: backlog, or_more: false },
            oldest_ms: (backlog > 0).then_some(5_000),
            p50_ms: (delivered > 0).then_some(20),
            p99_ms: (delivered > 0).then_some(400),
            ..SampleFigures::default()
        };
        Sample { at: Timestamp::from_micros(minute * MINUTE), route: route.to_owned(), figures }
    }

    #[test]
    fn rates_of_routes_are_added_and_minutes_of_a_part_are_averaged() {
        // Two minutes of one part, and one of the part before it.
        let samples = [
            sample(1_434, "billing", 600, 0),
            sample(1_438, "billing", 600, 3),
            sample(1_438, "mailing", 600, 3),
            sample(1_439, "billing", 0, 7),
        ];
        let day = figures(&samples, Timestamp::from_micros(1_440 * MINUTE));
        let keys: Vec<&str> = day.iter().flat_map(|f| &f.keys).map(|(_, key)| &**key).collect();
        assert_eq!(
            keys,
            ["delivered 10.0/s", "failed 0.0/s", "events 7", "age 5 s", "p50 20 ms", "p99 400 ms"]
        );
    }

    /// Samples of so many routes in each minute from one to another, in the order of a store.
    fn minutes(
        range: std::ops::Range<i64>,
        routes: usize,
        backlog: u64,
    ) -> impl Iterator<Item = Sample> {
        range.flat_map(move |minute| {
            (0..routes).map(move |route| sample(minute, &format!("route-{route:03}"), 60, backlog))
        })
    }

    #[tokio::test]
    async fn what_is_said_of_now_is_of_now_however_many_routes_there_are() {
        for (early, late, hours) in
            [(1, 1, 24), (31, 31, 24), (60, 60, 12), (300, 300, 2), (60, 1, 13)]
        {
            let mut stored: Vec<Sample> = minutes(0..1_430, early, 100).collect();
            stored.extend(minutes(1_430..1_440, late, 7));
            let reads = std::cell::Cell::new(0);
            let read = |since: Timestamp, limit: u32| {
                reads.set(reads.get() + 1);
                let from = stored.partition_point(|sample| sample.at < since);
                let limit = usize::try_from(limit.min(READ)).unwrap();
                std::future::ready(Ok(stored[from..]
                    .iter()
                    .take(limit)
                    .cloned()
                    .collect::<Vec<_>>()))
            };
            let at = Timestamp::from_micros(1_440 * MINUTE);
            let samples = samples(read, at).await.unwrap();
            let routes = format!("{early} routes, then {late}");
            assert_eq!(
                figures(&samples, at)[1].keys[0],
                ("busy", "events 7".to_owned()),
                "{routes}"
            );
            assert!(samples.is_sorted_by_key(|sample| sample.at), "{routes}");
            let mut seen: Vec<i64> = samples.iter().map(|sample| sample.at.as_micros()).collect();
            seen.dedup();
            assert!(seen.len() >= hours * 60 - 1, "{routes}: {} minutes", seen.len());
            assert!(reads.get() <= MOST_READS + 1, "{routes}: {} reads", reads.get());
        }
    }

    #[test]
    fn a_day_without_samples_has_no_figure_and_old_ones_are_left_out() {
        let at = Timestamp::from_micros(3_000 * MINUTE);
        assert!(figures(&[], at).is_empty());
        let day = figures(&[sample(1, "billing", 600, 1)], at);
        assert_eq!(day[0].keys[0], ("good", "delivered none".to_owned()));
        // Those of a relay that has ended are drawn, and are not now.
        let day = figures(&[sample(2_900, "billing", 600, 1)], at);
        assert_eq!(day[0].keys[0], ("good", "delivered none".to_owned()));
        assert!(day[0].chart.as_str().contains("at most 10.0/s"), "{}", day[0].chart.as_str());
    }
}
