//! Curves as SVG: two logarithmic axes, a line for each series, text that stays text, colours for
//! light and dark.

use crate::figures::short;
use std::fmt::Write as _;

/// The picture, in pixels.
const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 400.0;
/// Room for the texts around the curves.
const LEFT: f64 = 76.0;
const RIGHT: f64 = 24.0;
const TOP: f64 = 72.0;
const BOTTOM: f64 = 52.0;

const STYLE: &str = "text{font:13px system-ui,sans-serif;fill:#1f2328}\
    .title{font-weight:600;font-size:15px}.note{fill:#59636e}.grid{stroke:#d1d9e0}\
    .line{fill:none;stroke-width:2}.dashed{stroke-dasharray:6 4}\
    .s0{stroke:#0969da}.s1{stroke:#bc4c00}.s2{stroke:#59636e}.s3{stroke:#9a6700}\
    .d0{fill:#0969da}.d1{fill:#bc4c00}.d2{fill:#59636e}.d3{fill:#9a6700}\
    @media (prefers-color-scheme:dark){text{fill:#f0f6fc}.note{fill:#9198a1}.grid{stroke:#3d444d}\
    .s0{stroke:#4493f8}.s1{stroke:#f0883e}.s2{stroke:#9198a1}.s3{stroke:#d29922}\
    .d0{fill:#4493f8}.d1{fill:#f0883e}.d2{fill:#9198a1}.d3{fill:#d29922}}";

/// A picture of some series over one axis.
#[derive(Debug, Clone, Default)]
pub(crate) struct Chart {
    pub(crate) title: String,
    /// The machine, the revision.
    pub(crate) note: String,
    pub(crate) x: String,
    pub(crate) y: String,
    pub(crate) series: Vec<Series>,
}

/// One curve; at most four have colours of their own.
#[derive(Debug, Clone, Default)]
pub(crate) struct Series {
    pub(crate) name: String,
    pub(crate) is_dashed: bool,
    /// Positive numbers.
    pub(crate) points: Vec<(f64, f64)>,
}

/// A logarithmic axis from a power of ten to another, and its place in the picture.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Axis {
    first: i32,
    last: i32,
    begin: f64,
    end: f64,
}

impl Axis {
    /// Spans all values; one decade at least.
    fn over(values: impl Iterator<Item = f64>, begin: f64, end: f64) -> Self {
        let positive = values.filter(|value| value.is_finite() && *value > 0.0);
        let (low, high) = positive
            .fold((f64::INFINITY, 0.0_f64), |(low, high), value| (low.min(value), high.max(value)));
        if high <= 0.0 {
            return Self { first: 0, last: 1, begin, end };
        }
        let first = low.log10().floor() as i32;
        let last = (high.log10().ceil() as i32).max(first + 1);
        Self { first, last, begin, end }
    }

    fn place(self, value: f64) -> f64 {
        let part = (value.log10() - f64::from(self.first)) / f64::from(self.last - self.first);
        self.begin + part * (self.end - self.begin)
    }

    /// The powers of ten, and where they are.
    fn ticks(self) -> impl Iterator<Item = (f64, f64)> {
        (self.first..=self.last).map(move |power| {
            let value = 10_f64.powi(power);
            (value, self.place(value))
        })
    }
}

impl Chart {
    /// Draws it.
    pub(crate) fn to_svg(&self) -> String {
        let points = || self.series.iter().flat_map(|series| series.points.iter());
        let x = Axis::over(points().map(|point| point.0), LEFT, WIDTH - RIGHT);
        let y = Axis::over(points().map(|point| point.1), HEIGHT - BOTTOM, TOP);
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\">\
             <title>{}</title><style>{STYLE}</style>\n",
            escaped(&self.title)
        );
        svg += &text(LEFT, 22.0, "title", "start", &self.title);
        svg += &text(WIDTH - RIGHT, HEIGHT - 8.0, "note", "end", &self.note);
        for (value, at) in x.ticks() {
            svg += &line(at, TOP, at, HEIGHT - BOTTOM);
            svg += &text(at, HEIGHT - BOTTOM + 18.0, "note", "middle", &tick(value));
        }
        for (value, at) in y.ticks() {
            svg += &line(LEFT, at, WIDTH - RIGHT, at);
            svg += &text(LEFT - 8.0, at + 4.0, "note", "end", &tick(value));
        }
        svg += &text(LEFT, HEIGHT - 8.0, "note", "start", &self.x);
        svg += &text(LEFT - 8.0, TOP - 10.0, "note", "end", &self.y);
        let mut at = LEFT;
        for (number, series) in self.series.iter().enumerate() {
            svg += &series.to_svg(number, x, y, at);
            // A letter takes seven pixels or less.
            at += 40.0 + 7.0 * series.name.chars().count() as f64;
        }
        svg + "</svg>\n"
    }
}

