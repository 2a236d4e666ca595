//! Those who are asked, in a test: they recognise repeats and what comes after its undoing, as consumers do. Between them
//! and the saga is a wire that loses, delays, repeats and reorders.

use crate::{
    event::{Headers, Message, MessageId, MessageParts, NewEvent, OutboxEvent, Timestamp},
    saga::{Call, DONE, Phase, REJECTED, UNDONE},
};
use bytes::Bytes;
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt,
    num::NonZeroU32,
    sync::Arc,
};

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
}

impl Fate {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Well, Self::Refused, Self::Lost, Self::Unanswered, Self::Late, Self::Overtaken, Self::Twice];
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

/// What became of a step there.
#[derive(Debug, Clone)]
enum There {
    Done(Box<NewEvent>),
    Refused,
    /// Its answer is kept all the same, as consumers keep it.
    Undone(Box<NewEvent>),
    /// It was called off before it came.
    Blocked,
}

/// The others, and the wire.
#[derive(Clone, Default)]
pub(super) struct Others {
    replies: HashMap<String, Reply>,
    pub(super) fates: HashMap<String, Fate>,
    /// Where chance rules over the wire.
    pub(super) chance: Option<fastrand::Rng>,
    /// Sent and not committed.
    pending: Vec<Sent>,
    commands: Vec<Sent>,
    answers: Vec<(Message, u32)>,
    there: BTreeMap<(String, NonZeroU32), There>,
    /// Commands for steps that have arrived or are lost, by step: the first one fares as was said.
    seen: HashMap<String, u32>,
    /// Steps of which an answer is lost.
    unheard: BTreeSet<String>,
}

impl fmt::Debug for Others {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Others").field("fates", &self.fates).field("there", &self.there).finish_non_exhaustive()
    }
}

impl Others {
    pub(super) fn with(replies: HashMap<String, Reply>) -> Self {
        Self { replies, ..Self::default() }
    }

    pub(super) fn asked(&mut self, call: &Call, command: &NewEvent) {
        self.pending.push(Sent { call: call.clone(), command: command.clone(), delay: 0 });
    }

    /// Forgets what was sent in a transaction that was rolled back.
    pub(super) fn rolled_back(&mut self) {
        self.pending.clear();
    }

    pub(super) fn committed(&mut self) {
        for mut sent in std::mem::take(&mut self.pending) {
            let (of_step, fate) = (sent.call.phase == Phase::Do, self.fate(&sent.call.step));
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
    pub(super) fn deliver(&mut self, all: bool) -> Vec<Message> {
        let (mut arrived, later): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.commands).into_iter().partition(|sent| all || sent.delay == 0);
        self.commands = later;
        if let Some(chance) = &mut self.chance {
            chance.shuffle(&mut arrived);
        }
        for sent in arrived {
            let (of_step, fate) = (sent.call.phase == Phase::Do, self.fate(&sent.call.step));
            let answer = self.handle(&sent, fate);
            let message = message(&sent.call, answer);
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
        let (mut arrived, later): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.answers).into_iter().partition(|(_, delay)| all || *delay == 0);
        self.answers = later;
        if let Some(chance) = &mut self.chance {
            chance.shuffle(&mut arrived);
        }
        arrived.into_iter().map(|(message, _)| message).collect()
    }

    /// Lets a wait pass.
    pub(super) fn wait(&mut self) {
        self.commands.iter_mut().for_each(|sent| sent.delay = sent.delay.saturating_sub(1));
        self.answers.iter_mut().for_each(|(_, delay)| *delay = delay.saturating_sub(1));
    }

    /// Does what a participant does, with its barrier.
    fn handle(&mut self, sent: &Sent, fate: Fate) -> NewEvent {
        let at = (sent.call.step.clone(), sent.call.round);
        match (sent.call.phase, self.there.get(&at)) {
            (Phase::Do, Some(There::Done(answer) | There::Undone(answer))) => (**answer).clone(),
            (Phase::Do, Some(There::Blocked)) => plain(REJECTED, r#"{"reason":"it was called off"}"#),
            (Phase::Do, Some(There::Refused)) => plain(REJECTED, r#"{"reason":"the test wants it"}"#),
            (Phase::Do, None) if fate == Fate::Refused => {
                self.there.insert(at, There::Refused);
                plain(REJECTED, r#"{"reason":"the test wants it"}"#)
            }
            (Phase::Do, None) => {
                let answer = match self.replies.get(&sent.call.step) {
                    Some(reply) => reply(&sent.command),
                    None => plain(DONE, "null"),
                };
                self.there.insert(at, There::Done(Box::new(answer.clone())));
                answer
            }
            (Phase::Undo, there) => {
                let after = match there {
                    Some(There::Done(answer) | There::Undone(answer)) => There::Undone(answer.clone()),
                    Some(There::Refused) => There::Refused,
                    Some(There::Blocked) | None => There::Blocked,
                };
                self.there.insert(at, after);
                plain(UNDONE, "null")
            }
        }
    }

    /// The steps that are done there, by name.
    pub(super) fn done(&self) -> Vec<String> {
        let done = self.there.iter().filter(|(_, there)| matches!(there, There::Done(_)));
        done.map(|((step, _), _)| step.clone()).collect()
    }
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

/// An event that only has a type.
struct Plain(&'static str, &'static str);

impl OutboxEvent for Plain {
    fn meta(&self) -> crate::event::EventMeta<'_> {
        crate::event::EventMeta::new(self.0)
    }

    fn payload(&self) -> Result<Bytes, crate::event::EncodeError> {
        Ok(Bytes::from_static(self.1.as_bytes()))
    }
}

fn plain(event_type: &'static str, payload: &'static str) -> NewEvent {
    NewEvent::encode(&Plain(event_type, payload)).expect("it has a plain envelope")
}

/// Puts an answer into the envelope in which it arrives.
fn message(call: &Call, answer: NewEvent) -> Message {
    let mut headers = Headers::new();
    call.write(&mut headers, None);
    Message::new(MessageParts {
        id: MessageId::generate(),
        sequence: None,
        source: "others".to_owned(),
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
