//! A saga of one service that waits for another one: its page says where its command is, or the
//! answer, in the databases of both.

use crate::{client::Client, schema::check, world::SOON};
use outbox_core::testing::Recorder;
use outbox_dashboard::{Access, Dashboard, DashboardBuilder};
use outbox_sea_orm::{
    admin::{AdminStore, OperatorNote},
    event::{LetterId, SagaId},
    prelude::*,
};
use serde::{Deserialize, Serialize};
use std::time::Duration;
use tests::{databases::TempDatabase, equals, on_every_database, wait_until};

const REPLIES: &str = "orders.replies";
const AN_HOUR: Duration = Duration::from_hours(1);

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Checkout {
    order: String,
}

impl Checkout {
    async fn charge(&mut self, _: &StepContext) -> Result<Charge, StepError> {
        Ok(Charge { order: self.order.clone() })
    }
}

/// The command. Its key is the order, of which the service of the saga knows nothing else.
#[derive(Debug, Clone, Serialize, Deserialize, OutboxEvent)]
#[outbox(type = "payment.charge", topic = "payments")]
struct Charge {
    #[outbox(key)]
    order: String,
}

async fn declines(_: Charge, _: &HandlerContext) -> Result<(), HandlerError> {
    Err(HandlerError::retry("the bank is closed"))
}

async fn charges(_: Charge, _: &HandlerContext) -> Result<(), HandlerError> {
    Ok(())
}

async fn installed(temp: &TempDatabase, source: &str) -> Outbox {
    Outbox::builder(temp.connect().await).source(source).install().await.unwrap()
}

fn once() -> RetryPolicy {
    RetryPolicy::attempts(1, Duration::from_millis(1))
}

/// The services of orders and of payments, each with a database of its own, and a saga of the first
/// one that waits for the second one.
struct Story {
    orders: Outbox,
    payments: Outbox,
    sagas: Sagas,
    saga: SagaId,
    _temp: TempDatabase,
}

impl Story {
    /// Starts the saga; its command is in the outbox of its service.
    async fn begin(temp: &TempDatabase) -> Self {
        let other = TempDatabase::create(temp.database()).await;
        let orders = installed(temp, "/orders").await;
        let payments = installed(&other, "/payments").await;
        let checkout = Saga::builder("checkout", 1).remote_step("charge", Checkout::charge);
        let checkout = checkout.timeout(AN_HOUR).build();
        let sagas = Sagas::builder(&orders).register(checkout).reply_to(REPLIES);
        let sagas = sagas.poll(Duration::from_millis(50)).start().await.unwrap();
        let tx = orders.begin().await.unwrap();
        let data = Checkout { order: "order-7".to_owned() };
        let started = sagas.start(&tx, data).correlation("checkout-7").await.unwrap();
        let saga = started.id();
        tx.commit().await.unwrap();
        Self { orders, payments, sagas, saga, _temp: other }
    }

    /// Starts a relay of an outbox with one route.
    async fn relay(outbox: &Outbox, route: Route) -> Relay {
        Relay::builder(outbox).add_route(route).start().await.unwrap()
    }

    /// Makes the builder of the consumer of payments.
    fn payments(&self) -> ConsumerBuilder<Outbox> {
        Consumer::builder("payments", &self.payments)
            .commands_from("/orders", REPLIES)
            .retry(once())
    }

    fn dashboard(&self) -> DashboardBuilder {
        Dashboard::builder()
            .database("orders", self.orders.clone())
            .database("payments", self.payments.clone())
            .access(Access::loopback())
    }

    fn client(&self) -> Client {
        Client::of(self.dashboard().build().unwrap().router())
    }

    /// Gives the path of the saga's page.
    fn page(&self) -> String {
        format!("/sagas/{}?db=orders", self.saga)
    }

    /// Waits until the page of the saga says these, and gives it.
    async fn says(&self, texts: &[&str]) -> String {
        let (client, path) = (self.client(), self.page());
        wait_until(SOON, "the page says where it waits", async || {
            let body = client.get(&path).await.body;
            let missing = texts.iter().find(|text| !body.contains(**text));
            missing.map_or(Ok(()), |text| Err(format!("no {text:?} in {body}")))
        })
        .await;
        client.get(&path).await.body
    }

    async fn end(self) {
        self.sagas.shutdown(SOON).await.unwrap();
    }
}

