//! Those who are asked, in a test: they recognise repeats and what comes after its undoing, as consumers do. Between them
//! and the saga is a wire that loses, delays, repeats and reorders.

use crate::{
    consumer::{Course, course, noted, refused, usual},
    event::{Headers, Message, MessageId, MessageParts, NewEvent, Timestamp},
    outbox::{CallAnswer, CallOutcome, KnownCall},
    saga::{Asks, Call, CommandHash, Phase, Record, Shape},
};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt,
    num::NonZeroU32,
    sync::Arc,
};
use uuid::Uuid;

/// What becomes of the commands for a step, and of the answers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fate {
    /// They arrive, and the step is done.
    #[default]
    Well,
    /// They arrive, and the step cannot be done.
    Refused,
    /// The first command for the step is lost.
    Lost,
    /// The step is done, and the first answer is lost.
    Unanswered,
    /// The step is done, and the answer comes when the saga does not wait for it any more.
    Late,
    /// The command for the step comes after the one for its undoing.
    Overtaken,
    /// Everything comes twice.
    Twice,
    /// Strangers answer too: for undoings and rounds that nobody has asked for, and as another consumer, where the step names the
    /// one that is asked. Before each command comes another message with its headers.
    Strangers,
}

impl Fate {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Well,
        Self::Refused,
        Self::Lost,
        Self::Unanswered,
        Self::Late,
        Self::Overtaken,
        Self::Twice,
        Self::Strangers,
    ];
}

/// Makes the answer of success.
pub(super) type Reply = Arc<dyn Fn(&NewEvent) -> NewEvent + Send + Sync>;

/// A command on its way.
#[derive(Debug, Clone)]
struct Sent {
    call: Call,
    command: NewEvent,
    /// How many waits have to pass before it arrives.
    delay: u32,
}

/// What is known there of a command: of its doing, and of its undoing.
type Known = (Option<KnownCall>, Option<KnownCall>);

/// A step's name, its round, and which command it was.
type Place = (String, NonZeroU32, Option<Uuid>);

/// An answer that arrives.
#[derive(Debug, Clone)]
pub(super) struct Arrived {
    pub(super) message: Message,
    /// Whether it is of somebody who was not asked, or for what was not asked.
    pub(super) strange: bool,
}

/// The others, and the wire.
#[derive(Clone, Default)]
pub(super) struct Others {
    replies: HashMap<String, Reply>,
    /// What steps say of who answers.
    asks: HashMap<String, Asks>,
    pub(super) fates: HashMap<String, Fate>,
    /// Where chance rules over the wire.
    pub(super) chance: Option<fastrand::Rng>,
    /// Sent and not committed.
    pending: Vec<Sent>,
    commands: Vec<Sent>,
    answers: Vec<(Arrived, u32)>,
    there: BTreeMap<Place, Known>,
    /// What came with a command's headers and is none.
    strange: BTreeSet<Uuid>,
    /// Commands for steps that have arrived or are lost, by step: the first one fares as was said.
    seen: HashMap<String, u32>,
    /// Steps of which a command to undo them was sent.
    undoing: BTreeSet<String>,
    /// Steps of which an answer is lost.
    unheard: BTreeSet<String>,
}

impl fmt::Debug for Others {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Others")
            .field("fates", &self.fates)
            .field("there", &self.there)
            .finish_non_exhaustive()
    }
}

impl Others {
    pub(super) fn with(replies: HashMap<String, Reply>, shape: &Shape) -> Self {
        let asks = shape
            .steps
            .iter()
            .filter_map(|step| Some((step.name.to_string(), step.asks?)))
            .collect();
        Self { replies, asks, ..Self::default() }
    }

    pub(super) fn asked(&mut self, call: &Call, command: &NewEvent) {
        self.pending.push(Sent { call: call.clone(), command: command.clone(), delay: 0 });
    }

    /// Forgets what was sent in transactions that were rolled back.
    pub(super) fn rolled_back(&mut self) {
        self.pending.clear();
    }

    /// Forgets what was sent in an attempt at a step before this one.
    pub(super) fn begins(&mut self, step: &str) {
        self.pending.retain(|sent| sent.call.step != step);
    }

    /// Lets what was sent together with these records be on its way.
    pub(super) fn committed(&mut self, records: &[Record]) {
        let by = |sent: &Sent| records.iter().any(|record| record.step() == Some(&sent.call.step));
        let (sent, pending) = std::mem::take(&mut self.pending).into_iter().partition(by);
        self.pending = pending;
        self.depart(sent);
    }

