use super::*;
use crate::{
    event::EventId,
    outbox::{LeaseView, OutboxInfo, PartitionOwner, RelayRow, Renewal},
};
use async_trait::async_trait;
use std::sync::{
    Mutex,
    atomic::{AtomicUsize, Ordering::Relaxed},
};
use tokio::sync::Notify;

/// A store whose renewal takes long.
#[derive(Default)]
struct Slow {
    renews: Notify,
    renewed: Notify,
    deregistered: Notify,
}

#[async_trait]
impl LeaseStore for Slow {
    async fn info(&self) -> Result<OutboxInfo, StoreError> {
        Ok(OutboxInfo { partitions: 1, ids_commit_out_of_order: false })
    }

    async fn renew(&self, _: &RelayId, _: u64, _: Duration) -> Result<Renewal, StoreError> {
        self.renews.notify_one();
        self.renewed.notified().await;
        Ok(Renewal { known: true, view: LeaseView::default(), ..Renewal::default() })
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

    async fn deregister(&self, _: &RelayId) -> Result<(), StoreError> {
        self.deregistered.notify_one();
        Ok(())
    }
}

#[async_trait]
impl ParkStore for Slow {
    async fn parked_keys(
        &self,
        _: PartitionNo,
        _: LetterId,
        _: u32,
    ) -> Result<Vec<ParkedKey>, StoreError> {
        Ok(Vec::new())
    }

    async fn delete_unparked(&self, _: &[LetterId]) -> Result<(), StoreError> {
        Ok(())
    }
}

/// Gives a keeper of a store, the receiver of its leases, and the dispatcher's ends of both
/// channels.
fn keeper<S: LeaseStore + ParkStore>(
    store: &Arc<S>,
    relay: RelayId,
    lease: Duration,
) -> (Keeper, watch::Receiver<Lease>, mpsc::Receiver<DispatcherMsg>, mpsc::Sender<ReleaseMsg>) {
    let (dispatcher, mailbox) = mpsc::channel(1);
    let (release, releases) = mpsc::channel(1);
    let (published, leases) = watch::channel(Lease::default());
    let keeper = Keeper {
        relay,
        routes: 1,
        store: store.clone(),
        parks: store.clone(),
        lease,
        published,
        owned: watch::Sender::new(Vec::new()),
        waits_for: watch::Sender::new(None),
        live: None,
        dispatcher,
        releases,
        heartbeats: Arc::default(),
        work: crate::failure::BackgroundWork::default(),
    };
    (keeper, leases, mailbox, release)
}

/// Observed: a relay under load was stopped while its keeper renewed, ended well, and its
/// partitions stayed owned.
#[tokio::test]
async fn a_relay_that_is_stopped_while_it_renews_is_deregistered() {
    let store = Arc::new(Slow::default());
    let (keeper, _leases, mailbox, release) =
        keeper(&store, RelayId::generate(), Duration::from_secs(30));
    let stopped = async {
        store.renews.notified().await;
        release.send(ReleaseMsg::All).await.unwrap();
        drop(mailbox);
        store.renewed.notify_one();
        store.deregistered.notified().await;
    };
    tokio::join!(keeper.run(), stopped);
}

/// A database that sends 4 MB a second: two partitions of a relay, one of which parks 300,000 keys
/// of 77 bytes.
struct Parked {
    relay: RelayId,
    /// How many pages fail before one succeeds.
    failures: AtomicUsize,
    limits: Mutex<Vec<u32>>,
    deleted: Mutex<Vec<LetterId>>,
}

const KEYS: i64 = 300_000;
/// The letter that an operator resolves when its page has been read already.
const RESOLVED: LetterId = LetterId(1);

impl Parked {
    fn send(rows: usize) -> Duration {
        Duration::from_micros(rows as u64 * 77 / 4)
    }
}

#[async_trait]
impl LeaseStore for Parked {
    async fn info(&self) -> Result<OutboxInfo, StoreError> {
        Ok(OutboxInfo { partitions: 2, ids_commit_out_of_order: true })
    }

