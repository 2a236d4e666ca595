//! A stuck saga, moved by an operator.

use crate::world::World;
use outbox_core::saga::{SagaAdmin, SagaState};
use tests::{databases::TempDatabase, on_every_database};

on_every_database! {
    async fn a_stuck_saga_is_moved_once_and_the_second_hears_its_state(temp: &TempDatabase) {
        let world = World::open(temp).await;
        let saga = world.stuck_saga().await;
        let client = world.client();
        let path = |act: &str| format!("/sagas/{saga}/{act}?db=orders");
        let why = ("why", "by hand");
        client.post(&path("skip"), &[why, ("step", "pack")]).await.says(409, &["does not allow that: it is stuck, at step hand-over"]);
        client.post(&path("cancel"), &[why]).await.says(409, &["it is stuck"]);
        client.post(&path("skip"), &[why]).await.says(400, &["the field `step` is missing"]);
        client.post(&path("resume"), &[]).await.says(400, &["A reason is missing"]);

        let (to, _) = client.submit(&path("retry-from"), &[why, ("step", "hand-over")]).await;
        assert_eq!(to, format!("/sagas/{saga}?db=orders"));
        client.post(&path("resume"), &[why]).await.says(409, &["does not allow that: it is running"]);
        let audit = world.audit().await;
        let [row] = audit.as_slice() else { panic!("{audit:?}") };
        assert_eq!((row.act.as_str(), row.by.as_str(), row.reason.as_str()), ("saga retry from", "loopback", "by hand"));
        let saga = world.outbox.sagas(&Default::default(), None, 1).await.unwrap().remove(0);
        assert_eq!(saga.instance.state, SagaState::Running);
    }

    async fn the_step_of_the_button_that_skips_counts_and_not_the_one_of_the_list(temp: &TempDatabase) {
        let world = World::open(temp).await;
        let saga = world.stuck_saga().await;
        let client = world.client();
        let form = [("step", "pack"), ("skip", "hand-over"), ("why", "handed over by hand")];
        client.submit(&format!("/sagas/{saga}/skip?db=orders"), &form).await;
        let log = world.outbox.saga_log(saga).await.unwrap();
        assert_eq!(log.last().unwrap().record.step(), Some("hand-over"));
        let unknown = "/sagas/00000000-0000-0000-0000-000000000007/resume";
        client.post(unknown, &[("why", "x")]).await.says(404, &["There is no saga"]);
        client.post("/sagas/7/resume", &[("why", "x")]).await.says(404, &["is a UUID"]);
    }
}
