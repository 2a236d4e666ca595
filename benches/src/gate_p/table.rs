//! The table of the gate: every promise, with what was measured.

use super::{
    files::{Measured, Outcome, Sitting},
    promises::{PROMISES, Promise},
};
use crate::figures::short;

/// A promise, and what is known of it.
pub(super) struct Line<'a> {
    promise: &'static Promise,
    found: Found<'a>,
}

enum Found<'a> {
    Measured(&'a Measured),
    /// The part was run, and its figures count for nothing: why.
    Void(&'a str),
    NotRun,
}

/// Puts what was measured beside what is promised.
pub(super) fn lines(sittings: &[Sitting]) -> Vec<Line<'_>> {
    let line = |promise: &'static Promise| {
        let sitting = sittings.iter().find(|sitting| sitting.part == promise.part);
        let found = match sitting.map(|sitting| &sitting.outcome) {
            None => Found::NotRun,
            Some(Outcome::Void(why)) => Found::Void(why),
            Some(Outcome::Measured(figures)) => figures
                .iter()
                .find(|measured| measured.figure == promise.figure)
                .map_or(Found::NotRun, Found::Measured),
        };
        Line { promise, found }
    };
    PROMISES.iter().map(line).collect()
}

/// Writes the table in Markdown.
pub(super) fn markdown(lines: &[Line<'_>]) -> String {
    let head = "| figure | ours | floor or by hand | ratio | spread | target | |\n\
                | --- | --- | --- | --- | --- | --- | --- |\n";
    lines.iter().fold(head.to_owned(), |text, line| text + &line.markdown() + "\n")
}

impl Line<'_> {
    /// Tells whether it was measured and reaches its target.
    pub(super) fn is_met(&self) -> bool {
        match self.found {
            Found::Measured(measured) => self.promise.target.is_met(measured.value),
            Found::Void(_) | Found::NotRun => false,
        }
    }

    /// Says what is wrong with it.
    pub(super) fn fault(&self) -> String {
        let Promise { name, part, .. } = self.promise;
        match self.found {
            Found::Measured(_) => (*name).to_owned(),
            Found::Void(_) => format!("{name} (void)"),
            Found::NotRun => format!("{name} (not run: --only {})", part.name()),
        }
    }

    fn markdown(&self) -> String {
        let Promise { name, target, .. } = self.promise;
        match self.found {
            Found::Measured(measured) => {
                let Measured { ours, other, value, low, high, .. } = measured;
                let ratio = other.map_or("-".into(), |_| short(*value));
                let spread = if low == high {
                    "-".into()
                } else {
                    format!("{} to {}", short(*low), short(*high))
                };
                let other = other.map_or("-".into(), short);
                let outcome = if self.is_met() { "met" } else { "**missed**" };
                let ours = short(*ours);
                format!("| {name} | {ours} | {other} | {ratio} | {spread} | {target} | {outcome} |")
            }
            Found::Void(why) => {
                let why = why.replace(['\n', '|'], " ");
                format!("| {name} | - | - | - | - | {target} | **void**: {why} |")
            }
            Found::NotRun => format!("| {name} | - | - | - | - | {target} | **not run** |"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        figures::Rounds,
        gate_p::promises::{Figure, Part},
    };

    fn rounds(values: &[f64]) -> Rounds {
        let mut rounds = Rounds::default();
        rounds.extend(values.iter().copied());
        rounds
    }

    fn sitting(part: Part, outcome: Outcome) -> Sitting {
        Sitting { part, machine: String::new(), seconds: 1.0, outcome }
    }

    #[test]
    fn what_was_not_run_or_is_void_or_misses_fails_the_gate_and_says_so() {
        let ours = rounds(&[90.0, 80.0, 100.0]);
        let floor = rounds(&[100.0, 100.0, 100.0]);
        let sittings = [
            sitting(
                Part::Drain,
                Outcome::Measured(vec![
                    Measured::share(Figure::DrainInOrder, &ours, &floor),
                    Measured::share(Figure::DrainPinned, &floor, &rounds(&[200.0; 3])),
                ]),
            ),
            sitting(Part::Backlog, Outcome::Void("1 lost".into())),
            sitting(
                Part::Memory,
                Outcome::Measured(vec![Measured::one(Figure::MemoryOfBacklog, 41.7, None)]),
            ),
        ];
        let lines = lines(&sittings);
        let table = markdown(&lines);
        for line in [
            "| 100,000 waiting, in order, events/s | 90.0 | 100 | 0.90 | 0.80 to 1.00 | at least 0.85 | met |",
            "| 100,000 waiting, a transaction pinned, events/s | 100 | 200 | 0.50 | - | at least 0.85 | **missed** |",
            "| 10,000,000 waiting, events/s | - | - | - | - | at least 0.85 | **void**: 1 lost |",
            "| 4 relay processes beside one, events/s | - | - | - | - | at least 1.00 | **not run** |",
            "| memory while 10,000,000 drain, MiB | 41.7 | - | - | - | at most 100 | met |",
        ] {
            assert!(table.contains(line), "{line}\n{table}");
        }
        assert_eq!(lines.iter().filter(|line| line.is_met()).count(), 2);
        let faults: Vec<String> = lines.iter().map(Line::fault).collect();
        assert!(
            faults[3].ends_with("(not run: --only relays)") && faults[2].ends_with("(void)"),
            "{faults:?}"
        );
    }
}
