//! Figures: medians with their range, percentiles, and targets.

use std::fmt;

/// Values of one figure, one a round.
#[derive(Debug, Clone, Default)]
pub(crate) struct Rounds(Vec<f64>);

impl Rounds {
    pub(crate) fn push(&mut self, value: f64) {
        self.0.push(value);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The middle one; `NaN` of none.
    pub(crate) fn median(&self) -> f64 {
        percentile(&self.0, 0.5)
    }

    /// The lowest and the highest one.
    pub(crate) fn range(&self) -> (f64, f64) {
        let fold = |start: f64, pick: fn(f64, f64) -> f64| self.0.iter().copied().fold(start, pick);
        (fold(f64::INFINITY, f64::min), fold(f64::NEG_INFINITY, f64::max))
    }

    /// Divides round by round.
    pub(crate) fn over(&self, other: &Self) -> Self {
        Self(self.0.iter().zip(&other.0).map(|(a, b)| a / b).collect())
    }
}

impl Extend<f64> for Rounds {
    fn extend<T: IntoIterator<Item = f64>>(&mut self, iter: T) {
        self.0.extend(iter);
    }
}

impl fmt::Display for Rounds {
    /// Median and range.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (low, high) = self.range();
        match self.0.len() {
            0 => f.write_str("-"),
            1 => f.write_str(&short(low)),
            _ => write!(f, "{} ({} to {})", short(self.median()), short(low), short(high)),
        }
    }
}

/// Gives a percentile by the nearest rank, such as 0.99; `NaN` of none.
pub(crate) fn percentile(values: &[f64], rank: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = (sorted.len() as f64 * rank).ceil() as usize;
    sorted
        .get(at.saturating_sub(1).min(sorted.len().saturating_sub(1)))
        .copied()
        .unwrap_or(f64::NAN)
}

/// Writes a number with three or four significant digits.
pub(crate) fn short(value: f64) -> String {
    match value.abs() {
        v if v >= 10_000.0 => grouped(value.round()),
        v if v >= 100.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

fn grouped(value: f64) -> String {
    let digits = format!("{:.0}", value.abs());
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    if value < 0.0 { format!("-{text}") } else { text }
}

/// The target of a figure.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Target {
    /// None: the figure is informational.
    Informational,
    AtLeast(f64),
    MoreThan(f64),
    AtMost(f64),
    Below(f64),
}

impl Target {
    /// Tells whether a figure reaches it; one that is no number does not.
    pub(crate) fn is_met(self, value: f64) -> bool {
        match self {
            Self::Informational => true,
            Self::AtLeast(t) => value >= t,
            Self::MoreThan(t) => value > t,
            Self::AtMost(t) => value <= t,
            Self::Below(t) => value < t,
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Informational => f.write_str("-"),
            Self::AtLeast(t) => write!(f, "at least {}", short(*t)),
            Self::MoreThan(t) => write!(f, "more than {}", short(*t)),
            Self::AtMost(t) => write!(f, "at most {}", short(*t)),
            Self::Below(t) => write!(f, "below {}", short(*t)),
        }
    }
}

/// One line of a report.
#[derive(Debug, Clone)]
pub(crate) struct Figure {
    name: String,
    value: f64,
    spread: String,
    target: Target,
}

/// All lines of a report.
#[derive(Debug, Clone, Default)]
pub(crate) struct Report(Vec<Figure>);

impl Report {
    /// Adds a figure of several rounds: its median counts.
    pub(crate) fn rounds(&mut self, name: impl Into<String>, rounds: &Rounds, target: Target) {
        self.0.push(Figure {
            name: name.into(),
            value: rounds.median(),
            spread: rounds.to_string(),
            target,
        });
    }

    /// Adds a figure of one measurement.
    pub(crate) fn one(&mut self, name: impl Into<String>, value: f64, target: Target) {
        self.0.push(Figure { name: name.into(), value, spread: short(value), target });
    }

    pub(crate) fn absorb(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    /// Names the figures that miss their targets.
    pub(crate) fn missed(&self) -> Vec<&str> {
        self.0
            .iter()
            .filter(|figure| !figure.target.is_met(figure.value))
            .map(|figure| figure.name.as_str())
            .collect()
    }
}

impl fmt::Display for Report {
    /// A table in Markdown.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "| figure | median (range) | target | |\n| --- | --- | --- | --- |")?;
        for Figure { name, value, spread, target } in &self.0 {
            let outcome = match target {
                Target::Informational => "",
                target if target.is_met(*value) => "met",
                _ => "**missed**",
            };
            writeln!(f, "| {name} | {spread} | {target} | {outcome} |")?;
        }
        Ok(())
    }
}
