//! What each bench tells, and what its figures are held to.

use crate::{
    args::Kept,
    figures::{
        Report,
        Target::{AtLeast, AtMost, Below, MoreThan, Told},
    },
    stages::{
        asks::Asked,
        consume::{BATCH, Consumed},
        costs::Costs,
        drain::Drained,
        idle::Idle,
        kafka::Produced,
        latency::Latencies,
        memory::Memory,
        publish::Published,
        sagas::{InFlight, Steps},
        slow::Slow,
        write::Written,
    },
};

/// Share of the floor that a drain is held to.
const DRAIN: f64 = 0.6;
/// Share of raw SQL that a transaction with one event is held to.
const WRITE_ONE: f64 = 0.9;

/// Share of a loop by hand that publishing to a broker is held to.
const PUBLISH: f64 = 0.8;

pub(crate) fn published(broker: &str, events: u32, published: &Published) -> Report {
    let mut report = Report::default();
    let name = format!("{broker}, {events} waiting");
    report.rounds(format!("{name}: by hand, events/s"), &published.by_hand, Told);
    report.rounds(format!("{name}: ours, events/s"), &published.ours, Told);
    let share = published.ours.over(&published.by_hand);
    report.rounds(format!("{name}: share of the loop by hand"), &share, AtLeast(PUBLISH));
    report
}

/// Tells what went to Kafka. A broker that keeps records in a file makes a row of each header, of which ours has more than a loop
/// needs: what is held to the target there is the share of a loop with the same records.
pub(crate) fn produced(broker: &str, kept: Kept, events: u32, produced: &Produced) -> Report {
    let mut report = Report::default();
    let name = format!("{broker}, {events} waiting");
    report.rounds(format!("{name}: by hand, our records, events/s"), &produced.same, Told);
    report.rounds(
        format!("{name}: by hand, records of three headers, events/s"),
        &produced.lean,
        Told,
    );
    report.rounds(format!("{name}: ours, events/s"), &produced.ours, Told);
    let (same, lean) = (produced.ours.over(&produced.same), produced.ours.over(&produced.lean));
    report.rounds(
        format!("{name}: share of the loop by hand with our records"),
        &same,
        AtLeast(PUBLISH),
    );
    let target = if kept == Kept::Memory { AtLeast(PUBLISH) } else { Told };
    report.rounds(
        format!("{name}: share of the loop by hand with records of three headers"),
        &lean,
        target,
    );
    report
}

/// Share of a loop by hand that receiving from a broker is held to, one by one.
const CONSUME: f64 = 0.8;

pub(crate) fn consumed(broker: &str, messages: u32, consumed: &Consumed) -> Report {
    let mut report = Report::default();
    let name = format!("{broker}, {messages} received");
    report.rounds(format!("{name}: by hand, messages/s"), &consumed.by_hand, Told);
    report.rounds(format!("{name}: by hand, each once, messages/s"), &consumed.once, Told);
    report.rounds(format!("{name}: ours, messages/s"), &consumed.ours, Told);
    report.rounds(
        format!("{name}: ours in batches of {BATCH}, messages/s"),
        &consumed.batched,
        Told,
    );
    let (one_by_one, batched) =
        (consumed.ours.over(&consumed.by_hand), consumed.batched.over(&consumed.by_hand));
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
        Told,
    );
    report.rounds(
        format!("{name}: share of the loop by hand that does each once, in batches"),
        &batched,
        Told,
    );
    report
}

/// Share of the same transactions by hand that steps are held to.
const STEPS: f64 = 0.5;
/// Share of the rate with one other saga in flight that the rate with many is held to.
const IN_FLIGHT: f64 = 0.8;

pub(crate) fn steps(at_once: usize, steps: &Steps) -> Report {
    let mut report = Report::default();
    let name = format!("sagas, {at_once} at once");
    report.rounds(format!("{name}: by hand, steps/s"), &steps.by_hand, Told);
    report.rounds(format!("{name}: ours, steps/s"), &steps.ours, Told);
    report.rounds(
        format!("{name}: share of the steps by hand"),
        &steps.ours.over(&steps.by_hand),
        AtLeast(STEPS),
    );
    report
}

/// Share of the same transactions by hand that steps are held to that another service does, in process.
const ASKED: f64 = 0.3;

pub(crate) fn asked(at_once: usize, asked: &Asked) -> Report {
    let mut report = Report::default();
    let name = format!("asked steps, {at_once} at once");
    report.rounds(format!("{name}: by hand, no transport, steps/s"), &asked.by_hand, Told);
    for (over, ours, target) in
        [("in process", &asked.memory, AtLeast(ASKED)), ("over RabbitMQ", &asked.rabbit, Told)]
    {
        report.rounds(format!("{name}: ours {over}, steps/s"), ours, Told);
        let share = ours.over(&asked.by_hand);
        report.rounds(format!("{name}: ours {over}, share of the steps by hand"), &share, target);
    }
    report
}

