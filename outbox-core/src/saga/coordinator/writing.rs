//! What is written of a saga in one transaction: pure.

use crate::saga::{
    definition::Shape,
    plan::{Plan, When, plan},
    record::Record,
    state::Instance,
    store::{Due, OpenSaga},
};
use std::time::Duration;

/// Records with those that follow from them at once, and what they come to.
pub(super) struct Composed {
    pub(super) instance: Instance,
    pub(super) records: Vec<Record>,
    /// When the saga is to be looked at again.
    pub(super) due: Due,
}

/// Puts records together; the name of one that does not fit where the saga stands is the error. A step that is `held` has
/// no record each time that it looks: so long it waits then.
pub(super) fn compose(
    shape: &Shape,
    open: &OpenSaga,
    mut records: Vec<Record>,
    held: Option<Duration>,
    lease: Duration,
) -> Result<Composed, &'static str> {
    let mut instance = open.instance.after_all(&records)?;
    let when = When { overdue: false, ..open.when };
    let next = loop {
        match plan(shape, &instance, when) {
            Plan::Note(next) => match instance.after(&next) {
                Some(after) => {
                    instance = after;
                    records.push(next);
                }
                None => break Plan::Rest,
            },
            next => break next,
        }
    };
    let goes_on = instance.state.is_active();
    let due = match (held.filter(|_| instance.backward == open.instance.backward), next) {
        _ if !goes_on => Due::Never,
        (Some(held), Plan::Wait(wait)) => Due::After(held.min(wait)),
        (Some(wait), _) | (None, Plan::Wait(wait)) => Due::After(wait),
        (None, _) => Due::Held(lease),
    };
    Ok(Composed { instance, records, due })
}
