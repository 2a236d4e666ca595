//! The participants of a test: they recognise repeats and commands that come after the one that
//! undoes them, as consumers do. The network between them and the saga loses, delays, repeats and
//! reorders messages.

use crate::{
    consumer::{CommandAction, decide, default_reply, provisional_outcome, rejection},
    event::{Headers, Message, MessageId, MessageParts, NewEvent, Timestamp},
    outbox::{CommandOutcome, RecordedCommand, StoredReply},
    saga::{CommandHash, CommandId, CommandPhase, Record, RemoteSpec, Shape},
};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt,
    num::NonZeroU32,
    sync::Arc,
};
use uuid::Uuid;

/// The fault of the commands and replies of a remote step.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum RemoteFault {
    /// None: the command and the reply arrive, and the step is done.
    #[default]
    None,
    /// The participant rejects the command.
    Rejected,
    /// The first command for the step is lost.
    CommandLost,
    /// The step is done, and the first reply is lost.
    ReplyLost,
    /// The step is done, and the reply comes when the saga does not wait for it any more.
    ReplyLate,
    /// The command for the step comes after the one that undoes it.
    CommandLate,
    /// Every message comes twice.
    Duplicated,
    /// Forged messages come too: replies to commands and rounds that were never sent, replies of
    /// another consumer, where the step names one, and before each command another message with its
    /// headers.
    Forged,
}

impl RemoteFault {
    /// All faults, and none.
    pub const ALL: [Self; 8] = [
        Self::None,
        Self::Rejected,
        Self::CommandLost,
        Self::ReplyLost,
        Self::ReplyLate,
        Self::CommandLate,
        Self::Duplicated,
        Self::Forged,
    ];
}

/// Makes the reply of success.
pub(super) type MakeReply = Arc<dyn Fn(&NewEvent) -> NewEvent + Send + Sync>;

/// A command in flight.
#[derive(Debug, Clone)]
struct SentCommand {
    id: CommandId,
    command: NewEvent,
    /// How many waits have to pass before it arrives.
    delay: u32,
}

/// What a participant has recorded of a command: of doing the step, and of undoing it.
type Records = (Option<RecordedCommand>, Option<RecordedCommand>);

/// A step's name, its round, and the hash of its command.
type ParticipantKey = (String, NonZeroU32, Option<Uuid>);

/// A reply that arrives.
#[derive(Debug, Clone)]
pub(super) struct ReceivedReply {
    pub(super) message: Message,
    /// Whether no participant has sent it.
    pub(super) forged: bool,
}

/// The participants, and the network.
#[derive(Clone, Default)]
pub(super) struct Participants {
    replies: HashMap<String, MakeReply>,
    /// The consumers and sources that steps name.
    remote: HashMap<String, RemoteSpec>,
    pub(super) faults: HashMap<String, RemoteFault>,
    /// Where the network's faults are random.
    pub(super) random: Option<fastrand::Rng>,
    /// Commands of open transactions.
    pending: Vec<SentCommand>,
    commands_in_flight: Vec<SentCommand>,
    replies_in_flight: Vec<(ReceivedReply, u32)>,
    records: BTreeMap<ParticipantKey, Records>,
    /// Messages with a command's headers that the saga has not sent.
    forged: BTreeSet<Uuid>,
    /// How many commands for a step have arrived or are lost: only the first one has the fault.
    seen: HashMap<String, u32>,
    /// Steps of which a command that undoes them was sent.
    undoing: BTreeSet<String>,
    /// Steps of which a reply is lost.
    lost_replies: BTreeSet<String>,
}

impl fmt::Debug for Participants {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Participants")
            .field("faults", &self.faults)
            .field("records", &self.records)
            .finish_non_exhaustive()
    }
}

impl Participants {
    pub(super) fn with(replies: HashMap<String, MakeReply>, shape: &Shape) -> Self {
        let remote = shape
            .steps
            .iter()
            .filter_map(|step| Some((step.name.to_string(), step.remote?)))
            .collect();
        Self { replies, remote, ..Self::default() }
    }

    pub(super) fn command_sent(&mut self, id: &CommandId, command: &NewEvent) {
        self.pending.push(SentCommand { id: id.clone(), command: command.clone(), delay: 0 });
    }

    /// Drops the commands of transactions that were rolled back.
    pub(super) fn rolled_back(&mut self) {
        self.pending.clear();
    }

    /// Drops the commands of earlier attempts at a step.
    pub(super) fn attempt_starts(&mut self, step: &str) {
        self.pending.retain(|sent| sent.id.step != step);
    }

    /// Sends the commands that were committed together with these records.
    pub(super) fn committed(&mut self, records: &[Record]) {
        let by =
            |sent: &SentCommand| records.iter().any(|record| record.step() == Some(&sent.id.step));
        let (sent, pending) = std::mem::take(&mut self.pending).into_iter().partition(by);
        self.pending = pending;
        self.send(sent);
    }

