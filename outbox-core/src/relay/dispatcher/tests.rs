use super::*;
use crate::{
    outbox::{Epoch, PartitionNo},
    relay::RelaySettings,
    runtime::Wake,
};

/// Found by reading the code: a keeper that waited for the database counted as stopped when its
/// mailbox was full, and the relay was restarted with everything that was in flight.
#[tokio::test]
async fn partitions_are_handed_back_to_a_busy_keeper_as_soon_as_it_has_time() {
    let (sender, mailbox) = mpsc::channel(1);
    let (keeper, mut releases) = mpsc::channel(1);
    let (reader, _reads) = mpsc::channel(1);
    let (settler, _writes) = mpsc::channel(1);
    let (timer_actor, _timers) = mpsc::channel(1);
    let (shutdown, wake) = (Shutdown::default(), Wake::default());
    let routes: Arc<[Route]> = Arc::new([]);
    let dispatcher = Dispatcher {
        board: Board::new(RelaySettings::default(), routes.clone(), |up_to| up_to),
        routes,
        mailbox,
        wake: wake.listen(),
        lease: Lease::default(),
        shutdown: shutdown.clone(),
        reader,
        publishers: Vec::new(),
        settler,
        timer_actor,
        keeper,
        stats: watch::Sender::new(RelayStats::default()),
        metrics: BoardMetrics::new(&crate::telemetry::Metrics::new(), &[]),
        work: crate::failure::BackgroundWork::default(),
    };
    let gained = |no| Gained {
        partition: PartitionNo(no),
        epoch: Epoch(1),
        crashed: false,
        parked: Vec::new(),
    };
    // One message a turn, since the channel holds no more: each partition is released in a turn of
    // its own.
    let keeper = async {
        _ = sender.send(DispatcherMsg::Gained((0..3).map(gained).collect())).await;
        for no in 0..3 {
            _ = sender.send(DispatcherMsg::Release(vec![PartitionNo(no)])).await;
        }
        // The channel has room for this one when the dispatcher has taken the last release.
        _ = sender.send(DispatcherMsg::Lost(Vec::new())).await;
        shutdown.request(Duration::from_secs(5));
        let mut released = Vec::new();
        while let Some(ReleaseMsg::Partitions(list)) = releases.recv().await {
            released.extend(list.into_iter().map(|(no, _)| no.0));
        }
        released
    };
    let (ended, released) = tokio::join!(dispatcher.run(), keeper);
    assert!(ended.is_ok(), "a keeper that is busy is there: {ended:?}");
    assert_eq!(released, [0, 1, 2]);
}
