//! What an operator's questions cost with many rows, each beside a look-up by primary key in the
//! same round.

use crate::{
    environment::Environment,
    figures::Rounds,
    load::fill::{fill, key},
};
use anyhow::{Context, Result, ensure};
use outbox_core::{
    admin::{AdminStore, DeadLetterFilter, DoctorStore, InspectStore, Subject, explain},
    event::MessageId,
    saga::{SagaAdmin, SagaFilter},
};
use sea_orm::sqlx::{self, Row};
use std::time::{Duration, Instant};
use uuid::Uuid;

/// Rows unless the command line says otherwise.
pub(crate) const ROWS: u32 = 10_000_000;
/// Of so many rows one is an inbox row, two are dead letters and the others waiting events.
const PARTS: u32 = 10;
/// Of so many rows one is a saga, beside the others.
const SAGAS: u32 = 100;
/// Letters of a page.
const PAGE: u32 = 100;
/// Entries of a history.
const ENTRIES: u32 = 1_000;
/// Longest answer that a page waits for.
const ON_A_PAGE: Duration = Duration::from_millis(100);
/// Longest answer of a question that reads a window of 10,000 letters, or runs some twenty queries.
const IN_A_WINDOW: Duration = Duration::from_secs(1);

/// A question, what it took in each round in milliseconds, and how long it may take.
#[derive(Debug, Clone, Default)]
pub(crate) struct Asked {
    pub(crate) name: &'static str,
    pub(crate) took: Rounds,
    pub(crate) at_most: Option<f64>,
}

/// What the questions are about.
pub(super) struct Known {
    /// A waiting event.
    event: MessageId,
    /// The event of a dead letter.
    pub(super) dead: MessageId,
    /// A letter in the middle.
    pub(super) letter: i64,
}

/// Fills the outbox, and asks each question in each round. The first one is the floor.
pub(crate) async fn run(rows: u32, rounds: usize) -> Result<Vec<Asked>> {
    ensure!(rows >= 1_000, "1,000 rows at least");
    let environment = Environment::shared(10).await?;
    let known = fill_all(&environment, rows).await?;
    let mut questions = NAMES.map(|(name, limit)| Asked {
        name,
        took: Rounds::default(),
        at_most: limit.map(|limit| limit.as_secs_f64() * 1_000.0),
    });
    // The first round warms connections and caches up.
    for round in 0..=rounds {
        for (number, question) in questions.iter_mut().enumerate() {
            let begun = Instant::now();
            let answers = ask(&environment, &known, number).await.with_context(|| question.name)?;
            let took = begun.elapsed();
            ensure!(answers > 0, "`{}` has no answer", question.name);
            if round > 0 {
                question.took.push(took.as_secs_f64() * 1_000.0);
            }
        }
    }
    Ok(questions.into())
}

/// The questions in the order of [`ask`].
const NAMES: [(&str, Option<Duration>); 15] = [
    ("a look-up by key (floor)", None),
    ("overview", Some(ON_A_PAGE)),
    ("find a message", Some(ON_A_PAGE)),
    ("find a key", Some(ON_A_PAGE)),
    ("history of a message", Some(ON_A_PAGE)),
    ("history of a key", Some(ON_A_PAGE)),
    ("explain a message", Some(ON_A_PAGE)),
    ("explain a key", Some(ON_A_PAGE)),
    ("letters, a page", Some(ON_A_PAGE)),
    ("letters of a reason, a page", Some(ON_A_PAGE)),
    ("sagas, a page", Some(ON_A_PAGE)),
    ("the sagas of a correlation id", Some(ON_A_PAGE)),
    ("sagas by state", Some(ON_A_PAGE)),
    ("groups of letters", Some(IN_A_WINDOW)),
    ("doctor", Some(IN_A_WINDOW)),
];

