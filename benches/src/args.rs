//! The command line.

use anyhow::{Context, Result, bail};
use std::time::Duration;

/// The usage text.
pub(crate) const USAGE: &str = "usage: benches <name> [options]

  write     transactions a second with 0, 1 and 10 events, 1, 8 and 32 writers, beside raw SQL
  drain     waiting events a second, in order for each key, beside the floor
  costs     what a drain costs the server: WAL, dead tuples, CPU (on a server of its own)
  latency   from commit to receipt at 200 and 1,000 events a second, and after a silence
  memory    the relay's memory while it drains
  idle      what a relay with nothing to do costs (on a server of its own)
  publish   waiting events a second to a broker with confirms, beside a loop by hand
  consume   messages a second from a broker with one INSERT each, beside a loop by hand
  sagas     steps a second beside hand-written SQL that does the same transactions, and sagas a second while 10,000
            others are in flight, beside while one other is
  asks      steps a second that another service does, in process and over RabbitMQ, beside hand-written SQL that does the
            same transactions
  operate   what an operator's questions cost, in milliseconds, beside a look-up by key, with 10,000,000 rows
  redrive   dead letters a second that a redrive puts back while the relay drains 40 times as many events, and the relay's
            rate beside its rate alone
  pages     what each page of the web page takes with 10,000,000 rows, and what open live pages cost
  slow      messages whose handler takes 2 s, in process and over HTTP: how often they are delivered and run
  scale     how figures change with 1, 2 and 4 relay processes, with more events, partitions, routes, keys and bytes, and
            two curves: throughput against waiting events, latency against load; each curve is written to docs/images.
            With its defaults, 1,000,000 events at most, in 20 minutes or less; with --events 10_000_000 --minutes 90 all
  gate p    what is promised, each figure beside the floor or the loop by hand of the same run; in parts, which may be
            measured in several sittings, as one takes about an hour; fails when one is missed or was not run
  gate a3   all but RabbitMQ and sagas, beside its targets; fails when one is missed
  gate b    what concerns RabbitMQ, likewise
  gate c1   what concerns Kafka, likewise, on brokers of its own: one that keeps what it has, and one that does not
  gate c2   what concerns NATS, Redis and MQTT, likewise, on brokers of its own; not SQS, whose emulators say nothing of
            its speed
  gate e1   what concerns sagas, likewise
  gate e2   what concerns steps that other services do, likewise

  --events N   waiting events of drain, costs, memory, publish, consume; sagas of asks; messages of slow; rows of operate and pages;
                waiting events of redrive; most events of scale
  --rounds N   rounds, each with ours and the floor
  --seconds N  length of one round of write, latency and idle
  --broker rabbitmq|kafka|kafka-in-memory|nats|redis|mqtt   of publish and consume; all but the first are brokers of the
            run's own
  --pinned     drain with a transaction open elsewhere
  --rate N     most events a second of scale, 20,000 unless said
  --minutes N  of scale: nothing new begins after so many, 20 unless said
  --only ours|floor   one side alone, for a profiler
  --only PART[,PART]  of gate p: memory, drain, backlog, relays, write, latency, receive-rabbitmq, receive-kafka,
            publish-rabbitmq, publish-kafka, sagas, asks; of scale: processes, shapes, backlog, latency
  --report  of gate p: only the table, of the parts that this revision has";

/// The benchmark of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bench {
    Write,
    Drain,
    Costs,
    Latency,
    Memory,
    Idle,
    Publish,
    Consume,
    Sagas,
    Asks,
    Operate,
    Redrive,
    Pages,
    Slow,
    Scale,
    GateP,
    Gate,
    GateB,
    GateC1,
    GateC2,
    GateE1,
    GateE2,
}

/// Which side of a comparison runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sides {
    Both,
    Ours,
    Floor,
}

/// The broker of the messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Broker {
    RabbitMq,
    Kafka(Kept),
    Nats,
    Redis,
    Mqtt,
}

/// Where a broker keeps its records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kept {
    File,
    Memory,
}

