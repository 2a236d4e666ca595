//! The sampler: one relay of the database, the owner of partition 0, writes a row a minute and
//! route for the overview of a day. The operator actor runs it beside the lease, which no failure of
//! it costs.
//!
//! The counts of a minute are what all relays' counters have grown by. The counters of other relays
//! are those of their live rows, so that no relay writes more than it does without samples.

use crate::{
    event::{RelayId, Timestamp},
    failure::BackgroundWork,
    outbox::{
        HandoverTimes, RelayLive, RouteLive, Sample, SampleBasis, SampleFigures, SampleWriter,
        StoreError,
    },
    runtime::now,
};
use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::time::{sleep_until, timeout};

/// Pause after a failure: it is over long before the minute is.
const RETRY: Duration = Duration::from_secs(5);
/// A row is of the minute that has just ended, or ends within this part of it: timers and the
/// database's clock differ a little.
const SLACK_PART: u32 = 60;
/// Counters of a relay that has not written for so long are forgotten.
const FORGOTTEN_AFTER: Duration = Duration::from_hours(1);

/// Writes samples while the relay is the one to do so.
pub(super) struct Sampler {
    store: Arc<dyn SampleWriter>,
    relay: RelayId,
    /// A minute.
    every: Duration,
    /// How long a statement may take.
    within: Duration,
    /// The counters at the last sample, or when the relay was elected.
    base: Option<Base>,
    /// When the next sample is due; `None` unless the relay is elected.
    due: Option<Instant>,
    work: BackgroundWork,
    is_failing: bool,
}

impl Sampler {
    pub(super) fn new(
        store: Arc<dyn SampleWriter>,
        relay: RelayId,
        every: Duration,
        within: Duration,
    ) -> Self {
        let work = BackgroundWork::default();
        Self { store, relay, every, within, base: None, due: None, work, is_failing: false }
    }

    /// Notes whether the relay owns partition 0, by the last renewal.
    pub(super) fn elect(&mut self, is_elected: bool) {
        if !is_elected {
            (self.base, self.due) = (None, None);
        } else if self.due.is_none() {
            self.due = Some(now());
        }
    }

    /// Waits until a sample is due; for ever while the relay is not elected.
    pub(super) async fn due(&self) {
        match self.due {
            Some(due) => sleep_until(due.into()).await,
            None => std::future::pending().await,
        }
    }

    /// Writes the samples of the minute that ends, of the routes as this relay describes them; the
    /// first time it only reads the counters.
    pub(super) async fn sample(&mut self, own: RelayLive) {
        match self.write(own).await {
            Ok(next) => {
                self.due = next;
                self.is_failing = false;
                self.work.succeeded("write the samples of a minute");
            }
            Err(error) => {
                // Once: the next sample says which time it covers.
                if !self.is_failing {
                    self.work.failed("write the samples of a minute", &error);
                }
                self.is_failing = true;
                self.due = Some(now() + RETRY.min(self.every));
            }
        }
    }

    /// Gives when the next sample is due.
    async fn write(&mut self, own: RelayLive) -> Result<Option<Instant>, StoreError> {
        let basis = in_time(self.within, self.store.sample_basis(self.relay.as_str())).await?;
        if !basis.is_elected {
            self.base = None;
            return Ok(None);
        }
        let at = now();
        let counters = Counters::of(&basis, &self.relay, &own);
        if let Some(base) = &self.base {
            let minute = minute_of(basis.now, self.every);
            let over = at.saturating_duration_since(base.at);
            let samples = base.samples(&counters, &own, &basis, (minute, over));
            in_time(self.within, self.store.write_samples(&samples)).await?;
        }
        match &mut self.base {
            Some(base) => base.replace(counters, at),
            None => self.base = Some(Base::new(counters, at)),
        }
        Ok(Some(at + until_next(basis.now, self.every)))
    }
}

async fn in_time<T>(
    within: Duration,
    work: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    match timeout(within, work).await {
        Ok(done) => done,
        Err(late) => Err(StoreError::Unavailable(late.into())),
    }
}

/// Gives the beginning of the minute of which a row is that is written now.
fn minute_of(now: Timestamp, every: Duration) -> Timestamp {
    let in_minute = now.as_micros() - micros(every) + micros(every / SLACK_PART);
    Timestamp::from_micros(in_minute - in_minute.rem_euclid(micros(every)))
}

/// Gives the time until the minute ends, or the next one if it ends at once.
fn until_next(now: Timestamp, every: Duration) -> Duration {
    let gone = now.as_micros().rem_euclid(micros(every));
    let left = every.saturating_sub(Duration::from_micros(gone.unsigned_abs()));
    if left < every / SLACK_PART { left + every } else { left }
}