impl Series {
    /// Draws the curve, and its name at a place above all curves.
    fn to_svg(&self, number: usize, x: Axis, y: Axis, at: f64) -> String {
        let (colour, dashed) = (number % 4, if self.is_dashed { " dashed" } else { "" });
        let places: Vec<(f64, f64)> =
            self.points.iter().map(|point| (x.place(point.0), y.place(point.1))).collect();
        let path: Vec<String> = places.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        let mut svg = format!(
            "<polyline class=\"line s{colour}{dashed}\" points=\"{}\"/>\n\
             <line class=\"line s{colour}{dashed}\" x1=\"{at:.1}\" y1=\"44\" x2=\"{:.1}\" y2=\"44\"/>\n",
            path.join(" "),
            at + 24.0,
        );
        for ((x, y), (of, value)) in places.iter().zip(&self.points) {
            // Writing to a text cannot fail.
            let _ = writeln!(
                svg,
                "<circle class=\"d{colour}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\"><title>{}: {} at {}</title></circle>",
                escaped(&self.name),
                short(*value),
                tick(*of),
            );
        }
        svg + &text(at + 30.0, 48.0, "", "start", &self.name)
    }
}

fn line(x1: f64, y1: f64, x2: f64, y2: f64) -> String {
    format!("<line class=\"grid\" x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\"/>\n")
}

fn text(x: f64, y: f64, class: &str, anchor: &str, text: &str) -> String {
    let text = escaped(text);
    format!(
        "<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{text}</text>\n"
    )
}

/// Writes a number of an axis: as short as it can be.
fn tick(value: f64) -> String {
    if value >= 1_000.0 { short(value.round()) } else { format!("{value}") }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(name: &str, points: &[(f64, f64)]) -> Series {
        Series { name: name.to_owned(), points: points.to_vec(), ..Series::default() }
    }

    #[test]
    fn an_axis_has_whole_decades_around_its_values() {
        let axis = Axis::over([150.0, 20_000.0].into_iter(), 0.0, 300.0);
        assert_eq!((axis.first, axis.last), (2, 5));
        let places: Vec<f64> = axis.ticks().map(|(_, at)| at.round()).collect();
        assert_eq!(places, [0.0, 100.0, 200.0, 300.0]);
        let one = Axis::over([10.0].into_iter(), 0.0, 1.0);
        assert_eq!((one.first, one.last), (1, 2));
        let none = Axis::over(std::iter::empty(), 0.0, 1.0);
        assert_eq!((none.first, none.last), (0, 1));
    }

    #[test]
    fn a_picture_is_small_has_both_colour_schemes_and_its_text_as_text() {
        let points: Vec<(f64, f64)> =
            (0..12).map(|n| (10_f64.powi(n / 2 + 2), 1.5 * f64::from(n + 1))).collect();
        let chart = Chart {
            title: "latency & load <p99>".into(),
            note: "2 cores".into(),
            x: "events a second".into(),
            y: "ms".into(),
            series: ["ours, p50", "ours, p99", "floor, p50", "floor, p99"]
                .map(|name| series(name, &points))
                .into(),
        };
        let svg = chart.to_svg();
        assert!(svg.len() < 20 << 10, "{} bytes", svg.len());
        for part in [
            "prefers-color-scheme:dark",
            ">latency &amp; load &lt;p99&gt;</text>",
            ">ours, p99</text>",
            ">events a second</text>",
            ">100</text>",
        ] {
            assert!(svg.contains(part), "{part} in {svg}");
        }
        assert_eq!(svg.matches("<polyline").count(), 4);
        assert_eq!(svg.matches("<text").count(), svg.matches("</text>").count());
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
    }
}