/// The command line.
#[derive(Debug, Clone)]
pub(crate) struct Args {
    pub(crate) bench: Bench,
    pub(crate) events: Option<u32>,
    pub(crate) rounds: Option<usize>,
    pub(crate) round: Option<Duration>,
    pub(crate) pinned: bool,
    pub(crate) sides: Sides,
    pub(crate) broker: Broker,
    /// Parts of a gate or of a scale; all of them where there are none.
    pub(crate) parts: Vec<String>,
    pub(crate) is_report: bool,
    /// Most events a second.
    pub(crate) rate: Option<u32>,
    pub(crate) minutes: Option<u64>,
}

impl Bench {
    /// Reads the name of a benchmark, or of a gate.
    fn read(words: &mut impl Iterator<Item = String>) -> Result<Self> {
        Ok(match words.next().as_deref() {
            Some("write") => Bench::Write,
            Some("drain") => Bench::Drain,
            Some("costs") => Bench::Costs,
            Some("latency") => Bench::Latency,
            Some("memory") => Bench::Memory,
            Some("idle") => Bench::Idle,
            Some("publish") => Bench::Publish,
            Some("consume") => Bench::Consume,
            Some("sagas") => Bench::Sagas,
            Some("asks") => Bench::Asks,
            Some("operate") => Bench::Operate,
            Some("redrive") => Bench::Redrive,
            Some("pages") => Bench::Pages,
            Some("slow") => Bench::Slow,
            Some("scale") => Bench::Scale,
            Some("gate") => match words.next().as_deref() {
                Some("p") => Bench::GateP,
                Some("a3") => Bench::Gate,
                Some("b") => Bench::GateB,
                Some("c1") => Bench::GateC1,
                Some("c2") => Bench::GateC2,
                Some("e1") => Bench::GateE1,
                Some("e2") => Bench::GateE2,
                _ => bail!("{USAGE}"),
            },
            _ => bail!("{USAGE}"),
        })
    }
}

impl Broker {
    fn read(name: &str) -> Result<Self> {
        Ok(match name {
            "rabbitmq" => Self::RabbitMq,
            "kafka" => Self::Kafka(Kept::File),
            "kafka-in-memory" => Self::Kafka(Kept::Memory),
            "nats" => Self::Nats,
            "redis" => Self::Redis,
            "mqtt" => Self::Mqtt,
            _ => bail!("{USAGE}"),
        })
    }
}

impl Args {
    /// Reads the arguments after the program's name.
    pub(crate) fn read(words: impl Iterator<Item = String>) -> Result<Self> {
        let mut words = words.peekable();
        let bench = Bench::read(&mut words)?;
        let mut args = Self {
            bench,
            events: None,
            rounds: None,
            round: None,
            pinned: false,
            sides: Sides::Both,
            broker: Broker::RabbitMq,
            parts: Vec::new(),
            is_report: false,
            rate: None,
            minutes: None,
        };
        while let Some(word) = words.next() {
            let mut value =
                || words.next().with_context(|| format!("{word} wants a value\n\n{USAGE}"));
            match word.as_str() {
                "--events" => args.events = Some(value()?.replace('_', "").parse()?),
                "--rounds" => args.rounds = Some(value()?.parse()?),
                "--seconds" => args.round = Some(Duration::from_secs(value()?.parse()?)),
                "--pinned" => args.pinned = true,
                "--report" => args.is_report = true,
                "--rate" => args.rate = Some(value()?.replace('_', "").parse()?),
                "--minutes" => args.minutes = Some(value()?.parse()?),
                "--broker" => args.broker = Broker::read(&value()?)?,
                "--only" if matches!(bench, Bench::GateP | Bench::Scale) => {
                    args.parts = value()?.split(',').map(str::to_owned).collect();
                }
                "--only" => {
                    args.sides = match value()?.as_str() {
                        "ours" => Sides::Ours,
                        "floor" => Sides::Floor,
                        _ => bail!("{USAGE}"),
                    };
                }
                _ => bail!("{USAGE}"),
            }
        }
        Ok(args)
    }
}

impl Sides {
    pub(crate) fn ours(self) -> bool {
        self != Self::Floor
    }

    pub(crate) fn floor(self) -> bool {
        self != Self::Ours
    }
}
