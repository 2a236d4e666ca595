//! The stages of a measurement: writers, a relay that drains, single events.

use super::Figures;
use crate::signals::Signals;
use async_trait::async_trait;
use outbox_core::{
    event::{EncodeError, EventMeta, Message},
    relay::Relay,
    runtime::{Exit, Tasks, now},
    transport::{PublishError, Publisher, Receipt, topic},
};
use outbox_sea_orm::{BoxError, Outbox, OutboxEvent};
use std::time::{Duration, Instant};
use tokio::{
    sync::watch,
    time::{timeout, timeout_at},
};

/// Events one at a time.
const SINGLE: u64 = 200;
/// Time for a relay to give its partitions back.
const SHUTDOWN: Duration = Duration::from_secs(10);
const TOPIC: &str = "bench";

/// What is written.
#[derive(Debug, Clone, Copy)]
pub(super) struct Load {
    pub(super) events: u32,
    pub(super) bytes: u32,
    pub(super) writers: u32,
}

/// An event of the measurement.
struct Sample {
    key: u32,
    payload: bytes::Bytes,
}

impl OutboxEvent for Sample {
    fn meta(&self) -> EventMeta<'_> {
        EventMeta::new("bench.sample").topic(TOPIC).key(Some(self.key.to_string()))
    }

    fn payload(&self) -> Result<bytes::Bytes, EncodeError> {
        Ok(self.payload.clone())
    }
}

/// Confirms each message and counts it.
struct Sink(watch::Sender<u64>);

#[async_trait]
impl Publisher for Sink {
    async fn publish(&self, _: &Message) -> Result<Receipt, PublishError> {
        self.0.send_modify(|count| *count += 1);
        Ok(Receipt::new())
    }
}

/// Measures an outbox without rows; `None` where a signal has stopped it. Nothing of it runs on.
pub(super) async fn measure(
    outbox: &Outbox,
    load: &Load,
    limit: Duration,
    signals: &mut Signals,
) -> Result<Option<Figures>, BoxError> {
    let written = tokio::select! {
        written = write_all(outbox, load, limit) => written?,
        () = signals.stop() => return Ok(None),
    };
    let (sink, published) = watch::channel(0);
    let begun = now();
    let relay = Relay::builder(outbox).route("bench", topic(TOPIC), Sink(sink)).start().await?;
    let measured = tokio::select! {
        measured = drain(outbox, load, limit, written, (&relay, published, begun)) => {
            measured.map(Some)
        }
        () = signals.stop() => Ok(None),
    };
    // Without its handle it would go on, and read tables that are dropped.
    let stopped = relay.shutdown(SHUTDOWN).await;
    let measured = measured?;
    stopped?;
    Ok(measured)
}

/// Measures a relay that has just started, with events that wait for it.
async fn drain(
    outbox: &Outbox,
    load: &Load,
    limit: Duration,
    (writes, write_time): (Vec<Duration>, Duration),
    (relay, published, begun): (&Relay, watch::Receiver<u64>, Instant),
) -> Result<Figures, BoxError> {
    let written = writes.len() as u64;
    let mut stats = relay.stats();
    let drained = timeout(limit, stats.wait_for(|stats| stats.delivered >= written)).await;
    let drain_time = now().duration_since(begun);
    let drained = match drained {
        Ok(stats) => stats?.delivered,
        Err(_) => relay.stats().borrow().delivered,
    };
    let deliveries = if drained < written {
        Vec::new()
    } else {
        single(outbox, load.bytes, published, limit).await?
    };
    Ok(Figures {
        events: load.events,
        bytes: load.bytes,
        writers: load.writers,
        written,
        writes_per_second: per_second(written, write_time),
        write_p50_ms: percentile(&writes, 50),
        write_p99_ms: percentile(&writes, 99),
        drained,
        drained_per_second: per_second(drained, drain_time),
        delivered: deliveries.len() as u64,
        delivery_p50_ms: percentile(&deliveries, 50),
        delivery_p99_ms: percentile(&deliveries, 99),
    })
}

/// Writes all events, one a transaction; gives how long each took, by length, and all together.
async fn write_all(
    outbox: &Outbox,
    load: &Load,
    limit: Duration,
) -> Result<(Vec<Duration>, Duration), BoxError> {
    let begun = now();
    let until = begun + limit;
    let mut tasks = Tasks::default();
    for writer in 0..load.writers {
        let share = load.events / load.writers + u32::from(writer < load.events % load.writers);
        let (outbox, bytes, writers) = (outbox.clone(), load.bytes, load.writers);
        tasks.spawn(writer, async move {
            let mut times = Vec::new();
            for number in 0..share {
                let begun = now();
                if begun >= until {
                    break;
                }
                write(&outbox, number * writers + writer, bytes).await?;
                times.push(now().duration_since(begun));
            }
            Ok::<_, BoxError>(times)
        });
    }
    let mut times = Vec::new();
    while let Some((_, exit)) = tasks.next().await {
        match exit {
            Exit::Finished(written) => times.extend(written?),
            Exit::Panicked(text) => return Err(text.into()),
            Exit::Cancelled => return Err("a writer was cancelled".into()),
        }
    }
    times.sort();
    Ok((times, now().duration_since(begun)))
}

async fn write(outbox: &Outbox, number: u32, bytes: u32) -> Result<(), BoxError> {
    let payload = vec![b'x'; usize::try_from(bytes)?].into();
    let tx = outbox.begin().await?;
    tx.emit(Sample { key: number, payload })?;
    tx.commit().await?;
    Ok(())
}

/// Writes events one at a time and waits for each; gives how long each took, by length.
async fn single(
    outbox: &Outbox,
    bytes: u32,
    mut published: watch::Receiver<u64>,
    limit: Duration,
) -> Result<Vec<Duration>, BoxError> {
    let until: Instant = now() + limit;
    let before = *published.borrow();
    let mut times = Vec::new();
    for number in 1..=SINGLE {
        let begun = now();
        write(outbox, u32::try_from(number)?, bytes).await?;
        let came = published.wait_for(|count| *count >= before + number);
        let Ok(came) = timeout_at(until.into(), came).await else { break };
        came?;
        times.push(now().duration_since(begun));
    }
    times.sort();
    Ok(times)
}

fn per_second(count: u64, time: Duration) -> f64 {
    count as f64 / time.as_secs_f64().max(f64::MIN_POSITIVE)
}

/// Gives a percentile of sorted times, ms; 0 where there is none.
fn percentile(sorted: &[Duration], percent: usize) -> f64 {
    let at = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
    sorted.get(at).map_or(0.0, |time| time.as_secs_f64() * 1e3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_the_time_that_so_many_did_not_exceed() {
        let times: Vec<Duration> = (1..=200).map(Duration::from_millis).collect();
        assert_eq!([50, 99, 100].map(|percent| percentile(&times, percent)), [100.0, 198.0, 200.0]);
        assert_eq!(percentile(&times[..1], 99), 1.0);
        assert_eq!(percentile(&[], 50), 0.0);
        assert_eq!(per_second(200, Duration::from_millis(500)), 400.0);
    }
}
