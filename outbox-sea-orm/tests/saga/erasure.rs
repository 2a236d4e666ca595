//! The audit of operations on sagas, and the erasure of what ended sagas have stored.

use crate::{
    order::{PlaceOrder, place_order},
    world::{SOON, World},
};
use outbox_core::{
    admin::{ActStore, AuditOutcome, EraseStore, OperatorNote, TableErasure},
    event::SagaId,
    saga::{Operation, SagaAdmin, SagaState},
    testing::store::event,
};
use outbox_sea_orm::{DeliverAt, prelude::*};
use std::time::Duration;
use tests::{databases::TempDatabase, on_every_database};

fn ann() -> OperatorNote {
    OperatorNote::new("ann", "the customer asked for it")
}

impl World {
    /// Starts an order whose refund fails, so that it is stuck.
    async fn stuck(&self, sagas: &Sagas, order: i64) -> SagaId {
        self.let_fail(order, "ship", -1).await;
        self.let_fail(order, "refund", 99).await;
        let saga = self.start(sagas, PlaceOrder::number(order)).await;
        self.reaches(saga, SagaState::Stuck).await;
        saga
    }

    /// Erases a correlation id; gives how many sagas were emptied, and how many are left.
    async fn erase(&self, correlation: &str) -> (u64, u64) {
        let tables = self.outbox.erase(correlation, &ann()).await.unwrap();
        let sagas = tables.iter().find(|table| table.table == "outbox_sagas").unwrap();
        (sagas.erased, sagas.left.count)
    }
}

