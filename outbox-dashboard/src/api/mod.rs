//! The documents for programs: those that the command line writes with `--json`, under `/api`.
//!
//! One list has each operation with its rule, its handler and what its documents are; the routes and
//! the OpenAPI document are made from it.

mod body;
mod reads;
mod acts;
mod openapi;
mod schemas;

use crate::{
    access::{
        Needs::{Act, Read},
        Permission,
    },
    act::PLANNED,
    builder::Shared,
    routes::Entry,
};
use axum::handler::Handler;
use schemas::{Schema, answer, answers, array, entries_of_databases, integer, named, object, text};

/// A part of a query.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Parameter {
    /// A database, by its name; all for a read, and where there is one for an act.
    Db,
    /// What is looked for.
    Q,
    /// The conditions on dead letters.
    Letters,
    /// From the row after this number, and at most so many.
    Page,
    /// The same, by the id of a saga.
    SagaPage,
    /// A consumer.
    Consumer,
    /// The conditions on sagas.
    Sagas,
}

/// An operation of the API.
struct Operation {
    entry: Entry,
    summary: &'static str,
    query: Vec<Parameter>,
    body: Option<Schema>,
    result: Schema,
}

impl Operation {
    fn read<H, T>(path: &'static str, summary: &'static str, handler: H, result: Schema) -> Self
    where
        H: Handler<T, Shared>,
        T: 'static,
    {
        let entry = Entry::get(path, Read, handler);
        Self { entry, summary, query: vec![Parameter::Db], body: None, result }
    }

    fn act<H, T>(
        path: &'static str,
        needs: crate::access::Needs,
        summary: &'static str,
        handler: H,
        result: Schema,
    ) -> Self
    where
        H: Handler<T, Shared>,
        T: 'static,
    {
        let entry = Entry::post(path, needs, handler);
        Self { entry, summary, query: vec![Parameter::Db], body: None, result }
    }

    fn with(mut self, parameters: &[Parameter]) -> Self {
        self.query.extend_from_slice(parameters);
        self
    }

    fn takes(mut self, body: Schema) -> Self {
        self.body = Some(body);
        self
    }
}

/// The routes of the API.
pub(crate) fn entries() -> Vec<Entry> {
    let mut entries: Vec<Entry> =
        operations().into_iter().map(|operation| operation.entry).collect();
    entries.push(Entry::get("/api/openapi.json", Read, openapi::document));
    entries
}

/// All operations.
fn operations() -> Vec<Operation> {
    let mut all = questions();
    all.extend(acts_on_letters());
    all.extend(other_acts());
    all
}

fn questions() -> Vec<Operation> {
    use Parameter::{Consumer, Letters, Page, Q, SagaPage, Sagas};
    let list = |name| answers(array(named(name)));
    vec![
        Operation::read(
            "/api/overview",
            "One database at a glance",
            reads::overview,
            answers(named("Overview")),
        ),
        Operation::read(
            "/api/find",
            "What an id, a key, a correlation id or the number of a dead letter is",
            reads::find,
            list("Found"),
        )
        .with(&[Q]),
        Operation::read(
            "/api/life",
            "One message, from its emit to its end",
            reads::life,
            entries_of_databases(),
        )
        .with(&[Q]),
        Operation::read(
            "/api/follow",
            "Everything about an event, a key or a saga, in order of time",
            reads::follow,
            entries_of_databases(),
        )
        .with(&[Q]),
        Operation::read(
            "/api/explain",
            "Why it stands still, and what moves it",
            reads::explain,
            list("ExplainedSubject"),
        )
        .with(&[Q]),
        Operation::read("/api/dead-letters", "Dead letters", reads::letters, list("DeadLetter"))
            .with(&[Letters, Page]),
        Operation::read(
            "/api/dead-letters/groups",
            "Dead letters by their causes",
            reads::groups,
            list("LetterGroup"),
        )
        .with(&[Letters]),
        Operation::read(
            "/api/dead-letters/{id}",
            "One dead letter",
            reads::letter,
            list("DeadLetter"),
        ),
        Operation::read("/api/deferred", "Deferred deliveries", reads::deferred, list("Deferred"))
            .with(&[Consumer, Page]),
        Operation::read("/api/scheduled", "Scheduled events", reads::scheduled, list("Scheduled"))
            .with(&[Page]),
        Operation::read("/api/inbox", "Who has received a message", reads::inbox, list("Inbox"))
            .with(&[Q]),
        Operation::read("/api/sagas", "Sagas", reads::sagas, list("Saga")).with(&[Sagas, SagaPage]),
        Operation::read(
            "/api/sagas/{id}",
            "A saga by its id or correlation id, with its log",
            reads::saga,
            list("SagaHistory"),
        ),
        Operation::read(
            "/api/controls",
            "What is paused and limited",
            reads::controls,
            list("Control"),
        ),
        Operation::read(
            "/api/doctor",
            "What is wrong around the outbox, and what to do",
            reads::doctor,
            list("Finding"),
        ),
        Operation::read(
            "/api/audit",
            "What operators did, the newest first",
            reads::audit,
            list("AuditEntry"),
        )
        .with(&[Page]),
        Operation::read(
            "/api/plans/{id}",
            "A plan as it stands",
            reads::plan,
            answer(named("PlanState")),
        ),
    ]
}

