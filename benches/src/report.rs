//! The report of each benchmark, and the targets of its figures.

use crate::{
    args::Kept,
    figures::{
        Report,
        Target::{AtLeast, AtMost, Below, Informational, MoreThan},
    },
    stages::{
        asks::Asked,
        brokers::Received,
        consume::{BATCH, Consumed},
        costs::Costs,
        drain::Drained,
        idle::Idle,
        kafka::Produced,
        latency::Latencies,
        memory::Memory,
        operate::Asked as Question,
        pages::{Page, Viewed},
        publish::Published,
        redrive::Redriven,
        sagas::{InFlight, Steps},
        slow::Slow,
        write::Written,
    },
};

/// The target of a drain, as a share of the floor.
const DRAIN: f64 = 0.6;
/// The target of a transaction with one event, as a share of raw SQL.
const WRITE_ONE: f64 = 0.9;

/// The target of publishing to a broker, as a share of the hand-written loop.
pub(crate) const PUBLISH: f64 = 0.8;
/// The same for NATS, Redis and MQTT.
pub(crate) const PUBLISH_DIRECTLY: f64 = 0.9;
/// The target of receiving from these, as a multiple of the loop by hand that does each once.
const RECEIVE: f64 = 1.5;

/// Reports receiving from NATS, Redis and MQTT.
pub(crate) fn received(broker: &str, messages: u32, received: &Received) -> Report {
    let mut report = Report::default();
    let name = format!("{broker}, {messages} received");
    report.rounds(format!("{name}: by hand, each once, messages/s"), &received.once, Informational);
    report.rounds(format!("{name}: ours, messages/s"), &received.ours, Informational);
    let share = received.ours.over(&received.once);
    let name = format!("{name}: multiple of the loop by hand that does each once");
    report.rounds(name, &share, AtLeast(RECEIVE));
    report
}

pub(crate) fn published(broker: &str, events: u32, published: &Published, target: f64) -> Report {
    let mut report = Report::default();
    let name = format!("{broker}, {events} waiting");
    report.rounds(format!("{name}: by hand, events/s"), &published.baseline, Informational);
    report.rounds(format!("{name}: ours, events/s"), &published.ours, Informational);
    let share = published.ours.over(&published.baseline);
    report.rounds(format!("{name}: share of the loop by hand"), &share, AtLeast(target));
    report
}

/// Reports publishing to Kafka. A broker that keeps records in a file inserts a row for each
/// header, of which ours has more than a loop needs: there the target is for the share of a loop
/// with the same records.
pub(crate) fn produced(broker: &str, kept: Kept, events: u32, produced: &Produced) -> Report {
    let mut report = Report::default();
    let name = format!("{broker}, {events} waiting");
    report.rounds(format!("{name}: by hand, our records, events/s"), &produced.same, Informational);
    report.rounds(
        format!("{name}: by hand, records of three headers, events/s"),
        &produced.lean,
        Informational,
    );
    report.rounds(format!("{name}: ours, events/s"), &produced.ours, Informational);
    let (same, lean) = (produced.ours.over(&produced.same), produced.ours.over(&produced.lean));
    report.rounds(
        format!("{name}: share of the loop by hand with our records"),
        &same,
        AtLeast(PUBLISH),
    );
    let target = if kept == Kept::Memory { AtLeast(PUBLISH) } else { Informational };
    report.rounds(
        format!("{name}: share of the loop by hand with records of three headers"),
        &lean,
        target,
    );
    report
}

/// The target of receiving from a broker one by one, as a share of the hand-written loop.
const CONSUME: f64 = 0.8;

