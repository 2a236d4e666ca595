//! What `cargo run -p shop` shows: one order step by step, many orders, faults, and the figures at the
//! end.

#[cfg(feature = "amqp")]
mod broker;
mod customers;
#[cfg(any(
    feature = "kafka",
    feature = "mqtt",
    feature = "nats",
    feature = "redis",
    feature = "sqs"
))]
mod faulty_publisher;
mod faults;
mod figures;
mod queries;
mod standstill;
mod walkthrough;

pub use customers::Customers;
pub use faults::Faults;
pub use figures::Figures;

use crate::{
    Release,
    events::REPLIES,
    next, operations,
    options::Options,
    orders, payments,
    service::{Link, Location, Service, To, Wire},
    shipping, stock,
};
use anyhow::bail;
use futures_util::future::join_all;
use outbox_sea_orm::{prelude::*, saga::SagaAdmin};
use std::time::{Duration, Instant};
use tokio::time::sleep;

/// The time limit of a wait without faults.
pub const WAIT_LIMIT: Duration = Duration::from_secs(30);
/// How long all orders may take to end.
const SETTLED_WITHIN: Duration = Duration::from_secs(120);
/// How long the services may take to stop.
const STOPPED_WITHIN: Duration = Duration::from_secs(10);
/// How long one service waits for the response of another.
const ANSWERED_WITHIN: Duration = Duration::from_secs(10);
/// The same while faults are injected: shorter, for the audience.
const ANSWERED_SOON: Duration = Duration::from_secs(1);
/// The pause between two polls of the databases.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

#[cfg(feature = "amqp")]
type BrokerProxy = broker::BrokerProxy;
#[cfg(not(feature = "amqp"))]
type BrokerProxy = std::convert::Infallible;

/// All services.
pub struct Shop {
    pub orders: Service,
    pub payments: Service,
    pub stock: Service,
    pub shipping: Service,
    pub faults: Faults,
    pub link: Link,
    /// The release of all services.
    pub release: Release,
    /// The proxy between the services and the broker, which injects faults.
    broker_proxy: Option<BrokerProxy>,
    /// The last order of former runs on the same database.
    since: i64,
}

impl Shop {
    /// Opens the databases and starts all services, without their relays.
    pub async fn open(location: &Location, options: &Options) -> anyhow::Result<Self> {
        let faults = Faults::default();
        let (wire, broker_proxy) = wire(location, options, &faults).await?;
        let timeout = if options.faults { ANSWERED_SOON } else { ANSWERED_WITHIN };
        let link = Link { wire, timeout, prints_events: options.serve };
        let release = options.release;
        let orders = orders::start(location.open("orders").await?, &link.wire, release).await?;
        let payments =
            payments::start(location.open("payments").await?, &link.wire, &faults, release).await?;
        let stock = stock::start(location.open("stock").await?, &link.wire).await?;
        let shipping =
            shipping::start(location.open("shipping").await?, &link.wire, release).await?;
        let since = queries::last_order(&orders.database).await?;
        Ok(Self { orders, payments, stock, shipping, faults, link, release, broker_proxy, since })
    }

    /// Gives all services.
    pub fn services(&self) -> [&Service; 4] {
        [&self.orders, &self.payments, &self.stock, &self.shipping]
    }

    /// Starts the relay of orders: commands go to the services that do them, events to shipping.
    pub async fn relay_orders(&mut self) -> anyhow::Result<()> {
        let [payments, stock, shipping] =
            [&self.payments, &self.stock, &self.shipping].map(Service::url);
        let to_payments = To { name: "payments", url: &payments, events: topic("payments") };
        let to_stock = To { name: "stock", url: &stock, events: topic("stock") };
        let to_shipping =
            To { name: "shipping", url: &shipping, events: topic("shipping").or_topic("orders") };
        let mut others = vec![to_payments, to_stock, to_shipping];
        if self.release == Release::Next {
            others.push(To { name: "gifts", url: &shipping, events: topic(next::GIFTS) });
        }
        self.orders.relay(others, &self.link).await
    }

    /// Starts the relays of the other services: replies go to orders, and so do shipping's events.
    pub async fn relay_others(&mut self) -> anyhow::Result<()> {
        let Self { orders, payments, stock, shipping, link, .. } = self;
        let url = orders.url();
        let to_orders = |events| [To { name: "orders", url: &url, events }];
        payments.relay(to_orders(topic(REPLIES)), link).await?;
        stock.relay(to_orders(topic(REPLIES)), link).await?;
        shipping.relay(to_orders(topic(REPLIES).or_topic("parcels")), link).await
    }

    /// Waits until every order has ended, every customer has a notice, and all outboxes are empty.
    pub async fn settle(&self) -> anyhow::Result<()> {
        until(SETTLED_WITHIN, "every order has ended", async || {
            if queries::open_orders(&self.orders.database).await? > 0 {
                return Ok(false);
            }
            let sagas = self.orders.outbox.saga_counts().await?;
            if sagas.running + sagas.compensating > 0 {
                return Ok(false);
            }
            for service in self.services() {
                if !queries::waiting(&service.database).await?.is_empty() {
                    return Ok(false);
                }
            }
            let orders = queries::orders(&self.orders.database, self.since).await?.len();
            Ok(queries::notices(&self.shipping.database, self.since).await?.len() >= orders)
        })
        .await
    }

    /// Stops all services; their databases can still be read.
    pub async fn stop(&mut self) -> anyhow::Result<()> {
        let Self { orders, payments, stock, shipping, .. } = self;
        let stopping =
            [orders, payments, stock, shipping].map(|service| service.stop(STOPPED_WITHIN));
        join_all(stopping).await.into_iter().collect()
    }
}

