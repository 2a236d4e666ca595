//! What an operator does. Each act is a form that is posted; where it succeeds, the browser is sent
//! to the thing that it changed, which shows it, and where it does not, a page says why.
//!
//! Fields that each form has:
//!
//! | field | meaning |
//! | --- | --- |
//! | `db` | the database; may be left out where there is one |
//! | `why` | the operator's reason, for the audit |
//!
//! | form | further fields |
//! | --- | --- |
//! | `letters/plan` | `act` (`redrive`, `discard`, `purge`), the conditions of a [`filter`], `all=1` for none; no `why` |
//! | `plans/{id}/apply` | `canary=1`, `watch` in seconds, `force=1` |
//! | `plans/{id}/cancel` | `why` may be left out |
//! | `letters/{id}/redrive`, `discard`, `purge` | `force=1` |
//! | `letters/{id}/try` | no `why`: it changes nothing |
//! | `letters/{id}/content` | none: it shows a content that is hidden |
//! | `letters/{id}/resend` | `payload`, `confirm=1` after the comparison |
//! | `controls` | `do` (`pause`, `resume`, `rate`), `scope`, `name`, `lasts` (`1h`), `per_second` |
//! | `sagas/{id}/resume`, `retry-from`, `skip`, `cancel` | `step` for the second and third |

mod fields;
pub(crate) mod filter;
pub(crate) mod forms;
pub(crate) mod plans;
mod running;
mod letters;
mod resend;
mod controls;
mod sagas;

pub(crate) use controls::{Change, apply as change_control};
pub(crate) use fields::{
    database, note, note_of_cancel, read as read_field, span as read_span, text as read_text,
};
pub(crate) use letters::{
    find as find_letter, on_letters, show as show_content, trials, try_handler, why_not,
};
pub(crate) use resend::sent;
pub(crate) use running::Running;
pub(crate) use sagas::{apply as operate, saga_id};

use crate::{
    access::{
        Needs::{self, Act, AnyOf, Read},
        Permission,
    },
    routes::Entry,
    visit::Visit,
};
use axum::response::{IntoResponse, Redirect, Response};
use outbox_core::admin;

/// The permissions of acts on dead letters that are planned.
pub(crate) const PLANNED: Needs =
    AnyOf(&[Permission::Redrive, Permission::Discard, Permission::Purge]);

/// The routes of acts.
pub(crate) fn entries() -> Vec<Entry> {
    vec![
        Entry::post("/letters/plan", PLANNED, plans::plan),
        Entry::get("/plans/{id}", Read, plans::page),
        Entry::post("/plans/{id}/apply", PLANNED, plans::apply),
        Entry::post("/plans/{id}/cancel", PLANNED, plans::cancel),
        Entry::post("/letters/{id}/redrive", Act(Permission::Redrive), letters::redrive),
        Entry::post("/letters/{id}/discard", Act(Permission::Discard), letters::discard),
        Entry::post("/letters/{id}/purge", Act(Permission::Purge), letters::purge),
        Entry::post("/letters/{id}/try", Act(Permission::Try), letters::try_letter),
        Entry::post("/letters/{id}/content", Act(Permission::ShowContent), letters::show_content),
        Entry::get("/letters/{id}/resend", Act(Permission::Resend), resend::edit),
        Entry::post("/letters/{id}/resend", Act(Permission::Resend), resend::resend),
        Entry::post("/controls", Act(Permission::Control), controls::set),
        Entry::post("/sagas/{id}/resume", Act(Permission::SagaResume), sagas::resume),
        Entry::post("/sagas/{id}/retry-from", Act(Permission::SagaRetryFrom), sagas::retry_from),
        Entry::post("/sagas/{id}/skip", Act(Permission::SagaSkip), sagas::skip),
        Entry::post("/sagas/{id}/cancel", Act(Permission::SagaCancel), sagas::cancel),
    ]
}

/// Gives the permission that an act on dead letters needs. An act that this version does not know
/// needs the one that may do most.
pub(crate) const fn permission_of(act: admin::Act) -> Permission {
    match act {
        admin::Act::Redrive => Permission::Redrive,
        admin::Act::Discard => Permission::Discard,
        _ => Permission::Purge,
    }
}

/// Sends the browser to a page, by a GET: loading that again repeats no act.
fn see(visit: &Visit, path: &str) -> Response {
    Redirect::to(&format!("{}{path}", visit.root)).into_response()
}
