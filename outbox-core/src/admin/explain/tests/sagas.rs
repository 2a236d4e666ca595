//! Sagas.

use super::*;
use crate::{
    admin::{ConsumerView, SagasLive},
    failure::Resolution,
    saga::{BlockedOn, CommandState, SagaState, StepProgress, StepState},
};
use std::num::NonZeroU32;

const SAGA: &str = "Saga 00000000-0000-0000-0000-000000000009 (`place-order` version 2)";
const ID: &str = "00000000-0000-0000-0000-000000000009";

pub(super) fn step(name: &str, state: StepState) -> StepProgress {
    StepProgress {
        step: name.to_owned(),
        state,
        output: None,
        failures: 0,
        failing_us: 0,
        retry_at_us: 0,
        unfinished_attempts: 0,
        pivot: false,
        compensates: false,
        command: None,
        blocked_on: None,
    }
}

pub(super) fn command(sends: u32, reply_due_us: i64) -> CommandState {
    CommandState {
        round: NonZeroU32::MIN,
        sends,
        reply_due_us,
        hash: None,
        unsent: false,
        undo_sent: false,
        rejection: None,
        late_reply: None,
    }
}

pub(super) fn coordinator(version: u32) -> ConsumerView<SagasLive> {
    let definitions = vec![("place-order".to_owned(), version)];
    ConsumerView {
        id: "c".to_owned(),
        name: String::new(),
        live: true,
        state: SagasLive { definitions, ..SagasLive::default() },
        written_at: now(),
    }
}

/// A saga whose definition a coordinator has.
fn saga(steps: Vec<StepProgress>, change: impl FnOnce(&mut Facts, &mut SagaFacts)) -> Facts {
    let mut saga = a_saga(Instance { steps, ..Instance::default() });
    let mut facts = Facts::nothing(Subject::Saga(saga.id), now());
    facts.coordinators = vec![coordinator(2)];
    change(&mut facts, &mut saga);
    facts.saga = Some(saga);
    facts
}

fn backward(saga: &mut SagaFacts) {
    saga.instance.backward = true;
    saga.instance.state = SagaState::Compensating;
    saga.instance.reason = Some("`ship`: no stock".to_owned());
}

#[test]
fn a_saga_that_runs_or_is_due() {
    let done = || vec![step("reserve", StepState::Done)];
    check(vec![
        (
            saga(Vec::new(), |_, _| ()),
            format!("{SAGA} is due in 12 s, when a coordinator runs its first step."),
        ),
        (
            saga(done(), |_, saga| saga.claimed = true),
            format!(
                "{SAGA} is being driven: a coordinator runs the step after `reserve`, and its claim lasts until 14:10 UTC."
            ),
        ),
        (
            saga(done(), |_, saga| (saga.claimed, saga.due_at) = (true, Some(at("14:09:00")))),
            format!(
                "{SAGA} waits: the claim of its coordinator ran out at 14:09 UTC, and another one claims it next."
            ),
        ),
        (
            saga(done(), |facts, _| facts.coordinators.clear()),
            format!(
                "{SAGA} waits: no coordinator of sagas is running: start the service that has it."
            ),
        ),
        (
            saga(done(), |facts, _| facts.coordinators = vec![coordinator(1)]),
            format!(
                "{SAGA} waits: no running coordinator has this version of its definition: start one with it."
            ),
        ),
        (
            saga(done(), |facts, _| {
                facts.controls = Controls(vec![pause(ControlScope::Saga, "place-order")]);
            }),
            format!(
                "{SAGA} waits, as sagas of its definition are paused: ann paused it at 14:05 UTC (broker upgrade), \
                 until 15:00 UTC."
            ),
        ),
        (
            saga(done(), |_, saga| backward(saga)),
            format!(
                "{SAGA} compensates (`ship`: no stock) and is due in 12 s, when a coordinator undoes its steps."
            ),
        ),
    ]);
}

#[test]
fn a_saga_that_waits_at_a_step() {
    let us = |hour: &str| at(hour).as_micros();
    let waits = |reply: &str, state| {
        let command = Some(command(2, us(reply)));
        vec![StepProgress { command, ..step("charge", state) }]
    };
    check(vec![
        (
            saga(waits("14:20:00", StepState::Waiting), |_, _| ()),
            format!(
                "{SAGA} waits for the reply to step `charge` since 14:03 UTC (2 commands sent), and at 14:20 UTC it gives up \
                 and compensates."
            ),
        ),
        (
            saga(waits("14:01:00", StepState::Waiting), |_, _| ()),
            format!(
                "{SAGA} waits for the reply to step `charge` since 14:03 UTC (2 commands sent), and its time is over, \
                 and it compensates now."
            ),
        ),
        (
            saga(waits("14:20:00", StepState::Cancelling), |_, saga| backward(saga)),
            format!(
                "{SAGA} compensates (`ship`: no stock) and waits for the reply to step `charge` since 14:03 UTC \
                 (2 commands sent), and at 14:20 UTC it sends the command again."
            ),
        ),
    ]);
}

