//! Relays in processes of their own: this program again, once for each.

use super::{checker::Checker, fill::Waiting, published};
use crate::{child, environment::Environment};
use anyhow::{Context, Result, ensure};
use outbox_core::event::MessageId;
use sea_orm::sqlx::{self, Row};
use std::{
    env, fs,
    path::PathBuf,
    process::Stdio,
    time::{Duration, Instant},
};
use tests::holds_within;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
    sync::mpsc,
    task::JoinSet,
    time::timeout,
};

/// How long relays may take until each has its share of the partitions: surplus is handed over at
/// renewals, a third of a lease apart.
const SHARED_WITHIN: Duration = Duration::from_secs(60);
/// How long all relays may finish nothing.
const TIME_LIMIT: Duration = Duration::from_secs(60);
/// How long a process may take to end.
const ENDS_WITHIN: Duration = Duration::from_secs(60);

/// How many events a process has finished in the database, all together.
struct Finished {
    process: usize,
    events: u64,
    at: Instant,
}

/// Relays on one outbox, each in a process. Dropped, they are killed.
pub(crate) struct RelayProcesses {
    folder: PathBuf,
    processes: Vec<Child>,
    finished: Vec<u64>,
    reports: mpsc::UnboundedReceiver<Finished>,
    _readers: JoinSet<()>,
}

impl RelayProcesses {
    /// Starts so many, and waits until each has its share of the partitions.
    pub(crate) async fn start(
        environment: &Environment,
        relays: usize,
        waiting: Waiting,
    ) -> Result<Self> {
        let folder = env::temp_dir().join(format!("outbox-benches-{}", MessageId::generate()));
        fs::create_dir(&folder)?;
        let (sender, reports) = mpsc::unbounded_channel();
        let mut started = Self {
            folder,
            processes: Vec::new(),
            finished: vec![0; relays],
            reports,
            _readers: JoinSet::new(),
        };
        for process in 0..relays {
            let mut child = Command::new(env::current_exe()?)
                .args([child::RELAY, environment.url()])
                .arg(started.file(process))
                .args([waiting.payload.to_string(), waiting.topics.to_string()])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .kill_on_drop(true)
                .spawn()?;
            let output = child.stdout.take().context("a relay process without output")?;
            started.processes.push(child);
            let (mut lines, sender) = (BufReader::new(output).lines(), sender.clone());
            started._readers.spawn(async move {
                while let Ok(Some(line)) = lines.next_line().await {
                    if let Some(events) = child::finished(&line) {
                        // It fails when nobody waits any more.
                        let _ = sender.send(Finished { process, events, at: Instant::now() });
                    }
                }
            });
        }
        let even = async || are_even(environment, relays).await.unwrap_or(false);
        let even = holds_within(SHARED_WITHIN, even).await;
        ensure!(even, "{relays} relays did not share the partitions within {SHARED_WITHIN:?}");
        Ok(started)
    }

    fn file(&self, process: usize) -> PathBuf {
        self.folder.join(process.to_string())
    }

    /// Waits until they have finished so many events in the database; gives the instant.
    pub(crate) async fn finish(&mut self, events: u64) -> Result<Instant> {
        let mut last = Instant::now();
        while self.finished.iter().sum::<u64>() < events {
            let report = timeout(TIME_LIMIT, self.reports.recv()).await;
            let report = report.context("the relays stand still")?;
            let Finished { process, events, at } = report.context("the relays have ended")?;
            self.finished[process] = events;
            last = at;
        }
        Ok(last)
    }

    /// Ends them, and records what they have published.
    pub(crate) async fn close(mut self, checker: &Checker) -> Result<()> {
        for process in &mut self.processes {
            // The end of its input ends it.
            drop(process.stdin.take());
        }
        for process in &mut self.processes {
            let status = timeout(ENDS_WITHIN, process.wait()).await;
            let status = status.context("a relay process does not end")??;
            ensure!(status.success(), "a relay process ended with {status}");
        }
        let files: Vec<PathBuf> = (0..self.processes.len()).map(|at| self.file(at)).collect();
        published::check(&files, checker)
    }
}

impl Drop for RelayProcesses {
    fn drop(&mut self) {
        // An error leaves files where temporary ones go.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Tells whether each relay has its share: all partitions are owned, none has too few.
async fn are_even(environment: &Environment, relays: usize) -> Result<bool> {
    let all: i64 = sqlx::query("SELECT count(*) FROM outbox_partitions")
        .fetch_one(&environment.pool)
        .await?
        .get(0);
    let relays = i64::try_from(relays)?;
    let even = "SELECT (SELECT count(*) FROM outbox_partitions WHERE owner IS NULL) = 0 \
                AND (SELECT count(*) FROM (SELECT owner FROM outbox_partitions GROUP BY owner \
                HAVING count(*) >= $1) AS shares) = $2";
    let even = sqlx::query(even).bind(all / relays).bind(relays);
    Ok(even.fetch_one(&environment.pool).await?.get(0))
}
