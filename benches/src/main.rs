//! The figures of the README, each beside its baseline. `RESULTS.md` has the recorded ones.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command tells its results")]
#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "figures are counts and spans that are small and not negative"
)]

mod args;
mod chart;
mod child;
mod environment;
mod figures;
mod gate;
mod gate_p;
mod load;
mod machine;
mod report;
mod stages;

use anyhow::{Result, bail};
use args::{Args, Bench};
use environment::Environment;
use figures::Report;
use load::fill::Waiting;
use stages::{
    costs,
    drain::{self, Drain},
    idle, memory, operate, pages, redrive, scale, slow,
};
use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

/// Rounds of a redrive unless the command line says otherwise: each fills the outbox twice.
const REDRIVES: usize = 3;
/// Most events of a scale, its rounds and its minutes unless the command line says otherwise.
const SCALE_EVENTS: u32 = 1_000_000;
const SCALE_ROUNDS: usize = 1;
const SCALE_MINUTES: u64 = 20;

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(missed) if missed.is_empty() => ExitCode::SUCCESS,
        Ok(missed) => {
            println!("missed: {}", missed.join("; "));
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::from(2)
        }
    }
}

/// Runs the benchmark of the command line, and names the targets that were missed.
async fn run() -> Result<Vec<String>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if let Some(ended) = child::run(&words).await {
        return ended.map(|()| Vec::new());
    }
    let args = Args::read(words.into_iter())?;
    let begun = Instant::now();
    let machine = machine::describe(&Environment::shared(1).await?.pool).await?;
    println!("{machine}");
    if args.bench == Bench::GateP {
        return gate_p::run(&args.parts, args.is_report, &machine).await;
    }
    let report = measure(&args).await?;
    println!("{report}\nmeasured in {:.0} s", begun.elapsed().as_secs_f64());
    Ok(report.missed().into_iter().map(str::to_owned).collect())
}

async fn measure(args: &Args) -> Result<Report> {
    let (events, rounds) = gate::or_as_the_gate(args);
    let round = |usual: u64| args.round.unwrap_or(Duration::from_secs(usual));
    let (pinned, sides) = (args.pinned, args.sides);
    Ok(match args.bench {
        Bench::Drain => {
            let drained = drain::run(Drain { events, rounds, pinned, sides }).await?;
            report::drained(
                &format!("{events} waiting{}", if pinned { ", pinned" } else { "" }),
                &drained,
            )
        }
        Bench::Costs => report::costs(&costs::run(events, sides).await?),
        Bench::Memory => {
            report::memory(&memory::run(Waiting::usual(args.events.unwrap_or(1_000_000))).await?)
        }
        Bench::Idle => report::idle(&idle::run(round(60)).await?),
        Bench::Write => gate::write(rounds, round(1), sides).await?,
        Bench::Latency => gate::latency(rounds, round(5)).await?,
        Bench::Sagas => gate::sagas(rounds, sides).await?,
        Bench::Asks => gate::asks(args.events.unwrap_or(gate::SAGAS), rounds, sides).await?,
        Bench::Publish => gate::publish(args.broker, events, rounds, sides).await?,
        Bench::Consume => {
            gate::consume(args.broker, args.events.unwrap_or(gate::MESSAGES), rounds, sides).await?
        }
        Bench::Operate => {
            let rows = args.events.unwrap_or(operate::ROWS);
            report::operate(rows, &operate::run(rows, rounds).await?)
        }
        Bench::Redrive => {
            let events = args.events.unwrap_or(redrive::EVENTS);
            report::redrive(events, &redrive::run(events, args.rounds.unwrap_or(REDRIVES)).await?)
        }
        Bench::Pages => {
            let rows = args.events.unwrap_or(operate::ROWS);
            report::pages(rows, &pages::run(rows, rounds).await?)
        }
        Bench::Slow => report::slow(&slow::run(args.events.unwrap_or(400)).await?),
        Bench::Scale => scale::run(&args.parts, bounds(args)).await?,
        Bench::GateP => bail!("it has a table of its own"),
        Bench::Gate => gate::a3().await?,
        Bench::GateB => gate::b().await?,
        Bench::GateC1 => gate::c1().await?,
        Bench::GateC2 => gate::c2().await?,
        Bench::GateE1 => gate::e1().await?,
        Bench::GateE2 => gate::e2().await?,
    })
}

/// The bounds of a scale: with the defaults a sitting takes less than 20 minutes on two cores.
fn bounds(args: &Args) -> scale::Bounds {
    let minutes = args.minutes.unwrap_or(SCALE_MINUTES);
    scale::Bounds {
        events: args.events.unwrap_or(SCALE_EVENTS),
        rate: args.rate.unwrap_or(u32::MAX),
        rounds: args.rounds.unwrap_or(SCALE_ROUNDS),
        round: args.round.unwrap_or(Duration::from_secs(3)),
        until: Instant::now() + Duration::from_secs(minutes.saturating_mul(60)),
    }
}
