//! The measurements of the gate, by the stages of the other benchmarks.

use super::{
    files::Measured,
    promises::{By, Figure, Part, Source},
};
use crate::{
    args::Sides,
    child,
    environment::Environment,
    load::fill::Waiting,
    stages::{
        asks,
        consume::{self, Consumed, Way},
        drain::{self, Drain},
        kafka,
        latency::{Latency, LatencyRun},
        publish, relays,
        sagas::{self, Load},
        write::{self, Write},
    },
};
use anyhow::{Result, ensure};
use outbox_core::transport::DEFAULT_MAX_IN_MEMORY;
use std::time::Duration;
use tests::servers;

const ROUNDS: usize = 7;
/// Rounds with 10,000,000 events: each fills the outbox twice, in a minute or two.
const LONG_ROUNDS: usize = 3;
const MANY: u32 = 10_000_000;
const SOME: u32 = 100_000;
/// Events of four relays and of one: ten seconds of work.
const SHARED: u32 = 2_000_000;
/// Rounds of them: each starts five processes and fills the outbox twice.
const SHARED_ROUNDS: usize = 5;
/// Messages that are received: each key comes twice.
const MESSAGES: u32 = 20_000;
const WRITE_FOR: Duration = Duration::from_secs(2);
const SEND_FOR: Duration = Duration::from_secs(5);
const SAGAS: u32 = 600;
/// Events of 1 MiB.
const LARGE: u32 = 1_500;
const MIB: usize = 1 << 20;

/// Measures the figures of a part.
pub(super) async fn part(part: Part) -> Result<Vec<Measured>> {
    match part {
        Part::Memory => memory().await,
        Part::Drain => Ok(vec![
            drain(Figure::DrainInOrder, SOME, ROUNDS, false).await?,
            drain(Figure::DrainPinned, SOME, ROUNDS, true).await?,
        ]),
        Part::Backlog => Ok(vec![drain(Figure::Backlog, MANY, LONG_ROUNDS, false).await?]),
        Part::Relays => four_relays().await,
        Part::Write => writing().await,
        Part::Latency => latency().await,
        Part::ReceiveRabbitmq => {
            let consumed = consume::run(MESSAGES, ROUNDS, &Way::PROMISED).await?;
            Ok(received(Source::Rabbitmq, &consumed))
        }
        Part::ReceiveKafka => {
            let server = servers::kafka::start_in_memory().await;
            let consumed = kafka::consume(&server, MESSAGES, ROUNDS, &Way::PROMISED).await?;
            Ok(received(Source::Kafka, &consumed))
        }
        Part::PublishRabbitmq => {
            let published = publish::run(SOME, ROUNDS, Sides::Both).await?;
            let (ours, hand) = (&published.ours, &published.baseline);
            Ok(vec![Measured::share(Figure::PublishedToRabbitmq, ours, hand)])
        }
        Part::PublishKafka => {
            let server = servers::kafka::start_in_memory().await;
            let produced = kafka::publish(&server, SOME, ROUNDS, Sides::Both).await?;
            // A loop by hand sets the headers that tell events apart, and no more.
            let (ours, hand) = (&produced.ours, &produced.lean);
            Ok(vec![Measured::share(Figure::PublishedToKafka, ours, hand)])
        }
        Part::Sagas => steps().await,
        Part::Asks => {
            let load = asks::Load { sagas: SAGAS, at_once: 8, rounds: ROUNDS, sides: Sides::Both };
            let asked = asks::run(load).await?;
            Ok(vec![Measured::share(Figure::AskedSteps, &asked.memory, &asked.baseline)])
        }
    }
}

/// Measures each drain in a process that has done nothing else: an allocator gives little back.
async fn memory() -> Result<Vec<Measured>> {
    let mut figures = Vec::new();
    let large = Waiting { payload: MIB, ..Waiting::usual(LARGE) };
    let route = DEFAULT_MAX_IN_MEMORY as f64 / MIB as f64;
    for (figure, waiting, limit) in [
        (Figure::MemoryOfBacklog, Waiting::usual(MANY), None),
        (Figure::MemoryOfLargeEvents, large, Some(route)),
    ] {
        let memory = child::memory(waiting).await?;
        ensure!(memory.duplicated == 0, "void: {} events twice", memory.duplicated);
        figures.push(Measured::one(figure, memory.highest, limit));
    }
    Ok(figures)
}

async fn drain(figure: Figure, events: u32, rounds: usize, pinned: bool) -> Result<Measured> {
    let drained = drain::run(Drain { events, rounds, pinned, sides: Sides::Both }).await?;
    ensure!(drained.duplicated == 0, "void: {} events twice", drained.duplicated);
    Ok(Measured::share(figure, &drained.ours, &drained.floor))
}

async fn four_relays() -> Result<Vec<Measured>> {
    let waiting = Waiting::usual(SHARED);
    let loads = [4, 1].map(|relays| relays::Load { waiting, relays });
    let rates = relays::run(&loads, SHARED_ROUNDS).await?;
    Ok(vec![Measured::share(Figure::FourRelays, &rates[0], &rates[1])])
}

async fn writing() -> Result<Vec<Measured>> {
    let environment = Environment::shared(40).await?;
    let mut figures = Vec::new();
    for writers in [1, 8, 32] {
        let load = Write {
            writers,
            events: 1,
            rounds: ROUNDS,
            round: WRITE_FOR,
            sides: Sides::Both,
            sea_orm: true,
        };
        let written = write::run(&environment, load).await?;
        let (ours, raw, plain) = (&written.ours.rate, &written.raw.rate, &written.sea_orm.rate);
        figures.push(Measured::share(Figure::WriteRaw(writers), ours, raw));
        figures.push(Measured::share(Figure::WriteSeaOrm(writers), ours, plain));
    }
    Ok(figures)
}

async fn latency() -> Result<Vec<Measured>> {
    let rates = [200, 1_000];
    let events: u64 = rates.iter().map(|rate| u64::from(*rate) * SEND_FOR.as_secs()).sum();
    // Both sides use numbers, and so does the warm-up.
    let events = usize::try_from(events)? * ROUNDS * 2 + 1_000;
    let mut run = LatencyRun::open(events).await?;
    let mut figures = Vec::new();
    for rate in rates {
        let latencies = run.run(Latency { rate, rounds: ROUNDS, round: SEND_FOR }).await?;
        let (ours, floor) = (&latencies.ours.p99, &latencies.floor.p99);
        figures.push(Measured::share(Figure::Latency(rate), ours, floor));
    }
    run.close().await?;
    Ok(figures)
}

fn received(from: Source, consumed: &Consumed) -> Vec<Measured> {
    [
        (By::Defaults, &consumed.defaults, &consumed.baseline),
        (By::DefaultsOnce, &consumed.defaults, &consumed.once),
        (By::OneByOneOnce, &consumed.ours, &consumed.once),
    ]
    .map(|(by, ours, hand)| Measured::share(Figure::Received(from, by), ours, hand))
    .into()
}

async fn steps() -> Result<Vec<Measured>> {
    let environment = Environment::shared(40).await?;
    let mut figures = Vec::new();
    for at_once in [1, 8] {
        let load = Load { sagas: SAGAS, at_once, rounds: ROUNDS, sides: Sides::Both };
        let steps = sagas::steps(&environment, load).await?;
        figures.push(Measured::share(Figure::Steps(at_once), &steps.ours, &steps.baseline));
    }
    Ok(figures)
}
