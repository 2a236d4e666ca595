//! Three services: orders accepts an order by HTTP and sends its event to payments by HTTP, which sends
//! one to shipping through RabbitMQ.

use crate::world::SOON;
use axum::{
    Router,
    extract::{Request, State},
    http::{HeaderMap, StatusCode},
    middleware::map_request,
    routing::post,
};
use lapin::types::AMQPValue;
use outbox_amqp::{AmqpPublisher, AmqpSubscriber, Exchange, Queue, Topology};
use outbox_core::{
    consumer::{Consumer, EventHandler, capturing},
    relay::Relay,
    telemetry::{Metrics, TRACEPARENT},
    transport::topic,
};
use outbox_http::{HttpPublisher, HttpReceiver};
use outbox_sea_orm::prelude::*;
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};
use tests::{
    databases::{Database, TempDatabase},
    equals,
    servers::rabbitmq,
    wait_until,
};
use tokio::net::TcpListener;
use tracing::Instrument;

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
/// How long RabbitMQ keeps unused queues.
const UNUSED_EXPIRY: Duration = Duration::from_mins(5);

#[derive(Debug, Clone, Serialize, Deserialize, OutboxEvent)]
#[outbox(type = "order.placed", topic = "orders")]
struct OrderPlaced {
    #[outbox(key)]
    order_id: i64,
}

#[derive(Debug, Clone, Serialize, Deserialize, OutboxEvent)]
#[outbox(type = "payment.taken", topic = "payments")]
struct PaymentTaken {
    #[outbox(key)]
    order_id: i64,
}

/// The headers of a message or request, as they came.
pub(crate) type Received = BTreeMap<String, String>;

/// The running services.
pub(crate) struct Services {
    url: String,
    queue: String,
    /// The requests that payments has received.
    requests: Arc<Mutex<Vec<Received>>>,
    /// The contexts with which payments and shipping have handled messages.
    handled: Arc<Mutex<BTreeMap<&'static str, Vec<String>>>>,
    relays: Vec<Relay>,
    consumers: Vec<Consumer>,
    _databases: Vec<TempDatabase>,
}

/// Accepts an order in the span of a server, which goes on in the trace of its caller.
async fn place_order(State(outbox): State<Outbox>, headers: HeaderMap) -> StatusCode {
    let span = tracing::info_span!("request", otel.name = "POST /orders", otel.kind = "server");
    outbox_otel::continue_from(&span, |name| headers.get(name)?.to_str().ok());
    let work = async {
        let tx = outbox.begin().await.unwrap();
        tx.emit(OrderPlaced { order_id: 7 }).unwrap();
        tx.commit().await.unwrap();
    };
    work.instrument(span).await;
    StatusCode::ACCEPTED
}

async fn serve(router: Router) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    url
}

impl Services {
    pub(crate) async fn open() -> Self {
        let mut databases = Vec::new();
        for _ in 0..3 {
            databases.push(TempDatabase::create(Database::Sqlite).await);
        }
        let mut outboxes = Vec::new();
        for (database, source) in databases.iter().zip(["/orders", "/payments", "/shipping"]) {
            let outbox = Outbox::builder(database.connect().await).source(source);
            outboxes.push(outbox.install().await.unwrap());
        }
        let [orders, payments, shipping] = &outboxes[..] else { unreachable!("there are three") };
        let (requests, handled) =
            (Arc::<Mutex<Vec<Received>>>::default(), Arc::<Mutex<BTreeMap<_, _>>>::default());
        let metrics = Metrics::new();
        let url =
            serve(Router::new().route("/orders", post(place_order)).with_state(orders.clone()))
                .await;

        let (router, by_http) = HttpReceiver::builder().verify(SECRET).build().unwrap();
        let seen = requests.clone();
        let router = router.layer(map_request(move |request: Request| {
            seen.lock().unwrap().push(received(request.headers()));
            async move { request }
        }));
        let to_payments = HttpPublisher::new(format!("{}/events", serve(router).await)).unwrap();
        let to_payments = to_payments.signed(SECRET).allow_loopback().build().unwrap();

        let (to_shipping, by_amqp, tap) = through_rabbitmq();

        let relays = vec![
            Relay::builder(orders)
                .route("payments", topic("orders"), to_payments)
                .metrics(metrics.clone())
                .start()
                .await
                .unwrap(),
            Relay::builder(payments)
                .route("shipping", topic("payments"), to_shipping)
                .metrics(metrics.clone())
                .start()
                .await
                .unwrap(),
        ];
        let consumers = vec![
            Consumer::builder("payments", payments)
                .on("take-payment", take_payment(handled.clone()))
                .subscribe(by_http)
                .metrics(metrics.clone())
                .start()
                .await
                .unwrap(),
            Consumer::builder("shipping", shipping)
                .on("ship", ship(handled.clone()))
                .subscribe(by_amqp)
                .metrics(metrics)
                .start()
                .await
                .unwrap(),
        ];
        Self { url, queue: tap, requests, handled, relays, consumers, _databases: databases }
    }