#[test]
fn a_saga_whose_command_stands_still_here() {
    let us = |hour: &str| at(hour).as_micros();
    let waits = || {
        let command = Some(command(2, us("14:20:00")));
        vec![StepProgress { command, ..step("charge", StepState::Waiting) }]
    };
    let asked = format!(
        "{SAGA} waits for the reply to step `charge` since 14:03 UTC (2 commands sent), and at 14:20 UTC it gives up \
         and compensates. Its command:"
    );
    let after = |facts: &Facts| {
        let explanation = explain(facts);
        let behind = explanation.sentence.strip_prefix(&asked).unwrap_or_else(|| {
            panic!("{}", explanation.sentence);
        });
        (behind.to_owned(), explanation.commands)
    };

    let (sentence, commands) = after(&saga(waits(), |facts, _| {
        facts.relays = vec![relay("a", vec![open_route("billing")])];
        facts.event = Some(an_event());
    }));
    assert!(sentence.contains("waits for route `billing`: its breaker is open"), "{sentence}");
    assert!(sentence.ends_with('.') && !sentence.ends_with(".."), "{sentence}");
    assert!(commands.is_empty(), "the relay probes by itself: {commands:?}");

    let (sentence, commands) = after(&saga(waits(), |facts, _| facts.letters = vec![a_letter()]));
    assert!(sentence.contains("is a dead letter of route `billing`"), "{sentence}");
    assert_eq!(commands, ["outbox dead-letters redrive 17", "outbox dead-letters discard 17"]);

    let resolved = saga(waits(), |facts, _| {
        let resolution = Some(Resolution {
            action: "redriven".to_owned(),
            at: at("14:04:00"),
            by: "ann".to_owned(),
            reason: "mended".to_owned(),
        });
        facts.letters = vec![LetterFacts { resolution, ..a_letter() }];
    });
    assert!(!explain(&resolved).sentence.contains("Its command"), "nothing of it waits here");
}

#[test]
fn a_saga_that_is_blocked_or_retries() {
    let us = |hour: &str| at(hour).as_micros();
    let blocked_on = |since| {
        Some(BlockedOn {
            entity: "account/7".to_owned(),
            holder: "h".to_owned(),
            since_us: us(since),
        })
    };
    let blocked =
        StepProgress { blocked_on: blocked_on("14:02:00"), ..step("charge", StepState::Pending) };
    let failing = |state| {
        let retry_at_us = us("14:12:00");
        vec![StepProgress { failures: 3, retry_at_us, ..step("charge", state) }]
    };
    check(vec![
        (
            saga(vec![blocked], |_, _| ()),
            format!(
                "{SAGA} waits at step `charge` for the lock of `account/7`, which saga h has since 14:02 UTC, \
                 and tries it again in 12 s."
            ),
        ),
        (
            saga(failing(StepState::Pending), |_, saga| saga.last_error = Some("503".to_owned())),
            format!(
                "{SAGA} retries step `charge`: 3 attempts failed (503), and the next one is due in 2 min."
            ),
        ),
        (
            saga(failing(StepState::CompensationFailing), |_, saga| backward(saga)),
            format!(
                "{SAGA} compensates (`ship`: no stock) and retries the compensation of step `charge`: 3 attempts failed, \
                 and the next one is due in 2 min."
            ),
        ),
        (
            saga(
                vec![StepProgress { unfinished_attempts: 1, ..step("charge", StepState::Pending) }],
                |_, _| (),
            ),
            format!(
                "{SAGA} retries step `charge`: 1 attempt had no end, and the next one is due in 12 s."
            ),
        ),
    ]);
}

#[test]
fn a_saga_that_is_stuck_or_has_ended() {
    let stuck = |at: Option<&str>, going_back| {
        let at = at.map(str::to_owned);
        saga(Vec::new(), move |_, saga| {
            (saga.instance.state, saga.instance.backward) = (SagaState::Stuck, going_back);
            (saga.instance.stuck_at, saga.due_at) = (at, None);
            saga.instance.reason = Some("refund failed".to_owned());
        })
    };
    let ended = |state, reason: Option<&str>| {
        let reason = reason.map(str::to_owned);
        saga(Vec::new(), move |_, saga| {
            (saga.instance.state, saga.instance.reason) = (state, reason);
            (saga.due_at, saga.ended_at) = (None, Some(at("14:04:00")));
        })
    };
    let until = "and waits until somebody resumes it, skips the step or cancels it.";
    assert_eq!(
        explain(&stuck(Some("charge"), true)).commands,
        [
            format!("outbox sagas resume {ID}"),
            format!("outbox sagas retry-from {ID} charge"),
            format!("outbox sagas skip {ID} charge"),
        ]
    );
    assert_eq!(
        explain(&stuck(None, false)).commands,
        [format!("outbox sagas resume {ID}"), format!("outbox sagas cancel {ID}")]
    );
    check(vec![
        (
            stuck(Some("charge"), true),
            format!(
                "{SAGA} is stuck at the compensation of step `charge` since 14:03 UTC (refund failed), {until}"
            ),
        ),
        (
            stuck(Some("charge"), false),
            format!("{SAGA} is stuck at step `charge` since 14:03 UTC (refund failed), {until}"),
        ),
        (stuck(None, false), format!("{SAGA} is stuck since 14:03 UTC (refund failed), {until}")),
        (
            ended(SagaState::Completed, None),
            format!("{SAGA} has ended: it completed at 14:04 UTC."),
        ),
        (
            ended(SagaState::Compensated, Some("`ship`: no stock")),
            format!(
                "{SAGA} has ended: everything it had done was undone by 14:04 UTC: `ship`: no stock."
            ),
        ),
        (
            Facts::nothing(Subject::Saga(SagaId::from_uuid(uuid::Uuid::from_u128(9))), now()),
            format!(
                "Nothing is stored of saga {ID}: it was never started here, or it has ended and its retention has removed it."
            ),
        ),
    ]);
}
