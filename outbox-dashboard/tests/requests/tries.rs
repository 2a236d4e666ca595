//! A handler that is tried on a letter before that is redriven.

use crate::{
    client::Client,
    schema::check,
    world::{OrderPlaced, SOON, World},
};
use outbox_core::transport::{Memory, Publisher};
use outbox_dashboard::{Access, Dashboard, Permission, Role};
use outbox_sea_orm::{admin::AdminStore, prelude::*};
use serde_json::json;
use std::time::Duration;
use tests::{databases::TempDatabase, equals, on_every_database, wait_until};

async fn fails(_: OrderPlaced, _: &HandlerContext) -> Result<(), HandlerError> {
    Err(HandlerError::retry("the scanner is offline"))
}

/// Starts a consumer that gives a message up at its first failure, and hands it one. It runs for as
/// long as its publisher is there.
async fn consumer_with_a_letter(world: &World) -> (Consumer, Memory) {
    let (publisher, subscriber) = Memory::channel();
    let once = RetryPolicy::attempts(1, Duration::from_millis(1));
    let consumer = Consumer::builder("warehouse", &world.outbox).on("pack", fails).retry(once);
    let consumer = consumer.subscribe(subscriber).start().await.unwrap();
    let message = Message::for_test(&OrderPlaced::of("order-1")).unwrap();
    publisher.publish(&message).await.unwrap();
    wait_until(SOON, "the message is a dead letter", async || {
        equals(world.outbox.stats().await.unwrap().dead, 1)
    })
    .await;
    (consumer, publisher)
}

on_every_database! {
    async fn a_letter_of_a_consumer_is_tried_where_its_handler_runs_and_nothing_is_changed(temp: &TempDatabase) {
        let world = World::open(temp).await;
        let (consumer, _publisher) = consumer_with_a_letter(&world).await;
        let dashboard = Dashboard::builder()
            .database("orders", world.outbox.clone())
            .access(Access::loopback())
            .tries("orders", consumer.trials())
            .build()
            .unwrap();
        let client = Client::of(dashboard.router());
        client.get("/letters/1").await.says(200, &["Try its handler first"]);
        let tried = client.post("/letters/1/try?db=orders", &[]).await;
        tried.says(200, &["It would fail again", "the scanner is offline", "warehouse/pack", "No event", "Redrive"]);

        let openapi = client.get("/api/openapi.json").await.json();
        let tried = client.send(http::Method::POST, "/api/dead-letters/1/try", None, "").await.json();
        check(&openapi, "post", "/api/dead-letters/{id}/try", "200", &tried);
        assert_eq!(tried["result"]["result"], json!("failed"));
        assert_eq!((world.dead_and_pending().await, world.audit().await), ((1, 0), Vec::new()));

        client.submit("/letters/1/discard", &[("why", "a duplicate")]).await;
        client.post("/letters/1/try", &[]).await.says(409, &["Letter 1 was discarded by loopback"]);
        consumer.shutdown(SOON).await.unwrap();
    }

    async fn a_letter_is_not_tried_where_its_handler_does_not_run(temp: &TempDatabase) {
        let world = World::open(temp).await;
        let (consumer, _publisher) = consumer_with_a_letter(&world).await;
        let trials = consumer.trials();
        consumer.shutdown(SOON).await.unwrap();
        world.place("order-2", "two chairs").await;
        world.bury(2).await;
        let client = world.client();
        assert!(!client.get("/letters/1").await.body.contains("Try its handler"));
        client.post("/letters/1/try", &[]).await.says(409, &["do not run in this process", "consumer.trials()"]);
        client.post("/letters/2/try", &[]).await.says(409, &["there is no handler to try"]);
        let dashboard = Dashboard::builder()
            .database("orders", world.outbox.clone())
            .access(Access::custom(|_| Some(outbox_dashboard::Grant::new("ann", Role::acts([Permission::Redrive])))))
            .tries("orders", trials.clone());
        let client = Client::of(dashboard.build().unwrap().router());
        client.post("/letters/1/try", &[]).await.says(403, &["ann has no permission to try"]);
        let wrong = Dashboard::builder().database("orders", world.outbox.clone()).tries("stock", trials);
        let refused = wrong.build().unwrap_err().to_string();
        assert!(refused.contains("\"stock\", which is no database"), "{refused}");
    }
}