fn acts_on_letters() -> Vec<Operation> {
    let done = || answer(named("ActDone"));
    let letters = || named("ActOnLetters");
    vec![
        Operation::act(
            "/api/dead-letters/plan",
            PLANNED,
            "Plans an act on all letters of a filter",
            acts::plan,
            answer(named("Plan")),
        )
        .takes(named("PlanRequest")),
        Operation::act(
            "/api/plans/{id}/apply",
            PLANNED,
            "Applies a plan: 202 where it goes on",
            acts::apply,
            done(),
        )
        .takes(named("ApplyRequest")),
        Operation::act(
            "/api/plans/{id}/cancel",
            PLANNED,
            "Cancels a plan after its present chunk",
            acts::cancel,
            done(),
        ),
        Operation::act(
            "/api/dead-letters/redrive",
            Act(Permission::Redrive),
            "Redrives letters by number",
            acts::redrive,
            done(),
        )
        .takes(letters()),
        Operation::act(
            "/api/dead-letters/discard",
            Act(Permission::Discard),
            "Discards letters by number",
            acts::discard,
            done(),
        )
        .takes(letters()),
        Operation::act(
            "/api/dead-letters/purge",
            Act(Permission::Purge),
            "Discards letters by number, and deletes their content",
            acts::purge,
            done(),
        )
        .takes(letters()),
        Operation::act(
            "/api/dead-letters/{id}/try",
            Act(Permission::Try),
            "Tries the handler of a letter, and rolls back",
            acts::try_letter,
            answer(named("Trial")),
        ),
        Operation::act(
            "/api/dead-letters/{id}/content",
            Act(Permission::ShowContent),
            "Shows a letter whose content is hidden, once the audit says who sees it and why",
            acts::content,
            answer(named("DeadLetter")),
        )
        .takes(object(&[("why", text())])),
        Operation::act(
            "/api/dead-letters/{id}/resend",
            Act(Permission::Resend),
            "Sends a letter again with other content, as a new event",
            acts::resend,
            answer(text()),
        )
        .takes(named("ResendRequest")),
    ]
}

fn other_acts() -> Vec<Operation> {
    let step = || object(&[("why", text()), ("step", text())]);
    let why = || object(&[("why", text())]);
    let control = || Act(Permission::Control);
    let saga = |path, permission, summary| (path, Act(permission), summary);
    let (resume, retry_from, skip, cancel) = (
        saga("/api/sagas/{id}/resume", Permission::SagaResume, "Lets a stuck saga go on"),
        saga(
            "/api/sagas/{id}/retry-from",
            Permission::SagaRetryFrom,
            "Lets a stuck saga go on from a step",
        ),
        saga(
            "/api/sagas/{id}/skip",
            Permission::SagaSkip,
            "Skips the step at which a saga is stuck",
        ),
        saga("/api/sagas/{id}/cancel", Permission::SagaCancel, "Compensates a saga"),
    );
    let id = || answer(text());
    vec![
        Operation::act(
            "/api/controls/pause",
            control(),
            "Pauses a route, topic, key, consumer or saga",
            acts::pause,
            answer(array(named("Control"))),
        )
        .takes(named("PauseRequest")),
        Operation::act(
            "/api/controls/rate",
            control(),
            "Limits a route",
            acts::rate,
            answer(array(named("Control"))),
        )
        .takes(named("RateRequest")),
        Operation::act(
            "/api/controls/resume",
            control(),
            "Ends pause and rate; gives how many were ended",
            acts::resume,
            answer(integer()),
        )
        .takes(named("ResumeRequest")),
        Operation::act(resume.0, resume.1, resume.2, acts::saga_resume, id()).takes(why()),
        Operation::act(retry_from.0, retry_from.1, retry_from.2, acts::saga_retry_from, id())
            .takes(step()),
        Operation::act(skip.0, skip.1, skip.2, acts::saga_skip, id()).takes(step()),
        Operation::act(cancel.0, cancel.1, cancel.2, acts::saga_cancel, id()).takes(why()),
    ]
}
