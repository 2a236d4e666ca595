//! Answers of those who were not asked: told once each.

use crate::{
    event::Message,
    saga::{
        call::{Call, answered_by},
        definition::Asks,
    },
};
use std::{
    collections::BTreeSet,
    sync::{Mutex, PoisonError},
};

/// Strangers that are told of: whoever answers under ever new names fills no memory.
const MOST: usize = 1_000;

/// A saga and a step, and the consumer and the source of an answer to it.
type Stranger = (String, String, Option<String>, String);

/// Those who were told of.
#[derive(Debug, Default)]
pub(crate) struct Strangers(Mutex<BTreeSet<Stranger>>);

impl Strangers {
    /// Warns of an answer that is not from whom the step names.
    pub(super) fn warn_once(&self, name: &str, call: &Call, asks: Option<Asks>, message: &Message) {
        let by = answered_by(&message.headers);
        let stranger =
            (name.to_owned(), call.step.clone(), by.map(str::to_owned), message.source.clone());
        if !self.note(stranger) {
            return;
        }
        tracing::warn!(
            name,
            step = call.step,
            saga = %call.saga,
            consumer = by,
            source = message.source,
            expected = asks.and_then(|asks| asks.of),
            expected_source = asks.and_then(|asks| asks.from_source),
            "an answer to a saga's command is not taken: it is not from the consumer that the step names (`ask`, `of`), or not from \
             its source; others like it are not told again"
        );
    }

    /// Notes one; tells whether it is new, and is to be told of.
    fn note(&self, stranger: Stranger) -> bool {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        told.len() < MOST && told.insert(stranger)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stranger_is_told_of_once_for_each_step_and_no_more_of_them_than_memory_holds() {
        let strangers = Strangers::default();
        let of = |step: &str, consumer: Option<&str>, source: &str| -> Stranger {
            ("s".into(), step.into(), consumer.map(Into::into), source.into())
        };
        for stranger in [
            of("a", None, "/x"),
            of("b", None, "/x"),
            of("a", Some("c"), "/x"),
            of("a", None, "/y"),
        ] {
            assert!(strangers.note(stranger.clone()), "{stranger:?}");
            assert!(!strangers.note(stranger.clone()), "{stranger:?} again");
        }
        let told = (0..2 * MOST).filter(|n| strangers.note(of("a", None, &n.to_string()))).count();
        assert_eq!(told, MOST - 4);
    }
}
