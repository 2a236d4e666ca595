//! What was measured at one revision, a file for each part.

use super::promises::{Figure, Part};
use crate::{figures::Rounds, machine};
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use std::{
    env, fs,
    io::ErrorKind,
    path::{Path, PathBuf},
};

/// A figure as it was measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Measured {
    pub(super) figure: Figure,
    pub(super) ours: f64,
    /// The floor, the loop by hand, or a limit; none where the figure is ours alone.
    pub(super) other: Option<f64>,
    /// What the target is for: the median of the rounds' ratios, or ours alone.
    pub(super) value: f64,
    pub(super) low: f64,
    pub(super) high: f64,
}

impl Measured {
    /// Compares two sides round by round.
    pub(super) fn share(figure: Figure, ours: &Rounds, other: &Rounds) -> Self {
        let share = ours.over(other);
        let (low, high) = share.range();
        let (ours, other) = (ours.median(), Some(other.median()));
        Self { figure, ours, other, value: share.median(), low, high }
    }

    /// One measurement, beside a limit or alone.
    pub(super) fn one(figure: Figure, ours: f64, limit: Option<f64>) -> Self {
        let value = limit.map_or(ours, |limit| ours / limit);
        Self { figure, ours, other: limit, value, low: value, high: value }
    }

    fn is_a_number(&self) -> bool {
        let values = [self.ours, self.other.unwrap_or_default(), self.value, self.low, self.high];
        values.iter().all(|value| value.is_finite())
    }
}

/// How a part ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Outcome {
    Measured(Vec<Measured>),
    /// A message was lost, doubled or reordered, or a side did not end: why.
    Void(String),
}

impl Outcome {
    /// Makes one of what a part gave.
    pub(super) fn of(measured: Result<Vec<Measured>>) -> Self {
        match measured {
            Ok(figures) if figures.iter().all(Measured::is_a_number) => Self::Measured(figures),
            Ok(figures) => Self::Void(format!("a side has no figure: {figures:?}")),
            Err(error) => Self::Void(format!("{error:#}")),
        }
    }
}

/// A part that was measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Sitting {
    pub(super) part: Part,
    pub(super) machine: String,
    pub(super) seconds: f64,
    pub(super) outcome: Outcome,
}

/// Gives the folder of this revision, and makes it where it is missing.
pub(super) fn folder() -> Result<PathBuf> {
    let target = env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| machine::workspace().join("target"), PathBuf::from);
    let folder = target.join("gate-p").join(machine::revision()?);
    fs::create_dir_all(&folder)?;
    Ok(folder)
}

fn file(folder: &Path, part: Part) -> PathBuf {
    folder.join(part.name()).with_extension("json")
}

/// Removes the file of a part, if there is one.
pub(super) fn remove(folder: &Path, part: Part) -> Result<()> {
    match fs::remove_file(file(folder, part)) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}

/// Writes the file of a part.
pub(super) fn write(folder: &Path, sitting: &Sitting) -> Result<()> {
    let text = serde_json::to_string_pretty(sitting)?;
    Ok(fs::write(file(folder, sitting.part), text)?)
}

/// Reads the files of all parts that have one.
pub(super) fn read(folder: &Path) -> Result<Vec<Sitting>> {
    let mut sittings = Vec::new();
    for part in Part::ALL {
        let file = file(folder, part);
        match fs::read_to_string(&file) {
            Ok(text) => sittings.push(
                serde_json::from_str(&text)
                    .with_context(|| format!("{} is none of ours", file.display()))?,
            ),
            Err(error) if error.kind() == ErrorKind::NotFound => (),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(sittings)
}