/// Chooses the transport: a broker, if one was named, else HTTP.
async fn wire(
    location: &Location,
    options: &Options,
    faults: &Faults,
) -> anyhow::Result<(Wire, Option<BrokerProxy>)> {
    match &options.broker {
        None => Ok((signed(), None)),
        #[cfg(feature = "kafka")]
        Some(url) if url.starts_with("kafka://") => Ok((
            Wire::Kafka(crate::service::Kafka::new(
                url.clone(),
                location,
                faults.clone(),
                options.release,
            )),
            None,
        )),
        #[cfg(feature = "mqtt")]
        Some(url) if url.starts_with("mqtt") => Ok((
            Wire::Mqtt(crate::service::Mqtt::new(
                url.clone(),
                location,
                faults.clone(),
                options.release,
            )),
            None,
        )),
        #[cfg(feature = "nats")]
        Some(url) if url.starts_with("nats://") || url.starts_with("tls://") => {
            Ok((Wire::Nats(crate::service::Nats::new(url.clone(), location, faults.clone())), None))
        }
        #[cfg(feature = "redis")]
        Some(url) if url.starts_with("redis") => Ok((
            Wire::Redis(crate::service::Redis::new(
                url.clone(),
                location,
                faults.clone(),
                options.release,
            )),
            None,
        )),
        #[cfg(feature = "sqs")]
        Some(url) if url.starts_with("sqs") => {
            Ok((Wire::Sqs(crate::service::Sqs::new(url.clone(), location, faults.clone())), None))
        }
        Some(url) => by_rabbit(url, location, options, faults).await,
    }
}

/// Goes through RabbitMQ: directly, or through the proxy where faults are injected.
#[cfg(feature = "amqp")]
async fn by_rabbit(
    url: &str,
    location: &Location,
    options: &Options,
    faults: &Faults,
) -> anyhow::Result<(Wire, Option<BrokerProxy>)> {
    let broker_proxy =
        if options.faults { Some(BrokerProxy::open(url, faults.watch()).await?) } else { None };
    let url = broker_proxy.as_ref().map_or_else(|| url.to_owned(), BrokerProxy::url);
    Ok((Wire::Rabbit(crate::service::Rabbit::new(url, location, options.release)), broker_proxy))
}

/// The options reject such a URL where the feature is off.
#[cfg(not(feature = "amqp"))]
#[expect(clippy::unused_async, reason = "as the one above")]
async fn by_rabbit(
    _: &str,
    _: &Location,
    _: &Options,
    _: &Faults,
) -> anyhow::Result<(Wire, Option<BrokerProxy>)> {
    bail!("this program was built without the feature for amqp")
}

/// HTTP with a new secret at each run: 148 random bits, in letters that are base64 too.
fn signed() -> Wire {
    let random = || MessageId::generate().as_uuid().simple().to_string();
    Wire::Http { secret: format!("whsec_{}{}", random(), random()) }
}

/// Places the orders, and prints their outcome.
pub async fn run(shop: &mut Shop, options: &Options) -> anyhow::Result<()> {
    let customers = Customers::of(&shop.orders.url(), options)?;
    if options.faults {
        shop.relay_orders().await?;
        shop.relay_others().await?;
        faults::storm(shop, &customers, options.orders).await?;
        return shop.settle().await;
    }
    walkthrough::run(shop, &customers).await?;
    let (begun, more) = (Instant::now(), options.orders - 1);
    customers.place(1..options.orders).await?;
    shop.settle().await?;
    println!(
        "\n{more} more orders, several at a time: all have ended after {:.1} s.",
        begun.elapsed().as_secs_f64()
    );
    Ok(())
}

/// Serves until a signal asks the process to stop; with faults, orders stand still meanwhile.
pub async fn serve(shop: &mut Shop, location: &Location, options: &Options) -> anyhow::Result<()> {
    shop.relay_orders().await?;
    shop.relay_others().await?;
    let operations = operations::serve(shop)?;
    if options.faults {
        return standstill::run(shop, location, options, &operations).await;
    }
    let (url, order) = (shop.orders.url(), r#"{"customer":"ada","product":"lamp","total":1999}"#);
    println!("\nPlace an order, then look at it; Ctrl-C stops the shop.\n");
    println!("  curl -s {url}/orders -H 'content-type: application/json' -d '{order}'");
    println!("  curl -s {url}/orders/1\n");
    operations::print_address(&operations);
    stop_signal().await?;
    println!("stopping");
    Ok(())
}

/// Waits for Ctrl-C or, where there is one, SIGTERM.
async fn stop_signal() -> std::io::Result<()> {
    #[cfg(unix)]
    {
        let mut terminate =
            tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
        tokio::select! {
            interrupted = tokio::signal::ctrl_c() => interrupted,
            _ = terminate.recv() => Ok(()),
        }
    }
    #[cfg(not(unix))]
    tokio::signal::ctrl_c().await
}

/// Waits until something holds; an error when it does not within the time.
pub async fn until(
    within: Duration,
    what: &str,
    mut holds: impl AsyncFnMut() -> anyhow::Result<bool>,
) -> anyhow::Result<()> {
    let end = Instant::now() + within;
    while !holds().await? {
        if Instant::now() >= end {
            bail!("not within {within:?}: {what}");
        }
        sleep(POLL_INTERVAL).await;
    }
    Ok(())
}

fn money(cents: i64) -> String {
    format!("{}.{:02}", cents / 100, cents % 100)
}