    fn send(&mut self, commands: Vec<SentCommand>) {
        for mut sent in commands {
            let (of_step, fault) = (sent.id.phase == CommandPhase::Do, self.fault(&sent.id.step));
            if !of_step {
                self.undoing.insert(sent.id.step.clone());
            }
            let seen = self.seen.entry(sent.id.step.clone()).or_default();
            *seen += u32::from(of_step);
            let first = of_step && *seen == 1;
            if let Some(random) = &mut self.random {
                let (copies, delay) = random_fault(random);
                sent.delay = delay;
                self.commands_in_flight.extend(std::iter::repeat_n(sent, copies));
                continue;
            }
            match fault {
                RemoteFault::CommandLost if first => {}
                RemoteFault::CommandLate if first => {
                    sent.delay = 2;
                    self.commands_in_flight.push(sent);
                }
                RemoteFault::Duplicated => self.commands_in_flight.extend([sent.clone(), sent]),
                _ => self.commands_in_flight.push(sent),
            }
        }
    }

    fn fault(&self, step: &str) -> RemoteFault {
        self.faults.get(step).copied().unwrap_or_default()
    }

    /// Delivers the messages in flight, with `all` also the delayed ones; gives the replies that
    /// arrive.
    pub(super) fn deliver(&mut self, all: bool) -> Vec<ReceivedReply> {
        let (mut arrived, later): (Vec<_>, Vec<_>) = std::mem::take(&mut self.commands_in_flight)
            .into_iter()
            .partition(|sent| all || sent.delay == 0);
        self.commands_in_flight = later;
        if let Some(random) = &mut self.random {
            random.shuffle(&mut arrived);
        }
        for sent in arrived {
            let (of_step, fault) = (sent.id.phase == CommandPhase::Do, self.fault(&sent.id.step));
            let forges = match &mut self.random {
                Some(random) => random.u8(..100) < 10,
                None => fault == RemoteFault::Forged,
            };
            if forges {
                self.forge(&sent);
            }
            let reply = self.handle(&sent, fault);
            let message = ReceivedReply { message: self.reply(&sent.id, reply), forged: false };
            if let Some(random) = &mut self.random {
                let (copies, delay) = random_fault(random);
                self.replies_in_flight.extend(std::iter::repeat_n((message, delay), copies));
                continue;
            }
            match fault {
                RemoteFault::ReplyLost
                    if of_step && self.lost_replies.insert(sent.id.step.clone()) => {}
                RemoteFault::ReplyLate if of_step => self.replies_in_flight.push((message, 1)),
                RemoteFault::Duplicated => {
                    self.replies_in_flight.extend([(message.clone(), 0), (message, 0)])
                }
                _ => self.replies_in_flight.push((message, 0)),
            }
        }
        let (mut arrived, later): (Vec<_>, Vec<_>) = std::mem::take(&mut self.replies_in_flight)
            .into_iter()
            .partition(|(_, delay)| all || *delay == 0);
        self.replies_in_flight = later;
        if let Some(random) = &mut self.random {
            random.shuffle(&mut arrived);
        }
        arrived.into_iter().map(|(arrived, _)| arrived).collect()
    }

    /// Lets a wait pass.
    pub(super) fn wait(&mut self) {
        self.commands_in_flight
            .iter_mut()
            .for_each(|sent| sent.delay = sent.delay.saturating_sub(1));
        self.replies_in_flight.iter_mut().for_each(|(_, delay)| *delay = delay.saturating_sub(1));
    }

    /// Does what a participant does, by the rules of its barrier.
    fn handle(&mut self, sent: &SentCommand, fault: RemoteFault) -> StoredReply {
        let phase = sent.id.phase;
        let known = self.records.entry(participant_key(sent)).or_default();
        if phase == CommandPhase::Undo && known.0.is_none() {
            known.0 = Some(RecordedCommand {
                outcome: CommandOutcome::Blocked,
                reply: None,
                command: None,
            });
        }
        let (outcome, reply) = match (decide(phase, known.0.clone(), known.1.clone()), phase) {
            (CommandAction::Reply(reply), CommandPhase::Do) => return reply,
            (CommandAction::Reply(reply), CommandPhase::Undo) => {
                (provisional_outcome(phase), reply)
            }
            (CommandAction::Run, CommandPhase::Do) if fault == RemoteFault::Rejected => {
                (CommandOutcome::Rejected, rejection("the test wants it"))
            }
            (CommandAction::Run, CommandPhase::Do) => {
                let reply = self.replies.get(&sent.id.step);
                (
                    provisional_outcome(phase),
                    reply.map_or_else(
                        || default_reply(provisional_outcome(phase)),
                        |reply| reply(&sent.command).into(),
                    ),
                )
            }
            (CommandAction::Run, CommandPhase::Undo) => {
                (provisional_outcome(phase), default_reply(provisional_outcome(phase)))
            }
        };
        let row = if phase == CommandPhase::Do { &mut known.0 } else { &mut known.1 };
        *row = Some(RecordedCommand { outcome, reply: Some(reply.clone()), command: None });
        reply
    }

