use super::*;
use crate::{
    outbox::{Epoch, PartitionNo},
    relay::RelayConfig,
    runtime::Wake,
};

/// Seen by reading: a keeper that waited for the database counted as gone when its mailbox was full, and the relay began
/// anew with all that was in flight.
#[tokio::test]
async fn partitions_are_handed_back_to_a_busy_keeper_as_soon_as_it_has_time() {
    let (notes_in, notes) = mpsc::channel(1);
    let (keeper, mut handback) = mpsc::channel(1);
    let (reader, _reads) = mpsc::channel(1);
    let (settler, _writes) = mpsc::channel(1);
    let (retrier, _timers) = mpsc::channel(1);
    let (shutdown, wake) = (Shutdown::default(), Wake::default());
    let routes: Arc<[Route]> = Arc::new([]);
    let dispatcher = Dispatcher {
        board: Board::new(RelayConfig::default(), routes.clone(), |up_to| up_to),
        routes,
        notes,
        wake: wake.listen(),
        lease: Lease::default(),
        shutdown: shutdown.clone(),
        reader,
        publishers: Vec::new(),
        settler,
        retrier,
        keeper,
        stats: watch::Sender::new(RelayStats::default()),
        work: crate::failure::BackgroundWork::default(),
    };
    let gained = |no| Gained {
        partition: PartitionNo(no),
        epoch: Epoch(1),
        crashed: false,
        parks: Vec::new(),
    };
    // One note a turn, since no more wait: each partition is handed back in a turn of its own.
    let told = async {
        _ = notes_in.send(Note::Gained((0..3).map(gained).collect())).await;
        for no in 0..3 {
            _ = notes_in.send(Note::Release(vec![PartitionNo(no)])).await;
        }
        // There is room for this one when the last release has been taken.
        _ = notes_in.send(Note::Lost(Vec::new())).await;
        shutdown.request(Duration::from_secs(5));
        let mut back = Vec::new();
        while let Some(Handback::These(list)) = handback.recv().await {
            back.extend(list.into_iter().map(|(no, _)| no.0));
        }
        back
    };
    let (ended, back) = tokio::join!(dispatcher.run(), told);
    assert!(ended.is_ok(), "a keeper that is busy is there: {ended:?}");
    assert_eq!(back, [0, 1, 2]);
}
