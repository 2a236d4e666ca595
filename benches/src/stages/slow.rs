//! Messages with a slow handler, with all defaults of relay, transport and consumer: how often
//! waiting ones are repeated.

use crate::environment::Environment;
use anyhow::{Context, Result};
use axum::{Router, http::StatusCode, middleware::map_response, response::Response};
use outbox_core::{
    consumer::{Consumer, HandlerContext},
    relay::Relay,
    transport::{Memory, Publisher, Subscriber, topic},
};
use outbox_http::{HttpPublisher, HttpReceiver};
use outbox_sea_orm::{OutboxEvent, OutboxTransaction};
use sea_orm::{ConnectionTrait, DbBackend, DbErr, Statement};
use serde::{Deserialize, Serialize};
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::{net::TcpListener, task::JoinHandle, time::timeout};

/// The duration of the handler.
const TAKES: Duration = Duration::from_secs(2);
/// The usual size of a pool.
const CONNECTIONS: u32 = 10;
/// The time limit of a run.
const TIME_LIMIT: Duration = Duration::from_secs(1_200);

/// The outcome of a run.
#[derive(Debug)]
pub(crate) struct Slow {
    pub(crate) over: &'static str,
    pub(crate) messages: u32,
    pub(crate) at_once: usize,
    /// The duration of the run, over that of the handlers.
    pub(crate) of_the_least: f64,
    pub(crate) repeats: f64,
    pub(crate) suppressed: f64,
    pub(crate) late: f64,
    pub(crate) timeouts: f64,
}

#[derive(Debug, Serialize, Deserialize, OutboxEvent)]
#[outbox(type = "report.asked", topic = "reports")]
struct ReportAsked {
    number: u32,
}

static RUNS: AtomicU64 = AtomicU64::new(0);
static MOST: AtomicU64 = AtomicU64::new(0);
static RUNNING: AtomicU64 = AtomicU64::new(0);

async fn make_report(
    event: ReportAsked,
    cx: &HandlerContext<OutboxTransaction>,
) -> Result<(), DbErr> {
    RUNS.fetch_add(1, Ordering::Relaxed);
    MOST.fetch_max(RUNNING.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
    tokio::time::sleep(TAKES).await;
    RUNNING.fetch_sub(1, Ordering::Relaxed);
    let insert = "INSERT INTO orders (customer, total) VALUES ('x', $1)";
    let insert = Statement::from_sql_and_values(
        DbBackend::Postgres,
        insert,
        [i64::from(event.number).into()],
    );
    cx.tx.execute_raw(insert).await.map(|_| ())
}

/// Delivers so many in process and over HTTP.
pub(crate) async fn run(messages: u32) -> Result<Vec<Slow>> {
    let (publisher, subscriber) = Memory::channel();
    let in_process = one("in process", messages, publisher, subscriber, &Arc::default()).await?;
    let (router, subscriber) = HttpReceiver::builder().path("/events").unsigned().build()?;
    let timeouts = Arc::default();
    let (url, server) = serve(router, &timeouts).await?;
    let publisher = HttpPublisher::new(&url)?.allow_loopback();
    let over_http = one("over HTTP", messages, publisher, subscriber, &timeouts).await?;
    server.abort();
    Ok(vec![in_process, over_http])
}

/// Serves a receiver, and counts late responses.
async fn serve(router: Router, timeouts: &Arc<AtomicU64>) -> Result<(String, JoinHandle<()>)> {
    let timeouts = Arc::clone(timeouts);
    let router = router.layer(map_response(move |response: Response| {
        if response.status() == StatusCode::GATEWAY_TIMEOUT {
            timeouts.fetch_add(1, Ordering::Relaxed);
        }
        std::future::ready(response)
    }));
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}/events", listener.local_addr()?);
    let server = tokio::spawn(async move {
        // It ends with the run.
        let _ = axum::serve(listener, router).await;
    });
    Ok((url, server))
}

async fn one(
    over: &'static str,
    messages: u32,
    publisher: impl Publisher + 'static,
    subscriber: impl Subscriber,
    timeouts: &Arc<AtomicU64>,
) -> Result<Slow> {
    let environment = Environment::shared(CONNECTIONS).await?;
    [&RUNS, &MOST, &RUNNING].iter().for_each(|count| count.store(0, Ordering::Relaxed));
    let tx = environment.outbox.begin().await?;
    for number in 0..messages {
        tx.emit(ReportAsked { number })?;
    }
    tx.commit().await?;
    let consumer = Consumer::builder("slow", &environment.outbox)
        .on("make-report", make_report)
        .subscribe(subscriber)
        .start()
        .await?;
    let begun = Instant::now();
    let relay = Relay::builder(&environment.outbox)
        .route("slow", topic("reports"), publisher)
        .start()
        .await?;
    let mut stats = relay.stats();
    timeout(TIME_LIMIT, stats.wait_for(|s| s.delivered == u64::from(messages)))
        .await
        .context("it stands still")??;
    let took = begun.elapsed();
    relay.shutdown(Duration::from_secs(10)).await?;
    let stats = *consumer.stats().borrow();
    consumer.shutdown(Duration::from_secs(10)).await?;
    let at_once = usize::try_from(MOST.load(Ordering::Relaxed))?;
    let least = TAKES.as_secs_f64() * f64::from(messages) / at_once.max(1) as f64;
    let count = |count: &AtomicU64| count.load(Ordering::Relaxed) as f64;
    Ok(Slow {
        over,
        messages,
        at_once,
        of_the_least: took.as_secs_f64() / least,
        repeats: count(&RUNS) - f64::from(messages),
        suppressed: stats.duplicates as f64,
        late: stats.late as f64,
        timeouts: count(timeouts),
    })
}
