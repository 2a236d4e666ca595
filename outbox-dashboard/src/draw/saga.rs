//! A saga: its definition in layers from left to right, the steps of a group above each other, each
//! with its compensation below it, and the instance's state on all of it.

use crate::page::text::{Markup, Tone, escaped};
use outbox_core::{
    admin::cut_text,
    saga::{Instance, SagaState, Shape, StepProgress, StepState},
};
use std::fmt::Write;

/// Width and height of a step.
const STEP: (i32, i32) = (152, 56);
/// Height of a compensation.
const UNDO: i32 = 28;
/// Room between a step and its compensation, between steps of a layer, and between layers.
const ROOMS: (i32, i32, i32) = (10, 20, 44);
/// Room above and below all, for the mark of the pivot.
const EDGE: i32 = 12;
/// Radius of the beginning and the end.
const END: i32 = 12;
/// Longest name in a step, in characters: what fits its width.
const LONGEST_NAME: usize = 19;

/// A step as it is drawn.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Step {
    name: String,
    tone: Tone,
    /// Its state in a few words.
    word: String,
    pivot: bool,
    /// Whether nothing is recorded of it yet.
    ahead: bool,
    /// Its compensation, where it has one.
    undo: Option<(Tone, &'static str)>,
}

/// A step with its place.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Placed {
    step: Step,
    layer: usize,
    x: i32,
    y: i32,
}

/// Gives the layers of a saga: the stages of its definition; without that, which only its service
/// knows, one a step of which something is recorded.
fn layers(shape: Option<&Shape>, instance: &Instance) -> Vec<Vec<Step>> {
    let mut layers: Vec<Vec<Step>> = Vec::new();
    for step in shape.into_iter().flat_map(|shape| &shape.steps) {
        if layers.len() <= step.stage {
            layers.resize(step.stage + 1, Vec::new());
        }
        let known = instance.step(&step.name);
        layers[step.stage].push(Step {
            pivot: step.pivot,
            ..described(&step.name, known, instance, step.compensates)
        });
    }
    let is_drawn =
        |layers: &[Vec<Step>], name: &str| layers.iter().flatten().any(|step| step.name == name);
    // Steps that an older definition had, and all of them where there is no definition.
    for known in &instance.steps {
        if !is_drawn(&layers, &known.step) {
            layers.push(vec![described(&known.step, Some(known), instance, known.compensates)]);
        }
    }
    // A step that has failed each time has left no other trace.
    if let Some(stuck_at) = instance.stuck_at.as_deref()
        && !is_drawn(&layers, stuck_at)
    {
        layers.push(vec![described(stuck_at, None, instance, false)]);
    }
    layers.retain(|layer| !layer.is_empty());
    layers
}

/// Describes a step by what is recorded of it.
fn described(
    name: &str,
    known: Option<&StepProgress>,
    instance: &Instance,
    compensates: bool,
) -> Step {
    let is_stuck = instance.stuck_at.as_deref() == Some(name);
    let (tone, word) = match known {
        _ if is_stuck && !instance.backward => (Tone::Bad, "stuck".to_owned()),
        None => (Tone::Idle, "not yet".to_owned()),
        Some(known) => step_state(known),
    };
    let undo = known.map(|known| known.state).and_then(|state| match state {
        _ if is_stuck && instance.backward => Some((Tone::Bad, "undo is stuck")),
        StepState::Undone => Some((Tone::Good, "undone")),
        StepState::Cancelling => Some((Tone::Busy, "undoing")),
        StepState::CompensationFailing => Some((Tone::Warn, "undo fails")),
        StepState::Done | StepState::Unknown if instance.backward && compensates => {
            Some((Tone::Idle, "to undo"))
        }
        _ => compensates.then_some((Tone::Idle, "can be undone")),
    });
    Step {
        name: name.to_owned(),
        tone,
        word,
        pivot: known.is_some_and(|known| known.pivot),
        ahead: known.is_none() && !is_stuck,
        undo: undo.or_else(|| compensates.then_some((Tone::Idle, "can be undone"))),
    }
}

/// Gives the state of a step in a few words.
fn step_state(known: &StepProgress) -> (Tone, String) {
    let failed = match known.failures {
        0 => String::new(),
        failures => format!(", {failures} failed"),
    };
    match known.state {
        _ if known.blocked_on.is_some() => (Tone::Warn, "waits for a lock".to_owned()),
        StepState::Pending if known.failures > 0 => (Tone::Warn, format!("retries{failed}")),
        StepState::Pending => (Tone::Busy, "runs".to_owned()),
        StepState::Waiting => (Tone::Busy, format!("awaits reply{failed}")),
        StepState::Rejected => (Tone::Bad, "rejected".to_owned()),
        StepState::Unknown => (Tone::Warn, "outcome unknown".to_owned()),
        StepState::Done => (Tone::Good, "done".to_owned()),
        StepState::Skipped => (Tone::Idle, "skipped".to_owned()),
        StepState::CompensationFailing | StepState::Cancelling => (Tone::Good, "done".to_owned()),
        StepState::Undone => (Tone::Idle, "was done".to_owned()),
    }
}

