//! The keeper: renews the lease, takes the relay's fair share of the partitions, and releases
//! surplus ones.

use super::messages::{
    Backoff, DispatcherMsg, DispatcherStopped, Gained, Lease, ParkedKeyHash, ReleaseMsg,
};
use crate::{
    event::{LetterId, RelayId},
    failure::BackgroundWork,
    outbox::{
        Epoch, LeaseStore, LiveStore, OwnershipPlan, ParkStore, ParkedKey, PartitionNo, StoreError,
        UnparkedKey, plan_ownership,
    },
    runtime::{
        fault::{FaultPoint, fault_point},
        now,
    },
    telemetry::Heartbeats,
};
use std::{
    collections::{BTreeMap, HashSet, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{
    sync::{mpsc, watch},
    time::{sleep, sleep_until},
};
use xxhash_rust::xxh3::xxh3_64;

/// Parked keys of one page at most: some 100 KB, which the slowest database sends well within a
/// third of a lease.
const MAX_PAGE: u32 = 1_000;

/// The keeper with its stores and channels.
pub(crate) struct Keeper {
    pub(crate) relay: RelayId,
    pub(crate) routes: u64,
    pub(crate) store: Arc<dyn LeaseStore>,
    pub(crate) parks: Arc<dyn ParkStore>,
    pub(crate) lease: Duration,
    pub(crate) published: watch::Sender<Lease>,
    pub(crate) owned: watch::Sender<Vec<(PartitionNo, Epoch)>>,
    /// The relay with other routes for which this one waits.
    pub(crate) waits_for: watch::Sender<Option<RelayId>>,
    /// Where the relay's live row is, which is deleted with the relay's own.
    pub(crate) live: Option<Arc<dyn LiveStore>>,
    pub(crate) dispatcher: mpsc::Sender<DispatcherMsg>,
    pub(crate) releases: mpsc::Receiver<ReleaseMsg>,
    pub(crate) heartbeats: Arc<Heartbeats>,
    pub(crate) work: BackgroundWork,
}

/// The partitions of the relay, by the last renewal.
#[derive(Default)]
struct LeaseState {
    owned: BTreeMap<PartitionNo, Epoch>,
    /// Partitions that the dispatcher is asked to release and has not released yet.
    releasing: Vec<PartitionNo>,
    /// The relay takes over no partition before this: after an outage, other relays need time to
    /// renew their leases.
    no_takeover_before: Option<Instant>,
    waits_for: Option<RelayId>,
    /// Partitions taken over from relays that did not release them.
    crashed: HashSet<PartitionNo>,
    /// Gained partitions whose parked keys are being read. The dispatcher does not know of them
    /// yet: events of a parked key must not be published.
    loading: VecDeque<LoadingPartition>,
    /// Row limit of the next page of parked keys; `None` before the first.
    page_size: Option<u32>,
}

/// A partition whose parked keys are read.
struct LoadingPartition {
    partition: PartitionNo,
    epoch: Epoch,
    after: LetterId,
    parked: BTreeMap<LetterId, ParkedKeyHash>,
}

impl Keeper {
    /// Keeps the lease until the dispatcher has drained the board, which may be in the middle of a
    /// renewal; then it deregisters the relay.
    pub(crate) async fn run(mut self) {
        let mut state = LeaseState::default();
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));
        loop {
            let begun = now();
            let next = match self.renew_once(&mut state, begun).await {
                Ok(renew_again) => {
                    self.work.succeeded("renew the lease");
                    backoff.reset();
                    if renew_again { now() } else { begun + self.lease / 3 }
                }
                Err(RenewError::DispatcherStopped(DispatcherStopped)) => {
                    // The messages that the dispatcher sent before it stopped are still in the
                    // channel.
                    while let Some(ReleaseMsg::Partitions(list)) = self.releases.recv().await {
                        self.release(&mut state, list).await;
                    }
                    return self.deregister().await;
                }
                Err(RenewError::Store(error)) => {
                    self.work.failed("renew the lease", &error);
                    // Counted from the reconnect, which is the next attempt at the earliest.
                    let next = now() + backoff.take();
                    state.no_takeover_before = Some(next + self.lease / 3);
                    next
                }
            };
            loop {
                tokio::select! {
                    message = self.releases.recv() => match message {
                        Some(ReleaseMsg::Partitions(list)) => self.release(&mut state, list).await,
                        Some(ReleaseMsg::All) | None => return self.deregister().await,
                    },
                    () = sleep_until(next.into()) => break,
                }
            }
        }
    }

    /// Renews once and acts on the answer; `true` when the next renewal should follow at once.
    async fn renew_once(
        &mut self,
        state: &mut LeaseState,
        begun: Instant,
    ) -> Result<bool, RenewError> {
        let renewed = self.store.renew(&self.relay, self.routes, self.lease).await;
        let renewal = self.heartbeats.noted(renewed)?;
        let plan = plan_ownership(&self.relay, self.routes, &renewal.view);
        self.heartbeats.renewed(plan.waits_for.is_some());
        // Lost partitions are reported first: the renewed lease does not cover them. After a pause
        // longer than the lease the relay learns both from one answer.
        self.apply_ownership(state, &plan).await?;
        self.published.send_modify(|lease| lease.renewed(begun + self.lease));
        let lease = *self.published.borrow();
        self.log_waiting_for(state, &plan);
        let letters: Vec<LetterId> = renewal.unparked.iter().map(|key| key.letter).collect();
        let unparked =
            renewal.unparked.into_iter().filter(|key| !state.unpark_loading(key)).collect();
        let other_routes_wait = plan.other_routes_wait;
        let due = renewal.due;
        self.send(DispatcherMsg::Renewed { lease, due, unparked, other_routes_wait }).await?;
        self.delete_unparked(&letters).await;
        self.load_parked_keys(state, begun + self.lease / 3).await?;
        self.request_release(state, &plan).await?;
        self.take(state, &plan).await
    }

    /// Deletes the rows of unparked keys of which the dispatcher knows.
    async fn delete_unparked(&self, letters: &[LetterId]) {
        if !letters.is_empty()
            && let Err(error) = self.parks.delete_unparked(letters).await
        {
            // The next renewal reports them again, and the board ignores what it knows.
            self.work.failed("delete the rows of unparked keys", &error);
        }
    }

    /// Reads the parked keys of gained partitions, page by page until an instant, and reports each
    /// partition whose keys are all known to the dispatcher. It does not delay the next renewal:
    /// the remaining pages are read after it.
    async fn load_parked_keys(
        &self,
        state: &mut LeaseState,
        until: Instant,
    ) -> Result<(), DispatcherStopped> {
        let mut gained = Vec::new();
        while let Some(mut first) = state.loading.pop_front() {
            let limit = state.page_size.unwrap_or(MAX_PAGE);
            match self.parks.parked_keys(first.partition, first.after, limit).await {
                Ok(page) => {
                    state.page_size = Some((limit * 2).min(MAX_PAGE));
                    let is_last = page.len() < limit as usize;
                    first.after = page.last().map_or(first.after, |key| key.letter);
                    first.parked.extend(page.into_iter().map(|key| (key.letter, hash_key(&key))));
                    if is_last {
                        gained.push(Gained {
                            partition: first.partition,
                            epoch: first.epoch,
                            crashed: state.crashed.remove(&first.partition),
                            parked: first.parked.into_values().collect(),
                        });
                    } else {
                        // The other partitions have their turn before its next page.
                        state.loading.push_back(first);
                    }
                }
                Err(error) => {
                    self.work.failed("read the parked keys of a gained partition", &error);
                    state.page_size = Some((limit / 2).max(1));
                    state.loading.push_front(first);
                    break;
                }
            }
            if now() >= until || !self.releases.is_empty() {
                break;
            }
        }
        if gained.is_empty() { Ok(()) } else { self.send(DispatcherMsg::Gained(gained)).await }
    }

    /// Reports lost partitions to the dispatcher, and begins to load the parked keys of gained
    /// ones.
    async fn apply_ownership(
        &self,
        state: &mut LeaseState,
        plan: &OwnershipPlan,
    ) -> Result<(), DispatcherStopped> {
        let truth: BTreeMap<PartitionNo, Epoch> = plan.owned.iter().copied().collect();
        let differs = |(no, epoch): &(&PartitionNo, &Epoch)| truth.get(no) != Some(epoch);
        let lost: Vec<_> = state.owned.iter().filter(differs).map(|(no, e)| (*no, *e)).collect();
        let gained: Vec<_> = truth
            .iter()
            .filter(|(no, e)| state.owned.get(no) != Some(e))
            .map(|(no, e)| (*no, *e))
            .collect();
        state.owned = truth;
        self.owned.send_replace(plan.owned.clone());
        state.releasing.retain(|no| state.owned.contains_key(no));
        state.loading.retain(|l| state.owned.get(&l.partition) == Some(&l.epoch));
        if !lost.is_empty() {
            tracing::warn!(partitions = lost.len(), "partitions were lost to another relay");
            self.send(DispatcherMsg::Lost(lost)).await?;
        }
        if !gained.is_empty() {
            tracing::info!(partitions = gained.len(), "partitions were gained");
            fault_point(FaultPoint::AfterTake);
        }
        let loading = |(partition, epoch)| LoadingPartition {
            partition,
            epoch,
            after: LetterId(i64::MIN),
            parked: BTreeMap::new(),
        };
        state.loading.extend(gained.into_iter().map(loading));
        Ok(())
    }

    /// Asks the dispatcher to release surplus partitions. After `load_parked_keys`: a partition
    /// that the dispatcher was just told of may be surplus too.
    async fn request_release(
        &self,
        state: &mut LeaseState,
        plan: &OwnershipPlan,
    ) -> Result<(), DispatcherStopped> {
        let surplus: Vec<_> =
            plan.release.iter().filter(|no| !state.releasing.contains(no)).copied().collect();
        if surplus.is_empty() {
            return Ok(());
        }
        // The dispatcher does not know of partitions that are still loading: the keeper releases
        // them itself.
        let (loading, known): (Vec<_>, Vec<_>) =
            surplus.into_iter().partition(|no| state.loading.iter().any(|l| l.partition == *no));
        let unknown =
            loading.iter().filter_map(|no| Some((*no, *state.owned.get(no)?))).collect::<Vec<_>>();
        state.loading.retain(|l| !loading.contains(&l.partition));
        state.crashed.retain(|no| !loading.contains(no));
        if !unknown.is_empty() {
            self.release(state, unknown).await;
        }
        if known.is_empty() {
            return Ok(());
        }
        state.releasing.extend(&known);
        self.send(DispatcherMsg::Release(known)).await
    }

    /// Takes the partitions of the plan; `true` if it got any. The next renewal shows them, and the
    /// dispatcher learns of them when their parked keys have been read.
    async fn take(&self, state: &mut LeaseState, plan: &OwnershipPlan) -> Result<bool, RenewError> {
        let mut taken = 0;
        if !plan.take_free.is_empty() {
            taken += self.store.take(&self.relay, None, &plan.take_free).await?.len();
        }
        if state.no_takeover_before.is_none_or(|at| at <= now()) {
            for (dead, partitions) in &plan.take_over {
                tracing::warn!(relay = %dead, partitions = partitions.len(), "taking over from a relay whose lease ran out");
                let got = self.store.take(&self.relay, Some(dead), partitions).await?;
                taken += got.len();
                state.crashed.extend(got.into_iter().map(|(no, _)| no));
            }
        }
        Ok(taken > 0)
    }

    fn log_waiting_for(&self, state: &mut LeaseState, plan: &OwnershipPlan) {
        if state.waits_for != plan.waits_for {
            if let Some(other) = &plan.waits_for {
                tracing::warn!(
                    relay = %other,
                    "the routes of this relay differ from those of the running one in name, \
                     selector, guarantee or destination: this relay waits until it is gone"
                );
            }
            state.waits_for.clone_from(&plan.waits_for);
            self.waits_for.send_replace(plan.waits_for.clone());
        }
    }

    async fn release(&self, state: &mut LeaseState, list: Vec<(PartitionNo, Epoch)>) {
        fault_point(FaultPoint::BeforeRelease);
        match self.store.release(&self.relay, &list).await {
            Ok(()) => tracing::info!(partitions = list.len(), "partitions were released"),
            // The relay owns them until its lease ends; the next renewal shows them as gained.
            Err(error) => self.work.failed("release partitions", &error),
        }
        for (no, _) in list {
            state.owned.remove(&no);
            state.releasing.retain(|p| *p != no);
        }
    }

    async fn deregister(&self) {
        fault_point(FaultPoint::BeforeRelease);
        let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_millis(500));
        // Bounded by the deadline of the shutdown; after that the partitions are free when the
        // lease ends.
        while let Err(error) = self.store.deregister(&self.relay).await {
            self.work.failed("deregister the relay", &error);
            sleep(backoff.take()).await;
        }
        if let Some(live) = &self.live
            && let Err(error) = live.delete_live(self.relay.as_str()).await
        {
            // A janitor deletes it after a day.
            self.work.failed("delete the relay's live row", &error);
        }
    }

    async fn send(&self, message: DispatcherMsg) -> Result<(), DispatcherStopped> {
        self.dispatcher.send(message).await.map_err(|_| DispatcherStopped)
    }
}

impl LeaseState {
    /// Drops an unparked key of a partition that is still loading; `false` for any other partition.
    fn unpark_loading(&mut self, key: &UnparkedKey) -> bool {
        let Some(loading) = self.loading.iter_mut().find(|l| l.partition == key.partition) else {
            return false;
        };
        loading.parked.remove(&key.letter);
        true
    }
}

/// Replaces the text of a parked key by its hash.
fn hash_key(parked: &ParkedKey) -> ParkedKeyHash {
    ParkedKeyHash {
        route: Arc::clone(&parked.route),
        key_hash: xxh3_64(parked.key.as_bytes()),
        letter: parked.letter,
    }
}

enum RenewError {
    DispatcherStopped(DispatcherStopped),
    Store(StoreError),
}

impl From<DispatcherStopped> for RenewError {
    fn from(stopped: DispatcherStopped) -> Self {
        Self::DispatcherStopped(stopped)
    }
}

impl From<StoreError> for RenewError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

#[cfg(test)]
mod tests;