/// Asks a question; gives how many things it answers with.
async fn ask(environment: &Environment, known: &Known, number: usize) -> Result<usize> {
    let outbox = &environment.outbox;
    let all = DeadLetterFilter::all;
    let (of_event, of_key) = (Subject::Message(known.event), Subject::Key(key(7)));
    Ok(match number {
        0 => {
            let sql = "SELECT letter_id FROM outbox_dead_letters WHERE letter_id = $1";
            let found = sqlx::query(sql).bind(known.letter).fetch_all(&environment.pool).await?;
            found.len()
        }
        1 => usize::try_from(outbox.overview().await?.events.pending)?,
        2 => outbox.find(&known.dead.to_string()).await?.len(),
        3 => outbox.find(&key(7)).await?.len(),
        4 => outbox.history(&Subject::Message(known.dead), ENTRIES).await?.entries.len(),
        5 => outbox.history(&of_key, ENTRIES).await?.entries.len(),
        6 => sentence(environment, &of_event).await?,
        7 => sentence(environment, &of_key).await?,
        8 => outbox.dead_letters(&all(), None, PAGE).await?.len(),
        9 => {
            let rejected = all().reason(outbox_core::failure::DeadReason::Rejected);
            outbox.dead_letters(&rejected, None, PAGE).await?.len()
        }
        10 => outbox.sagas(&SagaFilter::default(), None, PAGE).await?.len(),
        11 => {
            let correlation = Some("order-7".to_owned());
            let filter = SagaFilter { correlation, ..SagaFilter::default() };
            outbox.sagas(&filter, None, PAGE).await?.len()
        }
        12 => usize::try_from(outbox.saga_counts().await?.running)?,
        13 => outbox.letter_groups(&all()).await?.len(),
        _ => outbox.findings().await?.len(),
    })
}

/// Asks why a subject stands still; gives the length of the sentence.
async fn sentence(environment: &Environment, subject: &Subject) -> Result<usize> {
    let facts = environment.outbox.facts(subject).await?.context("the store has it")?;
    Ok(explain(&facts).sentence.len())
}

/// Fills the tables, then vacuums and analyzes.
pub(super) async fn fill_all(environment: &Environment, rows: u32) -> Result<Known> {
    let (inbox, letters) = (rows / PARTS, rows / PARTS * 2);
    fill(environment, rows - inbox - letters).await?;
    fill_letters(environment, letters).await?;
    let inbox_sql = "INSERT INTO outbox_inbox (consumer, handler, source, message_id, keep_until) \
         SELECT 'receipts', 'h' || g % 3, 'bench', gen_random_uuid(), 4000000000000000 FROM generate_series(1, $1::bigint) g";
    sqlx::query(inbox_sql).bind(i64::from(inbox)).execute(&environment.pool).await?;
    super::asks::fill(environment, rows / SAGAS).await?;
    sqlx::raw_sql("VACUUM (ANALYZE)").execute(&environment.pool).await?;
    let middle = i64::from(letters / 2);
    let dead = "SELECT message_id FROM outbox_dead_letters WHERE letter_id = $1";
    let dead: Uuid = sqlx::query(dead).bind(middle).fetch_one(&environment.pool).await?.get(0);
    let event = "SELECT message_id FROM outbox_events ORDER BY partition_no, event_id LIMIT 1";
    let event: Uuid = sqlx::query(event).fetch_one(&environment.pool).await?.get(0);
    Ok(Known {
        event: MessageId::from_uuid(event),
        dead: MessageId::from_uuid(dead),
        letter: middle,
    })
}

/// Inserts open letters of the route `billing`, whose events are gone.
pub(super) async fn fill_letters(environment: &Environment, letters: u32) -> Result<()> {
    let letters_sql = "INSERT INTO outbox_dead_letters (origin, partition_no, event_id, message_id, source, topic, event_type, \
         event_version, aggregate_type, message_key, content_type, payload, headers, created_at, route, reason, attempts, errors, \
         parks, dead_at) \
         SELECT 'relay', (g % 16)::smallint, g + 1000000000, gen_random_uuid(), 'bench', 'orders', 'order.placed', 1, 'order', \
         'k' || g % 10000, 'application/json', convert_to('{\"order_id\":' || g || '}', 'UTF8'), '{}', n.us, 'billing', \
         CASE WHEN g % 5 = 0 THEN 'rejected' ELSE 'exhausted' END, 3, \
         '[{\"attempt\":3,\"at\":1,\"class\":\"transient\",\"text\":\"order ' || g || ': answer ' || g % 7 || '\"}]', false, n.us \
         FROM generate_series(1, $1::bigint) g, \
         (SELECT (extract(epoch FROM statement_timestamp()) * 1000000)::bigint AS us) n";
    sqlx::query(letters_sql).bind(i64::from(letters)).execute(&environment.pool).await?;
    Ok(())
}
