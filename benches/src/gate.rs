//! Gate A3: every promised figure with its target, in about ten minutes. Gate B: those of RabbitMQ.
//! Gate E1: those of sagas. Gate E2: those of remote steps. Gate C1: those of Kafka. Gate C2: those
//! of NATS, Redis and MQTT.

use crate::{
    args::{Args, Broker, Kept, Sides},
    environment::Environment,
    figures::Report,
    load::{broker::Broker as _, fill::Waiting, mqtt::Mqtt, nats::Nats, redis::Redis},
    report,
    stages::{
        asks, brokers,
        consume::{self, Way},
        costs,
        drain::{self, Drain, Drained},
        idle, kafka,
        latency::{Latency, LatencyRun},
        memory, publish,
        sagas::{self, Load},
        write::{self, Write},
    },
};
use anyhow::Result;
use std::time::Duration;
use tests::servers::{self, Server};

/// The names of the brokers in figures.
const RABBIT: &str = "RabbitMQ";
const KAFKA: &str = "Kafka (nisshi 0.8.1)";
const KAFKA_IN_MEMORY: &str = "Kafka (nisshi 0.8.1, in memory)";

const ROUNDS: usize = 7;
const MANY: u32 = 1_000_000;
const SOME: u32 = 100_000;
/// Waiting events where the broker inserts a row for each header, or allows twenty messages without
/// a confirmation: they take a quarter of a minute.
const FEW: u32 = 20_000;
/// Messages of one round of receiving: they take a second or two.
pub(crate) const MESSAGES: u32 = 10_000;
/// The duration of one round of writing: there are seven, of both sides, for nine kinds of load.
const WRITE_FOR: Duration = Duration::from_millis(900);
/// The duration of one round of sending: at 200 a second 1,000 events, of which ten exceed the p99.
const SEND_FOR: Duration = Duration::from_secs(5);
const SILENCE: Duration = Duration::from_secs(10);
const IDLE_FOR: Duration = Duration::from_secs(60);
/// Sagas of a round.
pub(crate) const SAGAS: u32 = 600;
/// Other sagas that are in flight meanwhile.
const IN_FLIGHT: u32 = 10_000;

/// Runs all but RabbitMQ, Kafka and sagas.
pub(crate) async fn a3() -> Result<Report> {
    let mut report = Report::default();
    // First, while this process is small.
    let memory = memory::run(Waiting::usual(MANY)).await?;
    let sides = Sides::Floor;
    let floor = drain::run(Drain { events: MANY, rounds: 1, pinned: false, sides }).await?.floor;
    let mut many = Drained { floor, ..Drained::default() };
    many.ours.push(memory.rate);
    report.absorb(drained("1,000,000 waiting", &many));
    report.absorb(report::memory(&memory));
    let sides = Sides::Both;
    for (name, pinned) in
        [("100,000 waiting", false), ("100,000 waiting, a transaction open", true)]
    {
        let some = drain::run(Drain { events: SOME, rounds: ROUNDS, pinned, sides }).await?;
        report.absorb(drained(name, &some));
    }
    report.absorb(report::costs(&costs::run(SOME, sides).await?));
    report.absorb(write(ROUNDS, WRITE_FOR, sides).await?);
    report.absorb(latency(ROUNDS, SEND_FOR).await?);
    report.absorb(report::idle(&idle::run(IDLE_FOR).await?));
    Ok(report)
}

/// Runs the benchmarks of RabbitMQ.
pub(crate) async fn b() -> Result<Report> {
    let mut report = publish(Broker::RabbitMq, SOME, ROUNDS, Sides::Both).await?;
    report.absorb(consume(Broker::RabbitMq, MESSAGES, ROUNDS, Sides::Both).await?);
    Ok(report)
}

/// Runs the benchmarks of Kafka, on private brokers.
pub(crate) async fn c1() -> Result<Report> {
    let mut report = Report::default();
    for (kept, events) in [(Kept::File, FEW), (Kept::Memory, SOME)] {
        report.absorb(publish(Broker::Kafka(kept), events, ROUNDS, Sides::Both).await?);
        report.absorb(consume(Broker::Kafka(kept), MESSAGES, ROUNDS, Sides::Both).await?);
    }
    Ok(report)
}

/// Runs the benchmarks of NATS, Redis and MQTT, on private brokers.
pub(crate) async fn c2() -> Result<Report> {
    let mut report = Report::default();
    for (broker, events) in [(Broker::Nats, SOME), (Broker::Redis, SOME), (Broker::Mqtt, FEW)] {
        report.absorb(publish(broker, events, ROUNDS, Sides::Both).await?);
        report.absorb(consume(broker, MESSAGES, ROUNDS, Sides::Both).await?);
    }
    Ok(report)
}

