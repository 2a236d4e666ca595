//! Types of events whose content is not shown: what is taken out of the answers of databases, for
//! pages and for documents alike.

use outbox_core::{
    admin::{
        CommandFacts, DeferredView, Facts, History, HistoryKind, LetterFacts, LetterGroup,
        RouteFacts,
    },
    consumer::Trial,
    event::{Message, MessageParts},
    failure::DeadLetter,
};
use std::collections::BTreeSet;

/// What stands in place of an error that is not shown.
const HIDDEN: &str = "(hidden)";
/// What stands in place of the entry of an attempt that failed.
const HIDDEN_ATTEMPT: &str = "An attempt failed; errors of this type of event are not shown.";

/// The types. An error is hidden with the content, since it may quote it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sensitive(BTreeSet<String>);

impl Sensitive {
    pub(crate) fn add(&mut self, event_type: String) {
        self.0.insert(event_type);
    }

    /// Tells whether the content of events of a type is not to be shown.
    pub(crate) fn has(&self, event_type: &str) -> bool {
        self.0.contains(event_type)
    }

    /// Tells whether the content of a letter is not to be shown.
    pub(crate) fn hides(&self, letter: &DeadLetter) -> bool {
        letter.message.as_ref().is_some_and(|message| self.hides_message(message))
    }

    /// Tells whether the content of a message is not to be shown: by its type, or by its own mark.
    pub(crate) fn hides_message(&self, message: &Message) -> bool {
        message.is_sensitive() || self.has(&message.event_type)
    }

    /// Takes headers and errors out of a letter, and leaves the content.
    pub(crate) fn without_texts(&self, letter: DeadLetter) -> DeadLetter {
        let content = letter.message.as_ref().map(|message| message.payload.clone());
        let mut shown = self.without_content(letter);
        shown.message = shown.message.zip(content).map(|(message, payload)| {
            Message::new(MessageParts { payload, ..message.into_parts() })
        });
        shown
    }

    /// Takes content, headers and errors out of a letter.
    pub(crate) fn without_content(&self, letter: DeadLetter) -> DeadLetter {
        if self.hides(&letter) { letter.without_content() } else { letter }
    }

    /// Takes the errors of events of these types out of facts.
    pub(crate) fn facts(&self, mut facts: Facts) -> Facts {
        self.hide_in(&mut facts);
        facts
    }

    /// Takes the errors of events of these types out of what is known of commands.
    pub(crate) fn commands(&self, mut known: Vec<CommandFacts>) -> Vec<CommandFacts> {
        known.iter_mut().for_each(|known| self.hide_in_command(known));
        known
    }

    fn hide_in_command(&self, known: &mut CommandFacts) {
        self.hide_in(&mut known.sent);
        self.hide_in(&mut known.reply);
    }

    fn hide_in(&self, facts: &mut Facts) {
        facts.letters.iter_mut().for_each(|letter| self.letter_facts(letter));
        if let Some(event) = &mut facts.event {
            self.routes(&event.event_type, &mut event.routes);
            if let Some(ahead) = &mut event.ahead {
                self.routes(&ahead.event_type, &mut ahead.routes);
            }
            event.parked_by.iter_mut().for_each(|letter| self.letter_facts(letter));
        }
        facts.deferred.iter_mut().for_each(|delivery| self.deferred_view(&mut delivery.view));
        facts.commands.iter_mut().for_each(|known| self.hide_in_command(known));
        facts.elsewhere.iter_mut().for_each(|(_, known)| self.hide_in_command(known));
    }

    /// Takes errors out of the facts of a letter: all of them where the letter itself is not shown,
    /// whichever way is the reason, as facts know types alone.
    pub(crate) fn facts_of_letter(&self, letter: &DeadLetter, facts: Facts) -> Facts {
        if self.hides(letter) { without_errors(facts) } else { self.facts(facts) }
    }

    fn letter_facts(&self, letter: &mut LetterFacts) {
        if self.has(&letter.event_type) {
            letter.last_error = None;
        }
    }

    fn routes(&self, event_type: &str, routes: &mut [RouteFacts]) {
        if self.has(event_type) {
            routes.iter_mut().for_each(|route| route.last_error = None);
        }
    }

    fn deferred_view(&self, delivery: &mut DeferredView) {
        if self.has(&delivery.event_type) {
            hide_error(delivery);
        }
    }

    /// Takes the errors out of deferred deliveries.
    pub(crate) fn deferred(&self, mut deliveries: Vec<DeferredView>) -> Vec<DeferredView> {
        deliveries.iter_mut().for_each(|delivery| self.deferred_view(delivery));
        deliveries
    }

    /// Takes the errors of attempts out of a history.
    pub(crate) fn history(&self, mut history: History) -> History {
        for entry in &mut history.entries {
            let is_hidden = entry.event_type.as_ref().is_some_and(|kind| self.has(kind));
            if is_hidden && entry.kind == HistoryKind::Failed {
                HIDDEN_ATTEMPT.clone_into(&mut entry.text);
            }
        }
        history
    }

    /// Takes the errors out of groups that are of one type; a group alone does not know its types.
    pub(crate) fn groups(&self, mut groups: Vec<LetterGroup>) -> Vec<LetterGroup> {
        for group in &mut groups {
            if group.filter.event_type.as_ref().is_some_and(|kind| self.has(kind)) {
                HIDDEN.clone_into(&mut group.error);
            }
        }
        groups
    }

    /// Takes what a handler has said out of its try of a letter.
    pub(crate) fn trial(&self, letter: &DeadLetter, mut trial: Trial) -> Trial {
        if self.hides(letter) && !trial.text.is_empty() {
            HIDDEN.clone_into(&mut trial.text);
        }
        trial
    }
}

/// Takes all errors out of facts.
fn without_errors(mut facts: Facts) -> Facts {
    facts.letters.iter_mut().for_each(|letter| letter.last_error = None);
    if let Some(event) = &mut facts.event {
        let ahead = event.ahead.iter_mut().flat_map(|ahead| &mut ahead.routes);
        event.routes.iter_mut().chain(ahead).for_each(|route| route.last_error = None);
        event.parked_by.iter_mut().for_each(|letter| letter.last_error = None);
    }
    facts.deferred.iter_mut().for_each(|delivery| hide_error(&mut delivery.view));
    facts
}

fn hide_error(delivery: &mut DeferredView) {
    delivery.last_error = delivery.last_error.as_ref().map(|_| HIDDEN.to_owned());
}