pub(crate) fn consumed(broker: &str, messages: u32, consumed: &Consumed) -> Report {
    let mut report = Report::default();
    let name = format!("{broker}, {messages} received");
    report.rounds(format!("{name}: by hand, messages/s"), &consumed.baseline, Informational);
    report.rounds(format!("{name}: by hand, each once, messages/s"), &consumed.once, Informational);
    report.rounds(
        format!("{name}: ours with all defaults, messages/s"),
        &consumed.defaults,
        Informational,
    );
    report.rounds(format!("{name}: ours, messages/s"), &consumed.ours, Informational);
    report.rounds(
        format!("{name}: ours in batches of {BATCH}, messages/s"),
        &consumed.batched,
        Informational,
    );
    let (one_by_one, batched) =
        (consumed.ours.over(&consumed.baseline), consumed.batched.over(&consumed.baseline));
    report.rounds(format!("{name}: share of the loop by hand"), &one_by_one, AtLeast(CONSUME));
    report.rounds(
        format!("{name}: share of the loop by hand, in batches"),
        &batched,
        MoreThan(1.0),
    );
    let (one_by_one, batched) =
        (consumed.ours.over(&consumed.once), consumed.batched.over(&consumed.once));
    report.rounds(
        format!("{name}: share of the loop by hand that does each once"),
        &one_by_one,
        Informational,
    );
    report.rounds(
        format!("{name}: share of the loop by hand that does each once, in batches"),
        &batched,
        Informational,
    );
    for (whose, hand) in [("", &consumed.baseline), (" that does each once", &consumed.once)] {
        report.rounds(
            format!("{name}: share of the loop by hand{whose}, with all defaults"),
            &consumed.defaults.over(hand),
            Informational,
        );
    }
    report
}

/// The target of steps, as a share of the hand-written transactions.
const STEPS: f64 = 0.5;
/// The target of the rate with many sagas in flight, as a share of the rate with one.
const IN_FLIGHT: f64 = 0.8;

pub(crate) fn steps(at_once: usize, steps: &Steps) -> Report {
    let mut report = Report::default();
    let name = format!("sagas, {at_once} at once");
    report.rounds(format!("{name}: by hand, steps/s"), &steps.baseline, Informational);
    report.rounds(format!("{name}: ours, steps/s"), &steps.ours, Informational);
    report.rounds(
        format!("{name}: share of the steps by hand"),
        &steps.ours.over(&steps.baseline),
        AtLeast(STEPS),
    );
    report
}

/// The target of remote steps in process, as a share of the hand-written transactions.
const ASKED: f64 = 0.3;

pub(crate) fn asked(at_once: usize, asked: &Asked) -> Report {
    let mut report = Report::default();
    let name = format!("asked steps, {at_once} at once");
    report.rounds(
        format!("{name}: by hand, no transport, steps/s"),
        &asked.baseline,
        Informational,
    );
    for (over, ours, target) in [
        ("in process", &asked.memory, AtLeast(ASKED)),
        ("over RabbitMQ", &asked.rabbit, Informational),
    ] {
        report.rounds(format!("{name}: ours {over}, steps/s"), ours, Informational);
        let share = ours.over(&asked.baseline);
        report.rounds(format!("{name}: ours {over}, share of the steps by hand"), &share, target);
    }
    report
}

pub(crate) fn in_flight(others: u32, flown: &InFlight) -> Report {
    let mut report = Report::default();
    report.rounds("sagas, one other in flight: sagas/s", &flown.one, Informational);
    let name = format!("sagas, {others} others in flight");
    report.rounds(format!("{name}: sagas/s"), &flown.many, Informational);
    report.rounds(
        format!("{name}: share of the rate with one"),
        &flown.many.over(&flown.one),
        AtLeast(IN_FLIGHT),
    );
    report
}

pub(crate) fn drained(name: &str, drained: &Drained) -> Report {
    let mut report = Report::default();
    report.rounds(format!("drain, {name}: floor, events/s"), &drained.floor, Informational);
    report.rounds(format!("drain, {name}: ours, events/s"), &drained.ours, Informational);
    report.rounds(
        format!("drain, {name}: share of the floor"),
        &drained.ours.over(&drained.floor),
        AtLeast(DRAIN),
    );
    report.one(format!("drain, {name}: duplicated"), drained.duplicated as f64, Informational);
    report
}

