//! Many trips, random failures of both services, a faulty network, two processes of each service,
//! one of which is killed again and again.

use super::ledger::Ledgers;
use crate::support::SOON;
use std::time::Duration;
use tests::{databases::TempDatabase, on_every_database};

/// Trips of a round, in one transaction.
const ROUND: i64 = 30;

/// How many rounds, each with a kill, the longest pause before it, and how long the end may take.
fn scale() -> (i64, Duration, Duration) {
    if std::env::var_os("OUTBOX_LONG").is_some() {
        (334, Duration::from_millis(1_500), Duration::from_secs(1_200))
    } else {
        (10, Duration::from_millis(600), Duration::from_secs(240))
    }
}

on_every_database! {
    async fn every_trip_ends_with_everything_or_with_nothing_whichever_process_is_killed(temp: &TempDatabase) {
        let ledgers = Ledgers::open(temp).await;
        let (rounds, pause, within) = scale();
        let mut processes = Vec::new();
        for drives_sagas in [true, false, true, false] {
            processes.push((drives_sagas, ledgers.process(drives_sagas).await));
        }
        for round in 0..rounds {
            ledgers.start(round * ROUND..(round + 1) * ROUND).await;
            tokio::time::sleep(pause.mul_f64(fastrand::f64())).await;
            let victim = usize::try_from(round % 4).unwrap();
            let (drives_sagas, process) = &mut processes[victim];
            process.kill().await;
            *process = ledgers.process(*drives_sagas).await;
        }
        ledgers.ended(rounds * ROUND, within).await;
        // One in fifty kills may hit a message whose processes were killed four times before.
        ledgers.redrive_crashed_letters(usize::try_from(rounds / 50).unwrap()).await;
        ledgers.drained(within).await;
        let (completed, compensated) = ledgers.balance().await;
        for (_, mut process) in processes {
            assert!(process.terminate(SOON).await.success(), "a process stops cleanly on SIGTERM");
        }
        // Messages that came after the end have changed nothing.
        assert_eq!(ledgers.balance().await, (completed, compensated));
        ledgers.logs_agree().await;
        assert!(completed > 0 && compensated > 0, "{completed} completed, {compensated} compensated");
    }
}
