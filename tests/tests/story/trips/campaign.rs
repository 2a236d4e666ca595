//! Many trips, random failures on both sides, a bad wire, two processes of each side, of which one is killed again and
//! again.

use super::books::Books;
use crate::stage::SOON;
use std::time::Duration;
use tests::{databases::TempDatabase, on_every_database};

/// Trips of a round, in one transaction.
const ROUND: i64 = 30;

/// How many rounds, each with a death, the longest pause before it, and how long the end may take.
fn scale() -> (i64, Duration, Duration) {
    if std::env::var_os("OUTBOX_LONG").is_some() {
        (334, Duration::from_millis(1_500), Duration::from_secs(1_200))
    } else {
        (10, Duration::from_millis(600), Duration::from_secs(240))
    }
}

on_every_database! {
    async fn every_trip_ends_with_everything_or_with_nothing_whoever_dies(temp: &TempDatabase) {
        let books = Books::open(temp).await;
        let (rounds, pause, within) = scale();
        let mut processes = Vec::new();
        for carries in [true, false, true, false] {
            processes.push((carries, books.process(carries).await));
        }
        for round in 0..rounds {
            books.start(round * ROUND..(round + 1) * ROUND).await;
            tokio::time::sleep(pause.mul_f64(fastrand::f64())).await;
            let victim = usize::try_from(round % 4).unwrap();
            let (carries, process) = &mut processes[victim];
            process.kill().await;
            *process = books.process(*carries).await;
        }
        books.ended(rounds * ROUND, within).await;
        // One in fifty deaths may hit one that was hit four times before.
        books.redrive_innocent_ones(usize::try_from(rounds / 50).unwrap()).await;
        books.drained(within).await;
        let (completed, compensated) = books.balance().await;
        for (_, mut process) in processes {
            assert!(process.terminate(SOON).await.success(), "a process that is asked to end ends well");
        }
        // What came after the end has changed nothing.
        assert_eq!(books.balance().await, (completed, compensated));
        books.logs_agree().await;
        assert!(completed > 0 && compensated > 0, "{completed} completed, {compensated} compensated");
    }
}