on_every_database! {
    async fn every_operation_on_a_saga_has_one_row_of_the_audit(temp: &TempDatabase) {
        let world = World::open(temp).await;
        let sagas = world.sagas(place_order(1)).await;
        let mut stuck = Vec::new();
        for order in 1..=3 {
            stuck.push(world.stuck(&sagas, order).await);
        }
        sagas.shutdown(SOON).await.unwrap();
        let running = world.start(&sagas, PlaceOrder::number(4)).await;
        let operations = [
            (stuck[0], Operation::Resume, ("saga resume", format!("saga {}", stuck[0]))),
            (stuck[1], Operation::RetryFrom("charge".into()), ("saga retry from", format!("step `charge` of saga {}", stuck[1]))),
            (stuck[2], Operation::Skip("charge".into()), ("saga skip", format!("step `charge` of saga {}", stuck[2]))),
            (running, Operation::Cancel, ("saga cancel", format!("saga {running}"))),
        ];
        for (saga, operation, _) in &operations {
            assert!(world.outbox.operate(*saga, operation, &ann()).await.unwrap(), "{operation:?}");
            assert!(!world.outbox.operate(*saga, operation, &ann()).await.unwrap(), "a double click: {operation:?}");
        }
        let audit = world.outbox.audit(None, 10).await.unwrap();
        let seen: Vec<_> = audit.iter().rev().map(|row| (row.act.as_str(), row.target.clone())).collect();
        assert_eq!(seen, operations.map(|(_, _, row)| row));
        let same = |row: &outbox_core::admin::AuditEntry| (row.by.clone(), row.done, row.outcome, row.plan);
        assert!(audit.iter().all(|row| same(row) == ("ann".into(), 1, AuditOutcome::Done, None)));
    }

    async fn sagas_that_have_ended_are_emptied_and_others_are_left(temp: &TempDatabase) {
        let world = World::open(temp).await;
        let sagas = world.sagas(place_order(1)).await;
        world.let_fail(3, "ship", -1).await;
        let first = world.start(&sagas, PlaceOrder::number(1)).await;
        let compensated = world.start(&sagas, PlaceOrder::number(3)).await;
        world.reaches(first, SagaState::Completed).await;
        world.reaches(compensated, SagaState::Compensated).await;
        let tx = world.outbox.begin().await.unwrap();
        let again = sagas.start(&tx, PlaceOrder::number(1)).correlation("order-1").again().await.unwrap().id();
        tx.commit().await.unwrap();
        world.reaches(again, SagaState::Completed).await;
        let stuck = world.stuck(&sagas, 2).await;
        sagas.shutdown(SOON).await.unwrap();
        let data = async |saga: SagaId| {
            let view = world.view(saga).await;
            let sql = format!("SELECT data FROM outbox_sagas WHERE correlation_id = '{}'", view.correlation);
            let log = serde_json::to_string(&world.log(saga).await).unwrap();
            (world.texts(&sql).await.remove(0), serde_json::to_string(&view).unwrap() + &log)
        };
        let plan = world.outbox.plan_erasure("order-1").await.unwrap();
        let planned = plan.tables.iter().find(|table| table.table == "outbox_sagas").unwrap();
        assert_eq!((planned.erased, planned.left.count), (2, 0));
        assert!(data(first).await.1.contains("shelf 1"));
        assert_eq!(world.erase("order-1").await, (2, 0), "also the one that was set aside");
        assert_eq!(world.erase("order-2").await, (0, 1), "it is stuck");
        assert_eq!(world.erase("order-3").await, (1, 0));
        assert_eq!(world.erase("order-").await, (0, 0), "no prefix is erased");
        for (saga, state) in
            [(first, SagaState::Completed), (again, SagaState::Completed), (compensated, SagaState::Compensated)]
        {
            let instance = world.reaches(saga, state).await;
            assert!(instance.steps.iter().all(|step| step.output.as_ref().is_none_or(|output| output.as_str() == "null")));
            let (data, shown) = data(saga).await;
            assert_eq!(data, "{}");
            for secret in ["shelf", "no ship today", "order_id", "reserved\""] {
                assert!(!shown.contains(secret), "{secret} in {shown}");
            }
        }
        assert!(data(stuck).await.1.contains("shelf 2"), "it still compensates");
        let audit = world.outbox.audit(None, 10).await.unwrap();
        let seen: Vec<_> = audit.iter().rev().map(|row| (row.target.as_str(), row.done)).collect();
        let expected =
            [("key \"order-1\"", 2), ("key \"order-2\"", 0), ("key \"order-3\"", 1), ("key \"order-\"", 0)];
        assert_eq!(seen, expected);
    }

    async fn replies_to_the_sagas_of_a_key_that_have_ended_are_erased_with_it(temp: &TempDatabase) {
        let world = World::open(temp).await;
        let (db, schema) = (&world.db, world.outbox.schema());
        let sagas = world.sagas(place_order(1)).await;
        let ended = world.start(&sagas, PlaceOrder::number(1)).await;
        world.reaches(ended, SagaState::Completed).await;
        world.let_fail(1, "ship", -1).await;
        world.let_fail(1, "refund", 99).await;
        let tx = world.outbox.begin().await.unwrap();
        let again = sagas.start(&tx, PlaceOrder::number(1)).correlation("order-1").again();
        let stuck = again.await.unwrap().id();
        tx.commit().await.unwrap();
        world.reaches(stuck, SagaState::Stuck).await;
        sagas.shutdown(SOON).await.unwrap();
        // A reply has the saga's id as its key.
        for saga in [ended, stuck] {
            let reply = [(event(&saga.to_string()), DeliverAt::In(Duration::from_hours(1)))];
            schema.schedule(db, "/payments", &reply).await.unwrap();
        }
        schema.append(db, "/payments", &[event(&ended.to_string())]).await.unwrap();
        let scheduled = async |saga: SagaId| {
            let count = "SELECT COUNT(*) FROM outbox_scheduled WHERE message_key";
            world.number(&format!("{count} = '{saga}'")).await
        };
        let of = |tables: &[TableErasure], name: &str| {
            let table = tables.iter().find(|table| table.table == name).unwrap();
            (table.erased, table.left.count)
        };

        let plan = world.outbox.plan_erasure("order-1").await.unwrap();
        let names = |note: &&String| note.starts_with("In the databases of other services");
        let note = plan.notes.iter().find(names).expect("the sagas are named");
        assert!(note.contains(&ended.to_string()) && !note.contains(&stuck.to_string()), "{note}");
        let erased = world.outbox.erase("order-1", &ann()).await.unwrap();
        for tables in [&plan.tables, &erased] {
            assert_eq!(of(tables, "outbox_scheduled"), (1, 0), "{tables:?}");
            assert_eq!(of(tables, "outbox_sagas"), (1, 1), "{tables:?}");
            assert_eq!(of(tables, "outbox_events"), (0, 1), "{tables:?}");
        }
        assert_eq!((scheduled(ended).await, scheduled(stuck).await), (0, 1), "it still needs them");
        // Where the saga is in another database, its id is the key.
        let erased = world.outbox.erase(&stuck.to_string(), &ann()).await.unwrap();
        assert_eq!(of(&erased, "outbox_scheduled"), (1, 0));
    }
}
