//! Asks databases for a page: all at once, each within a time, and a database that is away gives a
//! notice.

use super::layout::Notice;
use crate::{
    access::Refusal,
    store::{DashboardStore, Database},
};
use futures_util::future::join_all;
use http::StatusCode;
use outbox_core::{admin::cut_text, failure::FailureClass, outbox::StoreError};
use std::{sync::Arc, time::Duration};

/// How long a database may take to answer a page: an operator wants to know soon that it is away,
/// and the other databases' answers wait for it.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// Longest error of a database in a notice, in characters.
const LONGEST_ERROR: usize = 300;

/// The answers of the databases, in their order, and who did not answer.
#[derive(Debug)]
pub(crate) struct Answers<T> {
    pub(crate) list: Vec<(Database, T)>,
    pub(crate) notices: Vec<Notice>,
    /// Why a database did not answer, for each notice; `None` where its time was over.
    failures: Vec<(Database, Option<StoreError>)>,
}

impl<T> Answers<T> {
    /// Gives the refusal of a question that some database has not answered: it is the question's or
    /// the outbox's fault, which no repeat mends, or a database is away, busy or slow.
    pub(crate) fn refusal(&self) -> Option<Refusal> {
        if self.failures.is_empty() {
            return None;
        }
        let for_good = self.failures.iter().find_map(|(database, error)| {
            let error = error.as_ref()?;
            (error.class() == FailureClass::Permanent).then_some((database, error))
        });
        if let Some((database, error)) = for_good {
            return Some(Refusal::of_question(&database.name, error));
        }
        let why: Vec<&str> = self.notices.iter().map(|notice| notice.plain.as_str()).collect();
        Some(
            Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "A database is away")
                .because(why.join(" "))
                .advising("Ask again when it is back, or ask for one of the others by `db`."),
        )
    }
}

/// Asks databases at the same time.
pub(crate) async fn ask_all<T, F>(
    databases: &[Database],
    ask: impl Fn(Arc<dyn DashboardStore>) -> F,
) -> Answers<T>
where
    F: Future<Output = Result<T, StoreError>>,
{
    ask_each(databases, |database| ask(database.store)).await
}

/// Asks databases at the same time, each under its name.
pub(crate) async fn ask_each<T, F>(
    databases: &[Database],
    ask: impl Fn(Database) -> F,
) -> Answers<T>
where
    F: Future<Output = Result<T, StoreError>>,
{
    let answers = join_all(databases.iter().map(|database| {
        let answer = ask(database.clone());
        async move { (database, tokio::time::timeout(ANSWER_WITHIN, answer).await) }
    }));
    let mut all = Answers { list: Vec::new(), notices: Vec::new(), failures: Vec::new() };
    for (database, answer) in answers.await {
        let (why, error) = match answer {
            Ok(Ok(answer)) => {
                all.list.push((database.clone(), answer));
                continue;
            }
            Ok(Err(error)) => (with_causes(&error), Some(error)),
            Err(_) => (format!("no answer within {} s", ANSWER_WITHIN.as_secs()), None),
        };
        all.notices.push(Notice::bad(format!(
            "Database {} cannot be asked, and is missing here: {why}",
            database.name
        )));
        all.failures.push((database.clone(), error));
    }
    all
}

/// Cuts what was read, by one more than a page shows, to the page, and tells whether there is more: a
/// read may end before its limit, by its bytes, and then what is next is read too.
pub(crate) async fn cut_to_page<T>(
    mut read: Vec<T>,
    shown: u32,
    next: impl Future<Output = Result<Vec<T>, StoreError>>,
) -> Result<(Vec<T>, bool), StoreError> {
    let has_more = match read.len() {
        0 => false,
        found if found > shown as usize => true,
        _ => !next.await?.is_empty(),
    };
    read.truncate(shown as usize);
    Ok((read, has_more))
}

/// Writes an error with its causes.
pub(crate) fn with_causes(error: &StoreError) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        let next = error.to_string();
        // Some libraries repeat their cause in their own text.
        if !text.contains(&next) {
            text = format!("{text}: {next}");
        }
        cause = error.source();
    }
    cut_text(&text, LONGEST_ERROR)
}