    async fn renew(&self, _: &RelayId, _: u64, _: Duration) -> Result<Renewal, StoreError> {
        let owner = |no| PartitionOwner {
            partition: PartitionNo(no),
            owner: Some(self.relay.clone()),
            epoch: Epoch(1),
        };
        let relays = vec![RelayRow { id: self.relay.clone(), routes: 1, live: true }];
        let view = LeaseView { relays, partitions: vec![owner(0), owner(1)] };
        let is_known = self.deleted.lock().unwrap().contains(&RESOLVED)
            || self.limits.lock().unwrap().len() < 10;
        let unparked = (!is_known).then(|| UnparkedKey {
            partition: PartitionNo(0),
            event: EventId(1),
            route: "billing".into(),
            key: "1".into(),
            letter: RESOLVED,
            redriven: false,
        });
        sleep(Self::send(4)).await;
        Ok(Renewal { known: true, view, due: Vec::new(), unparked: unparked.into_iter().collect() })
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

    async fn deregister(&self, _: &RelayId) -> Result<(), StoreError> {
        Ok(())
    }
}

#[async_trait]
impl ParkStore for Parked {
    async fn parked_keys(
        &self,
        partition: PartitionNo,
        after: LetterId,
        limit: u32,
    ) -> Result<Vec<ParkedKey>, StoreError> {
        self.limits.lock().unwrap().push(limit);
        if self.failures.load(Relaxed) > 0 {
            self.failures.fetch_sub(1, Relaxed);
            return Err(StoreError::Busy("the statement took too long".into()));
        }
        let last = if partition.0 == 0 { KEYS } else { 0 };
        let from = after.0.max(0) + 1;
        let page: Vec<ParkedKey> = (from..=last.min(from + i64::from(limit) - 1))
            .map(|n| ParkedKey {
                partition,
                route: "billing".into(),
                key: n.to_string(),
                letter: LetterId(n),
            })
            .collect();
        sleep(Self::send(page.len())).await;
        Ok(page)
    }

    async fn delete_unparked(&self, letters: &[LetterId]) -> Result<(), StoreError> {
        self.deleted.lock().unwrap().extend(letters);
        Ok(())
    }
}

/// The partition without parked keys does not wait for the other one, which is reported with all of
/// its keys.
#[tokio::test(start_paused = true)]
async fn the_lease_is_kept_while_the_parked_keys_of_a_gained_partition_are_read() {
    let relay = RelayId::generate();
    let store = Arc::new(Parked {
        relay: relay.clone(),
        failures: AtomicUsize::new(2),
        limits: Mutex::default(),
        deleted: Mutex::default(),
    });
    let (keeper, mut leases, mut mailbox, release) = keeper(&store, relay, Duration::from_secs(3));
    let dispatcher = async {
        let mut gained = Vec::new();
        while gained.len() < 2 {
            match mailbox.recv().await.unwrap() {
                DispatcherMsg::Gained(these) => gained.extend(these),
                DispatcherMsg::Renewed { unparked, .. } => {
                    assert!(unparked.is_empty(), "of a partition that the dispatcher does not know")
                }
                message => panic!("{message:?}"),
            }
        }
        release.send(ReleaseMsg::All).await.unwrap();
        drop(mailbox);
        gained
    };
    let watched = async {
        while leases.changed().await.is_ok() {
            let lease = *leases.borrow();
            assert_eq!(lease.term, 1, "the lease ran out after {} renewals", lease.renewals - 1);
        }
    };
    let ((), gained, ()) = tokio::join!(keeper.run(), dispatcher, watched);
    let parked: Vec<(u16, usize)> =
        gained.iter().map(|g| (g.partition.0, g.parked.len())).collect();
    assert_eq!(parked, [(1, 0), (0, usize::try_from(KEYS).unwrap() - 1)]);
    assert_eq!(*store.deleted.lock().unwrap(), [RESOLVED]);
    let limits = store.limits.lock().unwrap();
    assert_eq!(limits[..4], [1_000, 500, 250, 500], "half after a failure, and more again");
}
