//! What the operator's faces ask in the same way: what a text names, its histories over several
//! databases, one letter, one saga.

use crate::admin::{
    AdminStore, CommandFacts, DeadLetterFilter, Facts, History, InspectStore, Subject,
};
use crate::{
    event::{LetterId, SagaId},
    failure::DeadLetter,
    outbox::StoreError,
    saga::{CommandId, LogEntry, SagaAdmin, SagaFilter, SagaView},
};

/// Sagas of one correlation id that are looked at: a correlation id should name one.
const MOST_SAGAS: u32 = 10;

/// Gives what a text names in a database, each thing once, by its text: the text itself where it
/// has the form of a [`Subject`], else what the store [finds](InspectStore::find).
///
/// # Errors
/// [`StoreError`] of the search.
pub async fn named_subjects<S>(store: &S, text: &str) -> Result<Vec<Subject>, StoreError>
where
    S: InspectStore + ?Sized,
{
    if let Ok(subject) = text.parse::<Subject>() {
        return Ok(vec![subject]);
    }
    let found = store.find(text).await?;
    Ok(each_once(found.into_iter().map(|found| found.subject)))
}

/// Gives what every database has to be asked about, where these were named in some: a saga's id is
/// also the key of its commands and replies, which other services have.
#[must_use]
pub fn subjects_everywhere(named: impl IntoIterator<Item = Subject>) -> Vec<Subject> {
    let with_keys = |subject| {
        let key = match &subject {
            Subject::Saga(id) => Some(Subject::Key(id.to_string())),
            Subject::Message(_) | Subject::Key(_) => None,
        };
        [Some(subject), key].into_iter().flatten()
    };
    each_once(named.into_iter().flat_map(with_keys))
}

fn each_once(subjects: impl Iterator<Item = Subject>) -> Vec<Subject> {
    let mut subjects: Vec<Subject> = subjects.collect();
    subjects.sort_by_cached_key(Subject::to_string);
    subjects.dedup();
    subjects
}

/// Gives what a store has about several subjects, each entry once, at most `limit` entries of each.
///
/// # Errors
/// [`StoreError`] of the first history that cannot be read.
pub async fn history_of<S>(
    store: &S,
    subjects: &[Subject],
    limit: u32,
) -> Result<History, StoreError>
where
    S: InspectStore + ?Sized,
{
    let mut all = History::default();
    for subject in subjects {
        let history = store.history(subject, limit).await?;
        for entry in history.entries {
            if !all.entries.contains(&entry) {
                all.entries.push(entry);
            }
        }
        all.gone.extend(history.gone);
    }
    all.gone.sort();
    all.gone.dedup();
    Ok(all)
}

/// Gives what a store has of commands of sagas and of the replies to them; nothing from a store that
/// cannot tell.
///
/// # Errors
/// [`StoreError`] of the first one that cannot be read.
pub async fn commands_of<S>(
    store: &S,
    commands: &[CommandId],
) -> Result<Vec<CommandFacts>, StoreError>
where
    S: InspectStore + ?Sized,
{
    let mut known = Vec::new();
    for command in commands {
        known.extend(store.command_facts(command).await?);
    }
    Ok(known)
}

/// Gives the commands whose replies these subjects await, where they are sagas that a store has.
///
/// # Errors
/// [`StoreError`] of the first saga that cannot be read.
pub async fn awaited_commands<S>(
    store: &S,
    subjects: &[Subject],
) -> Result<Vec<CommandId>, StoreError>
where
    S: InspectStore + ?Sized,
{
    let mut awaited = Vec::new();
    for saga in subjects.iter().filter(|subject| matches!(subject, Subject::Saga(_))) {
        let facts = store.facts(saga).await?;
        awaited.extend(facts.iter().flat_map(Facts::awaited_commands));
    }
    Ok(awaited)
}

/// Gives the messages of commands and of their replies, each once and none of those that are asked
/// about already: services that do not know a saga have them under other keys.
#[must_use]
pub fn messages_of<'a>(
    commands: impl IntoIterator<Item = &'a CommandFacts>,
    asked: &[Subject],
) -> Vec<Subject> {
    let messages = commands.into_iter().flat_map(CommandFacts::messages).map(Subject::Message);
    each_once(messages.filter(|message| !asked.contains(message)))
}

