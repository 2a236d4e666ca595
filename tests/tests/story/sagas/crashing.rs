//! Steps that crash their process each time.

use super::{
    ledger::{Ledger, coordinator},
    orders::CRASHING,
};
use crate::support::{LATE, SOON};
use outbox_sea_orm::saga::{SagaAdmin, SagaFilter, SagaState};
use tests::{databases::TempDatabase, on_every_database};

/// More processes than it takes: five for each crashing saga, of which the first runs it beside
/// others, and some in which one crashes alone.
const MAX_PROCESSES: usize = 30;
/// Sagas that do not crash.
const SOUND: i64 = 30;

on_every_database! {
    async fn a_step_that_crashes_its_process_each_time_makes_its_saga_stuck_and_the_others_end(temp: &TempDatabase) {
        let ledger = Ledger::open(temp).await;
        ledger.start(*CRASHING.start()..SOUND).await;
        let active = "SELECT COUNT(*) FROM outbox_sagas WHERE state IN ('running', 'compensating')";
        let mut processes = 0;
        while ledger.number(active).await > 0 {
            processes += 1;
            assert!(processes <= MAX_PROCESSES, "{} sagas are left", ledger.number(active).await);
            let mut process = coordinator(temp, None).await;
            let over = tests::holds_within(LATE, async || !process.is_running() || ledger.number(active).await == 0).await;
            assert!(over, "it neither crashes nor ends its sagas");
            if process.is_running() {
                assert!(process.terminate(SOON).await.success());
            }
        }
        let stuck = SagaFilter { state: Some(SagaState::Stuck), ..SagaFilter::default() };
        for order in CRASHING {
            let filter = SagaFilter { correlation: Some(format!("order-{order}")), ..stuck.clone() };
            let found = ledger.outbox.sagas(&filter, None, 1).await.unwrap();
            let instance = &found.first().unwrap_or_else(|| panic!("order {order} is not stuck")).instance;
            let at = match order { -1 => "charge", -2 => "pack", _ => "charge" };
            assert_eq!((instance.stuck_at.as_deref(), instance.backward), (Some(at), order == -3));
            assert!(instance.reason.as_deref().unwrap_or_default().starts_with("crashed"), "{instance:?}");
        }
        // No other saga is stuck.
        ledger.ended(SOUND + 3, SOON).await;
        ledger.balance().await;
        ledger.logs_agree().await;
    }
}
