//! A coordinator is killed at every fault point in turn, and another one goes on.

use super::ledger::{Ledger, coordinator};
use crate::support::{SOON, on_servers};
use outbox_core::runtime::fault::FaultPoint;
use tests::{databases::TempDatabase, on_every_database, wait_until};

const SAGAS: i64 = 20;

on_every_database! {
    async fn a_coordinator_may_be_killed_at_every_fault_point(temp: &TempDatabase) {
        for point in FaultPoint::OF_SAGAS {
            let temp = TempDatabase::create(temp.database()).await;
            let ledger = Ledger::open(&temp).await;
            ledger.start(0..SAGAS).await;
            // In the middle of the work, where there is a middle.
            let nth = if point == FaultPoint::AfterSagaClaim { 1 } else { 15 };
            let mut victim = coordinator(&temp, Some((format!("{point:?}"), nth))).await;
            victim.wait_for_line(SOON, "reached").await;
            victim.kill().await;
            let mut next = coordinator(&temp, None).await;
            ledger.ended(SAGAS, SOON).await;
            ledger.balance().await;
            ledger.logs_agree().await;
            assert!(next.terminate(SOON).await.success());
        }
    }
}

on_servers! {
    async fn a_coordinator_that_returns_from_a_pause_repeats_nothing(temp: &TempDatabase) {
        let ledger = Ledger::open(temp).await;
        ledger.start(0..100).await;
        let mut frozen = coordinator(temp, None).await;
        let log = "SELECT COUNT(*) FROM outbox_saga_log";
        wait_until(SOON, "it is in the middle of its work", async || tests::above(ledger.number(log).await, 150)).await;
        frozen.pause();
        // Its claims run out; the rows that its connections have locked, one saga each, stay with
        // it.
        let mut next = coordinator(temp, None).await;
        let active = "SELECT COUNT(*) FROM outbox_sagas WHERE state IN ('running', 'compensating')";
        wait_until(SOON, "the rest is done by another", async || ledger.number(active).await <= 10).await;
        frozen.resume();
        ledger.ended(100, SOON).await;
        ledger.balance().await;
        ledger.logs_agree().await;
        assert!(frozen.terminate(SOON).await.success() && next.terminate(SOON).await.success());
    }
}
