//! Two versions of a saga side by side, as during a rollout: instances of one service, of which one knows less.

use crate::{
    asked::{BookFlight, CancelFlight, FlightBooked, FlightFull, Trip},
    world::{SOON, World},
};
use outbox_core::testing::saga::{SagaKit, SagaRun};
use outbox_sea_orm::{
    operator::{AdminStore, LetterFilter},
    prelude::*,
    saga::SagaState,
};
use serde::{Deserialize, Serialize};
use std::time::Duration;
use tests::{databases::TempDatabase, on_every_database};

/// A trip as the next release makes it: without a hotel, under the same name.
#[derive(Debug, Serialize, Deserialize)]
struct NextTrip {
    number: i64,
}

#[saga(name = "trip", version = 2)]
impl NextTrip {
    #[step(reply = FlightBooked, reject = FlightFull, timeout = "30s", compensate = cancel_flight)]
    async fn flight(&mut self, _cx: &StepContext) -> Result<BookFlight, StepError> {
        Ok(BookFlight { trip: self.number })
    }

    #[step(ask, timeout = "10s", pivot)]
    async fn pay(&mut self, _cx: &StepContext) -> Result<BookFlight, StepError> {
        Ok(BookFlight { trip: self.number })
    }

    async fn cancel_flight(
        &mut self,
        seat: Option<FlightBooked>,
        _: &StepContext,
    ) -> Result<CancelFlight, StepError> {
        Ok(CancelFlight { trip: self.number, seat: seat.map(|booked| booked.seat) })
    }
}

/// Does what either version asks for.
async fn book(_: BookFlight, cx: &HandlerContext) -> Result<(), HandlerError> {
    match cx.call().map(|call| call.step.as_str()) {
        Some("flight") => Ok(cx.reply(FlightBooked { seat: 12 })?),
        _ => Ok(()),
    }
}

on_every_database! {
    async fn answers_to_a_saga_of_a_version_that_an_instance_lacks_are_left_to_one_that_has_it(temp: &TempDatabase) {
        let world = World::open(temp).await;
        let outbox = &world.outbox;
        let builder = || Sagas::builder(outbox).reply_to("answers").poll(Duration::from_millis(50));
        let old = builder().register(Trip::saga()).start().await.unwrap();
        let next = builder().register(Trip::saga()).register(NextTrip::saga()).start().await.unwrap();
        // One queue, of which the old instance takes everything.
        let (answers, at_old) = Memory::channel();
        let (_nothing, at_next) = Memory::channel();
        let (commands, at_flights) = Memory::channel();
        let consumers = [
            Consumer::new("flights", outbox).on_command("book", book).commands_from("orders", "answers").subscribe(at_flights).start().await.unwrap(),
            Consumer::new("trips", outbox).replies(&old).subscribe(at_old).start().await.unwrap(),
            Consumer::new("trips", outbox).replies(&next).subscribe(at_next).start().await.unwrap(),
        ];
        let relay = Relay::builder(outbox).route("commands", topic("flights"), commands);
        let relay = relay.route("answers", topic("answers"), answers).start().await.unwrap();
        let tx = outbox.begin().await.unwrap();
        let mut started = Vec::new();
        for number in 0..4 {
            started.push(next.start(&tx, NextTrip { number }).await.unwrap().id());
        }
        tx.commit().await.unwrap();
        for saga in started {
            world.reaches(saga, SagaState::Completed).await;
        }
        let letters = outbox.dead_letters(&LetterFilter::all(), None, 10).await.unwrap();
        assert!(letters.is_empty(), "{letters:?}");
        assert_eq!(consumers[1].stats().borrow().left, 8, "two answers of each saga");
        relay.shutdown(SOON).await.unwrap();
        for consumer in consumers {
            consumer.shutdown(SOON).await.unwrap();
        }
        for sagas in [old, next] {
            sagas.shutdown(SOON).await.unwrap();
        }
    }

    async fn whatever_becomes_of_answers_an_instance_of_another_version_leaves_them_alone(temp: &TempDatabase) {
        let world = World::open(temp).await;
        let mut ended = [0, 0];
        let mut check = async |run: &SagaRun| ended[usize::from(run.state() == SagaState::Completed)] += 1;
        let kit = SagaKit::new(&world.outbox, NextTrip::saga).answering("flight", |_| FlightBooked { seat: 12 });
        let kit = kit.beside(Trip::saga);
        kit.disturb_every_answer(|number| NextTrip { number }, &mut check).await;
        kit.leave_to_chance(0..20, |number| NextTrip { number }, &mut check).await;
        // And back.
        let kit = SagaKit::new(&world.outbox, Trip::saga).answering("flight", |_| FlightBooked { seat: 12 });
        let kit = kit.beside(NextTrip::saga);
        kit.disturb_every_answer(Trip::number, &mut check).await;
        kit.leave_to_chance(20..40, Trip::number, &mut check).await;
        assert!(ended.iter().all(|n| *n > 5), "{ended:?} compensated and completed");
    }
}
