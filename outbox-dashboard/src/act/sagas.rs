//! What an operator does with a saga.

use super::{
    fields::{Fields, text},
    see,
};
use crate::{
    access::Refusal,
    builder::{App, Shared},
    page::text::query,
    store::Database,
    visit::Visit,
};
use axum::{
    extract::{Path, State},
    response::Response,
};
use outbox_core::{
    admin::{OperatorNote, saga_by_id},
    event::SagaId,
    saga::{Operation, SagaView},
};

/// Lets a stuck saga go on, with all failures reset.
pub(crate) async fn resume(
    State(app): State<Shared>,
    visit: Visit,
    Path(id): Path<String>,
    fields: Fields,
) -> Result<Response, Refusal> {
    operate(&app, &visit, &id, &fields, |_| Ok(Operation::Resume)).await
}

/// Lets a stuck saga go on from a step.
pub(crate) async fn retry_from(
    State(app): State<Shared>,
    visit: Visit,
    Path(id): Path<String>,
    fields: Fields,
) -> Result<Response, Refusal> {
    operate(&app, &visit, &id, &fields, |step| step.map(Operation::RetryFrom)).await
}

/// Skips the step at which a saga is stuck.
pub(crate) async fn skip(
    State(app): State<Shared>,
    visit: Visit,
    Path(id): Path<String>,
    fields: Fields,
) -> Result<Response, Refusal> {
    operate(&app, &visit, &id, &fields, |step| step.map(Operation::Skip)).await
}

/// Starts to compensate a saga.
pub(crate) async fn cancel(
    State(app): State<Shared>,
    visit: Visit,
    Path(id): Path<String>,
    fields: Fields,
) -> Result<Response, Refusal> {
    operate(&app, &visit, &id, &fields, |_| Ok(Operation::Cancel)).await
}

async fn operate(
    app: &App,
    visit: &Visit,
    id: &str,
    fields: &Fields,
    operation: impl FnOnce(Result<String, Refusal>) -> Result<Operation, Refusal>,
) -> Result<Response, Refusal> {
    let (database, saga) = (fields.database(app)?, saga_id(id)?);
    let note = fields.note(&visit.grant)?;
    // The button that skips names its step: the list above it is that of another button.
    let step = fields.get("skip").map_or_else(|| fields.required("step"), Ok);
    let operation = operation(step.map(str::to_owned))?;
    let page = format!("sagas/{saga}{}", query(&[("db", Some(&database.name))]));
    apply(database, saga, &operation, &note)
        .await
        .map_err(|refusal| refusal.link(page.clone(), "The saga as it is now"))?;
    Ok(see(visit, &page))
}

/// Applies an operation to a saga, where its state allows it.
pub(crate) async fn apply(
    database: &Database,
    saga: SagaId,
    operation: &Operation,
    note: &OperatorNote,
) -> Result<(), Refusal> {
    if let Operation::RetryFrom(step) | Operation::Skip(step) = operation {
        text("step", step)?;
    }
    if database.store.operate(saga, operation, note).await? {
        return Ok(());
    }
    match saga_by_id(&*database.store, saga).await? {
        Some(view) => Err(Refusal::conflict(not_allowed(&view))),
        None => Err(Refusal::not_found(format!("There is no saga {saga}")).because(format!(
            "database {} has none of this id, or its retention has removed it",
            database.name
        ))),
    }
}

/// Says in which state a saga is, which does not allow an operation.
fn not_allowed(saga: &SagaView) -> String {
    let instance = &saga.instance;
    let at = instance.stuck_at.as_deref().map(|step| format!(", at step {step}"));
    format!(
        "the state of the saga does not allow that: it is {}{}",
        instance.state,
        at.unwrap_or_default()
    )
}

/// Reads the id of a saga.
pub(crate) fn saga_id(text: &str) -> Result<SagaId, Refusal> {
    text.parse().map_err(|_| Refusal::not_found("The id of a saga is a UUID"))
}
