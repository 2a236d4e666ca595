//! Replies as they come to a service: which ones it takes, and which ones become dead letters, with
//! the reason.

use crate::{
    remote_steps::{FlightBooked, FlightFull, Trip},
    world::{SOON, World},
};
use outbox_core::event::{
    Headers, Message, MessageId, MessageParts, NewEvent, OutboxEvent, SagaId, Timestamp,
};
use outbox_core::transport::{Memory, Publisher};
use outbox_sea_orm::{
    prelude::*,
    saga::{Record, SagaState, StepState},
};
use serde::{Deserialize, Serialize};
use std::time::Duration;
use tests::{databases::TempDatabase, on_every_database, wait_until};

/// A reply without content.
#[derive(Debug, Serialize, Deserialize, OutboxEvent)]
#[outbox(type = "outbox.saga.done", no_key)]
pub(crate) struct Done;

/// The reply that a step is undone.
#[derive(Debug, Serialize, Deserialize, OutboxEvent)]
#[outbox(type = "outbox.saga.undone", no_key)]
pub(crate) struct Undone;

/// A reply whose content is no booking.
#[derive(Debug, Serialize, Deserialize, OutboxEvent)]
#[outbox(type = "flight.booked", no_key)]
struct BookedWrongly {
    seat: String,
}

/// The saga and the command of a reply.
pub(crate) struct To<'a> {
    pub(crate) saga: String,
    pub(crate) step: &'a str,
    pub(crate) round: &'a str,
    pub(crate) phase: &'a str,
}

pub(crate) fn to(saga: SagaId, step: &str) -> To<'_> {
    To { saga: saga.to_string(), step, round: "1", phase: "do" }
}

pub(crate) fn reply(to: &To<'_>, event: &dyn OutboxEvent) -> Message {
    let event = NewEvent::encode(event).unwrap();
    let mut headers = Headers::new();
    for (name, value) in [
        ("sagaid", &*to.saga),
        ("sagastep", to.step),
        ("sagaround", to.round),
        ("sagaphase", to.phase),
    ] {
        headers.insert(name, value).unwrap();
    }
    Message::new(MessageParts {
        id: MessageId::generate(),
        sequence: None,
        source: "/participants".into(),
        event_type: event.event_type,
        event_version: 1,
        topic: "replies".into(),
        aggregate_type: None,
        key: None,
        content_type: event.content_type,
        payload: event.payload,
        headers,
        created_at: Timestamp::from_micros(1),
        expires_at: None,
        retry: None,
    })
}

/// A service that drives trips, and the channel on which replies come.
struct Service<'w> {
    world: &'w World,
    sagas: Sagas,
    channel: Memory,
}

impl<'w> Service<'w> {
    async fn start(world: &'w World) -> Self {
        let sagas = Sagas::builder(&world.outbox).register(Trip::saga()).reply_to("replies");
        let sagas = sagas.poll(Duration::from_millis(50)).start().await.unwrap();
        let (channel, subscriber) = Memory::channel();
        let consumer =
            Consumer::builder("trips", &world.outbox).replies(&sagas).subscribe(subscriber);
        let consumer = consumer.start().await.unwrap();
        // It runs as long as its channel.
        drop(tokio::spawn(async move { consumer.finished().await }));
        Self { world, sagas, channel }
    }

    async fn trip(&self, number: i64) -> SagaId {
        let tx = self.world.outbox.begin().await.unwrap();
        let started = self.sagas.start(&tx, Trip::number(number)).await.unwrap();
        tx.commit().await.unwrap();
        self.becomes(started.id(), "flight", StepState::Waiting).await;
        started.id()
    }

    async fn becomes(&self, saga: SagaId, step: &str, state: StepState) {
        let is = async || {
            let instance = self.world.view(saga).await.instance;
            instance.step(step).is_some_and(|known| known.state == state)
        };
        wait_until(SOON, "the step has the state", is).await;
    }

    /// Delivers a reply, until it is acknowledged.
    async fn deliver(&self, to: &To<'_>, event: &dyn OutboxEvent) {
        self.channel.publish(&reply(to, event)).await.unwrap();
    }

    async fn letters(&self) -> Vec<String> {
        self.world.texts("SELECT errors FROM outbox_dead_letters ORDER BY letter_id").await
    }
}

