//! Many sagas, random failures at every step, entities that they lock, two coordinators, one of
//! which is killed again and again.

use super::ledger::{Ledger, coordinator};
use crate::support::SOON;
use std::time::Duration;
use tests::{databases::TempDatabase, on_every_database};

/// Sagas of a round, in transactions of ten.
const ROUND: i64 = 30;
/// How many rounds, each with a kill, the longest pause before it, how long the end may take, and
/// how many entities there are: few enough that sagas wait for each other.
fn scale() -> (i64, Duration, Duration, i64) {
    if std::env::var_os("OUTBOX_LONG").is_some() {
        (334, Duration::from_millis(1_500), Duration::from_secs(600), 400)
    } else {
        (10, Duration::from_millis(600), Duration::from_secs(120), 100)
    }
}

on_every_database! {
    async fn every_saga_ends_whichever_coordinator_is_killed(temp: &TempDatabase) {
        let ledger = Ledger::open(temp).await;
        let (rounds, pause, within, locked_entities) = scale();
        let mut coordinators = [coordinator(temp, None).await, coordinator(temp, None).await];
        for round in 0..rounds {
            let first = round * ROUND;
            for ten in (first..first + ROUND).step_by(10) {
                ledger.start_with(ten..ten + 10, Some(locked_entities)).await;
            }
            tokio::time::sleep(pause.mul_f64(fastrand::f64())).await;
            let victim = &mut coordinators[usize::try_from(round % 2).unwrap()];
            victim.kill().await;
            *victim = coordinator(temp, None).await;
        }
        ledger.ended(rounds * ROUND, within).await;
        ledger.balance().await;
        ledger.logs_agree().await;
        let (waited, victims) = ledger.locks_are_released().await;
        assert!(waited > 0, "{waited} have waited, {victims} were victims of deadlocks");
        for mut process in coordinators {
            assert!(process.terminate(SOON).await.success(), "a coordinator stops cleanly on SIGTERM");
        }
        let completed = ledger.number("SELECT COUNT(*) FROM outbox_sagas WHERE state = 'completed'").await;
        let compensated = ledger.number("SELECT COUNT(*) FROM outbox_sagas WHERE state = 'compensated'").await;
        assert!(completed > 0 && compensated > 0, "{completed} completed, {compensated} compensated");
    }
}
