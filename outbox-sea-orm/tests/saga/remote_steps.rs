//! Remote steps, whatever the network does.

use crate::world::World;
use outbox_core::testing::saga::{RemoteFault, SagaKit, SagaRun};
use outbox_sea_orm::{
    prelude::*,
    saga::{Record, SagaState},
};
use sea_orm::ConnectionTrait;
use serde::{Deserialize, Serialize};
use tests::{databases::TempDatabase, on_every_database};

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Trip {
    pub(crate) number: i64,
    #[serde(default)]
    sent: u32,
}

#[derive(Debug, Serialize, Deserialize, OutboxEvent)]
#[outbox(type = "flight.book", topic = "flights", no_key)]
pub(crate) struct BookFlight {
    pub(crate) trip: i64,
}

#[derive(Debug, Serialize, Deserialize, OutboxEvent)]
#[outbox(type = "flight.cancel", topic = "flights", no_key)]
pub(crate) struct CancelFlight {
    pub(crate) trip: i64,
    pub(crate) seat: Option<i64>,
}

#[derive(Debug, Serialize, Deserialize, OutboxEvent)]
#[outbox(type = "flight.booked", no_key)]
pub(crate) struct FlightBooked {
    pub(crate) seat: i64,
}

#[derive(Debug, Serialize, Deserialize, OutboxEvent)]
#[outbox(type = "flight.full", no_key)]
pub(crate) struct FlightFull {
    pub(crate) reason: String,
}

/// A local step, two remote ones, the pivot, which is remote too, and a local one behind it.
#[saga(name = "trip", version = 1)]
impl Trip {
    #[step(compensate = forget)]
    async fn note(&mut self, cx: &StepContext) -> Result<(), StepError> {
        effect("note", cx).await
    }

    #[step(reply = FlightBooked, reject = FlightFull, timeout = "30s", compensate = cancel_flight)]
    async fn flight(&mut self, _cx: &StepContext) -> Result<BookFlight, StepError> {
        self.sent += 1;
        Ok(BookFlight { trip: self.number })
    }

    #[step(remote, timeout = "1m", compensate = cancel_hotel, compensate_retry(max_attempts = 3, backoff = "10ms"))]
    async fn hotel(&mut self, _cx: &StepContext) -> Result<BookFlight, StepError> {
        Ok(BookFlight { trip: self.number })
    }

    #[step(remote, timeout = "10s", pivot)]
    async fn pay(&mut self, _cx: &StepContext) -> Result<BookFlight, StepError> {
        Ok(BookFlight { trip: self.number })
    }

    #[step]
    async fn thank(&mut self, cx: &StepContext) -> Result<(), StepError> {
        effect("thank", cx).await
    }

    async fn forget(&mut self, cx: &StepContext) -> Result<(), StepError> {
        effect("forget", cx).await
    }

    async fn cancel_flight(
        &mut self,
        seat: Option<FlightBooked>,
        _: &StepContext,
    ) -> Result<CancelFlight, StepError> {
        assert!(
            seat.as_ref().is_none_or(|booked| booked.seat == 12),
            "the compensation takes the reply: {seat:?}"
        );
        Ok(CancelFlight { trip: self.number, seat: seat.map(|booked| booked.seat) })
    }

    async fn cancel_hotel(&mut self, _: &StepContext) -> Result<CancelFlight, StepError> {
        Ok(CancelFlight { trip: self.number, seat: None })
    }
}

/// Two remote steps and a local one, at the same time; the next step takes their outputs.
#[derive(Debug, Serialize, Deserialize)]
struct Tour {
    number: i64,
    seat: Option<i64>,
}

#[saga(name = "tour", version = 1)]
impl Tour {
    #[step(parallel = "parts", reply = FlightBooked, reject = FlightFull, timeout = "30s", compensate = cancel_flight)]
    async fn flight(&self, _cx: &StepContext) -> Result<BookFlight, StepError> {
        Ok(BookFlight { trip: self.number })
    }

    #[step(parallel = "parts", compensate = forget)]
    async fn note(&self, cx: &StepContext) -> Result<i64, StepError> {
        effect("note", cx).await.map(|()| 3)
    }

    #[step(parallel = "parts", remote, timeout = "1m", compensate = cancel_hotel)]
    async fn hotel(&self, _cx: &StepContext) -> Result<BookFlight, StepError> {
        Ok(BookFlight { trip: self.number })
    }

    #[step(merge, pivot)]
    async fn thank(
        &mut self,
        parts: (FlightBooked, i64, ()),
        cx: &StepContext,
    ) -> Result<(), StepError> {
        assert_eq!(parts.1, 3);
        self.seat = Some(parts.0.seat);
        effect("thank", cx).await
    }

    async fn cancel_flight(
        &mut self,
        seat: Option<FlightBooked>,
        _: &StepContext,
    ) -> Result<CancelFlight, StepError> {
        Ok(CancelFlight { trip: self.number, seat: seat.map(|booked| booked.seat) })
    }

    async fn forget(&mut self, parts: i64, cx: &StepContext) -> Result<(), StepError> {
        assert_eq!(parts, 3);
        effect("forget", cx).await
    }

