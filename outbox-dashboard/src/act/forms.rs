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
    admin::{ControlScope, Controls, DeadLetterFilter, cut_text},
    failure::DeadLetter,
    saga::{SagaState, SagaView},
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
    let form = LetterForm {
        root: &view.root,
        db,
        id: letter.id.to_string(),
        redrive: may(Permission::Redrive),
        discard: may(Permission::Discard),
        purge: may(Permission::Purge),
        resend: may(Permission::Resend),
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

/// What can be done with a saga in its present state.
pub(crate) fn saga(view: &View, db: &str, saga: &SagaView) -> Markup {
    let may = |permission| view.allows(permission);
    let stuck_at = saga.instance.stuck_at.as_deref();
    let is_stuck = saga.instance.state == SagaState::Stuck;
    let form = SagaForm {
        root: &view.root,
        db,
        id: saga.id.to_string(),
        steps: saga.instance.steps.iter().map(|step| step.step.as_str()).collect(),
        stuck_at,
        resume: is_stuck && may(Permission::SagaResume),
        retry_from: is_stuck && may(Permission::SagaRetryFrom),
        skip: is_stuck && stuck_at.is_some() && may(Permission::SagaSkip),
        // Also where it is stuck; the store refuses it past the pivot.
        cancel: !saga.instance.state.is_final()
            && saga.instance.state != SagaState::Compensating
            && may(Permission::SagaCancel),
    };
    if form.resume || form.retry_from || form.skip || form.cancel {
        draw(&form)
    } else {
        Markup::default()
    }
}

#[derive(Template)]
#[template(path = "act/saga-form.html")]
struct SagaForm<'a> {
    root: &'a str,
    db: &'a str,
    id: String,
    steps: Vec<&'a str>,
    stuck_at: Option<&'a str>,
    resume: bool,
    retry_from: bool,
    skip: bool,
    cancel: bool,
}

impl SagaForm<'_> {
    fn is_other(&self, step: &str) -> bool {
        self.stuck_at != Some(step)
    }
}
