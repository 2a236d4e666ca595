//! A saga and the service of its remote steps, by the README's recipe: one exchange, one binding
//! for commands and one for replies.

use crate::support::{SOON, name, publisher, queue, subscriber};
use outbox_amqp::{AmqpPublisher, Exchange, Topology};
use outbox_core::event::{MessageParts, SagaId};
use outbox_core::transport::Publisher;
use outbox_sea_orm::{
    admin::{AdminStore, DeadLetterFilter},
    consumer::Consumer,
    prelude::*,
    saga::{SagaAdmin, SagaFilter, SagaState},
    transport::everything,
};
use sea_orm::{ConnectionTrait, Statement};
use serde::{Deserialize, Serialize};
use tests::{
    databases::{Database, TempDatabase},
    wait_until,
};

#[derive(Serialize, Deserialize)]
struct Checkout {
    order: i64,
}

#[derive(Serialize, Deserialize, OutboxEvent)]
#[outbox(type = "payments.charge", topic = "payments")]
struct Charge {
    #[outbox(key)]
    order: i64,
}

#[derive(Serialize, Deserialize, OutboxEvent)]
#[outbox(type = "payments.refund", topic = "payments")]
struct Refund {
    #[outbox(key)]
    order: i64,
}

#[saga(name = "checkout")]
impl Checkout {
    // Its replies are of types that only the framework writes: `outbox.saga.done` and its like.
    #[step(remote = "payments", timeout = "30s", compensate = refund)]
    async fn charge(&mut self, _cx: &StepContext) -> Result<Charge, StepError> {
        Ok(Charge { order: self.order })
    }

    #[step]
    async fn ship(&mut self, _cx: &StepContext) -> Result<(), StepError> {
        if self.order % 2 == 0 { Ok(()) } else { Err(StepError::abort("nothing is left")) }
    }

    async fn refund(&mut self, _cx: &StepContext) -> Result<Refund, StepError> {
        Ok(Refund { order: self.order })
    }
}

async fn note(cx: &HandlerContext, what: &str, order: i64) -> Result<(), HandlerError> {
    cx.tx.execute_unprepared(&format!("INSERT INTO effects VALUES ('{what} {order}')")).await?;
    Ok(())
}

async fn charge(command: Charge, cx: &HandlerContext) -> Result<(), HandlerError> {
    note(cx, "charged", command.order).await
}

async fn refund(command: Refund, cx: &HandlerContext) -> Result<(), HandlerError> {
    note(cx, "refunded", command.order).await
}

/// One service with a database and a relay of its own.
struct Service {
    outbox: Outbox,
    relay: Relay,
    _database: TempDatabase,
}

impl Service {
    async fn start(source: &str, rabbit: AmqpPublisher) -> Self {
        let database = TempDatabase::create(Database::Sqlite).await;
        let outbox = Outbox::builder(database.connect().await)
            .source(source)
            .install()
            .await
            .expect("database and server reply");
        let relay = Relay::builder(&outbox)
            .route("rabbit", everything(), rabbit)
            .start()
            .await
            .expect("database and server reply");
        Self { outbox, relay, _database: database }
    }

    async fn effects(&self) -> Vec<String> {
        let db = self.outbox.connection();
        let asked = Statement::from_string(
            db.get_database_backend(),
            "SELECT what FROM effects ORDER BY what",
        );
        db.query_all_raw(asked)
            .await
            .expect("database and server reply")
            .iter()
            .map(|row| row.try_get_by_index(0).expect("database and server reply"))
            .collect()
    }
}

/// The exchange, with a queue for commands, bound by their types, and one for replies, bound by the
/// topic that the saga names.
struct Recipe {
    exchange: String,
    commands: String,
    replies: String,
}

impl Recipe {
    fn new() -> Self {
        Self { exchange: name("shop"), commands: name("payments"), replies: name("checkout") }
    }

    fn publisher(&self) -> AmqpPublisher {
        let topology = Topology::new()
            .exchange(Exchange::topic(&self.exchange))
            .queue(queue(&self.commands).bind(&self.exchange, "payments.*"))
            .queue(queue(&self.replies).bind(&self.exchange, "checkout.answers"));
        publisher().exchange(&self.exchange).declare(topology)
    }

