//! The keeper: renews the lease, takes the relay's fair share of the partitions, hands surplus back.

use super::messages::{Gone, Handback, Lease, Note, Pauses};
use crate::{
    event::RelayId,
    outbox::{Epoch, LeaseStore, OwnershipPlan, PartitionNo, StoreError, plan_ownership},
    runtime::{
        fault::{FaultPoint, reach},
        now,
    },
};
use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{
    sync::{mpsc, watch},
    time::{sleep, sleep_until},
};

/// What the keeper works with.
pub(crate) struct Keeper {
    pub(crate) relay: RelayId,
    pub(crate) routes: u64,
    pub(crate) store: Arc<dyn LeaseStore>,
    pub(crate) lease: Duration,
    pub(crate) published: watch::Sender<Lease>,
    pub(crate) owned: watch::Sender<Vec<(PartitionNo, Epoch)>>,
    pub(crate) dispatcher: mpsc::Sender<Note>,
    pub(crate) handback: mpsc::Receiver<Handback>,
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
}

impl Keeper {
    /// Keeps the lease until the dispatcher hands everything back, which may be in the middle of a renewal; then it signs
    /// off.
    pub(crate) async fn run(mut self) {
        let mut holding = Holding::default();
        let mut pauses = Pauses::new(Duration::from_millis(100), Duration::from_secs(1));
        loop {
            let next = match self.round(&mut holding).await {
                Ok(again_at_once) => {
                    pauses.reset();
                    if again_at_once { now() } else { now() + self.lease / 3 }
                }
                Err(RoundError::Gone(Gone)) => {
                    // What it still had to say is there.
                    while let Some(Handback::These(list)) = self.handback.recv().await {
                        self.hand_back(&mut holding, list).await;
                    }
                    return self.leave().await;
                }
                Err(RoundError::Store(error)) => {
                    tracing::warn!(error = &error as &dyn std::error::Error, "the lease could not be renewed");
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
    async fn round(&mut self, holding: &mut Holding) -> Result<bool, RoundError> {
        let begun = now();
        let renewal = self.store.renew(&self.relay, self.routes, self.lease).await?;
        let plan = plan_ownership(&self.relay, self.routes, &renewal.view);
        // What was lost is told first: the lease that was renewed does not cover it.
        let gained = self.compare(holding, &plan).await?;
        self.published.send_modify(|lease| lease.renewed(begun + self.lease));
        let lease = *self.published.borrow();
        self.say_for_whom(holding, &plan);
        let crashed = gained.iter().map(|(no, _)| *no).filter(|no| holding.crashed.contains(no)).collect();
        for (no, _) in &gained {
            holding.crashed.remove(no);
        }
        self.tell(Note::Renewed { lease, gained, crashed, due: renewal.due, parks: renewal.parks, begun }).await?;
        self.ask_back(holding, &plan).await?;
        self.take(holding, &plan).await
    }

    /// Tells the dispatcher what was lost; gives what was gained by the takes of the round before.
    async fn compare(&self, holding: &mut Holding, plan: &OwnershipPlan) -> Result<Vec<(PartitionNo, Epoch)>, Gone> {
        let truth: BTreeMap<PartitionNo, Epoch> = plan.owned.iter().copied().collect();
        let differs = |(no, epoch): &(&PartitionNo, &Epoch)| truth.get(no) != Some(epoch);
        let lost: Vec<_> = holding.owned.iter().filter(differs).map(|(no, e)| (*no, *e)).collect();
        let gained: Vec<_> =
            truth.iter().filter(|(no, e)| holding.owned.get(no) != Some(e)).map(|(no, e)| (*no, *e)).collect();
        holding.owned = truth;
        self.owned.send_replace(plan.owned.clone());
        holding.releasing.retain(|no| holding.owned.contains_key(no));
        if !lost.is_empty() {
            tracing::warn!(partitions = lost.len(), "partitions were lost to another relay");
            self.tell(Note::Lost(lost)).await?;
        }
        if !gained.is_empty() {
            tracing::info!(partitions = gained.len(), "partitions were gained");
            reach(FaultPoint::AfterTake);
        }
        Ok(gained)
    }

    /// Asks back what is more than the fair share, also of what was gained just now: so the dispatcher is told after that.
    async fn ask_back(&self, holding: &mut Holding, plan: &OwnershipPlan) -> Result<(), Gone> {
        let surplus: Vec<_> = plan.give_back.iter().filter(|no| !holding.releasing.contains(no)).copied().collect();
        if surplus.is_empty() {
            return Ok(());
        }
        holding.releasing.extend(&surplus);
        self.tell(Note::Release(surplus)).await
    }

    /// Takes what the plan says. What was taken is told to the dispatcher after the next renewal, which reads the parked
    /// keys of the new partitions too.
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
                tracing::warn!(relay = %other, "this relay has other routes than the one that runs, and waits until it is gone");
            }
            holding.waits_for.clone_from(&plan.waits_for);
        }
    }

    async fn hand_back(&self, holding: &mut Holding, list: Vec<(PartitionNo, Epoch)>) {
        reach(FaultPoint::BeforeRelease);
        match self.store.release(&self.relay, &list).await {
            Ok(()) => tracing::info!(partitions = list.len(), "partitions were handed back"),
            // They are ours until the lease ends; the next round finds them and begins anew.
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "partitions could not be handed back")
            }
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
            tracing::warn!(error = &error as &dyn std::error::Error, "the relay could not sign off");
            sleep(pauses.take()).await;
        }
    }

    async fn tell(&self, note: Note) -> Result<(), Gone> {
        self.dispatcher.send(note).await.map_err(|_| Gone)
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
mod tests {
    use super::*;
    use crate::outbox::{LeaseView, OutboxShape, Renewal};
    use async_trait::async_trait;
    use tokio::sync::Notify;

    /// A store whose renewal takes its time.
    #[derive(Default)]
    struct Slow {
        renews: Notify,
        renewed: Notify,
        left: Notify,
    }

    #[async_trait]
    impl LeaseStore for Slow {
        async fn shape(&self) -> Result<OutboxShape, StoreError> {
            Ok(OutboxShape { partitions: 1, ids_commit_out_of_order: false })
        }

        async fn renew(&self, _: &RelayId, _: u64, _: Duration) -> Result<Renewal, StoreError> {
            self.renews.notify_one();
            self.renewed.notified().await;
            Ok(Renewal { known: true, view: LeaseView::default(), due: Vec::new(), parks: Vec::new() })
        }

        async fn take(
            &self,
            _: &RelayId,
            _: Option<&RelayId>,
            _: &[PartitionNo],
        ) -> Result<Vec<(PartitionNo, Epoch)>, StoreError> {
            Ok(Vec::new())
        }

        async fn release(&self, _: &RelayId, _: &[(PartitionNo, Epoch)]) -> Result<(), StoreError> {
            Ok(())
        }

        async fn leave(&self, _: &RelayId) -> Result<(), StoreError> {
            self.left.notify_one();
            Ok(())
        }
    }

    /// Seen: a relay under load was stopped while its keeper renewed, ended well, and left its partitions owned.
    #[tokio::test]
    async fn a_relay_that_is_stopped_while_it_renews_signs_off() {
        let store = Arc::new(Slow::default());
        let (dispatcher, notes) = mpsc::channel(1);
        let (everything, handback) = mpsc::channel(1);
        let keeper = Keeper {
            relay: RelayId::generate(),
            routes: 1,
            store: store.clone(),
            lease: Duration::from_secs(30),
            published: watch::Sender::new(Lease::default()),
            owned: watch::Sender::new(Vec::new()),
            dispatcher,
            handback,
        };
        let stopped = async {
            store.renews.notified().await;
            everything.send(Handback::Everything).await.unwrap();
            drop(notes);
            store.renewed.notify_one();
            store.left.notified().await;
        };
        tokio::join!(keeper.run(), stopped);
    }
}