/// Height of a step with its compensation.
const fn height_of(step: &Step) -> i32 {
    if step.undo.is_some() { STEP.1 + ROOMS.0 + UNDO } else { STEP.1 }
}

/// The steps with their places, and the picture's width up to its end, its height and its axis.
struct Layout {
    placed: Vec<Placed>,
    end_x: i32,
    height: i32,
    axis: i32,
}

/// Places the layers: the boxes of each are centred on one axis, and compensations hang below them.
fn place(layers: Vec<Vec<Step>>) -> Layout {
    let (mut placed, mut x) = (Vec::new(), 2 * END + 4 + ROOMS.2);
    for (number, layer) in layers.into_iter().enumerate() {
        let from = placed.len();
        let mut y = 0;
        for step in layer {
            let below = y + height_of(&step) + ROOMS.1;
            placed.push(Placed { step, layer: number, x, y });
            y = below;
        }
        let here = &mut placed[from..];
        let middle = match &*here {
            [] => 0,
            [first, ..] => (first.y + here[here.len() - 1].y + STEP.1) / 2,
        };
        here.iter_mut().for_each(|placed| placed.y -= middle);
        x += STEP.0 + ROOMS.2;
    }
    let top = placed.iter().map(|placed| placed.y).min().unwrap_or(0).min(-STEP.1 / 2);
    let bottom = placed.iter().map(|placed| placed.y + height_of(&placed.step)).max();
    let bottom = bottom.unwrap_or(0).max(STEP.1 / 2);
    let axis = EDGE - top;
    placed.iter_mut().for_each(|placed| placed.y += axis);
    Layout { placed, end_x: x, height: bottom - top + 2 * EDGE, axis }
}

/// Draws a saga.
pub(crate) fn draw(shape: Option<&Shape>, instance: &Instance) -> Markup {
    let Layout { placed, end_x, height, axis: centre } = place(layers(shape, instance));
    let axis = |placed: &Placed| placed.y + STEP.1 / 2;
    let width = end_x + 120;
    let mut svg = format!(
        "<svg class=\"saga\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\" role=\"img\" \
         aria-label=\"{}\"><defs><marker id=\"arrow\" viewBox=\"0 0 8 8\" refX=\"7\" refY=\"4\" markerWidth=\"8\" \
         markerHeight=\"8\" orient=\"auto\"><path class=\"head\" d=\"M0 0L8 4L0 8z\"/></marker></defs>",
        escaped(&in_words(&placed, instance))
    );
    // Writing into a string does not fail.
    let _ = write!(svg, "<circle class=\"end\" cx=\"{}\" cy=\"{centre}\" r=\"{END}\"/>", END + 2);
    let mut before: Vec<(i32, i32)> = vec![(2 * END + 2, centre)];
    let last = placed.last().map_or(0, |placed| placed.layer);
    for layer in 0..=last {
        let here: Vec<&Placed> = placed.iter().filter(|placed| placed.layer == layer).collect();
        if here.is_empty() {
            continue;
        }
        for (from, to) in before.iter().flat_map(|from| here.iter().map(move |to| (from, to))) {
            draw_edge(&mut svg, *from, (to.x, axis(to)), to.step.ahead);
        }
        before = here.iter().map(|placed| (placed.x + STEP.0, axis(placed))).collect();
    }
    let is_over = instance.state.is_final();
    for from in before {
        draw_edge(&mut svg, from, (end_x, centre), !is_over);
    }
    placed.iter().for_each(|placed| draw_step(&mut svg, placed));
    let (tone, word) = saga_state(instance.state);
    let _ = write!(
        svg,
        "<g class=\"finish {}\"><rect x=\"{end_x}\" y=\"{}\" width=\"116\" height=\"32\" rx=\"16\"/>\
         <text x=\"{}\" y=\"{}\">{}</text></g></svg>",
        tone.class(),
        centre - 16,
        end_x + 58,
        centre + 4,
        escaped(word)
    );
    Markup::escaped(svg)
}

/// Gives what the state of a saga means, and its word.
pub(crate) const fn saga_state(state: SagaState) -> (Tone, &'static str) {
    match state {
        SagaState::Running => (Tone::Busy, "running"),
        SagaState::Compensating => (Tone::Warn, "compensating"),
        SagaState::Stuck => (Tone::Bad, "stuck"),
        SagaState::Completed => (Tone::Good, "completed"),
        SagaState::Compensated => (Tone::Idle, "compensated"),
    }
}

