//! What happened, over time: a lane a service, a mark an entry, and lines where a message goes from
//! one service to another.

use crate::page::text::{Markup, Tone, escaped};
use outbox_core::admin::{cut_text, instant_text, span_text};
use outbox_core::event::Timestamp;
use std::fmt::Write;

/// Height of a lane, in the units of the picture, which are pixels where it is not scaled.
const LANE: i32 = 40;
/// Room for the names of the lanes.
const NAMES: i32 = 168;
/// Room above the lanes, for the spans of time.
const ABOVE: i32 = 20;
/// Widest picture.
const WIDEST: i32 = 1_120;
/// Room behind the last mark.
const BEHIND: i32 = 24;
/// Width of a step, where the picture has room.
const STEP: i32 = 12;
/// Longest name of a lane, in characters: what fits its room.
const LONGEST_NAME: usize = 22;
/// A gap of at least so many seconds is told.
const TOLD_GAP: u64 = 60;

/// An entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mark {
    /// Its service.
    pub(crate) lane: String,
    /// When; an entry without an instant stands behind the one before it.
    pub(crate) at: Option<Timestamp>,
    pub(crate) tone: Tone,
    /// What it is about: marks of one message are joined.
    pub(crate) message: Option<String>,
    /// What it says.
    pub(crate) title: String,
}

/// Where a mark stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    x: i32,
    lane: usize,
}

/// The names of the lanes, in the order in which they first have an entry.
fn lanes_of(marks: &[Mark]) -> Vec<&str> {
    let mut lanes: Vec<&str> = Vec::new();
    for mark in marks {
        if !lanes.contains(&&*mark.lane) {
            lanes.push(&mark.lane);
        }
    }
    lanes
}

/// Gives the seconds between each mark and the one before it.
fn gaps(marks: &[Mark]) -> Vec<u64> {
    let mut before: Option<Timestamp> = None;
    let gap = |mark: &Mark| {
        let gap = match (mark.at, before) {
            (Some(at), Some(before)) => at.since(before).as_secs(),
            (None, _) | (_, None) => 0,
        };
        before = mark.at.or(before);
        gap
    };
    marks.iter().map(gap).collect()
}

/// How wide a gap is drawn, in steps: a second is as wide as none, and each doubling adds a little,
/// so that an hour of waiting does not press everything else together.
fn steps(gap: u64) -> i32 {
    let doublings = i32::try_from(gap.checked_ilog2().unwrap_or(0)).unwrap_or(0);
    4 + doublings
}

/// Places the marks from left to right.
fn places(marks: &[Mark]) -> Vec<Place> {
    let lanes = lanes_of(marks);
    let mut step = 0;
    let mut placed = Vec::with_capacity(marks.len());
    for (number, (mark, gap)) in marks.iter().zip(gaps(marks)).enumerate() {
        step += if number == 0 { 0 } else { steps(gap) };
        let lane = lanes.iter().position(|lane| *lane == mark.lane).unwrap_or_default();
        placed.push(Place { x: step, lane });
    }
    // A few marks are not drawn out over the whole width.
    let (room, last) = (WIDEST - NAMES - BEHIND, step.max(1));
    for place in &mut placed {
        place.x =
            NAMES + 12 + if last * STEP <= room { place.x * STEP } else { place.x * room / last };
    }
    placed
}

/// Draws the lanes; nothing where there is no entry.
pub(crate) fn draw(marks: &[Mark]) -> Markup {
    if marks.is_empty() {
        return Markup::default();
    }
    let (lanes, placed) = (lanes_of(marks), places(marks));
    let width = placed.iter().map(|place| place.x).max().unwrap_or(0) + BEHIND;
    let width = width.max(480);
    let lane_count = i32::try_from(lanes.len()).unwrap_or(i32::MAX / LANE);
    let above = if gaps(marks).iter().any(|gap| *gap >= TOLD_GAP) { ABOVE } else { 0 };
    let height = above + LANE * lane_count;
    let y = |lane: usize| above + LANE * i32::try_from(lane).unwrap_or(0) + LANE / 2;
    let mut svg = format!(
        "<svg class=\"lanes\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\" role=\"img\" \
         aria-label=\"{} entries of {} services in order of time; the table below has them all\">",
        marks.len(),
        lanes.len()
    );
    // Writing into a string does not fail.
    for (lane, name) in lanes.iter().enumerate() {
        let _ = write!(
            svg,
            "<text class=\"name\" x=\"0\" y=\"{}\">{}</text><path class=\"lane\" d=\"M{NAMES} {y}H{width}\"/>",
            y(lane) + 4,
            escaped(&cut_text(name, LONGEST_NAME)),
            y = y(lane)
        );
    }
    draw_gaps(&mut svg, marks, &placed, height);
    for (number, mark) in marks.iter().enumerate() {
        let Some(message) = mark.message.as_deref() else { continue };
        let before = marks[..number].iter().rposition(|m| m.message.as_deref() == Some(message));
        if let Some(before) = before
            && placed[before].lane != placed[number].lane
        {
            let (from, to) = (placed[before], placed[number]);
            let middle = (from.x + to.x) / 2;
            let _ = write!(
                svg,
                "<path class=\"hop\" d=\"M{} {}C{middle} {} {middle} {} {} {}\"/>",
                from.x,
                y(from.lane),
                y(from.lane),
                y(to.lane),
                to.x,
                y(to.lane)
            );
        }
    }
    for (mark, place) in marks.iter().zip(&placed) {
        draw_mark(&mut svg, mark, place.x, y(place.lane));
    }
    svg.push_str("</svg>");
    Markup::escaped(svg)
}