    fn depart(&mut self, commands: Vec<Sent>) {
        for mut sent in commands {
            let (of_step, fate) = (sent.call.phase == Phase::Do, self.fate(&sent.call.step));
            if !of_step {
                self.undoing.insert(sent.call.step.clone());
            }
            let seen = self.seen.entry(sent.call.step.clone()).or_default();
            *seen += u32::from(of_step);
            let first = of_step && *seen == 1;
            if let Some(chance) = &mut self.chance {
                let (copies, delay) = by_chance(chance);
                sent.delay = delay;
                self.commands.extend(std::iter::repeat_n(sent, copies));
                continue;
            }
            match fate {
                Fate::Lost if first => {}
                Fate::Overtaken if first => {
                    sent.delay = 2;
                    self.commands.push(sent);
                }
                Fate::Twice => self.commands.extend([sent.clone(), sent]),
                _ => self.commands.push(sent),
            }
        }
    }

    fn fate(&self, step: &str) -> Fate {
        self.fates.get(step).copied().unwrap_or_default()
    }

    /// Lets what is on its way arrive, all of it where nothing more is waited for; gives the answers that arrive.
    pub(super) fn deliver(&mut self, all: bool) -> Vec<Arrived> {
        let (mut arrived, later): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.commands).into_iter().partition(|sent| all || sent.delay == 0);
        self.commands = later;
        if let Some(chance) = &mut self.chance {
            chance.shuffle(&mut arrived);
        }
        for sent in arrived {
            let (of_step, fate) = (sent.call.phase == Phase::Do, self.fate(&sent.call.step));
            let strangers = match &mut self.chance {
                Some(chance) => chance.u8(..100) < 10,
                None => fate == Fate::Strangers,
            };
            if strangers {
                self.meddle(&sent);
            }
            let answer = self.handle(&sent, fate);
            let message = Arrived { message: self.answer(&sent.call, answer), strange: false };
            if let Some(chance) = &mut self.chance {
                let (copies, delay) = by_chance(chance);
                self.answers.extend(std::iter::repeat_n((message, delay), copies));
                continue;
            }
            match fate {
                Fate::Unanswered if of_step && self.unheard.insert(sent.call.step.clone()) => {}
                Fate::Late if of_step => self.answers.push((message, 1)),
                Fate::Twice => self.answers.extend([(message.clone(), 0), (message, 0)]),
                _ => self.answers.push((message, 0)),
            }
        }
        let (mut arrived, later): (Vec<_>, Vec<_>) = std::mem::take(&mut self.answers)
            .into_iter()
            .partition(|(_, delay)| all || *delay == 0);
        self.answers = later;
        if let Some(chance) = &mut self.chance {
            chance.shuffle(&mut arrived);
        }
        arrived.into_iter().map(|(arrived, _)| arrived).collect()
    }

    /// Lets a wait pass.
    pub(super) fn wait(&mut self) {
        self.commands.iter_mut().for_each(|sent| sent.delay = sent.delay.saturating_sub(1));
        self.answers.iter_mut().for_each(|(_, delay)| *delay = delay.saturating_sub(1));
    }

    /// Does what a participant does, by the rules of its barrier.
    fn handle(&mut self, sent: &Sent, fate: Fate) -> CallAnswer {
        let phase = sent.call.phase;
        let known = self.there.entry(place(sent)).or_default();
        if phase == Phase::Undo && known.0.is_none() {
            known.0 =
                Some(KnownCall { outcome: CallOutcome::Blocked, answer: None, command: None });
        }
        let (outcome, answer) = match (course(phase, known.0.clone(), known.1.clone()), phase) {
            (Course::Answer(answer), Phase::Do) => return answer,
            (Course::Answer(answer), Phase::Undo) => (noted(phase), answer),
            (Course::Run, Phase::Do) if fate == Fate::Refused => {
                (CallOutcome::Rejected, refused("the test wants it"))
            }
            (Course::Run, Phase::Do) => {
                let reply = self.replies.get(&sent.call.step);
                (
                    noted(phase),
                    reply.map_or_else(|| usual(noted(phase)), |reply| reply(&sent.command).into()),
                )
            }
            (Course::Run, Phase::Undo) => (noted(phase), usual(noted(phase))),
        };
        let row = if phase == Phase::Do { &mut known.0 } else { &mut known.1 };
        *row = Some(KnownCall { outcome, answer: Some(answer.clone()), command: None });
        answer
    }

    /// The steps that are done there, by name.
    pub(super) fn done(&self) -> Vec<String> {
        let is_done = |known: &Known| {
            let done = known.0.as_ref().is_some_and(|known| known.outcome == CallOutcome::Done);
            done && known.1.is_none()
        };
        let is_real =
            |(.., command): &Place| command.is_none_or(|command| !self.strange.contains(&command));
        let done = self.there.iter().filter(|(place, known)| is_real(place) && is_done(known));
        done.map(|((step, ..), _)| step.clone()).collect()
    }

    /// Lets strangers send what they can make of a command that has arrived.
    fn meddle(&mut self, sent: &Sent) {
        let mut other = sent.clone();
        other.command.payload = [&sent.command.payload[..], b" "].concat().into();
        sent.call.write_command(&mut other.command.headers, None, None);
        self.strange.extend(place(&other).2);
        if sent.call.phase == Phase::Do {
            drop(self.handle(&other, Fate::Well));
        }
        let Call { saga, step, round, phase } = sent.call.clone();
        let next = Call { saga, step: step.clone(), round: round.saturating_add(1), phase };
        let mut forged = vec![
            self.answer(&next, usual(CallOutcome::Done)),
            self.answer(&next, usual(CallOutcome::Undone)),
        ];
        if phase == Phase::Do {
            let undoing = Call { saga, step: step.clone(), round, phase: Phase::Undo };
            // Where the saga has turned back meanwhile, an undoing may be out.
            if !self.undoing.contains(&step) {
                forged.push(self.answer(&undoing, usual(CallOutcome::Undone)));
            }
        }
        let asks = self.asks.get(&step).copied();
        for outcome in CallOutcome::ALL {
            if asks.is_some_and(|asks| asks.of.is_some()) {
                forged.push(message(&sent.call, usual(outcome), "strangers", source_of(asks)));
            }
            if asks.is_some_and(|asks| asks.from_source.is_some()) {
                forged.push(message(&sent.call, usual(outcome), consumer_of(asks), "/strangers"));
            }
        }
        self.answers
            .extend(forged.into_iter().map(|message| (Arrived { message, strange: true }, 0)));
    }

    /// Puts an answer into the envelope in which it arrives.
    fn answer(&self, call: &Call, answer: CallAnswer) -> Message {
        let asks = self.asks.get(&call.step).copied();
        message(call, answer, consumer_of(asks), source_of(asks))
    }
}