on_every_database! {
    async fn replies_drive_a_saga_to_its_end_and_repeats_change_nothing(temp: &TempDatabase) {
        let world = World::open(temp).await;
        let service = Service::start(&world).await;
        let trip = service.trip(1).await;
        let command = "SELECT headers FROM outbox_events WHERE topic = 'flights' ORDER BY event_id";
        let headers = world.texts(command).await.remove(0);
        for expected in [&format!(r#""sagaid":"{trip}""#), r#""sagastep":"flight""#, r#""sagaphase":"do""#, r#""replyto":"replies""#] {
            assert!(headers.contains(expected), "{headers}");
        }
        assert!(headers.contains(r#""correlationid":"#), "{headers}");
        service.deliver(&to(trip, "flight"), &FlightBooked { seat: 12 }).await;
        service.deliver(&to(trip, "flight"), &FlightBooked { seat: 12 }).await;
        service.becomes(trip, "hotel", StepState::Waiting).await;
        service.deliver(&to(trip, "hotel"), &Done).await;
        service.becomes(trip, "pay", StepState::Waiting).await;
        service.deliver(&to(trip, "pay"), &Done).await;
        world.reaches(trip, SagaState::Completed).await;
        let log = world.log(trip).await.len();
        service.deliver(&to(trip, "pay"), &Done).await;
        assert_eq!((world.log(trip).await.len(), service.letters().await.len()), (log, 0), "it is a repeat");
    }

    async fn a_late_reply_to_a_saga_that_has_ended_is_recorded_and_changes_nothing(temp: &TempDatabase) {
        let world = World::open(temp).await;
        let service = Service::start(&world).await;
        let trip = service.trip(1).await;
        let decision = outbox_sea_orm::admin::OperatorNote::new("ann", "the customer wants it");
        let operation = outbox_sea_orm::saga::Operation::Cancel;
        assert!(outbox_sea_orm::saga::SagaAdmin::operate(&world.outbox, trip, &operation, &decision).await.unwrap());
        service.becomes(trip, "flight", StepState::Cancelling).await;
        service.deliver(&To { phase: "undo", ..to(trip, "flight") }, &Undone).await;
        world.reaches(trip, SagaState::Compensated).await;
        service.deliver(&to(trip, "flight"), &FlightFull { reason: "no".into() }).await;
        service.deliver(&to(trip, "flight"), &FlightBooked { seat: 3 }).await;
        service.deliver(&to(trip, "flight"), &FlightBooked { seat: 3 }).await;
        let instance = world.reaches(trip, SagaState::Compensated).await;
        assert_eq!(instance.step("flight").unwrap().state, StepState::Undone);
        let late = world.log(trip).await.into_iter().filter(|entry| matches!(entry.record, Record::LateReply { .. }));
        assert_eq!((late.count(), service.letters().await.len()), (2, 0), "each reply once");
    }

    async fn a_reply_that_cannot_be_taken_becomes_a_letter_that_says_why(temp: &TempDatabase) {
        let world = World::open(temp).await;
        let service = Service::start(&world).await;
        let trip = service.trip(1).await;
        let unknown = SagaId::generate();
        let booked = FlightBooked { seat: 1 };
        let cases: [(To<'_>, &dyn OutboxEvent, &str); 8] = [
            (to(unknown, "flight"), &booked, "there is no saga"),
            (to(trip, "train"), &booked, "has no step `train`"),
            (to(trip, "hotel"), &booked, "has sent no such command for `hotel`"),
            (to(trip, "note"), &booked, "it is no remote step"),
            (To { round: "2", ..to(trip, "flight") }, &booked, "has sent no such command for `flight`"),
            (To { round: "x", ..to(trip, "flight") }, &booked, "header `sagaround`"),
            (to(trip, "flight"), &Done, "gave no reply of its own (`cx.reply(..)`), so `outbox.saga.done` was sent for it; awaited is flight.booked or flight.full"),
            (to(trip, "flight"), &BookedWrongly { seat: "window".into() }, "the reply to `flight` cannot be decoded"),
        ];
        for (n, (to, event, expected)) in cases.iter().enumerate() {
            service.deliver(to, *event).await;
            let letters = service.letters().await;
            assert_eq!(letters.len(), n + 1);
            assert!(letters[n].contains(expected) && !letters[n].contains("window"), "{expected}: {}", letters[n]);
        }
        service.deliver(&to(trip, "flight"), &booked).await;
        service.becomes(trip, "hotel", StepState::Waiting).await;
        // The definition is of another version now.
        world.run("UPDATE outbox_sagas SET version = 9").await;
        service.deliver(&to(trip, "hotel"), &Done).await;
        // The consumer stores the reply for an instance that has the version.
        let left = service.world.texts("SELECT awaits FROM outbox_deferred WHERE awaits_version = 9").await;
        assert_eq!((left.as_slice(), service.letters().await.len()), (&["trip".to_owned()][..], cases.len()));
    }
}
