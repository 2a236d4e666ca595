//! A saga, its participants, and a network that loses, repeats and reorders messages.

use super::{
    ann, compensating,
    remote::{
        REPLY_TIMEOUT_US, command_id, command_sent, remote_group, remote_steps, reply_effect,
    },
};
use crate::saga::{
    CommandId, CommandPhase, Instance, Json, Plan, Record, Reply, ReplyEffect, SagaState, Shape,
    StepFailure, When, after_failure, plan,
};
use proptest::prelude::*;
use std::{collections::BTreeMap, time::Duration};

/// The pause between two attempts.
const RETRY: Duration = Duration::from_micros(300);

/// A participant with its barrier, as a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Participant {
    Done,
    Rejected,
    Undone,
    Blocked,
}

/// A saga, its participants, and the messages in flight.
struct World {
    shape: Shape,
    at: Instance,
    now_us: i64,
    commands: Vec<CommandId>,
    replies: Vec<(CommandId, Reply)>,
    participants: BTreeMap<(String, u32), Participant>,
}

impl World {
    fn new(shape: Shape) -> Self {
        let (commands, replies, participants) = (Vec::new(), Vec::new(), BTreeMap::new());
        Self { shape, at: Instance::default(), now_us: 0, commands, replies, participants }
    }

    /// Does one thing of the plan; where the plan is to wait, gives for how long.
    fn advance(&mut self, fails: bool) -> Option<Duration> {
        match plan(&self.shape, &self.at, When { now_us: self.now_us, overdue: false }) {
            Plan::Idle => Some(Duration::ZERO),
            Plan::Wait(wait) => Some(wait),
            Plan::Append(record) => {
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
                        &StepFailure::Retry("no".into()),
                        self.now_us,
                        |_| RETRY,
                    );
                    self.write(&record);
                    return None;
                }
                let phase = if self.at.backward { CommandPhase::Undo } else { CommandPhase::Do };
                let known = self.at.step(&step.name).and_then(|known| known.command.as_ref());
                let round = known.map_or(1, |command| command.round.get());
                self.commands.push(command_id(&step.name, round, phase));
                self.write(&command_sent(&step.name, self.now_us + REPLY_TIMEOUT_US));
                None
            }
        }
    }

    fn write(&mut self, record: &Record) {
        let ended = self.at.state.is_final();
        self.at = self.at.after(record).unwrap_or_else(|| panic!("{record:?} at {:?}", self.at));
        assert!(!ended || self.at.state.is_final(), "an end has changed");
    }

    fn command_arrives(&mut self, command: CommandId, rejects: bool) {
        let key = (command.step.clone(), command.round.get());
        let reply = match (command.phase, self.participants.get(&key).copied()) {
            (CommandPhase::Do, None) if rejects => {
                self.participants.insert(key, Participant::Rejected);
                Reply::Rejected("no".into())
            }
            (CommandPhase::Do, None) => {
                self.participants.insert(key, Participant::Done);
                Reply::Done(Json::of(&1).unwrap())
            }
            // A participant repeats its reply also where the step was undone since, as consumers
            // do.
            (CommandPhase::Do, Some(Participant::Done | Participant::Undone)) => {
                Reply::Done(Json::of(&1).unwrap())
            }
            (CommandPhase::Do, Some(_)) => Reply::Rejected("no".into()),
            (CommandPhase::Undo, known) => {
                let next = match known {
                    None | Some(Participant::Blocked) => Participant::Blocked,
                    Some(Participant::Done | Participant::Undone) => Participant::Undone,
                    Some(Participant::Rejected) => Participant::Rejected,
                };
                self.participants.insert(key, next);
                Reply::Undone
            }
        };
        self.replies.push((command, reply));
    }

    fn reply_arrives(&mut self, (command, reply): (CommandId, Reply)) {
        let effect = reply_effect(&self.shape, &self.at, &command, reply);
        if let ReplyEffect::Append(record) = effect {
            self.write(&record);
        }
    }

    /// Lets one random thing happen.
    fn happens(&mut self, kind: u8, which: usize) {
        let command = (!self.commands.is_empty()).then(|| which % self.commands.len().max(1));
        let reply = (!self.replies.is_empty()).then(|| which % self.replies.len().max(1));
        match (kind, command, reply) {
            (0..4, ..) => drop(self.advance(false)),
            (4, ..) => drop(self.advance(true)),
            (5, ..) => self.now_us += REPLY_TIMEOUT_US / 2 + i64::try_from(which % 2).unwrap(),
            (6..9, Some(n), _) => {
                let command = self.commands.remove(n);
                self.command_arrives(command, false);
            }
            (9, Some(n), _) => {
                let command = self.commands.remove(n);
                self.command_arrives(command, true);
            }
            (10, Some(n), _) => self.command_arrives(self.commands[n].clone(), false),
            (11, Some(n), _) => drop(self.commands.remove(n)),
            (12..15, _, Some(n)) => {
                let reply = self.replies.remove(n);
                self.reply_arrives(reply);
            }
            (15, _, Some(n)) => self.reply_arrives(self.replies[n].clone()),
            (16, _, Some(n)) => drop(self.replies.remove(n)),
            (17, ..) if self.at.after(&compensating(Some(ann()))).is_some() => {
                self.write(&compensating(Some(ann())))
            }
            _ => {}
        }
    }

    /// Delivers everything, in order, until nothing more happens.
    fn quiesce(&mut self) {
        for _ in 0..200 {
            while let Some(command) = self.commands.pop() {
                self.command_arrives(command, false);
            }
            while let Some(reply) = self.replies.pop() {
                self.reply_arrives(reply);
            }
            match self.advance(false) {
                None => {}
                Some(Duration::ZERO) => break,
                Some(wait) => self.now_us += i64::try_from(wait.as_micros()).unwrap(),
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// Whatever the network loses, delays, repeats or reorders: a saga ends with everything done or
    /// with nothing, or is stuck.
    #[test]
    fn whatever_the_network_does_it_is_all_or_nothing(
        together in any::<bool>(),
        events in prop::collection::vec((0..18_u8, 0..50_usize), 0..120),
    ) {
        let mut world = World::new(if together { remote_group() } else { remote_steps() });
        for (kind, which) in events {
            world.happens(kind, which);
        }
        world.quiesce();
        let done: Vec<&str> =
            world.participants.iter().filter(|(_, known)| **known == Participant::Done).map(|((step, _), _)| step.as_str()).collect();
        match world.at.state {
            SagaState::Completed => prop_assert_eq!(done, ["a", "b", "c", "d"]),
            SagaState::Compensated => prop_assert!(done.is_empty(), "{:?} is left, of {:?}", done, world.at),
            SagaState::Stuck => {}
            state => prop_assert!(false, "{} has not ended: {:?}", state, world.at),
        }
    }
}
