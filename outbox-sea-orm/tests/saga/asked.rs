//! Steps that others are asked to do, whatever the wire between does.

use crate::world::World;
use outbox_core::testing::saga::{Fate, SagaKit, SagaRun};
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
    asked: u32,
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

/// A step here, two that others do, the pivot, which others do too, and one behind it.
#[saga(name = "trip", version = 1)]
impl Trip {
    #[step(compensate = forget)]
    async fn note(&mut self, cx: &StepContext) -> Result<(), StepError> {
        effect("note", cx).await
    }

    #[step(reply = FlightBooked, reject = FlightFull, timeout = "30s", compensate = cancel_flight)]
    async fn flight(&mut self, _cx: &StepContext) -> Result<BookFlight, StepError> {
        self.asked += 1;
        Ok(BookFlight { trip: self.number })
    }

    #[step(ask, timeout = "1m", compensate = cancel_hotel, compensate_retry(max_attempts = 3, backoff = "10ms"))]
    async fn hotel(&mut self, _cx: &StepContext) -> Result<BookFlight, StepError> {
        Ok(BookFlight { trip: self.number })
    }

    #[step(ask, timeout = "10s", pivot)]
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
            "the answer is handed on: {seat:?}"
        );
        Ok(CancelFlight { trip: self.number, seat: seat.map(|booked| booked.seat) })
    }

    async fn cancel_hotel(&mut self, _: &StepContext) -> Result<CancelFlight, StepError> {
        Ok(CancelFlight { trip: self.number, seat: None })
    }
}

/// Two steps that others do and one here, at the same time; the next one takes what they returned.
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

    #[step(parallel = "parts", ask, timeout = "1m", compensate = cancel_hotel)]
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
        Self { number, asked: 0 }
    }
}

async fn effect(what: &str, cx: &StepContext) -> Result<(), StepError> {
    let sql = format!("INSERT INTO effects (saga, what) VALUES ('{}', '{what}')", cx.saga());
    cx.tx.execute_unprepared(&sql).await?;
    Ok(())
}

fn kit(world: &World) -> SagaKit<Outbox, Trip> {
    SagaKit::new(&world.outbox, Trip::saga).answering("flight", |_| FlightBooked { seat: 12 })
}

/// What is done here goes with what is done elsewhere.
async fn balanced(world: &World, run: &SagaRun) {
    let effects = world.effects(run.id).await;
    let expected: &[&str] = match run.state() {
        SagaState::Completed => &["note", "thank"],
        _ => &["forget", "note"],
    };
    assert_eq!(effects, expected, "{:?}", run.instance);
}

on_every_database! {
    async fn given_what_the_others_do_that_end_is_expected(temp: &TempDatabase) {
        let world = World::open(temp).await;
        let kit = kit(&world);
        let run = kit.given(Trip::number(1)).run().await;
        run.expect_completed().expect_done(&["note", "flight", "hotel", "pay", "thank"]);
        run.expect_done_by_others(&["flight", "hotel", "pay"]);
        assert!(run.waited.is_zero(), "{:?}", run.waited);
        let run = kit.given(Trip::number(2)).faring("hotel", Fate::Refused).run().await;
        run.expect_compensated().expect_undone(&["flight", "note"]).expect_done_by_others(&[]);
        assert_eq!(run.instance.reason.as_deref(), Some("`hotel`: refused: the test wants it"));
        let run = kit.given(Trip::number(3)).faring("flight", Fate::Unanswered).run().await;
        run.expect_compensated().expect_undone(&["flight", "note"]).expect_done_by_others(&[]);
        assert_eq!(run.waited.as_secs(), 30, "the step's own time, which did not pass");
        let run = kit.given(Trip::number(4)).faring("flight", Fate::Late).run().await;
        run.expect_compensated().expect_done_by_others(&[]);
        let late = |record: &Record| matches!(record, Record::Late { output: Some(_), .. });
        assert!(run.log.iter().any(|entry| late(&entry.record)), "{:?}", run.log);
        let run = kit.given(Trip::number(5)).faring("pay", Fate::Lost).run().await;
        run.expect_completed().expect_done_by_others(&["flight", "hotel", "pay"]);
        assert_eq!(run.waited.as_secs(), 10, "the pivot is asked for again");
        assert_eq!(run.data::<Trip>().asked, 1);
    }

    async fn others_are_asked_for_parts_of_a_group_at_the_same_time(temp: &TempDatabase) {
        let world = World::open(temp).await;
        let kit = SagaKit::new(&world.outbox, Tour::saga).answering("flight", |_| FlightBooked { seat: 12 });
        let tour = |number| Tour { number, seat: None };
        let run = kit.given(tour(1)).run().await;
        run.expect_completed().expect_done_by_others(&["flight", "hotel"]);
        assert_eq!(run.data::<Tour>().seat, Some(12), "the answer is merged");
        let run = kit.given(tour(2)).faring("hotel", Fate::Refused).run().await;
        run.expect_compensated().expect_done_by_others(&[]);
        let mut ended = [0, 0];
        let mut check = async |run: &SagaRun| {
            let completed = run.state() == SagaState::Completed;
            ended[usize::from(completed)] += 1;
            let effects = world.effects(run.id).await;
            let whole = if completed { effects == ["note", "thank"] } else { effects.is_empty() || effects == ["forget", "note"] };
            assert!(whole, "{effects:?}, of {:?}", run.instance);
        };
        kit.disturb_every_answer(tour, &mut check).await;
        kit.leave_to_chance(0..60, tour, &mut check).await;
        kit.cut_at_every_record(tour, &mut check).await;
        kit.repeat_every_step(tour, &mut check).await;
        assert!(ended.iter().all(|n| *n > 10), "{ended:?} compensated and completed");
    }

    async fn whatever_becomes_of_commands_and_answers_it_is_all_or_nothing(temp: &TempDatabase) {
        let world = World::open(temp).await;
        let kit = kit(&world);
        let mut ended = [0, 0];
        let mut check = async |run: &SagaRun| {
            ended[usize::from(run.state() == SagaState::Completed)] += 1;
            balanced(&world, run).await;
        };
        kit.disturb_every_answer(Trip::number, &mut check).await;
        kit.leave_to_chance(0..60, Trip::number, &mut check).await;
        kit.cut_at_every_record(Trip::number, &mut check).await;
        kit.repeat_every_step(Trip::number, &mut check).await;
        kit.fail_every_compensation(Trip::number, &mut check).await;
        assert!(ended.iter().all(|n| *n > 10), "{ended:?} compensated and completed");
    }
}