fn micros(span: Duration) -> i64 {
    i64::try_from(span.as_micros()).unwrap_or(i64::MAX).max(1)
}

/// What a relay has counted of a route since its start.
#[derive(Debug, Clone, Default)]
struct Counted {
    delivered: u64,
    failed: u64,
    dead: u64,
    handovers: HandoverTimes,
}

impl Counted {
    fn of(route: &RouteLive) -> Self {
        Self {
            delivered: route.delivered,
            failed: route.retried,
            dead: route.dead,
            handovers: route.handovers.clone(),
        }
    }

    fn add_since(&mut self, count: &Self, before: &Self) {
        self.delivered += count.delivered.saturating_sub(before.delivered);
        // The attempts of an outage are taken back, and then nothing has failed.
        self.failed += count.failed.saturating_sub(before.failed);
        self.dead += count.dead.saturating_sub(before.dead);
        self.handovers.add(&count.handovers.since(&before.handovers));
    }
}

/// The counters of a relay, by route.
type Routes = BTreeMap<String, Counted>;

/// The counters of all relays, and what waits for each route in those that live.
struct Counters {
    relays: BTreeMap<String, Routes>,
    waiting: BTreeMap<String, u64>,
}

impl Counters {
    /// Takes those of the live rows, and this relay's own as they are now.
    fn of(basis: &SampleBasis, me: &RelayId, own: &RelayLive) -> Self {
        let mut counters = Self { relays: BTreeMap::new(), waiting: BTreeMap::new() };
        for relay in basis.relays.iter().filter(|relay| relay.id != me.as_str()) {
            counters.take(&relay.id, &relay.state, relay.live);
        }
        counters.take(me.as_str(), own, true);
        counters
    }

    fn take(&mut self, relay: &str, state: &RelayLive, is_live: bool) {
        let counted = state.routes.iter().map(|route| (route.route.clone(), Counted::of(route)));
        self.relays.insert(relay.to_owned(), counted.collect());
        for route in state.routes.iter().filter(|_| is_live) {
            *self.waiting.entry(route.route.clone()).or_default() += route.waiting;
        }
    }
}

/// The counters from which the next ones are counted.
struct Base {
    at: Instant,
    /// By relay, with the instant at which its row was read last.
    relays: BTreeMap<String, (Instant, Routes)>,
}

impl Base {
    fn new(counters: Counters, at: Instant) -> Self {
        let mut base = Self { at, relays: BTreeMap::new() };
        base.replace(counters, at);
        base
    }

    /// Takes new counters. Those of a relay that did not write for a while stay, as it may write
    /// again, and so do those of a route that a row has left out, as there was no room for it.
    fn replace(&mut self, counters: Counters, at: Instant) {
        self.at = at;
        for (relay, routes) in counters.relays {
            let (read, known) = self.relays.entry(relay).or_insert_with(|| (at, Routes::new()));
            *read = at;
            known.extend(routes);
        }
        self.relays.retain(|_, (read, _)| at.saturating_duration_since(*read) < FORGOTTEN_AFTER);
    }

    /// Makes a sample of each of the relay's own routes: other relays that work have the same.
    fn samples(
        &self,
        counters: &Counters,
        own: &RelayLive,
        basis: &SampleBasis,
        (minute, over): (Timestamp, Duration),
    ) -> Vec<Sample> {
        let millis = |span: Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        let sample = |RouteLive { route, .. }: &RouteLive| {
            let counted = self.counted(counters, route);
            let figures = SampleFigures {
                over_ms: millis(over),
                delivered: counted.delivered,
                failed: counted.failed,
                dead: counted.dead,
                waiting: counters.waiting.get(route).copied().unwrap_or_default(),
                backlog: basis.backlog,
                oldest_ms: basis.oldest.map(millis),
                p50_ms: counted.handovers.percentile(500),
                p99_ms: counted.handovers.percentile(990),
            };
            Sample { at: minute, route: route.clone(), figures }
        };
        own.routes.iter().map(sample).collect()
    }

    /// Gives what all relays have counted of a route since. A relay that was not there before has
    /// started since. A relay that was, without this route, had no room for it in its row: it has
    /// all of its routes from its start, so what it has counted until now is not known.
    fn counted(&self, counters: &Counters, route: &str) -> Counted {
        let mut sum = Counted::default();
        for (relay, routes) in &counters.relays {
            let Some(count) = routes.get(route) else { continue };
            match self.relays.get(relay) {
                None => sum.add_since(count, &Counted::default()),
                Some((_, known)) => sum.add_since(count, known.get(route).unwrap_or(count)),
            }
        }
        sum
    }
}

#[cfg(test)]
mod tests;
