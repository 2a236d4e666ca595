//! Gate P: the figures that are promised, each beside the floor or the loop by hand of the same run.
//!
//! It is measured in parts, in one sitting or in several: each part leaves a file of its revision,
//! and the table is made of all of them.

mod files;
mod measure;
mod promises;
mod table;

use anyhow::{Result, bail};
use files::{Outcome, Sitting};
use promises::Part;
use std::time::Instant;

/// Measures the parts of these names, all where there are none, and prints the table of all parts
/// that this revision has; with `is_report` only the table. Gives the figures that missed.
pub(crate) async fn run(only: &[String], is_report: bool, machine: &str) -> Result<Vec<String>> {
    let folder = files::folder()?;
    let parts = if is_report { Vec::new() } else { chosen(only)? };
    for part in parts {
        eprintln!("\n{}: {} figures", part.name(), promises::of(part).count());
        // What an earlier sitting left must not stand for one that ends half-way.
        files::remove(&folder, part)?;
        let begun = Instant::now();
        let outcome = Outcome::of(measure::part(part).await);
        if let Outcome::Void(why) = &outcome {
            eprintln!("{}: {why}", part.name());
        }
        let seconds = begun.elapsed().as_secs_f64();
        let machine = machine.to_owned();
        files::write(&folder, &Sitting { part, machine, seconds, outcome })?;
    }
    let sittings = files::read(&folder)?;
    let lines = table::lines(&sittings);
    println!("{}", table::markdown(&lines));
    for Sitting { part, machine, seconds, .. } in &sittings {
        let machine = machine.lines().next().unwrap_or_default();
        println!("{}: {seconds:.0} s, {}", part.name(), machine.trim_start_matches("- "));
    }
    println!("of {}", folder.display());
    Ok(lines.iter().filter(|line| !line.is_met()).map(table::Line::fault).collect())
}

fn chosen(only: &[String]) -> Result<Vec<Part>> {
    if only.is_empty() {
        return Ok(Part::ALL.to_vec());
    }
    let read = |name: &String| {
        let Some(part) = Part::ALL.into_iter().find(|part| part.name() == name) else {
            let names: Vec<&str> = Part::ALL.iter().map(|part| part.name()).collect();
            bail!("there is no part `{name}`; the parts are {}", names.join(", "))
        };
        Ok(part)
    };
    only.iter().map(read).collect()
}
