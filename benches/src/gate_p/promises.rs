//! What is promised: the figures of the gate with their targets, by the parts that measure them.

use crate::figures::Target::{self, AtLeast, AtMost};
use serde::{Deserialize, Serialize};

/// What is measured in one go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Part {
    Memory,
    Drain,
    Backlog,
    Relays,
    Write,
    Latency,
    ReceiveRabbitmq,
    ReceiveKafka,
    PublishRabbitmq,
    PublishKafka,
    Sagas,
    Asks,
}

/// A figure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Figure {
    DrainInOrder,
    DrainPinned,
    Backlog,
    FourRelays,
    /// One event a transaction by so many writers, beside raw SQL.
    WriteRaw(u32),
    /// The same beside a SeaORM transaction by hand.
    WriteSeaOrm(u32),
    /// The p99 from commit to receipt at so many events a second.
    Latency(u32),
    Received(Source, By),
    PublishedToRabbitmq,
    PublishedToKafka,
    /// Local steps of so many sagas at once.
    Steps(usize),
    AskedSteps,
    MemoryOfBacklog,
    MemoryOfLargeEvents,
}

/// Where messages come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Source {
    Rabbitmq,
    Kafka,
}

/// What is compared of receiving.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum By {
    /// All defaults beside a loop by hand, which does some messages twice after a crash.
    Defaults,
    /// All defaults beside a loop by hand that does each message once.
    DefaultsOnce,
    /// One by one beside a loop by hand that does each message once.
    OneByOneOnce,
}

/// A figure with its name in the table and its target.
#[derive(Debug, Clone, Copy)]
pub(super) struct Promise {
    pub(super) part: Part,
    pub(super) figure: Figure,
    pub(super) name: &'static str,
    pub(super) target: Target,
}

const fn promise(part: Part, figure: Figure, name: &'static str, target: Target) -> Promise {
    Promise { part, figure, name, target }
}

