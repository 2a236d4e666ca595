//! What the web page costs: each page in milliseconds and KiB with many rows, a hundred open live
//! pages beside one, and a thousand views.

use super::operate::{Known, fill_all};
use crate::{environment::Environment, figures::Rounds, load::fill::key, machine::own_cpu};
use anyhow::{Context, Result, ensure};
use outbox_dashboard::Dashboard;
use sea_orm::sqlx;
use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::{sleep, timeout},
};

/// Open live pages.
const OPEN: usize = 100;
/// How long they are open.
const WATCHED: Duration = Duration::from_secs(30);
/// Until the readers of pages have ended that were closed.
const READERS_END: Duration = Duration::from_secs(5);
/// Views whose CPU time is measured.
const VIEWS: usize = 1_000;
/// The longest that a page may take.
const TIME_LIMIT: Duration = Duration::from_secs(60);

/// A page, in milliseconds and KiB.
#[derive(Debug, Clone)]
pub(crate) struct Page {
    pub(crate) name: &'static str,
    pub(crate) took: Rounds,
    pub(crate) size: Rounds,
}

/// What many views cost.
#[derive(Debug, Default)]
pub(crate) struct Viewed {
    pub(crate) pages: Vec<Page>,
    /// Statements a second of one open live page, and of a hundred.
    pub(crate) statements: [f64; 2],
    /// Share of a core in percent, of one and of a hundred, with what reads them.
    pub(crate) cpu: [f64; 2],
    /// CPU seconds of the program for a thousand views, with what reads them.
    pub(crate) views: f64,
}

/// Fills an outbox, and opens each page in each round.
pub(crate) async fn run(rows: u32, rounds: usize) -> Result<Viewed> {
    let environment = Environment::own(10).await?;
    sqlx::raw_sql("CREATE EXTENSION pg_stat_statements").execute(&environment.pool).await?;
    let known = fill_all(&environment, rows).await?;
    let dashboard = Dashboard::builder().database("bench", environment.outbox.clone()).build()?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let at = listener.local_addr()?;
    let served = tokio::spawn(async move { dashboard.serve(listener).await });

    let paths = paths(&known);
    let page = |(name, _): &(&'static str, String)| Page {
        name,
        took: Rounds::default(),
        size: Rounds::default(),
    };
    let mut viewed = Viewed { pages: paths.iter().map(page).collect(), ..Viewed::default() };
    // The first round warms connections and caches up.
    for round in 0..=rounds {
        for ((_, path), page) in paths.iter().zip(&mut viewed.pages) {
            let begun = Instant::now();
            let bytes = view(at, path).await.with_context(|| path.clone())?;
            if round > 0 {
                page.took.push(begun.elapsed().as_secs_f64() * 1_000.0);
                page.size.push(bytes as f64 / 1_024.0);
            }
        }
    }
    for (at_once, (statements, cpu)) in
        [1, OPEN].into_iter().zip(viewed.statements.iter_mut().zip(&mut viewed.cpu))
    {
        (*statements, *cpu) = watch(&environment, at, at_once).await?;
    }
    let begun = own_cpu()?;
    for number in 0..VIEWS {
        view(at, &paths[number % paths.len()].1).await?;
    }
    viewed.views = own_cpu()? - begun;
    served.abort();
    Ok(viewed)
}

/// The pages, each with the name that the report gives it.
fn paths(known: &Known) -> Vec<(&'static str, String)> {
    vec![
        ("home", "/".to_owned()),
        ("follow a message", format!("/follow?q={}", known.dead)),
        ("follow a key", format!("/follow?q={}", key(7))),
        ("overview", "/overview".to_owned()),
        ("routes", "/routes".to_owned()),
        ("letters in groups", "/letters".to_owned()),
        ("letters, a list", "/letters?list=1".to_owned()),
        ("a letter", format!("/letters/{}", known.letter)),
        ("sagas", "/sagas".to_owned()),
        ("waiting", "/waiting".to_owned()),
        ("audit", "/audit".to_owned()),
        ("doctor", "/doctor".to_owned()),
    ]
}

/// Asks for a path.
async fn ask(at: SocketAddr, path: &str) -> Result<TcpStream> {
    let mut stream = TcpStream::connect(at).await?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: {at}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    Ok(stream)
}

/// Opens a page; gives its bytes, head included.
async fn view(at: SocketAddr, path: &str) -> Result<usize> {
    let mut stream = ask(at, path).await?;
    let mut page = Vec::new();
    timeout(TIME_LIMIT, stream.read_to_end(&mut page)).await??;
    ensure!(page.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&page));
    Ok(page.len())
}

/// Keeps live pages open; gives statements a second, and the share of a core in percent.
async fn watch(environment: &Environment, at: SocketAddr, open: usize) -> Result<(f64, f64)> {
    let mut streams = JoinSet::new();
    for _ in 0..open {
        let mut stream = ask(at, "/live/overview").await?;
        let mut head = [0; 12];
        timeout(TIME_LIMIT, stream.read_exact(&mut head)).await??;
        ensure!(&head == b"HTTP/1.1 200", "{}", String::from_utf8_lossy(&head));
        streams.spawn(async move {
            let mut sink = [0; 16 * 1_024];
            while stream.read(&mut sink).await.is_ok_and(|read| read > 0) {}
        });
    }
    let (begun, cpu, statements) = (Instant::now(), own_cpu()?, statements(environment).await?);
    sleep(WATCHED).await;
    ensure!(streams.len() == open, "a live page was closed");
    let seconds = begun.elapsed().as_secs_f64();
    let cpu = (own_cpu()? - cpu) / seconds * 100.0;
    let statements = (self::statements(environment).await? - statements) / seconds;
    streams.shutdown().await;
    sleep(READERS_END).await;
    Ok((statements, cpu))
}

/// The number of statements so far, without those of this query.
async fn statements(environment: &Environment) -> Result<f64> {
    let count = "SELECT sum(calls)::float8 FROM pg_stat_statements WHERE query NOT LIKE '%pg_stat_statements%'";
    environment.number(count).await
}
