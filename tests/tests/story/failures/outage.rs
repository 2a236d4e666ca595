//! A destination that is down for a while.

use crate::support::{
    Answer, Deliveries, Destination, LATE, LEASE, SOON, Sample, Sent, World, keys, relay,
};
use async_trait::async_trait;
use axum::{
    Router,
    body::Bytes,
    http::{HeaderMap, StatusCode},
    routing::post,
};
use outbox_http::HttpPublisher;
use outbox_sea_orm::{
    event::Message,
    failure::RetryPolicy,
    transport::{PublishError, Publisher, Receipt, Route, everything},
};
use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};
use tests::{databases::TempDatabase, on_every_database, wait_until};
use tokio::{
    net::{TcpListener, TcpSocket},
    task::JoinSet,
};

/// How long a scripted destination is down; half a minute in the long form.
fn outage() -> Duration {
    Duration::from_secs(if std::env::var_os("OUTBOX_LONG").is_some() { 30 } else { 3 })
}

/// How long the HTTP servers are down.
const HALF_A_MINUTE: Duration = Duration::from_secs(30);

/// So few attempts that each counted one would soon be too many.
fn few() -> RetryPolicy {
    RetryPolicy::attempts(2, Duration::from_millis(50))
}

/// Asserts that no failure so far has counted as an attempt.
async fn nothing_is_burned(world: &World) {
    assert_eq!(world.count("outbox_dead_letters").await, 0);
    let counted =
        world.number("SELECT COALESCE(MAX(attempts_finished), 0) FROM outbox_retries").await;
    assert_eq!(counted, 0, "no attempt is burned");
}

/// Takes a destination down at the start, and brings it back.
async fn outlives(db: &TempDatabase, answer: Answer) {
    let world = World::open(db).await;
    let destination = Destination::scripted(move |_, _| answer);
    let source = world.source();
    let route = Route::new("a", everything(), destination.publisher("a"));
    let running = relay(&source, LEASE).add_route(route.retry(few())).start().await.unwrap();
    let expected = keys(20, 50);
    world.emit_all(&expected).await;
    wait_until(SOON, "the breaker opens", async || {
        tests::equals(running.stats().borrow().open_breakers, 1)
    })
    .await;
    tokio::time::sleep(outage()).await;
    nothing_is_burned(&world).await;
    assert_eq!(destination.count(), 0);
    destination.answer_by(|_, _| Answer::Confirmed);
    world.drained(LATE).await;
    running.shutdown(SOON).await.unwrap();
    Deliveries::of(&destination.confirmed()).is_whole(&expected).is_in_order().repeats_at_most(0);
    assert_eq!(
        (world.count("outbox_retries").await, world.count("outbox_dead_letters").await),
        (0, 0)
    );
}

/// A web server that answers with a status, and records the messages that it accepted.
#[derive(Clone)]
struct Web(Arc<Mutex<(StatusCode, Vec<Sent>)>>);

impl Web {
    fn new(status: StatusCode) -> Self {
        Self(Arc::new(Mutex::new((status, Vec::new()))))
    }

    /// Serves until the tasks are dropped.
    fn serve(&self, listener: TcpListener, tasks: &mut JoinSet<()>) {
        let web = self.clone();
        let take = async move |headers: HeaderMap, body: Bytes| web.take(&headers, &body);
        let router = Router::new().route("/events", post(take));
        tasks.spawn(async move { axum::serve(listener, router).await.unwrap() });
    }

    fn take(&self, headers: &HeaderMap, body: &[u8]) -> StatusCode {
        let sample: Sample = serde_json::from_slice(body).unwrap();
        let (status, taken) = &mut *self.0.lock().unwrap();
        if status.is_success() {
            taken.push(Sent {
                from: String::new(),
                route: String::new(),
                id: headers["ce-id"].to_str().unwrap().to_owned(),
                key: Some(sample.key),
                payload: String::from_utf8_lossy(body).into_owned(),
                cause: None,
            });
        }
        *status
    }

    fn recovers(&self) {
        self.0.lock().unwrap().0 = StatusCode::NO_CONTENT;
    }

    fn taken(&self) -> Vec<Sent> {
        self.0.lock().unwrap().1.clone()
    }
}

/// Its check reports a destination that is down; publishing to it succeeds.
struct Away<P>(P);

#[async_trait]
impl<P: Publisher> Publisher for Away<P> {
    async fn publish(&self, message: &Message) -> Result<Receipt, PublishError> {
        self.0.publish(message).await
    }

    fn check(&self) -> Result<(), PublishError> {
        Err(PublishError::unavailable("nobody is here"))
    }
}

fn publisher(to: SocketAddr) -> HttpPublisher {
    HttpPublisher::new(format!("http://{to}/events")).unwrap().allow_loopback()
}

