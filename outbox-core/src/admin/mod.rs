//! The operator's interface, behind command line, page and JSON API: what stands still, why, and what
//! moves it.
//!
//! Every operation that writes is conditional (it changes nothing that another operator has changed
//! first), idempotent, and stored with the operator's name and reason.

mod letters;
mod inspect;
mod explain;
mod doctor;
mod acts;
mod erase;
mod samples;
mod gauges;
mod tail;
mod faces;

pub use crate::outbox::{
    Bounded, ConsumerLive, Control, ControlAction, ControlFault, ControlScope, ControlStore,
    Controls, HandoverTimes, LastFailure, Live, LiveStore, OperatorNote, OperatorRows, RelayLive,
    RouteLive, SagasLive, Sample, SampleFigures,
};
pub use acts::{
    Act, ActStore, Applied, AuditEntry, AuditOutcome, Canary, CanaryStep, Plan, PlanId, PlanState,
    PlanStore, apply, next_step,
};
pub use doctor::{DoctorStore, Finding, Severity};
pub use erase::{EraseStore, ErasurePlan, TableErasure};
pub use explain::{
    AheadFacts, CommandFacts, DeferredFacts, EventFacts, Explanation, Facts, HandledCommand,
    InstanceFacts, LetterFacts, RouteFacts, SagaFacts, explain, safe_text,
};
pub use faces::{
    ActDone, Answer, DatabaseEntry, ExplainedSubject, ReasonFault, SagaHistory, ago_text,
    awaited_commands, checked_reason, commands_of, cut_text, encoded_text, escaped_json,
    history_of, instant_text, is_unseen, letter_by_id, messages_of, named_subjects, saga_by_id,
    sagas_named, shown_text, span_text, subjects_everywhere,
};
pub use gauges::DatabaseGauges;
pub use inspect::{
    ConsumerView, DeferredView, Found, History, HistoryEntry, HistoryKind, InboxView, InspectStore,
    LetterGroup, ListStore, Overview, Page, RelayView, ScheduledView, Subject, SubjectError,
};
pub use letters::{AdminStore, DeadLetterFilter, Progress, purge_all, redrive_all};
pub use samples::SampleStore;
pub use tail::{Tail, TailEntry, TailEvent, TailKind, TailLetter, TailRead, TailStore};