on_every_database! {
    async fn the_explanation_of_a_saga_follows_its_command_and_the_reply(temp: &TempDatabase) {
        let story = Story::begin(temp).await;
        story.says(&["waits for the reply to step <code>charge</code>", "Its command: Event", "no relay is live: start one"]).await;

        // The participant gives the command up.
        let (publisher, subscriber) = Memory::channel();
        let relay = Story::relay(&story.orders, Route::new("payments", topic("payments"), publisher)).await;
        let consumer = story.payments().on_command("charge", declines).subscribe(subscriber).start().await.unwrap();
        wait_until(SOON, "the command is a letter", async || equals(story.payments.stats().await.unwrap().dead, 1)).await;
        let page = story.says(&["Its command in database <code>payments</code>: Message", "is a dead letter of handler <code>charge</code> of consumer <code>payments</code>", "the bank is closed"]).await;
        assert!(page.contains("href=\"../letters/1?db=payments#acts\""), "{page}");
        let client = story.client();
        for q in ["checkout-7".to_owned(), story.saga.to_string()] {
            let follow = client.get(&format!("/follow?q={q}")).await;
            follow.says(200, &["Its command in database <code>payments</code>", "href=\"./letters/1?db=payments#acts\"", "It became dead letter 1"]);
            assert!(follow.body.len() <= 100 * 1024, "{} bytes", follow.body.len());
        }
        let openapi = client.get("/api/openapi.json").await.json();
        let explained = client.get("/api/explain?q=checkout-7").await.json();
        check(&openapi, "get", "/api/explain", "200", &explained);
        let of_orders = &explained[0]["result"][0];
        assert_eq!((of_orders["database"].as_str(), of_orders["commands"][0].as_str()), (Some("payments"), Some("outbox dead-letters redrive 1")));
        let followed = client.get("/api/follow?q=checkout-7").await;
        followed.says(200, &["It became dead letter 1"]);
        let hides = story.dashboard().sensitive("payment.charge").build().unwrap().router();
        let hidden = Client::of(hides).get(&story.page()).await;
        hidden.says(200, &["is a dead letter of handler"]);
        assert!(!hidden.body.contains("the bank is closed"), "{}", hidden.body);
        consumer.shutdown(SOON).await.unwrap();

        // It is redriven and handled: its answer waits for a relay.
        let note = OperatorNote::new("ann", "the bank is open");
        story.payments.redrive(&[LetterId(1)], &note).await.unwrap();
        let (_publisher, subscriber) = Memory::channel();
        let consumer = story.payments().on_command("charge", charges).subscribe(subscriber).start().await.unwrap();
        story.says(&["Consumer <code>payments</code> in database <code>payments</code> has handled the command", "Its reply there: Event", "no relay is live: start one"]).await;

        // It is on its way, first without anybody who takes it.
        let answers = Story::relay(&story.payments, Route::new("answers", topic(REPLIES), Recorder::new())).await;
        story.says(&["its reply has left that outbox", "No running consumer here takes the replies to sagas of <code>checkout</code>"]).await;
        let (_replies, subscriber) = Memory::channel();
        let takes = Consumer::builder("checkouts", &story.orders).replies(&story.sagas).subscribe(subscriber);
        let takes = takes.start().await.unwrap();
        story.says(&["its reply has left that outbox", "It goes on when consumer <code>checkouts</code> here receives it"]).await;
        for consumer in [consumer, takes] {
            consumer.shutdown(SOON).await.unwrap();
        }
        for relay in [relay, answers] {
            relay.shutdown(SOON).await.unwrap();
        }
        story.end().await;
    }

    async fn an_answer_that_no_route_takes_is_explained_in_the_database_of_the_participant(temp: &TempDatabase) {
        let story = Story::begin(temp).await;
        let (publisher, subscriber) = Memory::channel();
        let relay = Story::relay(&story.orders, Route::new("payments", topic("payments"), publisher)).await;
        let consumer = story.payments().on_command("charge", charges).subscribe(subscriber).start().await.unwrap();
        story.says(&["has handled the command", "no relay is live: start one"]).await;
        let other = Story::relay(&story.payments, Route::new("mail", topic("mail"), Recorder::new())).await;
        story.says(&["has handled the command", "Its reply there: Event", "no route takes topic <code>orders.replies</code>", "start one with such a route"]).await;
        consumer.shutdown(SOON).await.unwrap();
        for relay in [relay, other] {
            relay.shutdown(SOON).await.unwrap();
        }
        story.end().await;
    }

    async fn a_command_that_nobody_has_received_says_who_would(temp: &TempDatabase) {
        let story = Story::begin(temp).await;
        // A broker that keeps it.
        let relay = Story::relay(&story.orders, Route::new("payments", topic("payments"), Recorder::new())).await;
        story.says(&["Its command has left this outbox, and database <code>payments</code> has not received it: no consumer is running there"]).await;
        let (_publisher, subscriber) = Memory::channel();
        let consumer = story.payments().on_command("charge", charges).subscribe(subscriber).start().await.unwrap();
        story.says(&["has not received it: it is with the broker"]).await;
        consumer.shutdown(SOON).await.unwrap();
        relay.shutdown(SOON).await.unwrap();
        story.end().await;
    }
}
