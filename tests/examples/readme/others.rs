//! The README's step in another service.

use super::shop::receipt;
use outbox_amqp::{AmqpPublisher, AmqpSubscriber, Exchange, Queue, Topology};
use outbox_sea_orm::{prelude::*, transport::Subscriber};
use sea_orm::{ActiveModelTrait, ActiveValue::Set};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct Checkout {
    order_id: i64,
    cents: i64,
}

#[derive(Serialize, Deserialize, OutboxEvent)]
#[outbox(type = "payment.charge", topic = "payments")]
struct Charge {
    #[outbox(key)]
    order_id: i64,
    cents: i64,
}

#[derive(Serialize, Deserialize, OutboxEvent)]
#[outbox(type = "payment.refund", topic = "payments")]
struct Refund {
    #[outbox(key)]
    order_id: i64,
    payment: Option<i64>,
}

#[derive(Serialize, Deserialize, OutboxEvent)]
#[outbox(type = "payment.captured", no_key)]
struct PaymentCaptured {
    payment: i64,
}

#[derive(Serialize, Deserialize, OutboxEvent)]
#[outbox(type = "payment.declined", no_key)]
struct PaymentDeclined {
    reason: String, // a field of this name is shown to people, and is in `cx.reason()`
}

#[saga(name = "checkout")]
impl Checkout {
    #[step(remote = "payments", reply = PaymentCaptured, reject = PaymentDeclined, timeout = "30s", compensate = refund)]
    async fn charge(&mut self, _cx: &StepContext) -> Result<Charge, StepError> {
        Ok(Charge { order_id: self.order_id, cents: self.cents })
    }

    async fn refund(
        &mut self,
        captured: Option<PaymentCaptured>,
        _cx: &StepContext,
    ) -> Result<Refund, StepError> {
        Ok(Refund { order_id: self.order_id, payment: captured.map(|c| c.payment) }) // `None`: no answer came in time
    }
}

async fn charge(command: Charge, cx: &HandlerContext) -> Result<(), HandlerError> {
    if command.cents > 100_000 {
        return Ok(cx.reject(PaymentDeclined { reason: "over the limit".into() })?);
    }
    let receipt = receipt::ActiveModel { order_id: Set(command.order_id), ..Default::default() };
    cx.reply(PaymentCaptured { payment: receipt.insert(&cx.tx).await?.id })?; // all in one transaction
    Ok(())
}

pub(crate) async fn orders(outbox: Outbox, subscriber: impl Subscriber) -> super::Done {
    let sagas = Sagas::builder(&outbox)
        .register(Checkout::saga())
        .reply_to("checkout.answers")
        .start()
        .await?;
    let consumer = Consumer::builder("checkout", &outbox)
        .replies(&sagas)
        .subscribe(subscriber)
        .start()
        .await?;
    drop(consumer);
    Ok(())
}

pub(crate) async fn over_rabbitmq(outbox: Outbox, url: &str) -> super::Done {
    let topology = Topology::new()
        .exchange(Exchange::topic("shop"))
        .queue(Queue::quorum("payments").bind("shop", "payment.*"))
        .queue(Queue::quorum("checkout").bind("shop", "checkout.answers"));
    let rabbit = AmqpPublisher::new(url)?.exchange("shop").declare(topology.clone()); // the same in both services
    let relay = Relay::builder(&outbox).route("rabbit", everything(), rabbit).start().await?;

    let sagas = Sagas::builder(&outbox)
        .register(Checkout::saga())
        .reply_to("checkout.answers")
        .start()
        .await?;
    let answers = AmqpSubscriber::new(url, "checkout")?.declare(topology); // in payments: the queue `payments`, and `on_command`
    let consumer =
        Consumer::builder("checkout", &outbox).replies(&sagas).subscribe(answers).start().await?;
    drop((relay, consumer));
    Ok(())
}

pub(crate) fn payments(outbox: &Outbox) -> ConsumerBuilder<Outbox> {
    Consumer::builder("payments", outbox)
        .on_command("charge", charge)
        .commands_from("shop", "checkout.answers")
}
