//! Pauses and rates.

use super::{
    fields::{Fields, text},
    see,
};
use crate::{access::Refusal, builder::Shared, page::text::query, store::Database, visit::Visit};
use axum::{extract::State, response::Response};
use outbox_core::admin::{ControlAction, ControlScope, OperatorNote};
use std::{str::FromStr, time::Duration};

/// What is done with a control.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Change {
    Set(ControlAction),
    Resume,
}

/// Which way a form changes a control.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Pause,
    Resume,
    Rate,
}

impl FromStr for Way {
    type Err = ();
    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "pause" => Ok(Self::Pause),
            "resume" => Ok(Self::Resume),
            "rate" => Ok(Self::Rate),
            _ => Err(()),
        }
    }
}

/// Pauses, resumes or limits something.
pub(crate) async fn set(
    State(app): State<Shared>,
    visit: Visit,
    fields: Fields,
) -> Result<Response, Refusal> {
    let database = fields.database(&app)?;
    let note = fields.note(&visit.grant)?;
    let way = fields.read("do", "`pause`, `resume` or `rate`")?;
    let change = match way.ok_or_else(|| Refusal::bad("the field `do` is missing"))? {
        Way::Pause => Change::Set(ControlAction::Pause),
        Way::Resume => Change::Resume,
        Way::Rate => {
            let rate = fields.read("per_second", "a number of events a second")?;
            let rate = rate.ok_or_else(|| Refusal::bad("the field `per_second` is missing"))?;
            Change::Set(ControlAction::Rate(rate))
        }
    };
    let scope = fields.read("scope", "`route`, `topic`, `key`, `consumer` or `saga`")?;
    let scope = scope.ok_or_else(|| Refusal::bad("the field `scope` is missing"))?;
    let name = fields.required("name")?;
    let page = format!("routes{}", query(&[("db", Some(&database.name))]));
    let changed = apply(database, scope, name, change, fields.span("lasts")?, &note).await;
    changed.map_err(|refusal| refusal.link(page.clone(), "What is paused and limited now"))?;
    Ok(see(&visit, &page))
}

/// Sets or ends a control. Gives how many were ended.
pub(crate) async fn apply(
    database: &Database,
    scope: ControlScope,
    name: &str,
    change: Change,
    lasts: Option<Duration>,
    note: &OperatorNote,
) -> Result<u64, Refusal> {
    let (store, name) = (&database.store, text("name", name)?);
    match change {
        Change::Set(action) => {
            store.set_control(scope, name, action, lasts, note).await?;
            Ok(0)
        }
        Change::Resume => match store.end_controls(scope, name, note).await? {
            0 => Err(Refusal::conflict(format!(
                "{scope} {name} is neither paused nor limited: it may have been resumed before"
            ))),
            ended => Ok(ended),
        },
    }
}
