//! The operator actor: reads what operators have paused or slowed down, and writes what the relay
//! knows of itself, after each renewal; it runs the sampler. It works beside the keeper, so that
//! none of this delays a renewal.

use super::{
    incarnation::RelayParts,
    messages::{DispatcherMsg, DispatcherStopped, Lease},
    metrics::RouteMetrics,
    sampler::Sampler,
};
use crate::{
    event::RelayId,
    failure::BackgroundWork,
    outbox::{
        ControlReader, Epoch, Live, LiveStore, ParkStore, PartitionNo, RelayLive, RouteLive,
        StoreError,
    },
    runtime::{Shutdown, now},
    transport::WhenDead,
};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{sleep, timeout},
};

/// Pause before the controls are read again while they are not known: the relay starts nothing
/// before.
const FIRST_READ_AGAIN: Duration = Duration::from_millis(500);

/// The partition whose owner writes samples.
const ELECTS: PartitionNo = PartitionNo(0);

/// What the actor watches of the others.
pub(super) struct Watched {
    /// The lease by the last renewal.
    pub(super) lease: watch::Receiver<Lease>,
    /// The relay's partitions, by the last renewal.
    pub(super) owned: watch::Receiver<Vec<(PartitionNo, Epoch)>>,
    /// The relay with other routes for which this one waits.
    pub(super) waits_for: watch::Receiver<Option<RelayId>>,
    /// The metrics of the routes.
    pub(super) routes: Vec<Arc<RouteMetrics>>,
}

/// The operator actor with its stores and channels.
pub(super) struct Operator {
    relay: RelayId,
    controls: Option<ControlReader>,
    live: Option<Arc<dyn LiveStore>>,
    sampler: Option<Sampler>,
    /// Where the parked keys are; `None` where no route parks any.
    parks: Option<Arc<dyn ParkStore>>,
    dispatcher: mpsc::Sender<DispatcherMsg>,
    watched: Watched,
    wake: watch::Receiver<u64>,
    /// How long a statement may take.
    within: Duration,
    shutdown: Shutdown,
    work: BackgroundWork,
    /// The confirmed events of each route when the row was written last.
    before: Option<(Instant, Vec<u64>)>,
}

impl Operator {
    /// Makes the actor; `None` if the store has neither controls nor live rows.
    pub(super) fn new(
        parts: &RelayParts,
        relay: &RelayId,
        dispatcher: mpsc::Sender<DispatcherMsg>,
        watched: Watched,
    ) -> Option<Self> {
        let (controls, live) = (parts.store.controls.clone(), parts.store.live.clone());
        let within = parts.config.lease / 3;
        let parks_keys = parts.routes.iter().any(|route| route.when_dead == WhenDead::Park);
        let sampler =
            parts.store.samples.clone().map(|samples| {
                Sampler::new(samples, relay.clone(), parts.config.sample_every, within)
            });
        (controls.is_some() || live.is_some() || sampler.is_some()).then(|| Self {
            relay: relay.clone(),
            controls: controls.map(ControlReader::new),
            live,
            sampler,
            parks: parks_keys.then(|| parts.store.parks.clone()),
            dispatcher,
            watched,
            wake: parts.wake.listen(),
            within,
            shutdown: parts.shutdown.clone(),
            work: BackgroundWork::default(),
            before: None,
        })
    }

    /// Works until the relay stops.
    pub(super) async fn run(mut self) -> Result<(), DispatcherStopped> {
        let shutdown = self.shutdown.clone();
        tokio::select! {
            biased;
            () = shutdown.requested() => Ok(()),
            ended = self.work() => ended,
        }
    }

