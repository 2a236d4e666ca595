//! Relays and consumers obey an operator, under load: the order holds, no attempt is counted, and
//! their live rows say so.

use crate::{
    consumers::{message, put},
    controls::{ann, installed, live},
};
use async_trait::async_trait;
use outbox_core::{
    admin::{
        AdminStore, ControlAction, ControlScope, ControlStore, DeadLetterFilter, Live, RelayLive,
        RouteLive,
    },
    consumer::{Consumer, ConsumerStats, HandlerContext},
    event::{DecodeError, DecodeEvent, EventContract, EventType, Message, MessageParts, NewEvent},
    failure::RetryPolicy,
    relay::{Relay, RelayStats},
    testing::store::event,
    transport::{Memory, PublishError, Publisher, Receipt, Route, everything},
};
use outbox_sea_orm::{Outbox, OutboxTransaction};
use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};
use tests::{databases::TempDatabase, equals, in_time, on_every_database, wait_until};
use tokio::time::Instant;

const SOON: Duration = Duration::from_secs(60);
/// Renewed each second.
const LEASE: Duration = Duration::from_secs(3);
const PAUSE: ControlAction = ControlAction::Pause;

/// Takes everything, and remembers it with its time.
#[derive(Clone, Default)]
struct Seen(Arc<Mutex<Vec<(Instant, Message)>>>);

#[async_trait]
impl Publisher for Seen {
    async fn publish(&self, message: &Message) -> Result<Receipt, PublishError> {
        self.0.lock().unwrap().push((Instant::now(), message.clone()));
        Ok(Receipt::new())
    }
}

impl Seen {
    fn count(&self, matches: impl Fn(&Message) -> bool) -> usize {
        self.0.lock().unwrap().iter().filter(|(_, message)| matches(message)).count()
    }

    /// Each event came once, and those of a key in the order of their numbers.
    fn is_whole(&self, events: usize) {
        let seen = self.0.lock().unwrap();
        let mut last: BTreeMap<String, u64> = BTreeMap::new();
        for (_, message) in seen.iter() {
            let number = number(message);
            if let Some(key) = &message.key
                && let Some(before) = last.insert(key.clone(), number)
            {
                assert!(before < number, "{before} before {number} of key {key}");
            }
        }
        assert_eq!(seen.len(), events);
    }
}

fn number(message: &Message) -> u64 {
    serde_json::from_slice(&message.payload).unwrap()
}

/// Saves events with the numbers from `first` on: of ten keys and of two topics by turns, each third
/// without a key.
async fn save(outbox: &Outbox, first: u64, events: u64) {
    let event = |number: u64| {
        let topic = if number.is_multiple_of(2) { "orders" } else { "stock" };
        let key = (!number.is_multiple_of(3)).then(|| format!("k{}", number % 10));
        NewEvent { topic: topic.into(), key, payload: number.to_string().into(), ..event("") }
    };
    let events: Vec<NewEvent> = (first..first + events).map(event).collect();
    for some in events.chunks(50) {
        let tx = outbox.begin().await.unwrap();
        outbox.schema().append(&tx, "/shop", some).await.unwrap();
        tx.commit().await.unwrap();
        outbox.wake();
    }
}

