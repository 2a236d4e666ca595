//! What command line, page and JSON API do alike.

mod lookup;
mod reason;
mod text;
mod documents;

pub use documents::{ActDone, Answer, DatabaseEntry, ExplainedSubject, SagaHistory};
pub use lookup::{
    awaited_commands, commands_of, history_of, letter_by_id, messages_of, named_subjects,
    saga_by_id, sagas_named, subjects_everywhere,
};
pub use reason::{ReasonFault, checked_reason};
pub use text::{
    ago_text, cut_text, encoded_text, escaped_json, instant_text, is_unseen, shown_text, span_text,
};