    async fn work(&mut self) -> Result<(), DispatcherStopped> {
        self.read_controls().await?;
        loop {
            let (controls, wake, sampler) = (&self.controls, &mut self.wake, &self.sampler);
            let woken = async {
                match controls {
                    Some(controls) if controls.is_known() => controls.woken(Some(wake)).await,
                    Some(_) => sleep(FIRST_READ_AGAIN).await,
                    None => std::future::pending().await,
                }
            };
            let sample_due = async {
                match sampler {
                    Some(sampler) => sampler.due().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                renewed = self.watched.lease.changed() => {
                    if renewed.is_err() {
                        return Ok(());
                    }
                    self.read_controls().await?;
                    self.write_live().await?;
                    if let Some(sampler) = &mut self.sampler {
                        let owned = self.watched.owned.borrow();
                        sampler.elect(owned.iter().any(|(partition, _)| *partition == ELECTS));
                    }
                }
                () = woken => {
                    self.read_controls().await?;
                    self.read_unparked().await?;
                }
                () = sample_due => self.sample().await?,
            }
        }
    }

    /// Reads the controls, and passes them on if they have changed.
    async fn read_controls(&mut self) -> Result<(), DispatcherStopped> {
        let Some(reader) = &mut self.controls else { return Ok(()) };
        match reader.read(self.within).await {
            Some(controls) => self.send(DispatcherMsg::Controls(controls)).await,
            None => Ok(()),
        }
    }

    /// Reads the keys that operators have unparked since the last renewal: a redriven event does not
    /// wait for the next one.
    async fn read_unparked(&mut self) -> Result<(), DispatcherStopped> {
        let Some(parks) = &self.parks else { return Ok(()) };
        let read = match timeout(self.within, parks.unparked_keys(&self.relay)).await {
            Ok(read) => read,
            Err(late) => Err(StoreError::Unavailable(late.into())),
        };
        match read {
            Ok(keys) => {
                self.work.succeeded("read the unparked keys");
                if keys.is_empty() {
                    Ok(())
                } else {
                    self.send(DispatcherMsg::Unparked(keys)).await
                }
            }
            Err(error) => {
                self.work.failed("read the unparked keys", &error);
                Ok(())
            }
        }
    }

    /// Writes the live row.
    async fn write_live(&mut self) -> Result<(), DispatcherStopped> {
        let Some(store) = self.live.clone() else { return Ok(()) };
        let mut live = self.describe().await?;
        let at = now();
        let before = self.before.replace((at, delivered(&live).collect()));
        if let Some((then, delivered)) = before {
            set_rates(&mut live.routes, &delivered, at.saturating_duration_since(then));
        }
        let write = store.write_live(self.relay.as_str(), "", Live::Relay(live));
        let written = match timeout(self.within, write).await {
            Ok(written) => written,
            Err(late) => Err(StoreError::Unavailable(late.into())),
        };
        match written {
            Ok(()) => self.work.succeeded("write the relay's live row"),
            Err(error) => self.work.failed("write the relay's live row", &error),
        }
        Ok(())
    }

    /// Writes the samples of a minute.
    async fn sample(&mut self) -> Result<(), DispatcherStopped> {
        let own = self.describe().await?;
        if let Some(sampler) = &mut self.sampler {
            sampler.sample(own).await;
        }
        Ok(())
    }

    /// Describes the relay, but for its rates.
    async fn describe(&self) -> Result<RelayLive, DispatcherStopped> {
        let (to, described) = oneshot::channel();
        self.send(DispatcherMsg::Describe(to)).await?;
        let mut live = described.await.map_err(|_| DispatcherStopped)?;
        live.waits_for = self.watched.waits_for.borrow().as_ref().map(ToString::to_string);
        for (route, metrics) in live.routes.iter_mut().zip(&self.watched.routes) {
            route.handovers = metrics.handovers();
        }
        Ok(live)
    }

    async fn send(&self, message: DispatcherMsg) -> Result<(), DispatcherStopped> {
        self.dispatcher.send(message).await.map_err(|_| DispatcherStopped)
    }
}

fn delivered(live: &RelayLive) -> impl Iterator<Item = u64> {
    live.routes.iter().map(|route| route.delivered)
}

/// Sets how many events a second each route has confirmed since its counter was read before.
fn set_rates(routes: &mut [RouteLive], before: &[u64], since: Duration) {
    for (route, before) in routes.iter_mut().zip(before) {
        // Counters are far below the numbers that have no neighbour as a float.
        let confirmed = route.delivered.saturating_sub(*before) as f64;
        route.rate = if since.is_zero() { 0.0 } else { confirmed / since.as_secs_f64() };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_what_was_confirmed_since_the_row_before() {
        for (delivered, before, since_ms, rate) in
            [(0, 0, 5_000, 0.0), (500, 0, 5_000, 100.0), (500, 490, 4_000, 2.5), (5, 0, 0, 0.0)]
        {
            let mut routes = [RouteLive { delivered, ..RouteLive::default() }];
            set_rates(&mut routes, &[before], Duration::from_millis(since_ms));
            assert!((routes[0].rate - rate).abs() < 1e-9, "{delivered} {before}: {routes:?}");
        }
    }
}
