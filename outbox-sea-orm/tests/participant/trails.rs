//! Ids that travel from message to message.

use crate::{
    payments::{Charge, Charged, Declined, Refund},
    world::{SOON, World, charge, headers, message},
};
use outbox_core::event::{CorrelationContext, EncodeError, EventMeta, Headers, SagaId};
use outbox_sea_orm::prelude::*;
use tests::{databases::TempDatabase, on_every_database, wait_until};

/// Sends the next event of a chain.
async fn next_is(event: Charge, cx: &HandlerContext) -> Result<(), OutboxError> {
    cx.tx.emit(Refund { how: event.how })?;
    Ok(())
}

async fn last_is(_: Refund, cx: &HandlerContext) -> Result<(), OutboxError> {
    let nested = cx.tx.begin().await?;
    nested.emit(Declined { limit: 1 })?;
    nested.commit().await?;
    cx.reply(Charged { order: 7, receipt: String::new() })?;
    Ok(())
}

/// Says itself what it follows from.
struct Own;

impl OutboxEvent for Own {
    fn meta(&self) -> EventMeta<'_> {
        EventMeta::new("own").header("correlationid", Some("mine"))
    }

    fn payload(&self) -> Result<bytes::Bytes, EncodeError> {
        Ok(bytes::Bytes::from_static(b"{}"))
    }
}

on_every_database! {
    async fn a_chain_of_services_keeps_one_correlation_and_each_names_its_cause(db: &TempDatabase) {
        let world = World::open(db).await;
        let tx = world.outbox.begin().await.unwrap();
        tx.correlate(CorrelationContext::new("request-7").unwrap());
        let first = tx.emit(Charge { how: String::new() }).unwrap().to_string();
        tx.commit().await.unwrap();

        // The relay archives published events, for the test to read.
        let keep = outbox_sea_orm::Retention::Keep(SOON);
        let outbox = Outbox::builder(world.db.clone()).source("payments").retention(keep).build().await.unwrap();
        let (publisher, subscriber) = Memory::channel();
        let consumer = Consumer::builder("chain", &outbox).on("next", next_is).on("last", last_is);
        let consumer = consumer.subscribe(subscriber).start().await.unwrap();
        let relay = Relay::builder(&outbox).route("all", everything(), publisher).start().await.unwrap();
        let archived = async || {
            use outbox_sea_orm::entity::archive;
            use sea_orm::{EntityTrait, QueryOrder};
            archive::Entity::find().order_by_asc(archive::Column::EventId).all(&world.db).await.unwrap()
        };
        wait_until(SOON, "all four are published", async || tests::equals(archived().await.len(), 4)).await;
        relay.shutdown(SOON).await.unwrap();
        consumer.shutdown(SOON).await.unwrap();

        let rows = archived().await;
        let row = |event_type: &str| {
            let row = rows.iter().find(|row| row.event_type == event_type).unwrap();
            let headers = Headers::from_json(&row.headers).unwrap();
            let get = |name: &str| headers.get(name).map(str::to_owned);
            (row.message_id.to_string(), get("correlationid"), get("causationid"))
        };
        let correlation = Some("request-7".to_owned());
        assert_eq!(row("payment.charge"), (first.clone(), correlation.clone(), None));
        let (second, ..) = row("payment.refund");
        assert_eq!(row("payment.refund"), (second.clone(), correlation.clone(), Some(first)));
        for last in ["payment.declined", "payment.charged"] {
            let (_, of, cause) = row(last);
            assert_eq!((of, cause), (correlation.clone(), Some(second.clone())), "{last}");
        }
    }

    async fn the_first_message_of_a_chain_stands_for_it_and_answers_follow_too(db: &TempDatabase) {
        let (world, saga) = (World::open(db).await, SagaId::generate());
        let (queue, _handle) = world.serve(|consumer| consumer.batched(4)).await;
        let mut of_saga = headers(saga, "undo");
        of_saga.insert("correlationid", "order-7").unwrap();
        let commands = [charge(saga, "reply emit"), charge(saga, "reply emit"), message(&Refund { how: String::new() }, of_saga)];
        let ids: Vec<String> = commands.iter().map(|command| command.id.to_string()).collect();
        for command in commands {
            queue.send(command).await;
        }
        let trails: Vec<_> = world.sent().await.into_iter().map(|sent| {
            let get = |name: &str| sent.headers.get(name).unwrap_or_default().to_owned();
            (sent.event_type.clone(), get("correlationid"), get("causationid"))
        }).collect();
        let expected = |event_type: &str, of: &str, cause: &str| (event_type.to_owned(), of.to_owned(), cause.to_owned());
        assert_eq!(trails, [
            expected("payment.declined", &ids[0], &ids[0]),
            expected("payment.charged", &ids[0], &ids[0]),
            expected("payment.charged", &ids[1], &ids[1]),
            expected("outbox.saga.undone", "order-7", &ids[2]),
        ]);
    }

    async fn a_transaction_that_follows_nothing_adds_nothing_and_an_events_own_stays(db: &TempDatabase) {
        let world = World::open(db).await;
        let tx = world.outbox.begin().await.unwrap();
        tx.emit(Declined { limit: 1 }).unwrap();
        let nested = tx.begin().await.unwrap();
        nested.correlate(CorrelationContext::new("inside").unwrap());
        nested.emit(Declined { limit: 2 }).unwrap();
        nested.emit(Own).unwrap();
        nested.commit().await.unwrap();
        tx.emit(Declined { limit: 3 }).unwrap();
        tx.commit().await.unwrap();
        let of: Vec<_> = world.sent().await.iter().map(|s| s.headers.get("correlationid").map(str::to_owned)).collect();
        assert_eq!(of, [None, Some("inside".to_owned()), Some("mine".to_owned()), None]);
        assert!(world.sent().await.iter().all(|sent| sent.headers.get("causationid").is_none()));
    }
}
