//! The forms of the acts, to be put into pages: each where its thing is shown, and only for who may.

use super::filter;
use crate::{
    access::Permission,
    page::{
        View,
        text::{LONGEST, Markup},
    },
};
use askama::Template;
use outbox_core::{
    admin::{ControlScope, Controls, DeadLetterFilter, OperatorNote, cut_text},
    event::LetterId,
    failure::DeadLetter,
    saga::{Operation, SagaView},
};

fn draw(form: &impl Template) -> Markup {
    match form.render() {
        Ok(html) => Markup::escaped(html),
        Err(error) => {
            tracing::error!(%error, "a form of the dashboard cannot be drawn");
            Markup::default()
        }
    }
}

/// What can be done with one letter; nothing for one that is resolved. `can_try` says that its
/// handler runs in this process.
pub(crate) fn letter(view: &View, db: &str, letter: &DeadLetter, can_try: bool) -> Markup {
    let may = |permission| view.allows(permission);
    // Its content belongs to its message id.
    let is_encoded = letter.message.as_ref().is_some_and(|message| message.encoding().is_some());
    let form = LetterForm {
        root: &view.root,
        db,
        id: letter.id.to_string(),
        redrive: may(Permission::Redrive),
        discard: may(Permission::Discard),
        purge: may(Permission::Purge),
        resend: may(Permission::Resend) && !is_encoded,
        can_try: can_try && may(Permission::Try),
        is_of_consumer: letter.consumer_origin.is_some(),
        parks: letter.parks,
    };
    let is_any = form.redrive || form.discard || form.purge || form.resend || form.can_try;
    if letter.resolution.is_some() || !is_any { Markup::default() } else { draw(&form) }
}

#[derive(Template)]
#[template(path = "act/letter-form.html")]
struct LetterForm<'a> {
    root: &'a str,
    db: &'a str,
    id: String,
    redrive: bool,
    discard: bool,
    purge: bool,
    resend: bool,
    can_try: bool,
    is_of_consumer: bool,
    parks: bool,
}

/// Shows the content of one letter whose type is sensitive; nothing for who may not see it.
pub(crate) fn content(view: &View, db: &str, letter: LetterId) -> Markup {
    let form = ContentForm { root: &view.root, db, id: letter.to_string() };
    if view.allows(Permission::ShowContent) { draw(&form) } else { Markup::default() }
}

#[derive(Template)]
#[template(path = "act/content-form.html")]
struct ContentForm<'a> {
    root: &'a str,
    db: &'a str,
    id: String,
}

/// Plans an act on all letters of a filter: a button for each act that the visitor may do.
pub(crate) fn plan(view: &View, db: &str, filter: &DeadLetterFilter) -> Markup {
    let may = |permission| view.allows(permission);
    let form = PlanForm {
        root: &view.root,
        db,
        conditions: filter::conditions(filter),
        redrive: may(Permission::Redrive),
        discard: may(Permission::Discard),
        purge: may(Permission::Purge),
    };
    if form.redrive || form.discard || form.purge { draw(&form) } else { Markup::default() }
}

#[derive(Template)]
#[template(path = "act/plan-form.html")]
struct PlanForm<'a> {
    root: &'a str,
    db: &'a str,
    conditions: Vec<(&'static str, String)>,
    redrive: bool,
    discard: bool,
    purge: bool,
}

/// Pauses, resumes or limits one thing. `controls` are those of the database now.
pub(crate) fn control(
    view: &View,
    db: &str,
    scope: ControlScope,
    name: &str,
    controls: &Controls,
) -> Markup {
    if !view.allows(Permission::Control) {
        return Markup::default();
    }
    let is_route = scope == ControlScope::Route;
    let is_paused = controls.pause(scope, name).is_some();
    draw(&ControlForm {
        root: &view.root,
        db,
        scope: scope.as_str(),
        name,
        shown: cut_text(name, LONGEST),
        is_paused,
        is_changed: is_paused || (is_route && controls.rate(name).is_some()),
        is_route,
    })
}

#[derive(Template)]
#[template(path = "act/control-form.html")]
struct ControlForm<'a> {
    root: &'a str,
    db: &'a str,
    scope: &'static str,
    name: &'a str,
    shown: String,
    is_paused: bool,
    is_changed: bool,
    is_route: bool,
}