/// Reads one letter, resolved or not.
///
/// # Errors
/// [`StoreError`] of the read.
pub async fn letter_by_id<S>(store: &S, letter: LetterId) -> Result<Option<DeadLetter>, StoreError>
where
    S: AdminStore + ?Sized,
{
    let filter = DeadLetterFilter {
        up_to: Some(letter),
        include_resolved: true,
        ..DeadLetterFilter::default()
    };
    let before = LetterId(letter.0.saturating_sub(1));
    let read = store.dead_letters(&filter, Some(before), 1).await?.pop();
    Ok(read.filter(|read| read.id == letter))
}

/// Reads one saga: the list is ordered by id, so that it is the first one after the id before it.
///
/// # Errors
/// [`StoreError`] of the read.
pub async fn saga_by_id<S>(store: &S, saga: SagaId) -> Result<Option<SagaView>, StoreError>
where
    S: SagaAdmin + ?Sized,
{
    let before = saga.as_uuid().as_u128().checked_sub(1);
    let before = before.map(|before| SagaId::from_uuid(uuid::Uuid::from_u128(before)));
    let first = store.sagas(&SagaFilter::default(), before, 1).await?.pop();
    Ok(first.filter(|read| read.id == saga))
}

/// Finds sagas by id, else by correlation id.
///
/// # Errors
/// [`StoreError`] of the read.
pub async fn sagas_named<S>(store: &S, text: &str) -> Result<Vec<SagaView>, StoreError>
where
    S: SagaAdmin + ?Sized,
{
    if let Ok(id) = text.parse::<SagaId>()
        && let Some(saga) = saga_by_id(store, id).await?
    {
        return Ok(vec![saga]);
    }
    let filter = SagaFilter { correlation: Some(text.to_owned()), ..SagaFilter::default() };
    store.sagas(&filter, None, MOST_SAGAS).await
}

impl DeadLetter {
    /// Gives who gave it up, in words: the route, `consumer/handler`, or `no route`.
    #[must_use]
    pub fn given_up_by(&self) -> String {
        match &self.consumer_origin {
            Some(by) => format!("{}/{}", by.consumer, by.handler),
            None if self.route.is_empty() => "no route".to_owned(),
            None => self.route.clone(),
        }
    }
}

impl LogEntry {
    /// Gives the parts of its record that say something beside its kind and step, in words, without
    /// the saga's data.
    #[must_use]
    pub fn details(&self) -> String {
        let record = serde_json::to_value(&self.record).unwrap_or_default();
        let fields = record.as_object().and_then(|kinds| kinds.values().next()?.as_object());
        let Some(fields) = fields else { return String::new() };
        let says = |(name, value): (&String, &serde_json::Value)| match name.as_str() {
            "step" | "data" | "pivot" | "compensates" => None,
            _ if value.is_null() => None,
            name => Some(match value {
                serde_json::Value::String(text) => format!("{name}: {text}"),
                value => format!("{name}: {value}"),
            }),
        };
        fields.iter().filter_map(says).collect::<Vec<_>>().join("  ")
    }
}

#[cfg(test)]
mod tests {
    use crate::admin::*;
    use crate::event::{MessageId, SagaId};

    #[test]
    fn a_saga_is_asked_for_by_its_key_too_and_each_thing_once() {
        let (saga, message) = (SagaId::generate(), MessageId::generate());
        let named = [
            Subject::Saga(saga),
            Subject::Message(message),
            Subject::Key("orders/7".to_owned()),
            Subject::Message(message),
        ];
        assert_eq!(
            subjects_everywhere(named),
            [
                Subject::Key(saga.to_string()),
                Subject::Key("orders/7".to_owned()),
                Subject::Message(message),
                Subject::Saga(saga),
            ]
            .into_iter()
            .fold(Vec::new(), |mut all: Vec<Subject>, subject| {
                let at = all.partition_point(|s| s.to_string() < subject.to_string());
                all.insert(at, subject);
                all
            })
        );
    }
}