pub(crate) fn written(writers: u32, events: u32, written: &Written) -> Report {
    let mut report = Report::default();
    let name = format!("write, {writers} writers, {events} events");
    let (ours, raw) = (&written.ours, &written.raw);
    report.rounds(format!("{name}: raw SQL, transactions/s"), &raw.rate, Informational);
    report.rounds(format!("{name}: ours, transactions/s"), &ours.rate, Informational);
    let target = match events {
        0 => Informational,
        1 => AtLeast(WRITE_ONE),
        _ => MoreThan(1.0),
    };
    report.rounds(format!("{name}: share of raw SQL"), &ours.rate.over(&raw.rate), target);
    if !written.sea_orm.rate.is_empty() {
        let plain = &written.sea_orm.rate;
        report.rounds(format!("{name}: SeaORM by hand, transactions/s"), plain, Informational);
        report.rounds(
            format!("{name}: share of SeaORM by hand"),
            &ours.rate.over(plain),
            Informational,
        );
    }
    for (what, ours, raw) in [("p50", &ours.p50, &raw.p50), ("p99", &ours.p99, &raw.p99)] {
        report.rounds(format!("{name}: {what} of raw SQL, ms"), raw, Informational);
        report.rounds(format!("{name}: {what} of ours, ms"), ours, Informational);
    }
    report
}

/// Reports latencies at a rate; only the lower rate has targets.
pub(crate) fn latencies(rate: u32, latencies: &Latencies) -> Report {
    let mut report = Report::default();
    let name = format!("latency at {rate}/s");
    let held = rate <= 200;
    let (ours, floor) = (&latencies.ours, &latencies.floor);
    report.rounds(format!("{name}: p50 of the floor, ms"), &floor.p50, Informational);
    report.rounds(
        format!("{name}: p50 of ours, ms"),
        &ours.p50,
        if held { Below(2.0) } else { Informational },
    );
    report.rounds(format!("{name}: p99 of the floor, ms"), &floor.p99, Informational);
    report.rounds(format!("{name}: p99 of ours, ms"), &ours.p99, Informational);
    let target = if held { AtMost(2.0) } else { Informational };
    report.rounds(
        format!("{name}: p99 in multiples of the floor's"),
        &ours.p99.over(&floor.p99),
        target,
    );
    report
}

pub(crate) fn silence(seconds: u64, latencies: &Latencies) -> Report {
    let mut report = Report::default();
    let name = format!("first event after {seconds} s of silence");
    report.rounds(format!("{name}: floor, ms"), &latencies.floor.p50, Informational);
    report.rounds(format!("{name}: ours, ms"), &latencies.ours.p50, Informational);
    report
}

pub(crate) fn memory(memory: &Memory) -> Report {
    let mut report = Report::default();
    report.one("memory: growth from 10 % to 90 % of the drain, MiB", memory.grown, Below(20.0));
    report.one("memory: highest, MiB", memory.highest, Informational);
    report
}

pub(crate) fn costs(costs: &Costs) -> Report {
    let mut report = Report::default();
    let Costs { ours, floor, fill_wal } = costs;
    report.one("costs: updates of event rows", ours.updates, AtMost(0.0));
    report.one("costs: dead rows an event, floor", floor.dead, Informational);
    report.one("costs: dead rows an event, ours", ours.dead, Informational);
    report.one("costs: WAL of writing an event (INSERT .. SELECT), B", *fill_wal, Informational);
    report.one("costs: WAL of draining an event, floor, B", floor.wal, Informational);
    report.one("costs: WAL of draining an event, ours, B", ours.wal, Informational);
    report.one(
        "costs: program's CPU for a million events, floor, s",
        floor.client_cpu,
        Informational,
    );
    report.one(
        "costs: program's CPU for a million events, ours, s",
        ours.client_cpu,
        Informational,
    );
    report.one(
        "costs: server's CPU for a million events, floor, s",
        floor.server_cpu,
        Informational,
    );
    report.one("costs: server's CPU for a million events, ours, s", ours.server_cpu, Informational);
    report
}