on_every_database! {
    async fn a_destination_that_is_down_costs_no_attempt_and_no_letter(db: &TempDatabase) {
        outlives(db, Answer::Unavailable).await;
    }

    async fn a_destination_that_fails_for_everybody_costs_no_attempt_and_no_letter(db: &TempDatabase) {
        outlives(db, Answer::Transient).await;
    }

    async fn a_relay_starts_though_a_destination_is_down_and_probes_it(db: &TempDatabase) {
        let (world, destination) = (World::open(db).await, Destination::new());
        let source = world.source();
        let running = relay(&source, LEASE)
            .route("a", everything(), destination.publisher("a"))
            .route("away", everything(), Away(destination.publisher("away")));
        let running = running.start().await.unwrap();
        let is_open = async || tests::equals(running.stats().borrow().open_breakers, 1);
        wait_until(SOON, "before anything was published there", is_open).await;
        let expected = keys(5, 10);
        world.emit_all(&expected).await;
        world.drained(SOON).await;
        // The relay updates its figures a moment later.
        let is_closed = async || tests::equals(running.stats().borrow().open_breakers, 0);
        wait_until(SOON, "the destination works", is_closed).await;
        running.shutdown(SOON).await.unwrap();
        for name in ["a", "away"] {
            Deliveries::of(&destination.of_route(name)).is_whole(&expected).is_in_order().repeats_at_most(0);
        }
    }

    async fn an_address_that_answers_404_308_or_410_to_everything_buries_nothing_and_keeps_the_order(db: &TempDatabase) {
        let world = World::open(db).await;
        let mut tasks = JoinSet::new();
        let statuses = [StatusCode::NOT_FOUND, StatusCode::PERMANENT_REDIRECT, StatusCode::GONE];
        let webs = statuses.map(Web::new);
        let source = world.source();
        let mut builder = relay(&source, LEASE);
        for (name, web) in ["404", "308", "410"].into_iter().zip(&webs) {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            builder = builder.add_route(
                Route::new(name, everything(), publisher(listener.local_addr().unwrap())).retry(few()),
            );
            web.serve(listener, &mut tasks);
        }
        let running = builder.start().await.unwrap();
        let expected = keys(20, 10);
        world.emit_all(&expected).await;
        wait_until(SOON, "the breakers open", async || running.stats().borrow().open_breakers == 3).await;
        tokio::time::sleep(outage()).await;
        nothing_is_burned(&world).await;
        webs.iter().for_each(Web::recovers);
        world.drained(LATE).await;
        running.shutdown(SOON).await.unwrap();
        for web in webs {
            Deliveries::of(&web.taken()).is_whole(&expected).is_in_order().repeats_at_most(0);
        }
        assert_eq!((world.count("outbox_retries").await, world.count("outbox_dead_letters").await), (0, 0));
    }

    async fn half_a_minute_of_503_of_refused_connections_and_of_401_costs_no_attempt_and_no_letter(db: &TempDatabase) {
        let world = World::open(db).await;
        let mut tasks = JoinSet::new();
        let overloaded = Web::new(StatusCode::SERVICE_UNAVAILABLE);
        let strange = Web::new(StatusCode::UNAUTHORIZED);
        let absent = Web::new(StatusCode::NO_CONTENT);
        let mut addresses = Vec::new();
        for web in [&overloaded, &strange] {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            addresses.push(listener.local_addr().unwrap());
            web.serve(listener, &mut tasks);
        }
        // A bound address without a listener: no other process can take it.
        let unused = TcpSocket::new_v4().unwrap();
        unused.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        addresses.push(unused.local_addr().unwrap());

        let source = world.source();
        let mut builder = relay(&source, LEASE);
        for (name, to) in ["overloaded", "strange", "absent"].into_iter().zip(addresses) {
            builder = builder.add_route(Route::new(name, everything(), publisher(to)).retry(few()));
        }
        let running = builder.start().await.unwrap();
        let expected = keys(20, 50);
        world.emit_all(&expected).await;
        wait_until(SOON, "the breakers open", async || tests::equals(running.stats().borrow().open_breakers, 3)).await;
        tokio::time::sleep(HALF_A_MINUTE).await;
        nothing_is_burned(&world).await;
        assert_eq!(world.count("outbox_events").await, 1_000, "everything waits");
        overloaded.recovers();
        strange.recovers();
        absent.serve(unused.listen(1_024).unwrap(), &mut tasks);
        world.drained(LATE).await;
        running.shutdown(SOON).await.unwrap();
        for web in [overloaded, strange, absent] {
            Deliveries::of(&web.taken()).is_whole(&expected).is_in_order().repeats_at_most(0);
        }
        assert_eq!((world.count("outbox_retries").await, world.count("outbox_dead_letters").await), (0, 0));
    }
}
