//! How figures change with size: relay processes, waiting events, partitions, routes, keys,
//! payloads, and the rate of events. Whatever is begun ends; nothing new begins when the time is
//! over.

use super::{
    drain::{self, Drain},
    latency::{Latency, LatencyRun},
    relays::{self, Load},
};
use crate::{
    args::Sides,
    chart::{Chart, Series},
    figures::{Report, Rounds, Target::Informational},
    load::fill::Waiting,
    machine,
};
use anyhow::{Context, Result, ensure};
use std::{
    fs,
    time::{Duration, Instant},
};

/// The parts, in the order in which they run.
const PARTS: [&str; 4] = ["processes", "shapes", "backlog", "latency"];
/// Events with which all others are compared.
const BASE: u32 = 100_000;
/// Events of processes: some seconds of work.
const SHARED: u32 = 1_000_000;
const KIB: usize = 1 << 10;
/// Waiting events of the first curve.
const BACKLOGS: [u32; 5] = [1_000, 10_000, 100_000, 1_000_000, 10_000_000];
/// Events a second of the second curve.
const RATES: [u32; 8] = [100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000];
/// A rate of which less than this share was committed is more than the machine can do.
const REACHED: f64 = 0.9;

/// The bounds of a run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// Most waiting events.
    pub(crate) events: u32,
    /// Most events a second.
    pub(crate) rate: u32,
    pub(crate) rounds: usize,
    /// The duration of one round of sending.
    pub(crate) round: Duration,
    /// The instant from which on nothing new begins.
    pub(crate) until: Instant,
}

impl Bounds {
    /// Tells whether there is time for something, and says so where there is none.
    fn begins(&self, what: &str) -> bool {
        let begins = Instant::now() < self.until;
        if !begins {
            eprintln!("not measured, as the time is over: {what}");
        }
        begins
    }
}

/// Measures the parts of these names, all where there are none.
pub(crate) async fn run(only: &[String], bounds: Bounds) -> Result<Report> {
    for name in only {
        ensure!(
            PARTS.contains(&name.as_str()),
            "there is no part `{name}`; the parts are {}",
            PARTS.join(", ")
        );
    }
    let mut report = Report::default();
    for part in PARTS {
        let is_chosen = only.is_empty() || only.iter().any(|name| name == part);
        if is_chosen && bounds.begins(part) {
            report.absorb(match part {
                "processes" => processes(bounds).await?,
                "shapes" => shapes(bounds).await?,
                "backlog" => backlog(bounds).await?,
                _ => latency(bounds).await?,
            });
        }
    }
    Ok(report)
}

/// One, two and four relay processes on one database.
async fn processes(bounds: Bounds) -> Result<Report> {
    let waiting = Waiting::usual(SHARED.min(bounds.events));
    let loads = [1, 2, 4].map(|relays| Load { waiting, relays });
    let rates = relays::run(&loads, bounds.rounds).await?;
    let mut report = Report::default();
    for (load, rate) in loads.iter().zip(&rates) {
        let name = format!("scale, {} waiting, {} relay processes", waiting.events, load.relays);
        report.rounds(format!("{name}: events/s"), rate, Informational);
        report.rounds(format!("{name}: multiple of one"), &rate.over(&rates[0]), Informational);
    }
    Ok(report)
}

/// What differs from the usual load: its name, and the load.
fn shapes_of(bounds: Bounds) -> Vec<(String, Waiting)> {
    let most = |events: u32| Waiting::usual(events.min(bounds.events));
    let of =
        |name: &str, waiting: Waiting| (format!("{name}, {} waiting", waiting.events), waiting);
    vec![
        of("more events", most(bounds.events)),
        of("128 partitions", Waiting { partitions: 128, ..most(BASE) }),
        of("100 routes", Waiting { topics: 100, ..most(BASE) }),
        of("1,000,000 keys", Waiting { keys: 1_000_000, ..most(1_000_000) }),
        of("payloads of 10 KiB", Waiting { payload: 10 * KIB, ..most(20_000) }),
        of("payloads of 1 MiB", Waiting { payload: KIB * KIB, ..most(500) }),
    ]
}

