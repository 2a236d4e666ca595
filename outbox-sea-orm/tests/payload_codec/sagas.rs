//! A saga whose commands and replies are encoded.

use crate::world::{CANARY, SOON, World, flipping, relay};
use outbox_sea_orm::{entity::saga_barrier, prelude::*};
use sea_orm::{ConnectionTrait, EntityTrait, Statement};
use serde::{Deserialize, Serialize};
use std::time::Duration;
use tests::{databases::TempDatabase, on_every_database, wait_until};

/// What no column may have of a reply.
const RECEIPT: &str = "canary-receipt-7777";

#[derive(Debug, Serialize, Deserialize, OutboxEvent)]
#[outbox(type = "card.charge", topic = "payments", no_key)]
struct Charge {
    number: String,
}

#[derive(Debug, Serialize, Deserialize, OutboxEvent)]
#[outbox(type = "card.charged", no_key)]
struct Charged {
    receipt: String,
}

#[derive(Debug, Serialize, Deserialize)]
struct Purchase {
    number: String,
}

#[saga(name = "purchase", version = 1)]
impl Purchase {
    #[step(reply = Charged, timeout = "30s", pivot)]
    async fn charge(&mut self, _cx: &StepContext) -> Result<Charge, StepError> {
        Ok(Charge { number: self.number.clone() })
    }
}

async fn charge(command: Charge, cx: &HandlerContext) -> Result<(), HandlerError> {
    if command.number != CANARY {
        return Err(HandlerError::reject("the command is not clear"));
    }
    Ok(cx.reply(Charged { receipt: RECEIPT.to_owned() })?)
}

on_every_database! {
    async fn commands_and_replies_are_encoded_wherever_they_are_stored(db: &TempDatabase) {
        let world = World::open(db, &flipping(["k1"])).await;
        let outbox = &world.outbox;
        let sagas = Sagas::builder(outbox).reply_to("replies").poll(Duration::from_millis(50));
        let sagas = sagas.register(Purchase::saga()).start().await.unwrap();
        let (relay, queue) = relay(outbox).await;
        let consumer = Consumer::builder("payments", outbox).on_command("charge", charge);
        let consumer = consumer.commands_from("shop", "replies").replies(&sagas).subscribe(queue);
        let consumer = consumer.start().await.unwrap();
        let tx = outbox.begin().await.unwrap();
        sagas.start(&tx, Purchase { number: CANARY.to_owned() }).await.unwrap();
        tx.commit().await.unwrap();
        wait_until(SOON, "the saga is completed and its messages are published", async || {
            let sql = "SELECT COUNT(*) FROM outbox_sagas WHERE state = 'completed'";
            let count = Statement::from_string(world.db.get_database_backend(), sql);
            let row = world.db.query_one_raw(count).await.unwrap().unwrap();
            tests::equals((row.try_get_by_index::<i64>(0).unwrap(), world.archived().await), (1, 2))
        }).await;
        assert!(world.letters().await.is_empty());
        let barrier = saga_barrier::Entity::find().all(&world.db).await.unwrap();
        assert!(barrier.iter().any(|row| row.payload.is_some()), "the reply is kept: {barrier:?}");
        // The data and the log of a saga are not encoded.
        for text in [CANARY, RECEIPT] {
            let clear = world.columns_with(text, &["outbox_sagas", "outbox_saga_log"]).await;
            assert!(clear.is_empty(), "{text}: {clear:?}");
        }
        relay.shutdown(SOON).await.unwrap();
        consumer.shutdown(SOON).await.unwrap();
        sagas.shutdown(SOON).await.unwrap();
    }
}