/// Measures publishing to a broker.
pub(crate) async fn publish(
    broker: Broker,
    events: u32,
    rounds: usize,
    sides: Sides,
) -> Result<Report> {
    let (name, published) = match broker {
        Broker::Kafka(kept) => {
            let (name, server) = start(kept).await;
            let produced = kafka::publish(&server, events, rounds, sides).await?;
            return Ok(report::produced(name, kept, events, &produced));
        }
        Broker::RabbitMq => {
            let published = publish::run(events, rounds, sides).await?;
            return Ok(report::published(RABBIT, events, &published, report::PUBLISH));
        }
        Broker::Nats => (Nats::NAME, brokers::publish::<Nats>(events, rounds, sides).await?),
        Broker::Redis => (Redis::NAME, brokers::publish::<Redis>(events, rounds, sides).await?),
        Broker::Mqtt => (Mqtt::NAME, brokers::publish::<Mqtt>(events, rounds, sides).await?),
    };
    Ok(report::published(name, events, &published, report::PUBLISH_DIRECTLY))
}

/// Measures receiving from a broker.
pub(crate) async fn consume(
    broker: Broker,
    messages: u32,
    rounds: usize,
    sides: Sides,
) -> Result<Report> {
    let (name, received) = match broker {
        Broker::Kafka(kept) => {
            let (name, server) = start(kept).await;
            let consumed = kafka::consume(&server, messages, rounds, &Way::of(sides)).await?;
            return Ok(report::consumed(name, messages, &consumed));
        }
        Broker::RabbitMq => {
            let consumed = consume::run(messages, rounds, &Way::of(sides)).await?;
            return Ok(report::consumed(RABBIT, messages, &consumed));
        }
        Broker::Nats => (Nats::NAME, brokers::consume::<Nats>(messages, rounds, sides).await?),
        Broker::Redis => (Redis::NAME, brokers::consume::<Redis>(messages, rounds, sides).await?),
        Broker::Mqtt => (Mqtt::NAME, brokers::consume::<Mqtt>(messages, rounds, sides).await?),
    };
    Ok(report::received(name, messages, &received))
}

async fn start(kept: Kept) -> (&'static str, Server) {
    match kept {
        Kept::File => (KAFKA, servers::kafka::start().await),
        Kept::Memory => (KAFKA_IN_MEMORY, servers::kafka::start_in_memory().await),
    }
}

/// Runs the benchmarks of sagas.
pub(crate) async fn e1() -> Result<Report> {
    sagas(ROUNDS, Sides::Both).await
}

/// Runs the benchmarks of remote steps.
pub(crate) async fn e2() -> Result<Report> {
    asks(SAGAS, ROUNDS, Sides::Both).await
}

/// Measures sagas with remote steps, several at once.
pub(crate) async fn asks(sagas: u32, rounds: usize, sides: Sides) -> Result<Report> {
    let load = asks::Load { sagas, at_once: 8, rounds, sides };
    Ok(report::asked(load.at_once, &asks::run(load).await?))
}

/// Measures sagas, one at a time and several at once; and several while others are in flight.
pub(crate) async fn sagas(rounds: usize, sides: Sides) -> Result<Report> {
    let mut report = Report::default();
    let environment = Environment::shared(40).await?;
    for at_once in [1, 8] {
        let load = Load { sagas: SAGAS, at_once, rounds, sides };
        report.absorb(report::steps(at_once, &sagas::steps(&environment, load).await?));
    }
    if sides == Sides::Both {
        let load = Load { sagas: SAGAS, at_once: 8, rounds, sides };
        report.absorb(report::in_flight(IN_FLIGHT, &sagas::in_flight(IN_FLIGHT, load).await?));
    }
    Ok(report)
}

fn drained(name: &str, figures: &Drained) -> Report {
    report::drained(name, figures)
}

/// Measures all kinds of writing.
pub(crate) async fn write(rounds: usize, round: Duration, sides: Sides) -> Result<Report> {
    let environment = Environment::shared(40).await?;
    let mut report = Report::default();
    for events in [0, 1, 10] {
        for writers in [1, 8, 32] {
            let load = Write { writers, events, rounds, round, sides, sea_orm: events == 1 };
            let written = write::run(&environment, load).await?;
            report.absorb(report::written(writers, events, &written));
        }
    }
    Ok(report)
}

/// Measures all latencies.
pub(crate) async fn latency(rounds: usize, round: Duration) -> Result<Report> {
    let mut report = Report::default();
    let rates = [200, 1_000];
    let events: f64 = rates.iter().map(|rate| f64::from(*rate) * round.as_secs_f64()).sum();
    // Both sides use numbers, and so do the silences and the warm-up.
    let mut latency_run = LatencyRun::open((events * rounds as f64 * 2.0) as usize + 1_000).await?;
    for rate in rates {
        report.absorb(report::latencies(
            rate,
            &latency_run.run(Latency { rate, rounds, round }).await?,
        ));
    }
    let silences = latency_run.after_silence(rounds.min(5), SILENCE).await?;
    report.absorb(report::silence(SILENCE.as_secs(), &silences));
    latency_run.close().await?;
    Ok(report)
}

/// Gives the numbers of the command line, or those of the gate.
pub(crate) fn or_as_the_gate(args: &Args) -> (u32, usize) {
    (args.events.unwrap_or(SOME), args.rounds.unwrap_or(ROUNDS))
}
