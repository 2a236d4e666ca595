//! Steps that end their process each time.

use super::{
    ledger::{Books, coordinator},
    orders::DEADLY,
};
use crate::stage::{LATE, SOON};
use outbox_sea_orm::saga::{SagaAdmin, SagaFilter, SagaState};
use tests::{databases::TempDatabase, on_every_database};

/// More lives than it takes: five for each of those that die, the first of them shared, and some in which one dies that
/// stood in nobody's way.
const LIVES: usize = 30;
/// Sagas beside them.
const OTHERS: i64 = 30;

on_every_database! {
    async fn a_step_that_ends_its_process_each_time_is_told_and_the_others_end(temp: &TempDatabase) {
        let books = Books::open(temp).await;
        books.start(*DEADLY.start()..OTHERS).await;
        let active = "SELECT COUNT(*) FROM outbox_sagas WHERE state IN ('running', 'compensating')";
        let mut lives = 0;
        while books.number(active).await > 0 {
            lives += 1;
            assert!(lives <= LIVES, "{} sagas are left", books.number(active).await);
            let mut life = coordinator(temp, None).await;
            let over = tests::holds_within(LATE, async || !life.is_running() || books.number(active).await == 0).await;
            assert!(over, "it neither dies nor ends its work");
            if life.is_running() {
                assert!(life.terminate(SOON).await.success());
            }
        }
        let stuck = SagaFilter { state: Some(SagaState::Stuck), ..SagaFilter::default() };
        for order in DEADLY {
            let filter = SagaFilter { correlation: Some(format!("order-{order}")), ..stuck.clone() };
            let found = books.outbox.sagas(&filter, None, 1).await.unwrap();
            let instance = &found.first().unwrap_or_else(|| panic!("order {order} is not stuck")).instance;
            let at = match order { -1 => "charge", -2 => "pack", _ => "charge" };
            assert_eq!((instance.stuck_at.as_deref(), instance.backward), (Some(at), order == -3));
            assert!(instance.reason.as_deref().unwrap_or_default().starts_with("crashed"), "{instance:?}");
        }
        // Nobody else is blamed.
        books.ended(OTHERS + 3, SOON).await;
        books.balance().await;
        books.logs_agree().await;
    }
}