    /// Lists the steps that the participants have done, by name.
    pub(super) fn done(&self) -> Vec<String> {
        let is_done = |known: &Records| {
            let done = known.0.as_ref().is_some_and(|known| known.outcome == CommandOutcome::Done);
            done && known.1.is_none()
        };
        let is_real = |(.., command): &ParticipantKey| {
            command.is_none_or(|command| !self.forged.contains(&command))
        };
        let done = self.records.iter().filter(|(key, known)| is_real(key) && is_done(known));
        done.map(|((step, ..), _)| step.clone()).collect()
    }

    /// Sends the forged messages that can be made of a command that has arrived.
    fn forge(&mut self, sent: &SentCommand) {
        let mut other = sent.clone();
        other.command.payload = [&sent.command.payload[..], b" "].concat().into();
        sent.id.write_command(&mut other.command.headers, None, None);
        self.forged.extend(participant_key(&other).2);
        if sent.id.phase == CommandPhase::Do {
            drop(self.handle(&other, RemoteFault::None));
        }
        let CommandId { saga, step, round, phase } = sent.id.clone();
        let next = CommandId { saga, step: step.clone(), round: round.saturating_add(1), phase };
        let mut forged = vec![
            self.reply(&next, default_reply(CommandOutcome::Done)),
            self.reply(&next, default_reply(CommandOutcome::Undone)),
        ];
        if phase == CommandPhase::Do {
            let undoing = CommandId { saga, step: step.clone(), round, phase: CommandPhase::Undo };
            // Where the saga compensates meanwhile, it may have sent this command itself.
            if !self.undoing.contains(&step) {
                forged.push(self.reply(&undoing, default_reply(CommandOutcome::Undone)));
            }
        }
        let remote = self.remote.get(&step).copied();
        for outcome in CommandOutcome::ALL {
            if remote.is_some_and(|remote| remote.consumer.is_some()) {
                forged.push(message(&sent.id, default_reply(outcome), "forger", source_of(remote)));
            }
            if remote.is_some_and(|remote| remote.from_source.is_some()) {
                forged.push(message(
                    &sent.id,
                    default_reply(outcome),
                    consumer_of(remote),
                    "/forger",
                ));
            }
        }
        self.replies_in_flight
            .extend(forged.into_iter().map(|message| (ReceivedReply { message, forged: true }, 0)));
    }

    /// Makes the message of a reply.
    fn reply(&self, id: &CommandId, reply: StoredReply) -> Message {
        let remote = self.remote.get(&id.step).copied();
        message(id, reply, consumer_of(remote), source_of(remote))
    }
}

fn consumer_of(remote: Option<RemoteSpec>) -> &'static str {
    remote.and_then(|remote| remote.consumer).unwrap_or("participants")
}

fn source_of(remote: Option<RemoteSpec>) -> &'static str {
    remote.and_then(|remote| remote.from_source).unwrap_or("participants")
}

/// Gives the key of a participant's records of a command.
///
/// # Panics
/// When a step makes another command than the first time: a participant could not tell which one
/// counts.
fn participant_key(sent: &SentCommand) -> ParticipantKey {
    let SentCommand { id, command, .. } = sent;
    let first = CommandHash::read(&command.headers).expect("the saga has written it");
    let own = CommandHash::of(&command.event_type, &command.payload);
    if id.phase == CommandPhase::Do
        && let Some(first) = first
    {
        assert_eq!(
            first, own,
            "`{}` makes another command when it is sent again; make it from the data alone",
            id.step
        );
    }
    let of = if id.phase == CommandPhase::Do { first.or(Some(own)) } else { first };
    (id.step.clone(), id.round, of.map(|hash| *hash.as_uuid()))
}

/// Gives how often a message arrives, and after how many waits.
fn random_fault(random: &mut fastrand::Rng) -> (usize, u32) {
    let copies = match random.u8(..100) {
        0..15 => 0,
        15..35 => 2,
        _ => 1,
    };
    (copies, if random.u8(..100) < 25 { random.u32(1..=3) } else { 0 })
}

fn message(id: &CommandId, reply: StoredReply, consumer: &str, source: &str) -> Message {
    let mut headers = Headers::new();
    id.write_reply(&mut headers, consumer);
    Message::new(MessageParts {
        id: MessageId::generate(),
        sequence: None,
        source: source.to_owned(),
        event_type: reply.event_type,
        event_version: reply.event_version,
        topic: "replies".to_owned(),
        aggregate_type: None,
        key: None,
        content_type: reply.content_type,
        payload: reply.payload,
        headers,
        created_at: Timestamp::from_micros(0),
        expires_at: None,
        retry: None,
    })
}
