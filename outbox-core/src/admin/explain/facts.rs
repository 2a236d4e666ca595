//! What is known of a subject when somebody asks why it stands still. Stores read it.

use crate::{
    admin::{
        Bounded, ConsumerLive, ConsumerView, Controls, DeferredView, InboxView, RelayView,
        SagasLive, ScheduledView, Subject,
    },
    event::{LetterId, MessageId, SagaId, Timestamp},
    failure::{ConsumerOrigin, DeadReason, Resolution},
    outbox::{Awaited, CommandOutcome, DeclaredHandler, PartitionNo, RouteState},
    saga::{CommandId, CommandPhase, DefinitionId, Instance, StepProgress, StepState},
};

/// The facts about a subject that [`explain`](super::explain) needs. Stores read them.
#[derive(Debug, Clone, PartialEq)]
pub struct Facts {
    /// What the operator asks about.
    pub subject: Subject,
    /// The database's clock at the read.
    pub now: Timestamp,
    /// The event in the outbox: the message, or the first one of the key.
    pub event: Option<EventFacts>,
    /// When the event was moved to the archive: every route had confirmed it.
    pub finished_at: Option<Timestamp>,
    /// The event as it is scheduled for later.
    pub scheduled: Option<ScheduledView>,
    /// Its dead letters, the oldest first; of a key the open ones.
    pub letters: Vec<LetterFacts>,
    /// Later events of its key that wait in the outbox.
    pub behind: Bounded,
    /// The handlers that have handled the message.
    pub received: Vec<InboxView>,
    /// Its deferred deliveries, one a handler.
    pub deferred: Vec<DeferredFacts>,
    /// The saga.
    pub saga: Option<SagaFacts>,
    /// The commands whose replies the saga awaits, as this database has them.
    pub commands: Vec<CommandFacts>,
    /// The same as other databases have them, each by its name. Stores leave it empty: who asks
    /// several databases adds it, by [`add_elsewhere`](Self::add_elsewhere).
    pub elsewhere: Vec<(String, CommandFacts)>,
    /// Relays: those with a valid lease, and those that own a partition.
    pub relays: Vec<RelayView>,
    /// Instances of consumers that have a row.
    pub instances: Vec<InstanceFacts>,
    /// Coordinators of sagas that have written about themselves.
    pub coordinators: Vec<ConsumerView<SagasLive>>,
    /// Controls in force.
    pub controls: Controls,
    /// What the store did not search, in sentences.
    pub not_searched: Vec<String>,
}

impl Facts {
    /// Makes the facts about a subject of which nothing is stored.
    #[must_use]
    pub fn nothing(subject: Subject, now: Timestamp) -> Self {
        Self {
            subject,
            now,
            event: None,
            finished_at: None,
            scheduled: None,
            letters: Vec::new(),
            behind: Bounded::default(),
            received: Vec::new(),
            deferred: Vec::new(),
            saga: None,
            commands: Vec::new(),
            elsewhere: Vec::new(),
            relays: Vec::new(),
            instances: Vec::new(),
            coordinators: Vec::new(),
            controls: Controls::default(),
            not_searched: Vec::new(),
        }
    }

    /// Tells whether the store has nothing of the subject itself.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.event.is_none()
            && self.finished_at.is_none()
            && self.scheduled.is_none()
            && self.letters.is_empty()
            && self.received.is_empty()
            && self.deferred.is_empty()
            && self.saga.is_none()
    }

    /// Gives the commands whose replies the saga awaits; none for another subject.
    #[must_use]
    pub fn awaited_commands(&self) -> Vec<CommandId> {
        self.saga.as_ref().map(SagaFacts::awaited_commands).unwrap_or_default()
    }

    /// Adds what another database, by its name, has of the commands whose replies the saga awaits.
    pub fn add_elsewhere(&mut self, database: &str, commands: &[CommandFacts]) {
        let awaited = self.awaited_commands();
        let of_saga = commands.iter().filter(|known| awaited.contains(&known.command));
        self.elsewhere.extend(of_saga.map(|known| (database.to_owned(), known.clone())));
    }
}

/// An event that waits in the outbox.
#[derive(Debug, Clone, PartialEq)]
pub struct EventFacts {
    /// The message.
    pub message: MessageId,
    /// Its partition.
    pub partition: PartitionNo,
    /// The relay that owns the partition.
    pub owner: Option<String>,
    /// Its topic.
    pub topic: String,
    /// Its type.
    pub event_type: String,
    /// Its key.
    pub key: Option<String>,
    /// When it was saved.
    pub created_at: Timestamp,
    /// When it expires.
    pub expires_at: Option<Timestamp>,
    /// Its route rows; empty until an attempt has failed.
    pub routes: Vec<RouteFacts>,
    /// The first event of its key, where that is another one.
    pub ahead: Option<AheadFacts>,
    /// The open dead letter of an earlier event that parks its key on a route.
    pub parked_by: Option<LetterFacts>,
}

