//! The processes that benchmarks start of this program, by first words that the usage does not
//! name.

use crate::{
    environment::connect,
    load::{
        fill::{Waiting, topic_name},
        ours::{Meter, MeteredOutbox},
        published::{LoggingPublisher, Published},
    },
    stages::memory::{self, Memory},
};
use anyhow::{Context, Result, bail, ensure};
use outbox_core::transport::{Route, everything, topic};
use outbox_sea_orm::Outbox;
use std::{io::Read, path::Path, sync::Arc, thread, time::Duration};
use tokio::{sync::oneshot, time::interval};

/// A relay on the outbox of a URL, until its input ends: URL, file of what it published, bytes of a
/// payload, topics.
pub(crate) const RELAY: &str = "relay-process";
/// A drain whose memory is measured, in a process that has done nothing else: events, bytes of a
/// payload.
pub(crate) const MEMORY: &str = "memory-process";

/// The pause between two reports of how much is finished: the precision of a time.
const REPORT_INTERVAL: Duration = Duration::from_millis(5);
const CONNECTIONS: u32 = 2;
const FINISHED: &str = "finished ";

/// Reads a line of a relay process: how many events it has finished.
pub(crate) fn finished(line: &str) -> Option<u64> {
    line.strip_prefix(FINISHED)?.parse().ok()
}

/// Runs the process that the arguments name; `None` where they name none.
pub(crate) async fn run(words: &[String]) -> Option<Result<()>> {
    let (first, rest) = words.split_first()?;
    match first.as_str() {
        RELAY => Some(relay(rest).await),
        MEMORY => Some(drain(rest).await),
        _ => None,
    }
}

async fn relay(words: &[String]) -> Result<()> {
    let [url, file, payload, topics] = words else { bail!("four arguments are needed") };
    let outbox = Outbox::builder(connect(url, CONNECTIONS).await?).build().await?;
    let published = Published::new(payload.parse()?);
    let metered = MeteredOutbox::new(&outbox, u64::MAX);
    let relay = metered.start_routes(routes(topics.parse()?, &published)).await?;
    report(metered.meter()).await;
    relay.shutdown(Duration::from_secs(10)).await?;
    published.write(Path::new(file))
}

/// A route for each topic, or one for all events where there is one topic.
fn routes(topics: u16, published: &Arc<Published>) -> Vec<Route> {
    let publisher = || LoggingPublisher(Arc::clone(published));
    if topics == 1 {
        return vec![Route::new("bench", everything(), publisher())];
    }
    (0..topics)
        .map(topic_name)
        .map(|name| Route::new(name.clone(), topic(name), publisher()))
        .collect()
}

/// Reports how many events are finished until the input ends, as it does with the process that
/// started this one.
async fn report(meter: &Meter) {
    let (ended, mut end) = oneshot::channel();
    thread::spawn(move || {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        let _ = ended.send(());
    });
    let (mut ticks, mut reported) = (interval(REPORT_INTERVAL), 0);
    loop {
        tokio::select! {
            _ = &mut end => return,
            _ = ticks.tick() => {
                let finished = meter.finished();
                if finished > reported {
                    println!("{FINISHED}{finished}");
                    reported = finished;
                }
            }
        }
    }
}

async fn drain(words: &[String]) -> Result<()> {
    let [events, payload] = words else { bail!("two arguments are needed") };
    let waiting = Waiting { payload: payload.parse()?, ..Waiting::usual(events.parse()?) };
    let memory = memory::run(waiting).await?;
    println!("{}", serde_json::to_string(&memory)?);
    Ok(())
}

/// Drains in a process of its own, and gives its memory.
pub(crate) async fn memory(waiting: Waiting) -> Result<Memory> {
    let output = tokio::process::Command::new(std::env::current_exe()?)
        .args([MEMORY.to_owned(), waiting.events.to_string(), waiting.payload.to_string()])
        .stderr(std::process::Stdio::inherit())
        .kill_on_drop(true)
        .output()
        .await?;
    ensure!(output.status.success(), "the process ended with {}", output.status);
    serde_json::from_slice(&output.stdout).context("the process reported no memory")
}