/// One relay process with loads that differ from the usual one in one thing, each beside the usual.
async fn shapes(bounds: Bounds) -> Result<Report> {
    let usual = Waiting::usual(BASE.min(bounds.events));
    let mut report = Report::default();
    for (name, waiting) in shapes_of(bounds) {
        let name = format!("scale, {name}");
        if !bounds.begins(&name) {
            continue;
        }
        let loads = [waiting, usual].map(|waiting| Load { waiting, relays: 1 });
        let rates = relays::run(&loads, bounds.rounds).await?;
        report.rounds(format!("{name}: events/s"), &rates[0], Informational);
        let share = rates[0].over(&rates[1]);
        report.rounds(format!("{name}: multiple of {BASE} usual ones"), &share, Informational);
        let mut bytes = Rounds::default();
        bytes.push(rates[0].median() * waiting.payload as f64 / (KIB * KIB) as f64);
        report.rounds(format!("{name}: MiB/s of payloads"), &bytes, Informational);
    }
    Ok(report)
}

/// Throughput against waiting events, ours beside the floor.
async fn backlog(bounds: Bounds) -> Result<Report> {
    let mut report = Report::default();
    let mut curves = ["ours", "floor"].map(|name| Series {
        name: name.to_owned(),
        is_dashed: name == "floor",
        ..Series::default()
    });
    for events in BACKLOGS.into_iter().filter(|events| *events <= bounds.events) {
        let name = format!("scale, {events} waiting");
        if !bounds.begins(&name) {
            break;
        }
        let load = Drain { events, rounds: bounds.rounds, pinned: false, sides: Sides::Both };
        let drained = drain::run(load).await?;
        for (curve, rate) in curves.iter_mut().zip([&drained.ours, &drained.floor]) {
            report.rounds(format!("{name}: {}, events/s", curve.name), rate, Informational);
            curve.points.push((events.into(), rate.median()));
        }
    }
    let chart = Chart {
        title: "Throughput against backlog".into(),
        x: "waiting events".into(),
        y: "events/s".into(),
        series: curves.into(),
        ..Chart::default()
    };
    save("throughput.svg", chart)?;
    Ok(report)
}

/// Latency against load, ours beside the floor.
async fn latency(bounds: Bounds) -> Result<Report> {
    let rates = RATES.into_iter().filter(|rate| *rate <= bounds.rate);
    let seconds = bounds.round.as_secs_f64();
    let events: f64 = rates.clone().map(|rate| f64::from(rate) * seconds).sum();
    // Both sides use numbers, and so does the warm-up.
    let mut run = LatencyRun::open((events * bounds.rounds as f64 * 2.0) as usize + 1_000).await?;
    let mut report = Report::default();
    let mut curves = ["ours, p50", "ours, p99", "floor, p50", "floor, p99"].map(|name| Series {
        name: name.to_owned(),
        is_dashed: name.starts_with("floor"),
        ..Series::default()
    });
    for rate in rates {
        let name = format!("scale, {rate} events/s");
        if !bounds.begins(&name) {
            break;
        }
        let load = Latency { rate, rounds: bounds.rounds, round: bounds.round };
        let latencies = run.run(load).await?;
        let (ours, floor) = (&latencies.ours, &latencies.floor);
        report.rounds(format!("{name}: committed by ours, events/s"), &ours.rate, Informational);
        report.rounds(format!("{name}: committed by floor, events/s"), &floor.rate, Informational);
        for (curve, took) in curves.iter_mut().zip([&ours.p50, &ours.p99, &floor.p50, &floor.p99]) {
            report.rounds(format!("{name}: {}, ms", curve.name), took, Informational);
            curve.points.push((rate.into(), took.median()));
        }
        let reached = ours.rate.median().min(floor.rate.median()) / f64::from(rate);
        if reached < REACHED {
            eprintln!("the machine commits {:.0} % of {rate} events/s", reached * 100.0);
            break;
        }
    }
    run.close().await?;
    let chart = Chart {
        title: "From commit to receipt against load".into(),
        x: "events a second".into(),
        y: "ms".into(),
        series: curves.into(),
        ..Chart::default()
    };
    save("latency.svg", chart)?;
    Ok(report)
}

/// Writes a picture to the documents, with the revision of its figures; one without points leaves
/// that which is there.
fn save(name: &str, chart: Chart) -> Result<()> {
    if chart.series.iter().all(|series| series.points.is_empty()) {
        return Ok(());
    }
    let cores = std::thread::available_parallelism()?;
    let note = format!("{cores} cores, revision {}", machine::revision()?);
    let file = machine::workspace().join("docs/images").join(name);
    let svg = Chart { note, ..chart }.to_svg();
    fs::write(&file, svg).with_context(|| format!("{} cannot be written", file.display()))?;
    println!("wrote {}", file.display());
    Ok(())
}
