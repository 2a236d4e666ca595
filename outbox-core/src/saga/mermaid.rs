//! Drawings of sagas as Mermaid flowcharts.
//!
//! # Source
//! Mermaid flowcharts, mermaid.js.org/syntax/flowchart.html

use super::{
    definition::{Shape, StepShape},
    progress::StepState,
    record::{LogEntry, Record},
    state::Instance,
};
use std::fmt::Write;

/// Draws a definition: steps downwards, groups beside each other, compensations by dotted arrows.
///
/// ```
/// # use outbox_core::saga::{Saga, StepContext, StepError, draw};
/// # struct Sql;
/// # #[derive(serde::Serialize, serde::Deserialize)] struct PlaceOrder;
/// # impl PlaceOrder { async fn charge(&mut self, _: &StepContext<Sql>) -> Result<(), StepError> { Ok(()) } }
/// let saga = Saga::<PlaceOrder, Sql>::builder("place-order", 1).step("charge", PlaceOrder::charge).build();
/// assert!(draw(saga.shape()).starts_with("flowchart TD"));
/// ```
#[must_use]
pub fn draw(shape: &Shape) -> String {
    Drawing::of(shape, |_| String::new()).text
}

/// Draws one saga: its definition, and of each step its state, its attempts, and the time of its
/// last record.
#[must_use]
pub fn draw_instance(shape: &Shape, instance: &Instance, log: &[LogEntry]) -> String {
    let mut drawing = Drawing::of(shape, |step| {
        let of_step = |entry: &&LogEntry| entry.record.step() == Some(&*step.name);
        let tries = log.iter().filter(of_step).filter(|entry| {
            matches!(
                entry.record,
                Record::Done { .. } | Record::Undone { .. } | Record::Failed { .. }
            )
        });
        let tries = tries.count();
        match log.iter().rfind(of_step) {
            Some(last) => format!("<br/>{}, attempts {tries}<br/>{}", last.record.kind(), last.at),
            None => String::new(),
        }
    });
    for (number, step) in shape.steps.iter().enumerate() {
        let known = instance.step(&step.name);
        let class = match known.map(|known| known.state) {
            _ if known.is_some_and(|known| known.blocked_on.is_some()) => "waiting",
            Some(StepState::Done) => "done",
            Some(StepState::Pending | StepState::Rejected | StepState::CompensationFailing) => {
                "failing"
            }
            Some(StepState::Waiting | StepState::Unknown | StepState::Cancelling) => "waiting",
            Some(StepState::Undone) => "undone",
            Some(StepState::Skipped) => "skipped",
            None => continue,
        };
        drawing.line(format_args!("class s{number} {class}"));
    }
    for (class, colour) in [
        ("done", "#cfc"),
        ("failing", "#fcc"),
        ("waiting", "#ffc"),
        ("undone", "#ccf"),
        ("skipped", "#eee"),
    ] {
        drawing.line(format_args!("classDef {class} fill:{colour}"));
    }
    let reason = instance.reason.as_deref().map(|r| format!(": {}", quoted(r))).unwrap_or_default();
    drawing.line(format_args!("state_[\"{}{reason}\"]", instance.state));
    drawing.text
}

struct Drawing {
    text: String,
}

impl Drawing {
    fn of(shape: &Shape, more: impl Fn(&StepShape) -> String) -> Self {
        let mut drawing = Self { text: "flowchart TD\n".to_owned() };
        drawing.line(format_args!("start_([\"{} v{}\"])", quoted(&shape.name), shape.version));
        let mut before = vec!["start_".to_owned()];
        let stages = shape.steps.last().map_or(0, |last| last.stage + 1);
        for stage in 0..stages {
            let here: Vec<usize> = shape.of_stage(stage).collect();
            for number in &here {
                let step = &shape.steps[*number];
                let (open, close) = if step.pivot { ("{{", "}}") } else { ("[", "]") };
                let (name, more) = (quoted(&step.name), more(step));
                drawing.line(format_args!("s{number}{open}\"{name}{more}\"{close}"));
                for from in &before {
                    drawing.line(format_args!("{from} --> s{number}"));
                }
                if step.compensates {
                    drawing.line(format_args!("s{number} -.-> c{number}[/\"undo {name}\"/]"));
                }
            }
            before = here.iter().map(|number| format!("s{number}")).collect();
        }
        for from in before {
            drawing.line(format_args!("{from} --> end_([\"completed\"])"));
        }
        drawing
    }

    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        // Writing to a `String` does not fail.
        let _ = writeln!(self.text, "    {line}");
    }
}

/// Escapes the characters that would end a label in Mermaid.
fn quoted(text: &str) -> String {
    text.replace('&', "#amp;").replace('"', "#quot;").replace('<', "#lt;").replace('>', "#gt;")
}
