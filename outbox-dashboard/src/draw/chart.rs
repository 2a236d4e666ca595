//! Lines over the last day: one small picture a figure, which is as wide as its place.

use crate::page::text::{Markup, escaped};
use std::fmt::Write;

/// Width and height of the picture in its own units; the style sheet stretches it.
const SIZE: (f64, f64) = (288.0, 64.0);
/// Parts at the end that are now: the present one may have no value yet.
const NOW: usize = 2;
/// Vertical lines: every six hours of a day.
const QUARTERS: u32 = 4;

/// A line of a chart: a value for each part of the day, `None` where nothing was written.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Line {
    /// What it is, in a word.
    pub(crate) name: &'static str,
    /// The class of the style sheet.
    pub(crate) class: &'static str,
    pub(crate) values: Vec<Option<f64>>,
}

impl Line {
    fn known(&self) -> impl Iterator<Item = f64> {
        self.values.iter().flatten().copied().filter(|value| value.is_finite())
    }

    /// Gives the value of now: the newest of the last parts. An older one is not what is now.
    pub(crate) fn now(&self) -> Option<f64> {
        let newest = self.values.iter().rev().take(NOW);
        newest.flatten().copied().find(|value| value.is_finite())
    }

    /// Gives the highest value.
    pub(crate) fn highest(&self) -> Option<f64> {
        self.known().reduce(f64::max)
    }
}

/// Gives the top of the scale: the next of 1, 2, 5, 10, 20.. that is not below the highest value.
fn top(lines: &[Line]) -> f64 {
    let highest = lines.iter().filter_map(Line::highest).fold(0.0, f64::max);
    if highest <= 0.0 {
        return 1.0;
    }
    let power = 10_f64.powf(highest.log10().floor());
    [1.0, 2.0, 5.0, 10.0]
        .map(|step| step * power)
        .into_iter()
        .find(|top| *top >= highest)
        .unwrap_or(highest)
}

/// Writes the path of a line; parts without a value break it, and one alone is a short dash.
fn path(values: &[Option<f64>], top: f64) -> String {
    let mut path = String::new();
    let step = SIZE.0 / values.len().max(1) as f64;
    let mut is_drawn = false;
    for (place, value) in values.iter().enumerate() {
        let Some(value) = value.filter(|value| value.is_finite()) else {
            is_drawn = false;
            continue;
        };
        let (x, y) =
            (step * place as f64, SIZE.1 - 1.0 - (value / top).clamp(0.0, 1.0) * (SIZE.1 - 2.0));
        // Writing into a string does not fail.
        let _ = match is_drawn {
            true => write!(path, "L{:.1} {y:.1}", x + step / 2.0),
            false => write!(path, "M{x:.1} {y:.1}h{:.1}", step / 2.0),
        };
        is_drawn = true;
    }
    path
}

/// Draws lines on one scale, which begins at zero. `say` says them in words, for those who do not
/// see them; `written` writes a value of the scale.
pub(crate) fn draw(lines: &[Line], say: &str, written: impl Fn(f64) -> String) -> Markup {
    let top = top(lines);
    let (width, height) = SIZE;
    let mut svg = format!(
        "<svg class=\"chart\" viewBox=\"0 0 {width} {height}\" preserveAspectRatio=\"none\" role=\"img\" aria-label=\"{}\">",
        escaped(say)
    );
    for quarter in 1..QUARTERS {
        let x = width / f64::from(QUARTERS) * f64::from(quarter);
        let _ = write!(svg, "<path class=\"grid\" d=\"M{x} 0V{height}\"/>");
    }
    let _ = write!(svg, "<path class=\"axis\" d=\"M0 {0}H{width}\"/>", height - 0.5);
    for line in lines {
        let _ =
            write!(svg, "<path class=\"line {}\" d=\"{}\"/>", line.class, path(&line.values, top));
    }
    svg.push_str("</svg>");
    let scale = format!("<span class=\"scale\">{}</span>", escaped(&written(top)));
    Markup::escaped(format!("<div class=\"plot\">{scale}{svg}</div>"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(values: &[Option<f64>]) -> Line {
        Line { name: "delivered", class: "good", values: values.to_vec() }
    }

    #[test]
    fn the_scale_ends_at_a_round_figure_that_is_not_below_the_highest() {
        for (highest, expected) in [
            (0.0, 1.0),
            (0.3, 0.5),
            (1.0, 1.0),
            (1.1, 2.0),
            (7.0, 10.0),
            (120.0, 200.0),
            (99_999.0, 100_000.0),
        ] {
            let top = top(&[line(&[Some(0.0), Some(highest)])]);
            assert!((top - expected).abs() < expected / 1e6, "{highest}: {top}");
        }
    }

    #[test]
    fn a_line_breaks_where_nothing_was_written() {
        let path = path(&[Some(0.0), Some(1.0), None, Some(1.0), None, None], 1.0);
        assert_eq!(path, "M0.0 63.0h24.0L72.0 1.0M144.0 1.0h24.0");
        assert_eq!(super::path(&[], 1.0), "");
        assert_eq!(super::path(&[Some(f64::NAN), Some(f64::INFINITY)], 1.0), "");
    }

    #[test]
    fn a_value_above_the_scale_stays_in_the_picture() {
        assert_eq!(path(&[Some(9.0), Some(-9.0)], 1.0), "M0.0 1.0h72.0L216.0 63.0");
    }

    #[test]
    fn a_chart_says_itself_in_words() {
        let svg = draw(&[line(&[Some(1.0)])], "now <1>", |top| format!("{top}/s"));
        assert!(svg.as_str().contains("aria-label=\"now &lt;1&gt;\""), "{}", svg.as_str());
        assert!(svg.as_str().contains(">1/s</span>") && !svg.as_str().contains("style="));
    }
}