/// An event on a route, by its row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteFacts {
    /// The route's stable name; empty for the row of an event that no route takes.
    pub route: String,
    /// Its state.
    pub state: RouteState,
    /// Attempts whose start was recorded before they were made.
    pub started: u32,
    /// Attempts that were counted.
    pub attempts: u32,
    /// When it is due; `None` if the relay finds it by reading in order.
    pub due_at: Option<Timestamp>,
    /// The text of the last failure.
    pub last_error: Option<String>,
    /// Whether an operator redrove it.
    pub redriven: bool,
}

/// An event before another one of its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AheadFacts {
    /// The message.
    pub message: MessageId,
    /// Its type.
    pub event_type: String,
    /// Its route rows.
    pub routes: Vec<RouteFacts>,
}

/// A dead letter, without its content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LetterFacts {
    /// Its identity.
    pub id: LetterId,
    /// The message.
    pub message: MessageId,
    /// Its type.
    pub event_type: String,
    /// Its key.
    pub key: Option<String>,
    /// The route that gave up; empty where no route took the event, and where a consumer gave up.
    pub route: String,
    /// The consumer that gave up; `None` where a route did.
    pub consumer: Option<ConsumerOrigin>,
    /// Why.
    pub reason: DeadReason,
    /// Attempts that were counted.
    pub attempts: u32,
    /// The text of the last failure.
    pub last_error: Option<String>,
    /// Whether later events of its key wait until it is resolved.
    pub parks: bool,
    /// When it was given up.
    pub dead_at: Timestamp,
    /// How an operator resolved it.
    pub resolution: Option<Resolution>,
}

/// A deferred delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeferredFacts {
    /// The delivery as lists show it.
    pub view: DeferredView,
    /// When it was stored.
    pub stored_at: Timestamp,
    /// The instance that has claimed it, and until when.
    pub claimed: Option<(String, Timestamp)>,
    /// The first delivery of its key for the handler, where that is another one.
    pub ahead: Option<MessageId>,
    /// Since when it waits for an instance that knows it, and the type or saga, which is `None` where
    /// only the handler is missing.
    pub awaits: Option<(Timestamp, Option<Awaited>)>,
}

/// A running instance of a consumer.
#[derive(Debug, Clone, PartialEq)]
pub struct InstanceFacts {
    /// Its identity.
    pub id: String,
    /// The consumer.
    pub consumer: String,
    /// Whether its lease is valid.
    pub live: bool,
    /// The handlers that it declares.
    pub handlers: Vec<DeclaredHandler>,
    /// What it wrote about itself last.
    pub state: Option<ConsumerLive>,
}

/// A saga.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SagaFacts {
    /// Its identity.
    pub id: SagaId,
    /// Its definition.
    pub definition: DefinitionId,
    /// Its correlation id.
    pub correlation: String,
    /// Its state.
    pub instance: Instance,
    /// When a coordinator drives it next, or, where one has claimed it, until when the claim lasts.
    pub due_at: Option<Timestamp>,
    /// Whether a coordinator has claimed it.
    pub claimed: bool,
    /// Its deadline.
    pub deadline_at: Option<Timestamp>,
    /// When its last record was written.
    pub changed_at: Timestamp,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// The text of the last failed attempt in its log.
    pub last_error: Option<String>,
}

impl SagaFacts {
    /// Gives the commands whose replies it awaits, in the order of its steps.
    #[must_use]
    pub fn awaited_commands(&self) -> Vec<CommandId> {
        let command = |step: &StepProgress| {
            let phase = match step.state {
                StepState::Waiting => CommandPhase::Do,
                StepState::Cancelling => CommandPhase::Undo,
                _ => return None,
            };
            let round = step.command.as_ref()?.round;
            Some(CommandId { saga: self.id, step: step.step.clone(), round, phase })
        };
        self.instance.steps.iter().filter_map(command).collect()
    }
}

/// What a database has of a command of a saga and of the reply to it: that of the service which
/// sends it, or that of its participant.
#[derive(Debug, Clone, PartialEq)]
pub struct CommandFacts {
    /// The command.
    pub command: CommandId,
    /// What waits of the command: its event in the outbox, its open letters, its deferred
    /// deliveries; with the relays and consumers of the database.
    pub sent: Facts,
    /// How a consumer of the database has handled it.
    pub handled: Option<HandledCommand>,
    /// What waits of the reply, in the same way: in the participant's outbox, or at the consumer that
    /// takes the replies to the saga.
    pub reply: Facts,
}

impl CommandFacts {
    /// Gives the messages of the command and of the reply that are stored, to follow them.
    pub fn messages(&self) -> impl Iterator<Item = MessageId> {
        [&self.sent, &self.reply].into_iter().flat_map(|part| {
            let event = part.event.iter().map(|event| event.message);
            let letters = part.letters.iter().map(|letter| letter.message);
            event.chain(letters).chain(part.deferred.iter().map(|delivery| delivery.view.message))
        })
    }
}

/// A command that a consumer has handled: its effect and its reply are committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HandledCommand {
    /// The consumer.
    pub consumer: String,
    /// What came of it.
    pub outcome: CommandOutcome,
    /// When.
    pub at: Timestamp,
}