/// Pauses something that has no row on a page: a topic, a key, a route that no relay has yet.
pub(crate) fn any_control(view: &View, db: &str) -> Markup {
    if !view.allows(Permission::Control) {
        return Markup::default();
    }
    draw(&AnyControlForm { root: &view.root, db })
}

#[derive(Template)]
#[template(path = "act/any-control-form.html")]
struct AnyControlForm<'a> {
    root: &'a str,
    db: &'a str,
}

/// What can be done with a saga in its present state: what the store would refuse is not offered.
pub(crate) fn saga(view: &View, db: &str, saga: &SagaView) -> Markup {
    let instance = &saga.instance;
    let note = OperatorNote::new("", "");
    let may = |permission, operation: Operation| {
        view.allows(permission) && instance.after(&operation.record(&note)).is_some()
    };
    let stuck_at = instance.stuck_at.as_deref();
    let steps = instance.steps.iter().map(|step| step.step.as_str());
    let steps = stuck_at.into_iter().chain(steps.filter(|step| stuck_at != Some(*step)));
    let retry_from =
        |step: &&str| may(Permission::SagaRetryFrom, Operation::RetryFrom((*step).to_owned()));
    let form = SagaForm {
        root: &view.root,
        db,
        id: saga.id.to_string(),
        steps: steps.filter(retry_from).collect(),
        stuck_at,
        resume: may(Permission::SagaResume, Operation::Resume),
        skip: stuck_at
            .is_some_and(|step| may(Permission::SagaSkip, Operation::Skip(step.to_owned()))),
        cancel: may(Permission::SagaCancel, Operation::Cancel),
        no_way_back: view.allows(Permission::SagaCancel)
            && !instance.state.is_final()
            && instance.past_pivot(),
    };
    if form.is_any() || form.no_way_back { draw(&form) } else { Markup::default() }
}

#[derive(Template)]
#[template(path = "act/saga-form.html")]
struct SagaForm<'a> {
    root: &'a str,
    db: &'a str,
    id: String,
    /// The steps from which it can be retried, first the one at which it is stuck.
    steps: Vec<&'a str>,
    stuck_at: Option<&'a str>,
    resume: bool,
    skip: bool,
    cancel: bool,
    /// Whether it only goes forward, so that it cannot be cancelled.
    no_way_back: bool,
}

impl SagaForm<'_> {
    fn retry_from(&self) -> bool {
        !self.steps.is_empty()
    }

    fn is_any(&self) -> bool {
        self.resume || self.retry_from() || self.skip || self.cancel
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::Role;
    use outbox_core::{
        event::{SagaId, Timestamp},
        saga::{Instance, SagaState},
    };

    #[test]
    fn what_the_state_of_a_saga_does_not_allow_is_not_offered_and_the_page_says_why() {
        let view = View { root: "./".to_owned(), may: Role::Operator };
        let stuck = |instance: Instance| Instance {
            state: SagaState::Stuck,
            stuck_at: Some("ship".to_owned()),
            ..instance
        };
        let new = Instance::default();
        let past_pivot = Instance { forward_only: true, ..new.clone() };
        let backward = Instance { backward: true, ..new.clone() };
        let state = |state| Instance { state, ..new.clone() };
        let all = ["Resume:", "Retry from", "Skip ship", "Cancel:", "cannot be cancelled"];
        for (instance, offered) in [
            (new.clone(), &["Cancel:"][..]),
            (past_pivot.clone(), &["cannot be cancelled"]),
            (stuck(new.clone()), &["Resume:", "Retry from", "Skip ship", "Cancel:"]),
            (stuck(past_pivot), &["Resume:", "Retry from", "Skip ship", "cannot be cancelled"]),
            // No step of it is to be undone.
            (stuck(backward), &["Resume:"]),
            (state(SagaState::Compensating), &[]),
            (state(SagaState::Completed), &[]),
        ] {
            let saga = SagaView {
                id: SagaId::generate(),
                definition: ("place-order".into(), 1),
                correlation: "order-7".to_owned(),
                instance,
                started_at: Timestamp::from_micros(1),
                changed_at: Timestamp::from_micros(1),
            };
            let form = super::saga(&view, "orders", &saga);
            for text in all {
                let is_there = form.as_str().contains(text);
                assert_eq!(is_there, offered.contains(&text), "{text}: {:?}", saga.instance);
            }
        }
    }
}