pub(crate) fn idle(idle: &Idle) -> Report {
    let mut report = Report::default();
    report.one("idle: relay's CPU, % of a core", idle.client_cpu, Below(1.0));
    report.one("idle: server's CPU, % of a core", idle.server_cpu, Informational);
    report.one("idle: statements a second", idle.statements_a_second, AtMost(2.0));
    report
}

/// Reports what an operator's questions cost. Those that read the newest 10,000 letters, or run some
/// twenty queries, may take longer than a page.
pub(crate) fn operate(rows: u32, questions: &[Question]) -> Report {
    let mut report = Report::default();
    let floor = questions.first().map(|floor| floor.took.clone()).unwrap_or_default();
    for Question { name, took, at_most } in questions {
        let name = format!("operate, {rows} rows: {name}");
        let target = at_most.map_or(Informational, AtMost);
        report.rounds(format!("{name}, ms"), took, target);
        report.rounds(
            format!("{name}, in multiples of a look-up by key"),
            &took.over(&floor),
            Informational,
        );
    }
    report
}

/// Reports a redrive beside a relay that drains.
pub(crate) fn redrive(events: u32, redriven: &Redriven) -> Report {
    let mut report = Report::default();
    let name = format!("redrive of {} letters, {events} waiting", redriven.letters);
    report.rounds(format!("{name}: letters/s"), &redriven.redrive, AtLeast(5_000.0));
    report.rounds(format!("{name}: relay alone, events/s"), &redriven.alone, Informational);
    report.rounds(format!("{name}: relay beside it, events/s"), &redriven.beside, Informational);
    let share = redriven.beside.over(&redriven.alone);
    report.rounds(format!("{name}: relay's share of its rate alone"), &share, AtLeast(0.9));
    report
}

/// Reports what the web page costs.
pub(crate) fn pages(rows: u32, viewed: &Viewed) -> Report {
    let mut report = Report::default();
    for Page { name, took, size } in &viewed.pages {
        let name = format!("pages, {rows} rows: {name}");
        report.rounds(format!("{name}, ms"), took, AtMost(100.0));
        report.rounds(format!("{name}, KiB"), size, AtMost(100.0));
    }
    let [one, all] = viewed.statements;
    report.one("pages: statements a second of one live page", one, Informational);
    // The samples and the first read of each stream fall into either span.
    report.one("pages: those of 100 live pages, as a multiple", all / one, AtMost(1.1));
    report.one("pages: one live page, % of a core", viewed.cpu[0], Informational);
    report.one("pages: 100 live pages, % of a core", viewed.cpu[1], AtMost(5.0));
    report.one("pages: 1,000 views, CPU seconds of the program", viewed.views, Informational);
    report
}

/// Reports the outcome of messages with a slow handler. Each is run once; a delivery with a late
/// response is repeated.
pub(crate) fn slow(all: &[Slow]) -> Report {
    let mut report = Report::default();
    for slow in all {
        let name = format!("{}, {} messages, {} at once", slow.over, slow.messages, slow.at_once);
        report.one(
            format!("{name}: seconds, as a multiple of what the handlers take"),
            slow.of_the_least,
            AtMost(1.5),
        );
        report.one(
            format!("{name}: runs of the handler beyond one each"),
            slow.repeats,
            AtMost(0.0),
        );
        report.one(
            format!("{name}: deliveries that an earlier one made needless"),
            slow.suppressed,
            Informational,
        );
        report.one(format!("{name}: returned unbegun, in time"), slow.late, Informational);
        report.one(format!("{name}: answers too late (504)"), slow.timeouts, AtMost(0.0));
    }
    report
}
