//! Answers of those who were not asked, and for what nobody has asked for.

use crate::{
    answers::{Done, To, Undone, answer, to},
    asked::{BookFlight, CancelFlight},
    world::{SOON, World},
};
use outbox_core::{
    event::Headers,
    saga::CommandHash,
    testing::saga::{Fate, SagaKit},
    transport::{Memory, Publisher},
};
use outbox_sea_orm::{
    prelude::*,
    saga::{SagaState, StepState},
};
use serde::{Deserialize, Serialize};
use std::time::Duration;
use tests::{databases::TempDatabase, on_every_database, wait_until};

#[derive(Debug, Serialize, Deserialize)]
struct Tour {
    number: i64,
}

#[saga(name = "tour", version = 1)]
impl Tour {
    #[step(ask = "flights", source = "/flights", timeout = "30s", compensate = cancel)]
    async fn flight(&mut self, _cx: &StepContext) -> Result<BookFlight, StepError> {
        Ok(BookFlight { trip: self.number })
    }

    #[step(ask = "hotels", timeout = "30s", compensate = cancel)]
    async fn hotel(&mut self, _cx: &StepContext) -> Result<BookFlight, StepError> {
        Ok(BookFlight { trip: self.number })
    }

    #[step(ask, timeout = "30s", pivot)]
    async fn pay(&mut self, _cx: &StepContext) -> Result<BookFlight, StepError> {
        Ok(BookFlight { trip: self.number })
    }

    async fn cancel(&mut self, _cx: &StepContext) -> Result<CancelFlight, StepError> {
        Ok(CancelFlight { trip: self.number, seat: None })
    }
}

/// An answer of a consumer, from a source.
fn of(consumer: Option<&str>, source: &str, to: &To<'_>, event: &dyn OutboxEvent) -> Message {
    let mut parts = answer(to, event).into_parts();
    parts.source = source.into();
    if let Some(consumer) = consumer {
        parts.headers.insert("sagaconsumer", consumer).unwrap();
    }
    Message::new(parts)
}

on_every_database! {
    async fn a_saga_takes_answers_from_whom_it_has_asked_and_for_what_is_out(temp: &TempDatabase) {
        let world = World::open(temp).await;
        let sagas = Sagas::builder(&world.outbox).register(Tour::saga()).reply_to("answers");
        let sagas = sagas.poll(Duration::from_millis(50)).start().await.unwrap();
        let (wire, subscriber) = Memory::channel();
        let consumer = Consumer::new("tours", &world.outbox).replies(&sagas).subscribe(subscriber);
        let consumer = consumer.start().await.unwrap();
        let tx = world.outbox.begin().await.unwrap();
        let tour = sagas.start(&tx, Tour { number: 1 }).await.unwrap().id();
        tx.commit().await.unwrap();
        let becomes = async |step: &str, state: StepState| {
            let is = async || {
                world.view(tour).await.instance.step(step).is_some_and(|known| known.state == state)
            };
            wait_until(SOON, "the step has the state", is).await;
        };
        becomes("flight", StepState::Waiting).await;
        let log = world.log(tour).await.len();
        for (consumer, source) in [
            (None, "/flights"),
            (Some("audit"), "/flights"),
            (Some("Flights"), "/flights"),
            (Some("flights"), "/stranger"),
            (Some("flights"), "/flights/"),
        ] {
            wire.publish(&of(consumer, source, &to(tour, "flight"), &Done)).await.unwrap();
        }
        let letters = async || world.texts("SELECT errors FROM outbox_dead_letters ORDER BY letter_id").await;
        assert_eq!((world.log(tour).await.len(), letters().await.len()), (log, 0), "of those who were not asked");
        for strange in [
            To { phase: "undo", ..to(tour, "flight") },
            To { round: "2", ..to(tour, "flight") },
            to(tour, "hotel"),
            To { phase: "undo", ..to(tour, "hotel") },
        ] {
            let asked = if strange.step == "flight" { "flights" } else { "hotels" };
            wire.publish(&of(Some(asked), "/flights", &strange, &Undone)).await.unwrap();
        }
        let told = letters().await;
        assert_eq!((world.log(tour).await.len(), told.len()), (log, 4), "for what is not out: {told:?}");
        assert!(told.iter().all(|error| error.contains("has not asked for")), "{told:?}");

        wire.publish(&of(Some("flights"), "/flights", &to(tour, "flight"), &Done)).await.unwrap();
        becomes("hotel", StepState::Waiting).await;
        let undoing = To { phase: "undo", ..to(tour, "flight") };
        wire.publish(&of(Some("flights"), "/flights", &undoing, &Undone)).await.unwrap();
        assert_eq!(letters().await.len(), 5, "what is done was not asked to be undone");
        wire.publish(&of(Some("hotels"), "/anywhere", &to(tour, "hotel"), &Done)).await.unwrap();
        becomes("pay", StepState::Waiting).await;
        wire.publish(&of(None, "/anywhere", &to(tour, "pay"), &Done)).await.unwrap();
        world.reaches(tour, SagaState::Completed).await;
        consumer.shutdown(SOON).await.unwrap();
        sagas.shutdown(SOON).await.unwrap();
    }

    async fn a_command_its_repeats_and_its_undoing_say_which_one_it_was(temp: &TempDatabase) {
        let world = World::open(temp).await;
        let run = SagaKit::new(&world.outbox, Tour::saga).given(Tour { number: 7 }).faring("hotel", Fate::Lost).run().await;
        run.expect_compensated();
        let first = CommandHash::of("flight.book", br#"{"trip":7}"#).to_string();
        let sent = world.texts("SELECT headers FROM outbox_events WHERE topic = 'flights' ORDER BY event_id").await;
        assert!(sent.len() >= 3, "{sent:?}");
        for headers in sent {
            assert_eq!(Headers::from_json(&headers).unwrap().get("sagacommand"), Some(&*first), "{headers}");
        }
    }

    async fn whatever_strangers_send_a_saga_ends_as_without_them(temp: &TempDatabase) {
        let world = World::open(temp).await;
        let kit = SagaKit::new(&world.outbox, Tour::saga);
        for step in ["flight", "hotel", "pay"] {
            let run = kit.given(Tour { number: 1 }).faring(step, Fate::Strangers).run().await;
            run.expect_completed().expect_done_by_others(&["flight", "hotel", "pay"]);
        }
        let refused = kit.given(Tour { number: 2 }).faring("flight", Fate::Strangers).faring("pay", Fate::Refused).run().await;
        refused.expect_compensated().expect_done_by_others(&[]);
        kit.disturb_every_answer(|number| Tour { number }, async |_| ()).await;
        kit.leave_to_chance(0..20, |number| Tour { number }, async |_| ()).await;
    }
}