fn consumer_of(asks: Option<Asks>) -> &'static str {
    asks.and_then(|asks| asks.of).unwrap_or("others")
}

fn source_of(asks: Option<Asks>) -> &'static str {
    asks.and_then(|asks| asks.from_source).unwrap_or("others")
}

/// Where a participant keeps what it knows of a command.
///
/// # Panics
/// When a step makes another command than the first time: a participant would not know which is meant.
fn place(sent: &Sent) -> Place {
    let Sent { call, command, .. } = sent;
    let first = CommandHash::read(&command.headers).expect("the saga has written it");
    let own = CommandHash::of(&command.event_type, &command.payload);
    if call.phase == Phase::Do
        && let Some(first) = first
    {
        assert_eq!(
            first, own,
            "`{}` makes another command when it is asked for again; make it from the data alone",
            call.step
        );
    }
    let of = if call.phase == Phase::Do { first.or(Some(own)) } else { first };
    (call.step.clone(), call.round, of.map(|hash| *hash.as_uuid()))
}

/// How often something arrives, and after how many waits.
fn by_chance(chance: &mut fastrand::Rng) -> (usize, u32) {
    let copies = match chance.u8(..100) {
        0..15 => 0,
        15..35 => 2,
        _ => 1,
    };
    (copies, if chance.u8(..100) < 25 { chance.u32(1..=3) } else { 0 })
}

fn message(call: &Call, answer: CallAnswer, consumer: &str, source: &str) -> Message {
    let mut headers = Headers::new();
    call.write_answer(&mut headers, consumer);
    Message::new(MessageParts {
        id: MessageId::generate(),
        sequence: None,
        source: source.to_owned(),
        event_type: answer.event_type,
        event_version: answer.event_version,
        topic: "answers".to_owned(),
        aggregate_type: None,
        key: None,
        content_type: answer.content_type,
        payload: answer.payload,
        headers,
        created_at: Timestamp::from_micros(0),
        expires_at: None,
        retry: None,
    })
}