/// All that is promised, in the order of the table. Where both sides have rounds, the target is for
/// the median of ours over the other side's.
pub(super) static PROMISES: [Promise; 25] = {
    use By::{Defaults, DefaultsOnce, OneByOneOnce};
    use Figure::{
        AskedSteps, Backlog, DrainInOrder, DrainPinned, FourRelays, Latency, MemoryOfBacklog,
        MemoryOfLargeEvents, PublishedToKafka, PublishedToRabbitmq, Received, Steps, WriteRaw,
        WriteSeaOrm,
    };
    use Source::{Kafka, Rabbitmq};
    [
        promise(Part::Drain, DrainInOrder, "100,000 waiting, in order, events/s", AtLeast(0.85)),
        promise(
            Part::Drain,
            DrainPinned,
            "100,000 waiting, a transaction pinned, events/s",
            AtLeast(0.85),
        ),
        promise(Part::Backlog, Backlog, "10,000,000 waiting, events/s", AtLeast(0.85)),
        promise(Part::Relays, FourRelays, "4 relay processes beside one, events/s", AtLeast(1.0)),
        promise(
            Part::Write,
            WriteRaw(1),
            "one event a transaction, 1 writer, beside raw SQL, transactions/s",
            AtLeast(0.95),
        ),
        promise(
            Part::Write,
            WriteRaw(8),
            "one event a transaction, 8 writers, beside raw SQL, transactions/s",
            AtLeast(0.95),
        ),
        promise(
            Part::Write,
            WriteRaw(32),
            "one event a transaction, 32 writers, beside raw SQL, transactions/s",
            AtLeast(0.95),
        ),
        promise(
            Part::Write,
            WriteSeaOrm(1),
            "one event a transaction, 1 writer, beside SeaORM by hand, transactions/s",
            AtLeast(0.97),
        ),
        promise(
            Part::Write,
            WriteSeaOrm(8),
            "one event a transaction, 8 writers, beside SeaORM by hand, transactions/s",
            AtLeast(0.97),
        ),
        promise(
            Part::Write,
            WriteSeaOrm(32),
            "one event a transaction, 32 writers, beside SeaORM by hand, transactions/s",
            AtLeast(0.97),
        ),
        promise(Part::Latency, Latency(200), "commit to receipt at 200/s, p99, ms", AtMost(1.5)),
        promise(
            Part::Latency,
            Latency(1_000),
            "commit to receipt at 1,000/s, p99, ms",
            AtMost(1.0),
        ),
        promise(
            Part::ReceiveRabbitmq,
            Received(Rabbitmq, Defaults),
            "received from RabbitMQ, defaults, beside a loop that is not safe, messages/s",
            AtLeast(1.2),
        ),
        promise(
            Part::ReceiveRabbitmq,
            Received(Rabbitmq, DefaultsOnce),
            "received from RabbitMQ, defaults, beside a loop that does each once, messages/s",
            AtLeast(2.0),
        ),
        promise(
            Part::ReceiveRabbitmq,
            Received(Rabbitmq, OneByOneOnce),
            "received from RabbitMQ one by one, beside a loop that does each once, messages/s",
            AtLeast(1.0),
        ),
        promise(
            Part::ReceiveKafka,
            Received(Kafka, Defaults),
            "received from Kafka in memory, defaults, beside a loop that is not safe, messages/s",
            AtLeast(1.0),
        ),
        promise(
            Part::ReceiveKafka,
            Received(Kafka, DefaultsOnce),
            "received from Kafka in memory, defaults, beside a loop that does each once, messages/s",
            AtLeast(1.7),
        ),
        promise(
            Part::ReceiveKafka,
            Received(Kafka, OneByOneOnce),
            "received from Kafka in memory one by one, beside a loop that does each once, messages/s",
            AtLeast(1.0),
        ),
        promise(
            Part::PublishRabbitmq,
            PublishedToRabbitmq,
            "relay to RabbitMQ, events/s",
            AtLeast(0.95),
        ),
        promise(
            Part::PublishKafka,
            PublishedToKafka,
            "relay to Kafka in memory, events/s",
            AtLeast(1.0),
        ),
        promise(Part::Sagas, Steps(1), "local steps of sagas, 1 at once, steps/s", AtLeast(0.8)),
        promise(Part::Sagas, Steps(8), "local steps of sagas, 8 at once, steps/s", AtLeast(0.9)),
        promise(Part::Asks, AskedSteps, "asked steps in process, steps/s", AtLeast(0.8)),
        promise(Part::Memory, MemoryOfBacklog, "memory while 10,000,000 drain, MiB", AtMost(100.0)),
        promise(
            Part::Memory,
            MemoryOfLargeEvents,
            "memory while 1,500 events of 1 MiB drain, beside the byte limit of a route, MiB",
            AtMost(3.0),
        ),
    ]
};

/// Lists what a part measures.
pub(super) fn of(part: Part) -> impl Iterator<Item = &'static Promise> {
    PROMISES.iter().filter(move |promise| promise.part == part)
}

impl Part {
    /// All of them, in the order in which they are measured.
    pub(super) const ALL: [Self; 12] = [
        Self::Memory,
        Self::Drain,
        Self::Backlog,
        Self::Relays,
        Self::Write,
        Self::Latency,
        Self::ReceiveRabbitmq,
        Self::ReceiveKafka,
        Self::PublishRabbitmq,
        Self::PublishKafka,
        Self::Sagas,
        Self::Asks,
    ];

    /// The name on the command line and of its file.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Drain => "drain",
            Self::Backlog => "backlog",
            Self::Relays => "relays",
            Self::Write => "write",
            Self::Latency => "latency",
            Self::ReceiveRabbitmq => "receive-rabbitmq",
            Self::ReceiveKafka => "receive-kafka",
            Self::PublishRabbitmq => "publish-rabbitmq",
            Self::PublishKafka => "publish-kafka",
            Self::Sagas => "sagas",
            Self::Asks => "asks",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_figure_is_promised_once_and_every_part_has_one() {
        for (at, promise) in PROMISES.iter().enumerate() {
            let others = PROMISES.iter().skip(at + 1);
            let same = others.filter(|other| other.figure == promise.figure);
            assert_eq!(same.count(), 0, "{}", promise.name);
        }
        assert!(Part::ALL.into_iter().all(|part| of(part).count() > 0));
    }
}
