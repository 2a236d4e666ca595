//! Replies of consumers that the step does not name, and replies to commands that the saga has not
//! sent.

use crate::{
    remote_steps::{BookFlight, CancelFlight},
    replies::{Done, To, Undone, reply, to},
    world::{SOON, World},
};
use outbox_core::{
    event::Headers,
    saga::CommandHash,
    testing::saga::{RemoteFault, SagaKit},
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
    #[step(remote = "flights", source = "/flights", timeout = "30s", compensate = cancel)]
    async fn flight(&mut self, _cx: &StepContext) -> Result<BookFlight, StepError> {
        Ok(BookFlight { trip: self.number })
    }

    #[step(remote = "hotels", timeout = "30s", compensate = cancel)]
    async fn hotel(&mut self, _cx: &StepContext) -> Result<BookFlight, StepError> {
        Ok(BookFlight { trip: self.number })
    }

    #[step(remote, timeout = "30s", pivot)]
    async fn pay(&mut self, _cx: &StepContext) -> Result<BookFlight, StepError> {
        Ok(BookFlight { trip: self.number })
    }

    async fn cancel(&mut self, _cx: &StepContext) -> Result<CancelFlight, StepError> {
        Ok(CancelFlight { trip: self.number, seat: None })
    }
}

/// A reply of a consumer, from a source.
fn of(consumer: Option<&str>, source: &str, to: &To<'_>, event: &dyn OutboxEvent) -> Message {
    let mut parts = reply(to, event).into_parts();
    parts.source = source.into();
    if let Some(consumer) = consumer {
        parts.headers.insert("sagaconsumer", consumer).unwrap();
    }
    Message::new(parts)
}

on_every_database! {
    async fn a_saga_takes_replies_of_the_consumer_that_it_names_and_to_commands_that_it_has_sent(temp: &TempDatabase) {
        let world = World::open(temp).await;
        let sagas = Sagas::builder(&world.outbox).register(Tour::saga()).reply_to("replies");
        let sagas = sagas.poll(Duration::from_millis(50)).start().await.unwrap();
        let (channel, subscriber) = Memory::channel();
        let consumer = Consumer::builder("tours", &world.outbox).replies(&sagas).subscribe(subscriber);
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
            (Some("flights"), "/elsewhere"),
            (Some("flights"), "/flights/"),
        ] {
            channel.publish(&of(consumer, source, &to(tour, "flight"), &Done)).await.unwrap();
        }
        let letters = async || world.texts("SELECT errors FROM outbox_dead_letters ORDER BY letter_id").await;
        assert_eq!((world.log(tour).await.len(), letters().await.len()), (log, 0), "of senders that the step does not name");
        for unexpected in [
            To { phase: "undo", ..to(tour, "flight") },
            To { round: "2", ..to(tour, "flight") },
            to(tour, "hotel"),
            To { phase: "undo", ..to(tour, "hotel") },
        ] {
            let consumer = if unexpected.step == "flight" { "flights" } else { "hotels" };
            channel.publish(&of(Some(consumer), "/flights", &unexpected, &Undone)).await.unwrap();
        }
        let errors = letters().await;
        assert_eq!((world.log(tour).await.len(), errors.len()), (log, 4), "to commands that were not sent: {errors:?}");
        assert!(errors.iter().all(|error| error.contains("has sent no such command for")), "{errors:?}");

        channel.publish(&of(Some("flights"), "/flights", &to(tour, "flight"), &Done)).await.unwrap();
        becomes("hotel", StepState::Waiting).await;
        let undoing = To { phase: "undo", ..to(tour, "flight") };
        channel.publish(&of(Some("flights"), "/flights", &undoing, &Undone)).await.unwrap();
        assert_eq!(letters().await.len(), 5, "no command to undo it was sent");
        channel.publish(&of(Some("hotels"), "/anywhere", &to(tour, "hotel"), &Done)).await.unwrap();
        becomes("pay", StepState::Waiting).await;
        channel.publish(&of(None, "/anywhere", &to(tour, "pay"), &Done)).await.unwrap();
        world.reaches(tour, SagaState::Completed).await;
        consumer.shutdown(SOON).await.unwrap();
        sagas.shutdown(SOON).await.unwrap();
    }

    async fn a_command_its_repeats_and_its_compensation_carry_the_hash_of_the_first(temp: &TempDatabase) {
        let world = World::open(temp).await;
        let run = SagaKit::new(&world.outbox, Tour::saga).given(Tour { number: 7 }).with_fault("hotel", RemoteFault::CommandLost).run().await;
        run.expect_compensated();
        let first = CommandHash::of("flight.book", br#"{"trip":7}"#).to_string();
        let sent = world.texts("SELECT headers FROM outbox_events WHERE topic = 'flights' ORDER BY event_id").await;
        assert!(sent.len() >= 3, "{sent:?}");
        for headers in sent {
            assert_eq!(Headers::from_json(&headers).unwrap().get("sagacommand"), Some(&*first), "{headers}");
        }
    }

    async fn forged_messages_do_not_change_how_a_saga_ends(temp: &TempDatabase) {
        let world = World::open(temp).await;
        let kit = SagaKit::new(&world.outbox, Tour::saga);
        for step in ["flight", "hotel", "pay"] {
            let run = kit.given(Tour { number: 1 }).with_fault(step, RemoteFault::Forged).run().await;
            run.expect_completed().expect_done_remotely(&["flight", "hotel", "pay"]);
        }
        let rejected = kit.given(Tour { number: 2 }).with_fault("flight", RemoteFault::Forged).with_fault("pay", RemoteFault::Rejected).run().await;
        rejected.expect_compensated().expect_done_remotely(&[]);
        kit.inject_every_fault(|number| Tour { number }, async |_| ()).await;
        kit.inject_random_faults(0..20, |number| Tour { number }, async |_| ()).await;
    }
}