/// Says the picture in words, for those who do not see it.
fn in_words(placed: &[Placed], instance: &Instance) -> String {
    let steps = placed.iter().map(|Placed { step, .. }| {
        let undo = match step.undo {
            Some((Tone::Idle, _)) | None => String::new(),
            Some((_, word)) => format!(" ({word})"),
        };
        format!("{}: {}{undo}", cut_text(&step.name, 80), step.word)
    });
    let steps = steps.collect::<Vec<_>>().join(", ");
    format!("The saga is {}. Its steps: {steps}", instance.state)
}

fn draw_edge(svg: &mut String, from: (i32, i32), to: (i32, i32), ahead: bool) {
    let ahead = if ahead { " ahead" } else { "" };
    let middle = (from.0 + to.0) / 2;
    let _ = write!(
        svg,
        "<path class=\"edge{ahead}\" marker-end=\"url(#arrow)\" d=\"M{} {}C{middle} {} {middle} {} {} {}\"/>",
        from.0, from.1, from.1, to.1, to.0, to.1
    );
}

fn draw_step(svg: &mut String, Placed { step, x, y, .. }: &Placed) {
    let (x, y) = (*x, *y);
    let mut class = step.tone.class().to_owned();
    for (is_set, name) in [(step.ahead, " ahead"), (step.pivot, " pivot")] {
        class.push_str(if is_set { name } else { "" });
    }
    let _ = write!(
        svg,
        "<g class=\"step {class}\"><title>{}</title><rect x=\"{x}\" y=\"{y}\" width=\"{}\" height=\"{}\" rx=\"6\"/>",
        escaped(&cut_text(&step.name, 255)),
        STEP.0,
        STEP.1
    );
    if step.pivot {
        let _ = write!(
            svg,
            "<rect class=\"flag\" x=\"{}\" y=\"{}\" width=\"44\" height=\"18\" rx=\"9\"/>\
             <text class=\"flag\" x=\"{}\" y=\"{}\">pivot</text>",
            x + STEP.0 - 56,
            y - 9,
            x + STEP.0 - 34,
            y + 4
        );
    }
    let (left, name_y) = (x + 12, y + 24);
    let _ = write!(
        svg,
        "<text class=\"name\" x=\"{left}\" y=\"{name_y}\">{}</text><text class=\"word\" x=\"{left}\" y=\"{}\">{}</text></g>",
        escaped(&cut_text(&step.name, LONGEST_NAME)),
        name_y + 16,
        escaped(&step.word)
    );
    if let Some((tone, word)) = step.undo {
        let top = y + STEP.1 + ROOMS.0;
        let _ = write!(
            svg,
            "<g class=\"undo {}\"><path class=\"down\" d=\"M{} {}v{}\"/><rect x=\"{}\" y=\"{top}\" width=\"{}\" height=\"{UNDO}\" rx=\"14\"/>\
             <text x=\"{}\" y=\"{}\">{word}</text></g>",
            tone.class(),
            x + STEP.0 / 2,
            y + STEP.1,
            ROOMS.0,
            x + 16,
            STEP.0 - 32,
            x + STEP.0 / 2,
            top + 18
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use outbox_core::{
        outbox::OperatorNote,
        saga::{Json, Operation, Record, Saga, StepContext, StepError},
    };

    struct Sql;

    #[derive(serde::Serialize, serde::Deserialize)]
    struct Trip;

    impl Trip {
        async fn flight(&self, _: &StepContext<Sql>) -> Result<i64, StepError> {
            Ok(200)
        }

        async fn cancel(&mut self, _: i64, _: &StepContext<Sql>) -> Result<(), StepError> {
            Ok(())
        }

        async fn hotel(&self, _: &StepContext<Sql>) -> Result<i64, StepError> {
            Ok(100)
        }

        async fn add_up(&mut self, _: (i64, i64), _: &StepContext<Sql>) -> Result<(), StepError> {
            Ok(())
        }

        async fn pay(&mut self, _: &StepContext<Sql>) -> Result<(), StepError> {
            Ok(())
        }
    }

    fn trip() -> Shape {
        let saga = Saga::<Trip, Sql>::builder("trip", 1)
            .parallel("bookings")
            .branch("flight", Trip::flight)
            .compensate(Trip::cancel)
            .branch("hotel", Trip::hotel)
            .merge("add-up", Trip::add_up)
            .step("pay", Trip::pay)
            .pivot()
            .build();
        saga.shape().clone()
    }

    fn done(step: &str, compensates: bool) -> Record {
        let (step, output) = (step.to_owned(), Json::of(&200).unwrap());
        Record::Done { step, output, data: None, pivot: false, compensates, attempt: 1 }
    }

    fn after(records: &[Record]) -> Instance {
        records.iter().fold(Instance::default(), |instance, record| {
            instance.after(record).unwrap_or_else(|| panic!("{record:?} does not apply"))
        })
    }

    fn names(layers: &[Vec<Step>]) -> Vec<Vec<&str>> {
        layers.iter().map(|layer| layer.iter().map(|step| &*step.name).collect()).collect()
    }

    #[test]
    fn a_definition_has_a_layer_a_stage_and_one_that_is_not_known_a_layer_a_step() {
        let instance = after(&[done("flight", true)]);
        let drawn = layers(Some(&trip()), &instance);
        assert_eq!(names(&drawn), [vec!["flight", "hotel"], vec!["add-up"], vec!["pay"]]);
        assert!(!drawn[0][0].ahead && drawn[0][1].ahead && drawn[2][0].pivot);
        assert_eq!(names(&layers(None, &instance)), [vec!["flight"]]);
    }

    #[test]
    fn a_step_that_only_an_older_definition_had_is_drawn_behind() {
        let instance = after(&[done("flight", true), done("insurance", false)]);
        let drawn = layers(Some(&trip()), &instance);
        assert_eq!(names(&drawn).last(), Some(&vec!["insurance"]));
    }

    #[test]
    fn steps_and_compensations_say_where_they_stand() {
        let stuck = |step: &str| Record::Stuck {
            step: Some(step.to_owned()),
            reason: "closed".to_owned(),
            pivot: false,
        };
        let failed = Record::Failed {
            step: "hotel".to_owned(),
            attempt: 1,
            error: "closed".to_owned(),
            wait_us: 1,
            retry_at_us: 1,
        };
        let compensates = Record::CompensationStarted { reason: "no room".to_owned(), by: None };
        let undone = Record::Undone { step: "flight".to_owned(), data: None, attempt: 1 };
        let flight = done("flight", true);
        for (records, hotel, flight_undo) in [
            (vec![flight.clone()], (Tone::Idle, "not yet"), (Tone::Idle, "can be undone")),
            (
                vec![flight.clone(), failed.clone()],
                (Tone::Warn, "retries, 1 failed"),
                (Tone::Idle, "can be undone"),
            ),
            (
                vec![flight.clone(), failed.clone(), stuck("hotel")],
                (Tone::Bad, "stuck"),
                (Tone::Idle, "can be undone"),
            ),
            (
                vec![flight.clone(), compensates.clone()],
                (Tone::Idle, "not yet"),
                (Tone::Idle, "to undo"),
            ),
            (
                vec![flight.clone(), compensates.clone(), stuck("flight")],
                (Tone::Idle, "not yet"),
                (Tone::Bad, "undo is stuck"),
            ),
            (vec![flight, compensates, undone], (Tone::Idle, "not yet"), (Tone::Good, "undone")),
        ] {
            let drawn = layers(Some(&trip()), &after(&records));
            let step = |name: &str| {
                drawn.iter().flatten().find(|step| step.name == name).cloned().unwrap()
            };
            assert_eq!((step("hotel").tone, &*step("hotel").word), hotel, "{records:?}");
            assert_eq!(step("flight").undo, Some(flight_undo), "{records:?}");
        }
    }

    #[test]
    fn steps_of_a_layer_stand_above_each_other_and_layers_beside_each_other() {
        let Layout { placed, height, axis, .. } =
            place(layers(Some(&trip()), &Instance::default()));
        for alone in placed.iter().filter(|placed| placed.layer > 0) {
            assert_eq!(alone.y + STEP.1 / 2, axis, "a step alone stands on the axis");
        }
        assert!(placed.iter().all(|one| one.y > 0 && one.y + height_of(&one.step) < height));
        for one in &placed {
            for other in placed.iter().filter(|other| *other != one) {
                let apart_x = (one.x - other.x).abs() >= STEP.0 + ROOMS.2;
                let (above, below) = if one.y < other.y { (one, other) } else { (other, one) };
                let apart_y = below.y - above.y >= height_of(&above.step) + ROOMS.1;
                assert!(
                    if one.layer == other.layer { apart_y } else { apart_x },
                    "{one:?} {other:?}"
                );
            }
        }
    }

    #[test]
    fn names_are_escaped_and_the_picture_says_itself_in_words() {
        let mut instance = after(&[done("<script>\u{202e}", false)]);
        let svg = draw(None, &instance);
        assert!(svg.as_str().contains("&lt;script&gt;\\u{202e}: done"), "{}", svg.as_str());
        assert!(!svg.as_str().contains("<script") && !svg.as_str().contains("style="));
        let note = OperatorNote::new("ann", "by hand");
        let cancelled = instance.after(&Operation::Cancel.record(&note));
        instance = cancelled.unwrap();
        assert!(draw(Some(&trip()), &instance).as_str().contains("The saga is compensating."));
    }
}
