//! A saga, those whom it asks, and a wire that does what it likes.

use super::{
    ann,
    asked::{PATIENCE_US, asked, asking, asking_together, call, hear},
    turned,
};
use crate::saga::{
    Answer, Call, Failed, Heard, Instance, Json, Phase, Plan, Record, SagaState, Shape, When,
    after_failure, plan,
};
use proptest::prelude::*;
use std::{collections::BTreeMap, time::Duration};

/// Between two attempts.
const RETRY: Duration = Duration::from_micros(300);

/// A participant with its barrier, as a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum There {
    Done,
    Refused,
    Undone,
    Blocked,
}

/// A saga, those whom it asks, and the wire between.
struct World {
    shape: Shape,
    at: Instance,
    now_us: i64,
    commands: Vec<Call>,
    answers: Vec<(Call, Answer)>,
    there: BTreeMap<(String, u32), There>,
}

impl World {
    fn new(shape: Shape) -> Self {
        let (commands, answers, there) = (Vec::new(), Vec::new(), BTreeMap::new());
        Self { shape, at: Instance::default(), now_us: 0, commands, answers, there }
    }

    /// Does one thing of what is planned; where there is nothing to do but to wait, says for how long.
    fn goes_on(&mut self, fails: bool) -> Option<Duration> {
        match plan(&self.shape, &self.at, When { now_us: self.now_us, overdue: false }) {
            Plan::Rest => Some(Duration::ZERO),
            Plan::Wait(wait) => Some(wait),
            Plan::Note(record) => {
                self.write(&record);
                None
            }
            Plan::Run(steps) | Plan::Undo(steps) => {
                let step = self.shape.steps
                    [steps[usize::try_from(self.now_us).unwrap() % steps.len()]]
                .clone();
                if fails {
                    let record = after_failure(
                        &step,
                        &self.at,
                        &Failed::Retry("no".into()),
                        self.now_us,
                        |_| RETRY,
                    );
                    self.write(&record);
                    return None;
                }
                let phase = if self.at.backward { Phase::Undo } else { Phase::Do };
                let known = self.at.step(&step.name).and_then(|known| known.asked.as_ref());
                let round = known.map_or(1, |asked| asked.round.get());
                self.commands.push(call(&step.name, round, phase));
                self.write(&asked(&step.name, self.now_us + PATIENCE_US));
                None
            }
        }
    }

    fn write(&mut self, record: &Record) {
        let ended = self.at.state.is_final();
        self.at = self.at.after(record).unwrap_or_else(|| panic!("{record:?} at {:?}", self.at));
        assert!(!ended || self.at.state.is_final(), "an end has changed");
    }

    fn arrives(&mut self, command: Call, refuses: bool) {
        let key = (command.step.clone(), command.round.get());
        let answer = match (command.phase, self.there.get(&key).copied()) {
            (Phase::Do, None) if refuses => {
                self.there.insert(key, There::Refused);
                Answer::Refused("no".into())
            }
            (Phase::Do, None) => {
                self.there.insert(key, There::Done);
                Answer::Done(Json::of(&1).unwrap())
            }
            // What was undone since is answered as it was, as consumers do.
            (Phase::Do, Some(There::Done | There::Undone)) => Answer::Done(Json::of(&1).unwrap()),
            (Phase::Do, Some(_)) => Answer::Refused("no".into()),
            (Phase::Undo, there) => {
                let next = match there {
                    None | Some(There::Blocked) => There::Blocked,
                    Some(There::Done | There::Undone) => There::Undone,
                    Some(There::Refused) => There::Refused,
                };
                self.there.insert(key, next);
                Answer::Undone
            }
        };
        self.answers.push((command, answer));
    }

    fn hears(&mut self, (command, answer): (Call, Answer)) {
        if let Heard::Write(record) = hear(&self.shape, &self.at, &command, answer) {
            self.write(&record);
        }
    }

    /// One thing happens, whatever it is.
    fn happens(&mut self, kind: u8, which: usize) {
        let command = (!self.commands.is_empty()).then(|| which % self.commands.len().max(1));
        let answer = (!self.answers.is_empty()).then(|| which % self.answers.len().max(1));
        match (kind, command, answer) {
            (0..4, ..) => drop(self.goes_on(false)),
            (4, ..) => drop(self.goes_on(true)),
            (5, ..) => self.now_us += PATIENCE_US / 2 + i64::try_from(which % 2).unwrap(),
            (6..9, Some(n), _) => {
                let command = self.commands.remove(n);
                self.arrives(command, false);
            }
            (9, Some(n), _) => {
                let command = self.commands.remove(n);
                self.arrives(command, true);
            }
            (10, Some(n), _) => self.arrives(self.commands[n].clone(), false),
            (11, Some(n), _) => drop(self.commands.remove(n)),
            (12..15, _, Some(n)) => {
                let answer = self.answers.remove(n);
                self.hears(answer);
            }
            (15, _, Some(n)) => self.hears(self.answers[n].clone()),
            (16, _, Some(n)) => drop(self.answers.remove(n)),
            (17, ..) if self.at.after(&turned(Some(ann()))).is_some() => {
                self.write(&turned(Some(ann())))
            }
            _ => {}
        }
    }

    /// Everything arrives, in order, until nothing more happens.
    fn calms_down(&mut self) {
        for _ in 0..200 {
            while let Some(command) = self.commands.pop() {
                self.arrives(command, false);
            }
            while let Some(answer) = self.answers.pop() {
                self.hears(answer);
            }
            match self.goes_on(false) {
                None => {}
                Some(Duration::ZERO) => break,
                Some(wait) => self.now_us += i64::try_from(wait.as_micros()).unwrap(),
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// Whatever is lost, late, repeated or reordered: a saga ends with everything done or with nothing, or is stuck.
    #[test]
    fn whatever_the_wire_does_it_is_all_or_nothing(
        together in any::<bool>(),
        events in prop::collection::vec((0..18_u8, 0..50_usize), 0..120),
    ) {
        let mut world = World::new(if together { asking_together() } else { asking() });
        for (kind, which) in events {
            world.happens(kind, which);
        }
        world.calms_down();
        let done: Vec<&str> =
            world.there.iter().filter(|(_, there)| **there == There::Done).map(|((step, _), _)| step.as_str()).collect();
        match world.at.state {
            SagaState::Completed => prop_assert_eq!(done, ["a", "b", "c", "d"]),
            SagaState::Compensated => prop_assert!(done.is_empty(), "{:?} is left, of {:?}", done, world.at),
            SagaState::Stuck => {}
            state => prop_assert!(false, "{} has not ended: {:?}", state, world.at),
        }
    }
}