async fn relay(outbox: &Outbox, routes: &[(&'static str, &Seen)]) -> Relay {
    let mut builder = Relay::builder(outbox).lease(LEASE).poll(Duration::from_millis(100));
    for (name, seen) in routes {
        builder = builder.route(*name, everything(), (*seen).clone());
    }
    builder.start().await.unwrap()
}

async fn route_live(outbox: &Outbox, route: &str) -> Option<RouteLive> {
    let rows = live(outbox, "relay").await.into_iter();
    let mut routes = rows.flat_map(|row| match row {
        Live::Relay(RelayLive { routes, .. }) => routes,
        other => panic!("{other:?}"),
    });
    routes.find(|one| one.route == route)
}

/// Waits until the relay says that it obeys a pause of the route.
async fn is_paused(outbox: &Outbox, route: &str) {
    wait_until(SOON, "the live row says that the route is paused", async || {
        route_live(outbox, route).await.is_some_and(|route| route.paused)
    })
    .await;
}

fn no_failures(relay: &Relay) {
    let RelayStats { retried, dead, .. } = *relay.stats().borrow();
    assert_eq!((retried, dead), (0, 0), "no attempt was counted");
}

/// An order with its number.
struct Order(u64);

impl EventContract for Order {
    const TYPES: &'static [EventType] =
        &[EventType { name: "order.placed", version: 1, topic: "orders" }];
}

impl DecodeEvent for Order {
    fn decode(message: &Message) -> Result<Self, DecodeError> {
        Ok(Self(number(message)))
    }
}

fn order(number: u64) -> Message {
    let payload = number.to_string().into();
    Message::new(MessageParts { payload, ..message().into_parts() })
}

/// Fails for event 0 until it is mended.
#[derive(Clone, Default)]
struct Broken(Seen, Arc<AtomicBool>);

#[async_trait]
impl Publisher for Broken {
    async fn publish(&self, message: &Message) -> Result<Receipt, PublishError> {
        match number(message) {
            0 if !self.1.load(Relaxed) => Err(PublishError::transient("the ledger is closed")),
            _ => self.0.publish(message).await,
        }
    }
}

on_every_database! {
    async fn a_redriven_head_of_a_parked_key_goes_with_the_wake_and_not_with_the_next_renewal(temp: &TempDatabase) {
        let outbox = installed(temp).await;
        let ledger = Broken::default();
        let route = Route::new("ledger", everything(), ledger.clone()).park_when_dead();
        let route = route.retry(RetryPolicy::attempts(1, Duration::from_millis(10)));
        // Renewed every 40 s: more than the test waits.
        let builder = Relay::builder(&outbox).lease(Duration::from_mins(2)).poll(Duration::from_millis(100));
        let relay = builder.add_route(route).start().await.unwrap();
        let events = (0..3).map(|number| NewEvent {
            key: Some("k".to_owned()),
            payload: number.to_string().into(),
            ..event("")
        });
        let tx = outbox.begin().await.unwrap();
        outbox.schema().append(&tx, "/shop", &events.collect::<Vec<_>>()).await.unwrap();
        tx.commit().await.unwrap();
        outbox.wake();
        let letters = async || outbox.dead_letters(&DeadLetterFilter::all(), None, 10).await.unwrap();
        wait_until(SOON, "the head is a dead letter", async || letters().await.len() == 1).await;
        assert_eq!(ledger.0.count(|_| true), 0, "its key waits");

        let begun = Instant::now();
        ledger.1.store(true, Relaxed);
        let letter = letters().await[0].id;
        assert_eq!(outbox.redrive(&[letter], &ann()).await.unwrap(), [letter]);
        wait_until(SOON, "the whole key goes", async || equals(ledger.0.count(|_| true), 3)).await;
        let took = begun.elapsed();
        assert!(took < Duration::from_secs(20), "a renewal would have come first: {took:?}");
        ledger.0.is_whole(3);
        // The next renewal reports the key again, and nothing goes twice.
        relay.shutdown(SOON).await.unwrap();
        assert_eq!(ledger.0.count(|_| true), 3);
    }

    async fn a_paused_route_stands_still_under_load_and_goes_on_in_order(temp: &TempDatabase) {
        let outbox = installed(temp).await;
        let (billing, ledger) = (Seen::default(), Seen::default());
        let relay = relay(&outbox, &[("billing", &billing), ("ledger", &ledger)]).await;
        save(&outbox, 0, 200).await;
        wait_until(SOON, "both routes deliver", async || {
            equals((billing.count(|_| true), ledger.count(|_| true)), (200, 200))
        })
        .await;
        outbox.set_control(ControlScope::Route, "billing", PAUSE, None, &ann()).await.unwrap();
        is_paused(&outbox, "billing").await;
        save(&outbox, 200, 400).await;
        wait_until(SOON, "the other route goes on", async || equals(ledger.count(|_| true), 600)).await;
        assert_eq!(billing.count(|_| true), 200);
        wait_until(SOON, "the live row says what waits", async || {
            equals(route_live(&outbox, "billing").await.map(|route| (route.waiting, route.delivered)), Some((400, 200)))
        })
        .await;

        outbox.end_controls(ControlScope::Route, "billing", &ann()).await.unwrap();
        wait_until(SOON, "the route goes on", async || equals(billing.count(|_| true), 600)).await;
        billing.is_whole(600);
        ledger.is_whole(600);
        no_failures(&relay);
        relay.shutdown(SOON).await.unwrap();
        assert!(live(&outbox, "relay").await.is_empty(), "a relay that ends deletes its row");
    }

    async fn a_paused_topic_and_a_paused_key_wait_and_the_others_go_on(temp: &TempDatabase) {
        let outbox = installed(temp).await;
        outbox.set_control(ControlScope::Topic, "stock", PAUSE, None, &ann()).await.unwrap();
        outbox.set_control(ControlScope::Key, "k4", PAUSE, None, &ann()).await.unwrap();
        let seen = Seen::default();
        // Of keys with even numbers all events are of the topic `orders`.
        save(&outbox, 0, 600).await;
        let relay = relay(&outbox, &[("billing", &seen)]).await;
        let has_key_4 = |number: &u64| number % 10 == 4 && !number.is_multiple_of(3);
        let goes = |number: &u64| number.is_multiple_of(2) && !has_key_4(number);
        let moving = (0..600).filter(goes).count();
        wait_until(SOON, "the others go on", async || equals(seen.count(|_| true), moving)).await;
        save(&outbox, 600, 60).await;
        let moving = (0..660).filter(goes).count();
        wait_until(SOON, "the others go on", async || equals(seen.count(|_| true), moving)).await;
        let held = |message: &Message| message.topic == "stock" || message.key.as_deref() == Some("k4");
        assert_eq!(seen.count(held), 0);

        outbox.end_controls(ControlScope::Topic, "stock", &ann()).await.unwrap();
        let rest = 660 - (0..660).filter(has_key_4).count();
        wait_until(SOON, "the topic goes on", async || equals(seen.count(|_| true), rest)).await;
        outbox.end_controls(ControlScope::Key, "k4", &ann()).await.unwrap();
        wait_until(SOON, "the key goes on", async || equals(seen.count(|_| true), 660)).await;
        seen.is_whole(660);
        no_failures(&relay);
        relay.shutdown(SOON).await.unwrap();
    }

    async fn a_rate_holds_and_a_pause_with_a_time_ends_by_itself(temp: &TempDatabase) {
        let outbox = installed(temp).await;
        let lasts = Duration::from_millis(1_500);
        outbox.set_control(ControlScope::Route, "billing", ControlAction::Rate(100.0), None, &ann()).await.unwrap();
        outbox.set_control(ControlScope::Route, "billing", PAUSE, Some(lasts), &ann()).await.unwrap();
        let (begun, seen) = (Instant::now(), Seen::default());
        let relay = relay(&outbox, &[("billing", &seen)]).await;
        save(&outbox, 0, 1_000).await;
        wait_until(SOON, "the pause ends", async || seen.count(|_| true) > 330).await;
        let times: Vec<Instant> = seen.0.lock().unwrap().iter().map(|(at, _)| *at).collect();
        let waited = times[0].duration_since(begun);
        assert!(waited > lasts - Duration::from_millis(200), "{waited:?}");
        let within = times[0] + Duration::from_secs(3);
        let in_three_seconds = times.iter().filter(|at| **at <= within).count();
        assert!((240..=360).contains(&in_three_seconds), "{in_three_seconds} in 3 s at 100/s");
        let row = route_live(&outbox, "billing").await.unwrap();
        assert_eq!((row.limit, row.paused), (Some(100.0), false), "{row:?}");
        outbox.end_controls(ControlScope::Route, "billing", &ann()).await.unwrap();
        wait_until(SOON, "without a limit all go", async || equals(seen.count(|_| true), 1_000)).await;
        seen.is_whole(1_000);
        relay.shutdown(SOON).await.unwrap();
    }

    async fn the_live_row_of_a_relay_says_that_a_destination_is_down_and_why(temp: &TempDatabase) {
        struct Down;
        #[async_trait]
        impl Publisher for Down {
            async fn publish(&self, _: &Message) -> Result<Receipt, PublishError> {
                Err(PublishError::unavailable("amqp://ann:secret@mq: connection refused"))
            }
        }
        let outbox = installed(temp).await;
        let builder = Relay::builder(&outbox).lease(LEASE).route("billing", everything(), Down);
        let relay = builder.start().await.unwrap();
        save(&outbox, 0, 10).await;
        wait_until(SOON, "the live row says so", async || {
            route_live(&outbox, "billing").await.is_some_and(|route| route.breaker != "closed")
        })
        .await;
        let row = route_live(&outbox, "billing").await.unwrap();
        let failure = row.last_failure.clone().unwrap();
        assert_eq!(failure.class, "unavailable");
        assert!(failure.text.contains("amqp://***@mq: connection refused"), "{failure:?}");
        assert!(row.open_for_ms.is_some() && row.delivered == 0 && row.retried == 0, "{row:?}");
        relay.shutdown(SOON).await.unwrap();
    }

    async fn a_paused_consumer_takes_nothing_and_claims_nothing_and_goes_on_in_order(temp: &TempDatabase) {
        let outbox = installed(temp).await;
        outbox.set_control(ControlScope::Consumer, "c", PAUSE, None, &ann()).await.unwrap();
        let handled: Arc<Mutex<Vec<u64>>> = Arc::default();
        let notes = handled.clone();
        let note = move |order: Order, _: &HandlerContext<OutboxTransaction>| {
            notes.lock().unwrap().push(order.0);
            std::future::ready(Ok::<(), std::io::Error>(()))
        };
        // A delivery that is stored and due.
        assert!(put(&outbox, &order(0), Some(Duration::ZERO)).await);
        let (publisher, subscriber) = Memory::channel();
        let builder = Consumer::builder("c", &outbox).on("h", note).subscribe(subscriber);
        let consumer = builder.lease(LEASE).start().await.unwrap();
        let mut stats = consumer.stats();
        in_time(SOON, "it obeys", stats.wait_for(|stats| stats.paused)).await.unwrap();
        let published: Vec<_> = (1..=5)
            .map(|number| {
                let (publisher, order) = (publisher.clone(), order(number));
                // As a relay does: again, if it is returned after a while.
                tokio::spawn(async move { while publisher.publish(&order).await.is_err() {} })
            })
            .collect();
        let paused = async || match live(&outbox, "consumer").await.as_slice() {
            [Live::Consumer(row)] => Some((row.paused, row.handled, row.handlers.clone())),
            _ => None,
        };
        wait_until(SOON, "its live row says so", async || equals(paused().await, Some((true, 0, vec!["h".to_owned()])))).await;
        assert!(handled.lock().unwrap().is_empty());

        outbox.end_controls(ControlScope::Consumer, "c", &ann()).await.unwrap();
        wait_until(SOON, "it goes on", async || equals(handled.lock().unwrap().len(), 6)).await;
        for publish in published {
            publish.await.unwrap();
        }
        let ConsumerStats { retried, dead_lettered, .. } = *stats.borrow();
        assert_eq!((retried, dead_lettered), (0, 0));
        wait_until(SOON, "its live row says so", async || equals(paused().await, Some((false, 6, vec!["h".to_owned()])))).await;
        consumer.shutdown(SOON).await.unwrap();
        assert!(live(&outbox, "consumer").await.is_empty(), "a consumer that ends deletes its row");
    }
}
