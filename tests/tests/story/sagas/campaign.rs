//! Many sagas, random failures at every step, shelves that they lock, two coordinators, one of them killed again and again.

use super::ledger::{Books, coordinator};
use crate::stage::SOON;
use std::time::Duration;
use tests::{databases::TempDatabase, on_every_database};

/// Sagas of a round, in transactions of ten.
const ROUND: i64 = 30;
/// How many rounds, each with a death, the longest pause before it, how long the end may take, and how many shelves there
/// are: few enough that sagas wait for each other.
fn scale() -> (i64, Duration, Duration, i64) {
    if std::env::var_os("OUTBOX_LONG").is_some() {
        (334, Duration::from_millis(1_500), Duration::from_secs(600), 400)
    } else {
        (10, Duration::from_millis(600), Duration::from_secs(120), 100)
    }
}

on_every_database! {
    async fn every_saga_ends_whoever_dies(temp: &TempDatabase) {
        let books = Books::open(temp).await;
        let (rounds, pause, within, shelves) = scale();
        let mut coordinators = [coordinator(temp, None).await, coordinator(temp, None).await];
        for round in 0..rounds {
            let first = round * ROUND;
            for ten in (first..first + ROUND).step_by(10) {
                books.start_with(ten..ten + 10, Some(shelves)).await;
            }
            tokio::time::sleep(pause.mul_f64(fastrand::f64())).await;
            let victim = &mut coordinators[usize::try_from(round % 2).unwrap()];
            victim.kill().await;
            *victim = coordinator(temp, None).await;
        }
        books.ended(rounds * ROUND, within).await;
        books.balance().await;
        books.logs_agree().await;
        let (waited, gave_way) = books.shelves_are_free().await;
        assert!(waited > 0, "{waited} have waited, {gave_way} gave way");
        for mut process in coordinators {
            assert!(process.terminate(SOON).await.success(), "a coordinator that is asked to end ends well");
        }
        let completed = books.number("SELECT COUNT(*) FROM outbox_sagas WHERE state = 'completed'").await;
        let compensated = books.number("SELECT COUNT(*) FROM outbox_sagas WHERE state = 'compensated'").await;
        assert!(completed > 0 && compensated > 0, "{completed} completed, {compensated} compensated");
    }
}