pub(crate) fn in_flight(others: u32, flown: &InFlight) -> Report {
    let mut report = Report::default();
    report.rounds("sagas, one other in flight: sagas/s", &flown.one, Told);
    let name = format!("sagas, {others} others in flight");
    report.rounds(format!("{name}: sagas/s"), &flown.many, Told);
    report.rounds(
        format!("{name}: share of the rate with one"),
        &flown.many.over(&flown.one),
        AtLeast(IN_FLIGHT),
    );
    report
}

pub(crate) fn drained(name: &str, drained: &Drained) -> Report {
    let mut report = Report::default();
    report.rounds(format!("drain, {name}: floor, events/s"), &drained.floor, Told);
    report.rounds(format!("drain, {name}: ours, events/s"), &drained.ours, Told);
    report.rounds(
        format!("drain, {name}: share of the floor"),
        &drained.ours.over(&drained.floor),
        AtLeast(DRAIN),
    );
    report.one(format!("drain, {name}: duplicated"), drained.duplicated as f64, Told);
    report
}

pub(crate) fn written(writers: u32, events: u32, written: &Written) -> Report {
    let mut report = Report::default();
    let name = format!("write, {writers} writers, {events} events");
    let (ours, raw) = (&written.ours, &written.raw);
    report.rounds(format!("{name}: raw SQL, transactions/s"), &raw.rate, Told);
    report.rounds(format!("{name}: ours, transactions/s"), &ours.rate, Told);
    let target = match events {
        0 => Told,
        1 => AtLeast(WRITE_ONE),
        _ => MoreThan(1.0),
    };
    report.rounds(format!("{name}: share of raw SQL"), &ours.rate.over(&raw.rate), target);
    for (what, ours, raw) in [("p50", &ours.p50, &raw.p50), ("p99", &ours.p99, &raw.p99)] {
        report.rounds(format!("{name}: {what} of raw SQL, ms"), raw, Told);
        report.rounds(format!("{name}: {what} of ours, ms"), ours, Told);
    }
    report
}

/// Tells latencies at a rate; only the lower rate has targets.
pub(crate) fn latencies(rate: u32, latencies: &Latencies) -> Report {
    let mut report = Report::default();
    let name = format!("latency at {rate}/s");
    let held = rate <= 200;
    let (ours, floor) = (&latencies.ours, &latencies.floor);
    report.rounds(format!("{name}: p50 of the floor, ms"), &floor.p50, Told);
    report.rounds(
        format!("{name}: p50 of ours, ms"),
        &ours.p50,
        if held { Below(2.0) } else { Told },
    );
    report.rounds(format!("{name}: p99 of the floor, ms"), &floor.p99, Told);
    report.rounds(format!("{name}: p99 of ours, ms"), &ours.p99, Told);
    let target = if held { AtMost(2.0) } else { Told };
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
    report.rounds(format!("{name}: floor, ms"), &latencies.floor.p50, Told);
    report.rounds(format!("{name}: ours, ms"), &latencies.ours.p50, Told);
    report
}

pub(crate) fn memory(memory: &Memory) -> Report {
    let mut report = Report::default();
    report.one("memory: growth from 10 % to 90 % of the drain, MiB", memory.grown, Below(20.0));
    report.one("memory: highest, MiB", memory.highest, Told);
    report
}

pub(crate) fn costs(costs: &Costs) -> Report {
    let mut report = Report::default();
    let Costs { ours, floor, fill_wal } = costs;
    report.one("costs: updates of event rows", ours.updates, AtMost(0.0));
    report.one("costs: dead rows an event, floor", floor.dead, Told);
    report.one("costs: dead rows an event, ours", ours.dead, Told);
    report.one("costs: WAL of writing an event (INSERT .. SELECT), B", *fill_wal, Told);
    report.one("costs: WAL of draining an event, floor, B", floor.wal, Told);
    report.one("costs: WAL of draining an event, ours, B", ours.wal, Told);
    report.one("costs: program's CPU for a million events, floor, s", floor.client_cpu, Told);
    report.one("costs: program's CPU for a million events, ours, s", ours.client_cpu, Told);
    report.one("costs: server's CPU for a million events, floor, s", floor.server_cpu, Told);
    report.one("costs: server's CPU for a million events, ours, s", ours.server_cpu, Told);
    report
}

pub(crate) fn idle(idle: &Idle) -> Report {
    let mut report = Report::default();
    report.one("idle: relay's CPU, % of a core", idle.client_cpu, Below(1.0));
    report.one("idle: server's CPU, % of a core", idle.server_cpu, Told);
    report.one("idle: statements a second", idle.statements_a_second, AtMost(2.0));
    report
}

/// Tells what became of messages whose handler is slow. Each is run once; what is said to be late is delivered again.
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
            Told,
        );
        report.one(format!("{name}: returned unbegun, in time"), slow.late, Told);
        report.one(format!("{name}: answers too late (504)"), slow.timeouts, AtMost(0.0));
    }
    report
}