    async fn cancel_hotel(&mut self, _: &StepContext) -> Result<CancelFlight, StepError> {
        Ok(CancelFlight { trip: self.number, seat: None })
    }
}

impl Trip {
    pub(crate) fn number(number: i64) -> Self {
        Self { number, sent: 0 }
    }
}

async fn effect(what: &str, cx: &StepContext) -> Result<(), StepError> {
    let sql = format!("INSERT INTO effects (saga, what) VALUES ('{}', '{what}')", cx.saga());
    cx.tx.execute_unprepared(&sql).await?;
    Ok(())
}

fn kit(world: &World) -> SagaKit<Outbox, Trip> {
    SagaKit::new(&world.outbox, Trip::saga).replying("flight", |_| FlightBooked { seat: 12 })
}

/// Checks that the local effects match the saga's end.
async fn balanced(world: &World, run: &SagaRun) {
    let effects = world.effects(run.id).await;
    let expected: &[&str] = match run.state() {
        SagaState::Completed => &["note", "thank"],
        _ => &["forget", "note"],
    };
    assert_eq!(effects, expected, "{:?}", run.instance);
}

on_every_database! {
    async fn given_the_faults_of_remote_steps_that_end_is_expected(temp: &TempDatabase) {
        let world = World::open(temp).await;
        let kit = kit(&world);
        let run = kit.given(Trip::number(1)).run().await;
        run.expect_completed().expect_done(&["note", "flight", "hotel", "pay", "thank"]);
        run.expect_done_remotely(&["flight", "hotel", "pay"]);
        assert!(run.waited.is_zero(), "{:?}", run.waited);
        let run = kit.given(Trip::number(2)).with_fault("hotel", RemoteFault::Rejected).run().await;
        run.expect_compensated().expect_undone(&["flight", "note"]).expect_done_remotely(&[]);
        assert_eq!(run.instance.reason.as_deref(), Some("`hotel`: rejected: the test wants it"));
        let run = kit.given(Trip::number(3)).with_fault("flight", RemoteFault::ReplyLost).run().await;
        run.expect_compensated().expect_undone(&["flight", "note"]).expect_done_remotely(&[]);
        assert_eq!(run.waited.as_secs(), 30, "the step's own timeout, which did not pass");
        let run = kit.given(Trip::number(4)).with_fault("flight", RemoteFault::ReplyLate).run().await;
        run.expect_compensated().expect_done_remotely(&[]);
        let late = |record: &Record| matches!(record, Record::LateReply { output: Some(_), .. });
        assert!(run.log.iter().any(|entry| late(&entry.record)), "{:?}", run.log);
        let run = kit.given(Trip::number(5)).with_fault("pay", RemoteFault::CommandLost).run().await;
        run.expect_completed().expect_done_remotely(&["flight", "hotel", "pay"]);
        assert_eq!(run.waited.as_secs(), 10, "the pivot's command is sent again");
        assert_eq!(run.data::<Trip>().sent, 1);
    }

    async fn remote_steps_of_a_group_run_at_the_same_time(temp: &TempDatabase) {
        let world = World::open(temp).await;
        let kit = SagaKit::new(&world.outbox, Tour::saga).replying("flight", |_| FlightBooked { seat: 12 });
        let tour = |number| Tour { number, seat: None };
        let run = kit.given(tour(1)).run().await;
        run.expect_completed().expect_done_remotely(&["flight", "hotel"]);
        assert_eq!(run.data::<Tour>().seat, Some(12), "the reply is merged");
        let run = kit.given(tour(2)).with_fault("hotel", RemoteFault::Rejected).run().await;
        run.expect_compensated().expect_done_remotely(&[]);
        let mut ended = [0, 0];
        let mut check = async |run: &SagaRun| {
            let completed = run.state() == SagaState::Completed;
            ended[usize::from(completed)] += 1;
            let effects = world.effects(run.id).await;
            let whole = if completed { effects == ["note", "thank"] } else { effects.is_empty() || effects == ["forget", "note"] };
            assert!(whole, "{effects:?}, of {:?}", run.instance);
        };
        kit.inject_every_fault(tour, &mut check).await;
        kit.inject_random_faults(0..60, tour, &mut check).await;
        kit.crash_after_every_record(tour, &mut check).await;
        kit.crash_before_every_commit(tour, &mut check).await;
        assert!(ended.iter().all(|n| *n > 10), "{ended:?} compensated and completed");
    }

    async fn whatever_becomes_of_commands_and_replies_it_is_all_or_nothing(temp: &TempDatabase) {
        let world = World::open(temp).await;
        let kit = kit(&world);
        let mut ended = [0, 0];
        let mut check = async |run: &SagaRun| {
            ended[usize::from(run.state() == SagaState::Completed)] += 1;
            balanced(&world, run).await;
        };
        kit.inject_every_fault(Trip::number, &mut check).await;
        kit.inject_random_faults(0..60, Trip::number, &mut check).await;
        kit.crash_after_every_record(Trip::number, &mut check).await;
        kit.crash_before_every_commit(Trip::number, &mut check).await;
        kit.fail_every_compensation(Trip::number, &mut check).await;
        assert!(ended.iter().all(|n| *n > 10), "{ended:?} compensated and completed");
    }
}
