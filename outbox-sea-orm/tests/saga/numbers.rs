//! Numbers that JSON has not: they would be stored as `null`, and the saga stuck at its next step
//! with nothing to read.

use crate::world::{SOON, World};
use outbox_core::saga::{SagaState, SagasError};
use outbox_sea_orm::prelude::*;
use serde::{Deserialize, Serialize};
use std::time::Duration;
use tests::{databases::TempDatabase, on_every_database};

/// A saga that divides.
#[derive(Debug, Serialize, Deserialize)]
struct Share {
    returned_by: f64,
    kept_by: f64,
    shares: Vec<f64>,
}

impl Share {
    fn of(returned_by: f64, kept_by: f64) -> Self {
        Self { returned_by, kept_by, shares: vec![1.0] }
    }

    async fn divide(&mut self, cx: &StepContext) -> Result<Quotient, StepError> {
        let sql = format!("INSERT INTO effects (saga, what) VALUES ('{}', 'divided')", cx.saga());
        sea_orm::ConnectionTrait::execute_unprepared(&cx.tx, &sql).await?;
        self.shares.push(0.0 / self.kept_by);
        Ok(Quotient { quotient: 1.0 / self.returned_by })
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct Quotient {
    quotient: f64,
}

on_every_database! {
    async fn a_number_that_json_has_not_is_refused_in_a_saga_s_data_and_outputs_by_name(temp: &TempDatabase) {
        let world = World::open(temp).await;
        let share = Saga::builder("share", 1).step("divide", Share::divide).build();
        let sagas = Sagas::builder(&world.outbox).register(share).poll(Duration::from_millis(50)).start().await.unwrap();
        let tx = world.outbox.begin().await.unwrap();
        let refused = sagas.start(&tx, Share::of(f64::NAN, 1.0)).await.unwrap_err();
        assert!(matches!(&refused, SagasError::Data(error) if error.path() == "returned_by"), "{refused}");
        assert!(refused.to_string().contains("`returned_by` is NaN"), "{refused}");
        tx.rollback().await.unwrap();

        let mut started = Vec::new();
        for data in [Share::of(1.0, 1.0), Share::of(0.0, 1.0), Share::of(1.0, 0.0)] {
            let tx = world.outbox.begin().await.unwrap();
            started.push(sagas.start(&tx, data).await.unwrap().id());
            tx.commit().await.unwrap();
        }
        world.reaches(started[0], SagaState::Completed).await;
        assert_eq!(world.effects(started[0]).await, ["divided"]);
        for (saga, said) in [(started[1], "the output cannot be written: `quotient` is infinity"), (started[2], "the data cannot be written: `shares[1]` is NaN")] {
            let instance = world.reaches(saga, SagaState::Stuck).await;
            assert!(instance.reason.as_deref().is_some_and(|reason| reason.contains(said)), "{:?}", instance.reason);
            assert!(world.effects(saga).await.is_empty(), "nothing of the step stays");
        }
        sagas.shutdown(SOON).await.unwrap();
    }
}
