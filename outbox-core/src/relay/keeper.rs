//! The keeper: renews the lease, takes the relay's fair share of the partitions, hands surplus back.

use super::messages::{Gained, Gone, Handback, Lease, Note, ParkedKey, Pauses};
use crate::{
    event::{LetterId, RelayId},
    failure::BackgroundWork,
    outbox::{
        DecidedPark, Epoch, LeaseStore, OpenPark, OwnershipPlan, ParkStore, PartitionNo,
        StoreError, plan_ownership,
    },
    runtime::{
        fault::{FaultPoint, reach},
        now,
    },
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

/// Parked keys of one page at most: some 100 KB, which the slowest database sends well within a third of a lease.
const PAGE: u32 = 1_000;

/// What the keeper works with.
pub(crate) struct Keeper {
    pub(crate) relay: RelayId,
    pub(crate) routes: u64,
    pub(crate) store: Arc<dyn LeaseStore>,
    pub(crate) parks: Arc<dyn ParkStore>,
    pub(crate) lease: Duration,
    pub(crate) published: watch::Sender<Lease>,
    pub(crate) owned: watch::Sender<Vec<(PartitionNo, Epoch)>>,
    pub(crate) dispatcher: mpsc::Sender<Note>,
    pub(crate) handback: mpsc::Receiver<Handback>,
    pub(crate) work: BackgroundWork,
}

/// What it knows.
#[derive(Default)]
struct Holding {
    owned: BTreeMap<PartitionNo, Epoch>,
    /// Asked back from the dispatcher and not yet returned.
    releasing: Vec<PartitionNo>,
    /// No takeover before this: after an outage of our own, others must have had the time to renew.
    no_takeover_before: Option<Instant>,
    waits_for: Option<RelayId>,
    /// Taken from relays that did not hand them back.
    crashed: HashSet<PartitionNo>,
    /// Gained, while their parked keys are read: the dispatcher does not know of them yet.
    loading: VecDeque<Loading>,
    /// Parked keys of the next page; `None` before the first.
    page: Option<u32>,
}

/// A partition whose parked keys are read.
struct Loading {
    partition: PartitionNo,
    epoch: Epoch,
    after: LetterId,
    parks: BTreeMap<LetterId, ParkedKey>,
}

impl Keeper {
    /// Keeps the lease until the dispatcher hands everything back, which may be in the middle of a renewal; then it signs
    /// off.
    pub(crate) async fn run(mut self) {
        let mut holding = Holding::default();
        let mut pauses = Pauses::new(Duration::from_millis(100), Duration::from_secs(1));
        loop {
            let begun = now();
            let next = match self.round(&mut holding, begun).await {
                Ok(again_at_once) => {
                    self.work.succeeded("renew the lease");
                    pauses.reset();
                    if again_at_once { now() } else { begun + self.lease / 3 }
                }
                Err(RoundError::Gone(Gone)) => {
                    // What it still had to say is there.
                    while let Some(Handback::These(list)) = self.handback.recv().await {
                        self.hand_back(&mut holding, list).await;
                    }
                    return self.leave().await;
                }
                Err(RoundError::Store(error)) => {
                    self.work.failed("renew the lease", &error);
                    // Counted from the reconnect, which is not before the next try.
                    let next = now() + pauses.take();
                    holding.no_takeover_before = Some(next + self.lease / 3);
                    next
                }
            };
            loop {
                tokio::select! {
                    back = self.handback.recv() => match back {
                        Some(Handback::These(list)) => self.hand_back(&mut holding, list).await,
                        Some(Handback::Everything) | None => return self.leave().await,
                    },
                    () = sleep_until(next.into()) => break,
                }
            }
        }
    }

    /// Renews once and does what the answer asks for; `true` when the next round should follow at once.
    async fn round(&mut self, holding: &mut Holding, begun: Instant) -> Result<bool, RoundError> {
        let renewal = self.store.renew(&self.relay, self.routes, self.lease).await?;
        let plan = plan_ownership(&self.relay, self.routes, &renewal.view);
        // What was lost is told first: the lease that was renewed does not cover it.
        self.compare(holding, &plan).await?;
        self.published.send_modify(|lease| lease.renewed(begun + self.lease));
        let lease = *self.published.borrow();
        self.say_for_whom(holding, &plan);
        let letters: Vec<LetterId> = renewal.decided.iter().map(|park| park.letter).collect();
        let decided = renewal.decided.into_iter().filter(|park| !holding.loads(park)).collect();
        let others_wait = plan.others_wait;
        self.tell(Note::Renewed { lease, due: renewal.due, decided, others_wait }).await?;
        self.forget_decided(&letters).await;
        self.load(holding, begun + self.lease / 3).await?;
        self.ask_back(holding, &plan).await?;
        self.take(holding, &plan).await
    }

    /// Forgets decisions that the dispatcher was told of.
    async fn forget_decided(&self, letters: &[LetterId]) {
        if !letters.is_empty()
            && let Err(error) = self.parks.forget_decided(letters).await
        {
            // The next renewal tells them again, and the board knows them.
            self.work.failed("forget decisions about parked keys", &error);
        }
    }

    /// Reads the parked keys of what was gained, page by page until an instant, and tells the dispatcher of each partition
    /// whose keys are all known. The next renewal is not kept waiting: what is not read by then is read after it.
    async fn load(&self, holding: &mut Holding, until: Instant) -> Result<(), Gone> {
        let mut gained = Vec::new();
        while let Some(mut first) = holding.loading.pop_front() {
            let limit = holding.page.unwrap_or(PAGE);
            match self.parks.parks(first.partition, first.after, limit).await {
                Ok(page) => {
                    holding.page = Some((limit * 2).min(PAGE));
                    let is_last = page.len() < limit as usize;
                    first.after = page.last().map_or(first.after, |park| park.letter);
                    first.parks.extend(page.into_iter().map(|park| (park.letter, compact(&park))));
                    if is_last {
                        gained.push(Gained {
                            partition: first.partition,
                            epoch: first.epoch,
                            crashed: holding.crashed.remove(&first.partition),
                            parks: first.parks.into_values().collect(),
                        });
                    } else {
                        // The others do not wait for it.
                        holding.loading.push_back(first);
                    }
                }
                Err(error) => {
                    self.work.failed("read the parked keys of a gained partition", &error);
                    holding.page = Some((limit / 2).max(1));
                    holding.loading.push_front(first);
                    break;
                }
            }
            if now() >= until || !self.handback.is_empty() {
                break;
            }
        }
        if gained.is_empty() { Ok(()) } else { self.tell(Note::Gained(gained)).await }
    }

    /// Tells the dispatcher what was lost; what was gained by the takes of the round before is to be loaded.
    async fn compare(&self, holding: &mut Holding, plan: &OwnershipPlan) -> Result<(), Gone> {
        let truth: BTreeMap<PartitionNo, Epoch> = plan.owned.iter().copied().collect();
        let differs = |(no, epoch): &(&PartitionNo, &Epoch)| truth.get(no) != Some(epoch);
        let lost: Vec<_> = holding.owned.iter().filter(differs).map(|(no, e)| (*no, *e)).collect();
        let gained: Vec<_> = truth
            .iter()
            .filter(|(no, e)| holding.owned.get(no) != Some(e))
            .map(|(no, e)| (*no, *e))
            .collect();
        holding.owned = truth;
        self.owned.send_replace(plan.owned.clone());
        holding.releasing.retain(|no| holding.owned.contains_key(no));
        holding.loading.retain(|l| holding.owned.get(&l.partition) == Some(&l.epoch));
        if !lost.is_empty() {
            tracing::warn!(partitions = lost.len(), "partitions were lost to another relay");
            self.tell(Note::Lost(lost)).await?;
        }
        if !gained.is_empty() {
            tracing::info!(partitions = gained.len(), "partitions were gained");
            reach(FaultPoint::AfterTake);
        }
        let loading = |(partition, epoch)| Loading {
            partition,
            epoch,
            after: LetterId(i64::MIN),
            parks: BTreeMap::new(),
        };
        holding.loading.extend(gained.into_iter().map(loading));
        Ok(())
    }

    /// Asks back what is more than the fair share, also of what was gained just now: so the dispatcher is told after that.
    async fn ask_back(&self, holding: &mut Holding, plan: &OwnershipPlan) -> Result<(), Gone> {
        let surplus: Vec<_> =
            plan.give_back.iter().filter(|no| !holding.releasing.contains(no)).copied().collect();
        if surplus.is_empty() {
            return Ok(());
        }
        // The dispatcher has nothing of what is still loaded.
        let (loading, known): (Vec<_>, Vec<_>) =
            surplus.into_iter().partition(|no| holding.loading.iter().any(|l| l.partition == *no));
        let back = loading
            .iter()
            .filter_map(|no| Some((*no, *holding.owned.get(no)?)))
            .collect::<Vec<_>>();
        holding.loading.retain(|l| !loading.contains(&l.partition));
        holding.crashed.retain(|no| !loading.contains(no));
        if !back.is_empty() {
            self.hand_back(holding, back).await;
        }
        if known.is_empty() {
            return Ok(());
        }
        holding.releasing.extend(&known);
        self.tell(Note::Release(known)).await
    }

    /// Takes what the plan says. The dispatcher is told of it after the next renewal, when its parked keys have been read.
    async fn take(&self, holding: &mut Holding, plan: &OwnershipPlan) -> Result<bool, RoundError> {
        let mut taken = 0;
        if !plan.take_free.is_empty() {
            taken += self.store.take(&self.relay, None, &plan.take_free).await?.len();
        }
        if holding.no_takeover_before.is_none_or(|at| at <= now()) {
            for (dead, partitions) in &plan.take_dead {
                tracing::warn!(relay = %dead, partitions = partitions.len(), "taking over from a relay whose lease ran out");
                let got = self.store.take(&self.relay, Some(dead), partitions).await?;
                taken += got.len();
                holding.crashed.extend(got.into_iter().map(|(no, _)| no));
            }
        }
        Ok(taken > 0)
    }

    fn say_for_whom(&self, holding: &mut Holding, plan: &OwnershipPlan) {
        if holding.waits_for != plan.waits_for {
            if let Some(other) = &plan.waits_for {
                tracing::warn!(
                    relay = %other,
                    "this relay has other routes than the one that runs, in their names, in what they take, guarantee or in \
                     where they publish, and waits until it is gone"
                );
            }
            holding.waits_for.clone_from(&plan.waits_for);
        }
    }

    async fn hand_back(&self, holding: &mut Holding, list: Vec<(PartitionNo, Epoch)>) {
        reach(FaultPoint::BeforeRelease);
        match self.store.release(&self.relay, &list).await {
            Ok(()) => tracing::info!(partitions = list.len(), "partitions were handed back"),
            // They are ours until the lease ends; the next round finds them and begins anew.
            Err(error) => self.work.failed("hand partitions back", &error),
        }
        for (no, _) in list {
            holding.owned.remove(&no);
            holding.releasing.retain(|p| *p != no);
        }
    }

    async fn leave(&self) {
        reach(FaultPoint::BeforeRelease);
        let mut pauses = Pauses::new(Duration::from_millis(50), Duration::from_millis(500));
        // Bounded by the deadline of the shutdown; what is not left is free when the lease ends.
        while let Err(error) = self.store.leave(&self.relay).await {
            self.work.failed("sign the relay off", &error);
            sleep(pauses.take()).await;
        }
    }

    async fn tell(&self, note: Note) -> Result<(), Gone> {
        self.dispatcher.send(note).await.map_err(|_| Gone)
    }
}

impl Holding {
    /// Notes a decision about a parked key of a partition that is still loaded; `false` for any other partition.
    fn loads(&mut self, park: &DecidedPark) -> bool {
        let Some(loading) = self.loading.iter_mut().find(|l| l.partition == park.partition) else {
            return false;
        };
        loading.parks.remove(&park.letter);
        true
    }
}

/// Gives what the board needs of a parked key.
fn compact(park: &OpenPark) -> ParkedKey {
    ParkedKey {
        route: Arc::clone(&park.route),
        key: xxh3_64(park.key.as_bytes()),
        letter: park.letter,
    }
}

enum RoundError {
    Gone(Gone),
    Store(StoreError),
}

impl From<Gone> for RoundError {
    fn from(gone: Gone) -> Self {
        Self::Gone(gone)
    }
}

impl From<StoreError> for RoundError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

#[cfg(test)]
mod tests;
