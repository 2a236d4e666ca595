//! A step whose own statement ends its connection fails, and its saga ends.

use crate::{
    order::quickly,
    world::{SOON, World},
};
use outbox_core::saga::SagaState;
use outbox_sea_orm::prelude::*;
use sea_orm::{ConnectionTrait, DbBackend};
use serde::{Deserialize, Serialize};
use std::time::Duration;
use tests::{
    databases::{Database, TempDatabase},
    on_every_database,
};

/// Ends its own session each time, or not.
#[derive(Debug, Serialize, Deserialize)]
struct Cut {
    each_time: bool,
}

impl Cut {
    async fn cut(&mut self, cx: &StepContext) -> Result<(), StepError> {
        let kill = match cx.tx.get_database_backend() {
            _ if !self.each_time => return Ok(()),
            DbBackend::Postgres => "SELECT pg_terminate_backend(pg_backend_pid())",
            DbBackend::MySql => "KILL CONNECTION_ID()",
            // No session to end.
            _ => return Err(StepError::abort("no session")),
        };
        cx.tx.execute_unprepared(kill).await?;
        Ok(())
    }
}

on_every_database! {
    async fn a_step_that_ends_its_own_connection_each_time_fails_and_the_others_end(temp: &TempDatabase) {
        let world = World::open(temp).await;
        let cut = Saga::builder("cut", 1).step("cut", Cut::cut).retry(quickly(2)).build();
        let sagas = Sagas::builder(&world.outbox).register(cut).poll(Duration::from_millis(50)).start().await.unwrap();
        let mut started = Vec::new();
        for each_time in [true, false, false] {
            let tx = world.outbox.begin().await.unwrap();
            let correlation = started.len().to_string();
            started.push(sagas.start(&tx, Cut { each_time }).correlation(correlation).await.unwrap().id());
            tx.commit().await.unwrap();
        }
        world.reaches(started[1], SagaState::Completed).await;
        world.reaches(started[2], SagaState::Completed).await;
        let instance = world.reaches(started[0], SagaState::Compensated).await;
        if temp.database() != Database::Sqlite {
            assert!(instance.reason.as_deref().is_some_and(|reason| reason.contains("connection")), "{instance:?}");
        }
        sagas.shutdown(SOON).await.unwrap();
    }
}