    /// Places an order as a client whose trace has this context, and waits until it was shipped.
    pub(crate) async fn order(&self, traceparent: &str) {
        // The client needs a provider of cryptography, though nothing here is encrypted.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let sent = reqwest::Client::new()
            .post(format!("{}/orders", self.url))
            .header(TRACEPARENT, traceparent)
            .send();
        assert_eq!(sent.await.unwrap().status().as_u16(), 202);
        wait_until(SOON, "the order was shipped", async || {
            let acked: Vec<u64> =
                self.consumers.iter().map(|consumer| consumer.stats().borrow().acked).collect();
            equals(acked, [1, 1])
        })
        .await;
    }

    /// Gives the headers of the request that payments has received.
    pub(crate) fn request(&self) -> Received {
        self.requests.lock().unwrap()[0].clone()
    }

    /// Gives the headers of the message for shipping, as a client without this project reads them.
    pub(crate) async fn message(&self) -> Received {
        let url = rabbitmq::shared_url();
        let connection = lapin::Connection::connect(&url, lapin::ConnectionProperties::default());
        let channel = connection.await.unwrap().create_channel().await.unwrap();
        let got = channel.basic_get(self.queue.as_str().into(), Default::default()).await;
        let got = got.unwrap().expect("the tap has a copy");
        let headers = got.properties.headers().clone().unwrap_or_default();
        let text = |value: &AMQPValue| match value {
            AMQPValue::LongString(text) => String::from_utf8(text.as_bytes().to_vec()).unwrap(),
            other => panic!("{other:?}"),
        };
        headers.inner().iter().map(|(name, value)| (name.to_string(), text(value))).collect()
    }

    /// Gives the contexts with which a service has handled messages.
    pub(crate) fn handled(&self, service: &'static str) -> Vec<String> {
        self.handled.lock().unwrap().get(service).cloned().unwrap_or_default()
    }

    pub(crate) async fn stop(self) {
        for relay in self.relays {
            relay.shutdown(SOON).await.unwrap();
        }
        for consumer in self.consumers {
            consumer.shutdown(SOON).await.unwrap();
        }
    }
}

/// Makes both ends of a queue of the shared RabbitMQ, and names another one that has a copy of each
/// message.
fn through_rabbitmq() -> (AmqpPublisher, AmqpSubscriber, String) {
    let name = format!("outbox-test.otel.{}", MessageId::generate());
    let queue = |name: &str| Queue::classic(name).expires(UNUSED_EXPIRY);
    let (exchange, tap) = (format!("{name}.exchange"), format!("{name}.tap"));
    let topology = Topology::new()
        .exchange(Exchange::topic(&exchange))
        .queue(queue(&name).bind(&exchange, "payments"))
        .queue(queue(&tap).bind(&exchange, "payments"));
    let publisher = AmqpPublisher::new(rabbitmq::shared_url()).unwrap().exchange(&exchange);
    let publisher = publisher.routing_key(|message| message.topic.clone());
    let publisher = publisher.declare(topology.clone()).build().unwrap();
    let subscriber = AmqpSubscriber::new(rabbitmq::shared_url(), &name).unwrap();
    (publisher, subscriber.declare(topology).build().unwrap(), tap)
}

type Handled = Arc<Mutex<BTreeMap<&'static str, Vec<String>>>>;

fn note(handled: &Handled, service: &'static str, cx: &HandlerContext) {
    let context = cx.message().headers.get(TRACEPARENT).unwrap_or_default().to_owned();
    handled.lock().unwrap().entry(service).or_default().push(context);
}

fn take_payment(handled: Handled) -> impl EventHandler<OrderPlaced, Outbox> {
    capturing(move |order: OrderPlaced, cx: &HandlerContext| {
        note(&handled, "payments", cx);
        Box::pin(async move {
            cx.tx.emit(PaymentTaken { order_id: order.order_id })?;
            Ok(())
        })
    })
}

fn ship(handled: Handled) -> impl EventHandler<PaymentTaken, Outbox> {
    capturing(move |_: PaymentTaken, cx: &HandlerContext| {
        note(&handled, "shipping", cx);
        Box::pin(async { Ok(()) })
    })
}

fn received(headers: &HeaderMap) -> Received {
    let text = |value: &axum::http::HeaderValue| value.to_str().unwrap_or_default().to_owned();
    headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect()
}
