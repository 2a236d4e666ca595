//! A saga that waits for another service, explained over the databases of both.

use crate::{
    program::{Ran, command, run},
    world::SOON,
};
use outbox_sea_orm::{admin::AdminStore, prelude::*};
use serde::{Deserialize, Serialize};
use std::time::Duration;
use tests::{databases::TempDatabase, equals, on_every_database, wait_until};

const REPLIES: &str = "orders.replies";

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Checkout {
    order: String,
}

impl Checkout {
    async fn charge(&mut self, _: &StepContext) -> Result<Charge, StepError> {
        Ok(Charge { order: self.order.clone() })
    }
}

/// The command; its key says nothing of the saga.
#[derive(Debug, Clone, Serialize, Deserialize, OutboxEvent)]
#[outbox(type = "payment.charge", topic = "payments")]
struct Charge {
    #[outbox(key)]
    order: String,
}

async fn declines(_: Charge, _: &HandlerContext) -> Result<(), HandlerError> {
    Err(HandlerError::retry("the bank is closed"))
}

async fn installed(temp: &TempDatabase, source: &str) -> Outbox {
    Outbox::builder(temp.connect().await).source(source).install().await.unwrap()
}

/// Starts a saga whose command becomes a letter of its participant. The coordinator runs until it is
/// dropped.
async fn declined(orders: &Outbox, payments: &Outbox) -> Sagas {
    let checkout = Saga::builder("checkout", 1).remote_step("charge", Checkout::charge);
    let checkout = checkout.timeout(Duration::from_hours(1)).build();
    let sagas = Sagas::builder(orders).register(checkout).reply_to(REPLIES);
    let sagas = sagas.poll(Duration::from_millis(50)).start().await.unwrap();
    let tx = orders.begin().await.unwrap();
    let data = Checkout { order: "order-7".to_owned() };
    sagas.start(&tx, data).correlation("checkout-7").await.unwrap();
    tx.commit().await.unwrap();
    let (publisher, subscriber) = Memory::channel();
    let route = Route::new("payments", topic("payments"), publisher);
    let relay = Relay::builder(orders).add_route(route).start().await.unwrap();
    let consumer = Consumer::builder("payments", payments)
        .on_command("charge", declines)
        .commands_from("/orders", REPLIES)
        .retry(RetryPolicy::attempts(1, Duration::from_millis(1)))
        .subscribe(subscriber)
        .start()
        .await
        .unwrap();
    wait_until(SOON, "the command is a letter", async || {
        equals(payments.stats().await.unwrap().dead, 1)
    })
    .await;
    consumer.shutdown(SOON).await.unwrap();
    relay.shutdown(SOON).await.unwrap();
    sagas
}

/// Asks databases. The services of this process go on meanwhile.
async fn asked(databases: &[&TempDatabase], arguments: &[&str]) -> Ran {
    let urls = databases.iter().flat_map(|temp| ["--database", temp.url()]);
    let all: Vec<String> = urls.chain(arguments.iter().copied()).map(str::to_owned).collect();
    let ran = tokio::task::spawn_blocking(move || {
        run(command(&all.iter().map(String::as_str).collect::<Vec<_>>()))
    });
    ran.await.unwrap()
}

on_every_database! {
    async fn a_saga_is_explained_and_followed_into_the_database_of_its_participant(temp: &TempDatabase) {
        let other = TempDatabase::create(temp.database()).await;
        let (orders, payments) = (installed(temp, "/orders").await, installed(&other, "/payments").await);
        let sagas = declined(&orders, &payments).await;
        let both = [temp, &other];
        wait_until(SOON, "the coordinator has said that it runs", async || {
            let told = asked(&both, &["explain", "checkout-7"]).await.out;
            if told.contains("waits for the reply to step `charge`") { Ok(()) } else { Err(told) }
        })
        .await;
        let told = asked(&both, &["explain", "checkout-7"]).await.exits(0).out;
        let there = "Its command in database `";
        assert!(told.contains(there) && told.contains("the bank is closed"), "{told}");
        assert!(told.contains("is a dead letter of handler `charge` of consumer `payments`"), "{told}");
        let redrive = told.lines().find(|line| line.contains("dead-letters redrive 1")).unwrap();
        assert!(!redrive.contains(&format!("--database={}", temp.url())), "it is for the other database: {redrive}");
        let document = asked(&both, &["--json", "explain", "checkout-7"]).await.exits(0).json();
        let explained = &document[0]["result"][0];
        assert_eq!(explained["database"], document[1]["database"], "{document}");
        let followed = asked(&both, &["follow", "checkout-7"]).await.exits(0).out;
        assert!(followed.contains("It became dead letter 1 of handler `charge`"), "{followed}");
        // Asked alone, the database of the saga does not know more than that it waits.
        let alone = asked(&[temp], &["explain", "checkout-7"]).await.exits(0).out;
        assert!(alone.contains("waits for the reply") && !alone.contains("Its command"), "{alone}");
        sagas.shutdown(SOON).await.unwrap();
    }
}
