//! Two versions of a saga side by side, as during a rollout: of two instances of a service one
//! lacks a version.

use crate::{
    remote_steps::{BookFlight, CancelFlight, FlightBooked, FlightFull, Trip},
    world::{SOON, World},
};
use outbox_core::testing::saga::{SagaKit, SagaRun};
use outbox_sea_orm::{
    admin::{AdminStore, DeadLetterFilter},
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

    #[step(remote, timeout = "10s", pivot)]
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

/// Does the commands of either version.
async fn book(_: BookFlight, cx: &HandlerContext) -> Result<(), HandlerError> {
    match cx.command_id().map(|call| call.step.as_str()) {
        Some("flight") => Ok(cx.reply(FlightBooked { seat: 12 })?),
        _ => Ok(()),
    }
}

on_every_database! {
    async fn replies_to_a_saga_of_a_version_that_an_instance_lacks_are_left_to_one_that_has_it(temp: &TempDatabase) {
        let world = World::open(temp).await;
        let outbox = &world.outbox;
        let builder = || Sagas::builder(outbox).reply_to("replies").poll(Duration::from_millis(50));
        let old = builder().register(Trip::saga()).start().await.unwrap();
        let next = builder().register(Trip::saga()).register(NextTrip::saga()).start().await.unwrap();
        // One queue, of which the old instance takes everything.
        let (replies, at_old) = Memory::channel();
        let (_nothing, at_next) = Memory::channel();
        let (commands, at_flights) = Memory::channel();
        let consumers = [
            Consumer::builder("flights", outbox).on_command("book", book).commands_from("orders", "replies").subscribe(at_flights).start().await.unwrap(),
            Consumer::builder("trips", outbox).replies(&old).subscribe(at_old).start().await.unwrap(),
            Consumer::builder("trips", outbox).replies(&next).subscribe(at_next).start().await.unwrap(),
        ];
        let relay = Relay::builder(outbox).route("commands", topic("flights"), commands);
        let relay = relay.route("replies", topic("replies"), replies).start().await.unwrap();
        let tx = outbox.begin().await.unwrap();
        let mut started = Vec::new();
        for number in 0..4 {
            started.push(next.start(&tx, NextTrip { number }).await.unwrap().id());
        }
        tx.commit().await.unwrap();
        for saga in started {
            world.reaches(saga, SagaState::Completed).await;
        }
        let letters = outbox.dead_letters(&DeadLetterFilter::all(), None, 10).await.unwrap();
        assert!(letters.is_empty(), "{letters:?}");
        assert_eq!(consumers[1].stats().borrow().handed_over, 8, "two replies to each saga");
        relay.shutdown(SOON).await.unwrap();
        for consumer in consumers {
            consumer.shutdown(SOON).await.unwrap();
        }
        for sagas in [old, next] {
            sagas.shutdown(SOON).await.unwrap();
        }
    }

    async fn an_instance_of_another_version_leaves_replies_alone_whatever_their_fault(temp: &TempDatabase) {
        let world = World::open(temp).await;
        let mut ended = [0, 0];
        let mut check = async |run: &SagaRun| ended[usize::from(run.state() == SagaState::Completed)] += 1;
        let kit = SagaKit::new(&world.outbox, NextTrip::saga).replying("flight", |_| FlightBooked { seat: 12 });
        let kit = kit.beside_version(Trip::saga);
        kit.inject_every_fault(|number| NextTrip { number }, &mut check).await;
        kit.inject_random_faults(0..20, |number| NextTrip { number }, &mut check).await;
        // And back.
        let kit = SagaKit::new(&world.outbox, Trip::saga).replying("flight", |_| FlightBooked { seat: 12 });
        let kit = kit.beside_version(NextTrip::saga);
        kit.inject_every_fault(Trip::number, &mut check).await;
        kit.inject_random_faults(20..40, Trip::number, &mut check).await;
        assert!(ended.iter().all(|n| *n > 5), "{ended:?} compensated and completed");
    }
}