/// Tells how long the long gaps are, where there is room between the marks.
fn draw_gaps(svg: &mut String, marks: &[Mark], placed: &[Place], height: i32) {
    let gaps = gaps(marks);
    let mut free_from = 0;
    for number in 1..marks.len() {
        let (from, to) = (placed[number - 1].x, placed[number].x);
        let middle = (from + to) / 2;
        if gaps[number] < TOLD_GAP || middle - 28 < free_from {
            continue;
        }
        free_from = middle + 28;
        let span = span_text(std::time::Duration::from_secs(gaps[number]));
        let _ = write!(
            svg,
            "<path class=\"gap\" d=\"M{middle} {ABOVE}V{height}\"/><text class=\"gap\" x=\"{middle}\" y=\"14\">{}</text>",
            escaped(&span)
        );
    }
}

/// Draws a mark: its shape says what its colour says.
fn draw_mark(svg: &mut String, mark: &Mark, x: i32, y: i32) {
    let class = mark.tone.class();
    let at = mark.at.map(instant_text).unwrap_or_default();
    let title = format!("{at} {}", cut_text(&mark.title, 200));
    let _ = write!(svg, "<g class=\"mark {class}\"><title>{}</title>", escaped(title.trim()));
    let _ = match mark.tone {
        Tone::Good | Tone::Busy => write!(svg, "<circle cx=\"{x}\" cy=\"{y}\" r=\"6\"/>"),
        Tone::Idle => write!(svg, "<circle class=\"ring\" cx=\"{x}\" cy=\"{y}\" r=\"5\"/>"),
        Tone::Warn => write!(svg, "<path d=\"M{x} {}l7 12h-14z\"/>", y - 7),
        Tone::Bad => write!(svg, "<path d=\"M{} {y}l7 -7l7 7l-7 7z\"/>", x - 7),
    };
    svg.push_str("</g>");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(lane: &str, seconds: Option<i64>) -> Mark {
        Mark {
            lane: lane.to_owned(),
            at: seconds.map(|seconds| Timestamp::from_micros(seconds * 1_000_000)),
            tone: Tone::Good,
            message: Some("m".to_owned()),
            title: "It was saved.".to_owned(),
        }
    }

    #[test]
    fn each_service_has_a_lane_in_the_order_of_its_first_entry() {
        let marks = [mark("/orders", Some(1)), mark("/billing", Some(2)), mark("/orders", Some(3))];
        assert_eq!(lanes_of(&marks), ["/orders", "/billing"]);
        let lanes: Vec<usize> = places(&marks).iter().map(|place| place.lane).collect();
        assert_eq!(lanes, [0, 1, 0]);
    }

    #[test]
    fn marks_go_to_the_right_and_a_long_wait_is_wider_than_a_short_one_but_not_by_much() {
        let times = [Some(0), Some(1), None, Some(3_600), Some(3_600)];
        let marks: Vec<Mark> = times.map(|at| mark("/orders", at)).to_vec();
        let x: Vec<i32> = places(&marks).iter().map(|place| place.x).collect();
        assert!(x.windows(2).all(|pair| pair[0] < pair[1]), "{x:?}");
        let (short, long) = (x[1] - x[0], x[3] - x[2]);
        assert!(long > 2 * short && long < 5 * short, "{x:?}");
    }

    #[test]
    fn a_thousand_entries_stay_in_the_picture() {
        let marks: Vec<Mark> = (0..1_000).map(|n| mark("/orders", Some(n * 60))).collect();
        assert!(places(&marks).iter().all(|place| (NAMES..WIDEST).contains(&place.x)));
    }

    #[test]
    fn a_message_that_goes_to_another_service_is_joined_and_texts_are_escaped() {
        let mut marks = [mark("/orders", Some(1)), mark("<b>", Some(200))];
        marks[1].title = "\u{202e}<script>".to_owned();
        let svg = draw(&marks);
        let svg = svg.as_str();
        assert_eq!(svg.matches("class=\"hop\"").count(), 1);
        assert!(svg.contains(">3 min 19 s</text>"), "{svg}");
        assert!(svg.contains("&lt;b&gt;") && svg.contains("\\u{202e}&lt;script&gt;"), "{svg}");
        assert!(!svg.contains("<script") && !svg.contains("style="), "{svg}");
        assert!(draw(&[]).is_empty());
    }
}