    async fn payments(&self) -> (Service, Consumer) {
        let service = Service::start("/payments", self.publisher()).await;
        let db = service.outbox.connection();
        db.execute_unprepared("CREATE TABLE effects (what VARCHAR(64) NOT NULL)")
            .await
            .expect("database and server reply");
        let consumer = Consumer::builder("payments", &service.outbox)
            .on_command("charge", charge)
            .on_command("refund", refund)
            .commands_from("/shop", "checkout.answers")
            .subscribe(subscriber(&self.commands));
        let handle = consumer.start().await.expect("database and server reply");
        (service, handle)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_saga_with_remote_steps_ends_with_one_binding_for_commands_and_one_for_replies() {
    let recipe = Recipe::new();
    let shop = Service::start("/shop", recipe.publisher()).await;
    let (payments, at_payments) = recipe.payments().await;
    let sagas = Sagas::builder(&shop.outbox)
        .register(Checkout::saga())
        .reply_to("checkout.answers")
        .start()
        .await
        .expect("database and server reply");
    let at_shop = Consumer::builder("checkout", &shop.outbox)
        .replies(&sagas)
        .subscribe(subscriber(&recipe.replies))
        .start()
        .await
        .expect("database and server reply");

    let tx = shop.outbox.begin().await.expect("database and server reply");
    for order in 1..=4 {
        sagas
            .start(&tx, Checkout { order })
            .correlation(format!("order-{order}"))
            .await
            .expect("database and server reply");
    }
    tx.commit().await.expect("database and server reply");
    let ended = async || {
        let sagas = shop
            .outbox
            .sagas(&SagaFilter::default(), None, 10)
            .await
            .expect("database and server reply");
        let states: Vec<_> = sagas.iter().map(|saga| saga.instance.state).collect();
        let expected = [
            SagaState::Compensated,
            SagaState::Completed,
            SagaState::Compensated,
            SagaState::Completed,
        ];
        tests::equals(states, expected.to_vec())
    };
    wait_until(SOON, "two are completed and two compensated", ended).await;
    let charged = (1..=4).map(|order| format!("charged {order}"));
    let expected: Vec<_> = charged.chain([1, 3].map(|order| format!("refunded {order}"))).collect();
    assert_eq!(payments.effects().await, expected);
    for service in [&shop, &payments] {
        let letters = service
            .outbox
            .dead_letters(&DeadLetterFilter::all(), None, 9)
            .await
            .expect("database and server reply");
        assert!(letters.is_empty(), "{letters:?}");
    }
    for handle in [at_shop, at_payments] {
        handle.shutdown(SOON).await.expect("database and server reply");
    }
    sagas.shutdown(SOON).await.expect("database and server reply");
    for service in [shop, payments] {
        service.relay.shutdown(SOON).await.expect("database and server reply");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_foreign_command_over_rabbitmq_is_a_dead_letter_and_gets_no_reply() {
    let recipe = Recipe::new();
    let (payments, handle) = recipe.payments().await;
    // Without its topic for replies a command reads like a reply.
    let rabbit = recipe.publisher().routing_key(|message| message.event_type.clone());
    let command = |change: fn(&mut MessageParts)| {
        crate::support::message_with(|parts| {
            (parts.source, parts.topic, parts.event_type) =
                ("/shop".into(), "payments".into(), "payments.charge".into());
            (parts.event_version, parts.payload) = (1, br#"{"order":7}"#.to_vec().into());
            parts.content_type = "application/json".into();
            let saga = SagaId::generate().to_string();
            let headers = [
                ("sagaid", &*saga),
                ("sagastep", "charge"),
                ("sagaround", "1"),
                ("sagaphase", "do"),
            ];
            for (name, value) in headers.into_iter().chain([("replyto", "checkout.answers")]) {
                parts.headers.insert(name, value).expect("database and server reply");
            }
            change(parts);
        })
    };
    let strange: [fn(&mut MessageParts); 3] = [
        |parts| parts.source = "/stranger".into(),
        |parts| parts.headers.insert("replyto", "strangers").expect("database and server reply"),
        |parts| drop(parts.headers.remove("replyto")),
    ];
    for change in strange {
        rabbit.publish(&command(change)).await.expect("confirmed");
    }
    let letters = async || {
        payments
            .outbox
            .dead_letters(&DeadLetterFilter::all(), None, 9)
            .await
            .expect("database and server reply")
            .len()
    };
    wait_until(SOON, "each is a letter", async || tests::equals(letters().await, 3)).await;
    assert_eq!(payments.effects().await, [""; 0], "nothing was done");
    let pending = payments.outbox.stats().await.expect("database and server reply").pending;
    assert_eq!(
        (pending, payments.relay.stats().borrow().delivered),
        (0, 0),
        "no reply is or was sent"
    );
    // Its own command is done and gets a reply.
    rabbit.publish(&command(|_| {})).await.expect("confirmed");
    wait_until(SOON, "it is done", async || {
        tests::equals(payments.effects().await, vec!["charged 7".to_owned()])
    })
    .await;
    let replied = async || tests::equals(payments.relay.stats().borrow().delivered, 1);
    wait_until(SOON, "the reply is sent", replied).await;
    handle.shutdown(SOON).await.expect("database and server reply");
    payments.relay.shutdown(SOON).await.expect("database and server reply");
}
