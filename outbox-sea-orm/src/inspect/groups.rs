//! Dead letters by their cause.

use super::{
    WINDOW, column, errors, flag, instant, letters::reason, marked, name, query, short, shown,
};
use crate::{
    admin_store::filter::condition,
    chunks::{RESULT_BYTES, chunks_by_size},
    dialect::ORIGIN_CONSUMER,
    outbox::Outbox,
};
use outbox_core::{
    admin::{Bounded, DeadLetterFilter, LetterGroup},
    event::{LetterId, Timestamp},
    failure::DeadReason,
    outbox::StoreError,
};
use sea_orm::{QueryResult, Value};
use std::collections::HashMap;

/// Letters of one read, each of which is a parameter.
const CHUNK: usize = 1_000;
/// Most groups that are given; a person reads no more.
const MOST_GROUPS: usize = 100;
/// Longest part of an error that is compared, in bytes.
const COMPARED: usize = 300;

/// A group's route, whether a consumer gave up, reason and cause.
type Cause = (String, bool, DeadReason, String);

/// How many letters, the time of the first and of the last.
type Extent = (u64, Timestamp, Timestamp);

pub(super) async fn letter_groups(
    outbox: &Outbox,
    filter: &DeadLetterFilter,
) -> Result<Vec<LetterGroup>, StoreError> {
    let letters = newest(outbox, filter).await?;
    let or_more = i64::try_from(letters.len()).is_ok_and(|count| count >= WINDOW);
    let up_to = letters.first().map(|(id, _)| LetterId(*id));
    let mut groups: HashMap<Cause, Extent> = HashMap::new();
    for chunk in chunks_by_size(&letters, CHUNK, RESULT_BYTES, |(_, size)| *size) {
        for (cause, at) in causes(outbox, chunk).await? {
            let group = groups.entry(cause).or_insert((0, at, at));
            *group = (group.0 + 1, group.1.min(at), group.2.max(at));
        }
    }
    let mut groups: Vec<(Cause, Extent)> = groups.into_iter().collect();
    groups.sort_by(|(a, (n, ..)), (b, (m, ..))| {
        m.cmp(n).then_with(|| (&a.0, &a.3).cmp(&(&b.0, &b.3)))
    });
    groups.truncate(MOST_GROUPS);
    let group =
        |((route, of_consumer, reason, error), (count, first_at, last_at)): (Cause, Extent)| {
            LetterGroup {
                filter: selecting(filter, &route, of_consumer, reason, up_to),
                count: Bounded { count, or_more },
                route,
                reason,
                error,
                first_at,
                last_at,
            }
        };
    Ok(groups.into_iter().map(group).collect())
}

/// Narrows a filter to a group, as far as a filter can: it has no errors.
fn selecting(
    filter: &DeadLetterFilter,
    route: &str,
    of_consumer: bool,
    reason: DeadReason,
    up_to: Option<LetterId>,
) -> DeadLetterFilter {
    let mut filter = filter.clone().reason(reason);
    filter.up_to = filter.up_to.or(up_to);
    match route.split_once('/') {
        Some((consumer, handler)) if of_consumer => filter.handler(consumer, handler),
        _ => filter.route(route),
    }
}

/// Reads the newest letters of a filter: numbers, and how many bytes their errors have.
async fn newest(
    outbox: &Outbox,
    filter: &DeadLetterFilter,
) -> Result<Vec<(i64, usize)>, StoreError> {
    let (condition, mut values) = condition(filter, None);
    let bytes = outbox.schema().dialect().bytes_of(&["errors"]);
    let sql = format!(
        "SELECT letter_id, {bytes} FROM {{letters}} WHERE {condition} ORDER BY letter_id DESC LIMIT ?"
    );
    values.push(Value::from(WINDOW));
    let sizes = |row: &QueryResult| {
        Ok((column(row, 0)?, usize::try_from(column::<i64>(row, 1)?).unwrap_or(0)))
    };
    query(outbox, &sql, values).await?.iter().map(sizes).collect()
}

/// Reads the causes of letters.
async fn causes(
    outbox: &Outbox,
    letters: &[(i64, usize)],
) -> Result<Vec<(Cause, Timestamp)>, StoreError> {
    let sql = format!(
        "SELECT route, CASE WHEN origin = {ORIGIN_CONSUMER} THEN 1 ELSE 0 END, reason, {}, dead_at, {} \
         FROM {{letters}} WHERE letter_id IN ({})",
        short(outbox, "errors"),
        marked("headers"),
        vec!["?"; letters.len()].join(", ")
    );
    let values = letters.iter().map(|(id, _)| Value::from(*id)).collect();
    let cause = |row: &QueryResult| {
        let errors = errors(row, 3, 5)?;
        let error = errors.last().map(|error| without_details(&error.text)).unwrap_or_default();
        let cause = (name(row, 0)?, flag(row, 1)?, reason(&column::<String>(row, 2)?)?, error);
        Ok((cause, instant(row, 4)?))
    };
    query(outbox, &sql, values).await?.iter().map(cause).collect()
}

/// Takes out of an error what differs between letters of one cause: quoted values become `'_'`,
/// numbers and ids become `#`.
pub(super) fn without_details(text: &str) -> String {
    let text = shown(text);
    let mut bare = String::with_capacity(text.len());
    let mut rest = text.as_str();
    let mut before = None;
    while let Some(first) = rest.chars().next() {
        let word_before = before.is_some_and(char::is_alphanumeric);
        let taken = if matches!(first, '"' | '\'' | '`') && !word_before {
            quoted(rest, first)
        } else if is_word(first) && !before.is_some_and(is_word) {
            Some(word(rest))
        } else {
            None
        };
        let (written, length) = taken.unwrap_or_else(|| (first.to_string(), first.len_utf8()));
        before = rest[..length].chars().next_back();
        bare.push_str(&written);
        rest = &rest[length..];
        if bare.len() > COMPARED {
            break;
        }
    }
    shown(&bare)
}

const fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '_')
}

/// Takes a quoted value from the beginning; `None` where the quote has no end.
fn quoted(rest: &str, quote: char) -> Option<(String, usize)> {
    let inner = rest.strip_prefix(quote)?;
    let end = inner.find(quote)?;
    Some((format!("{quote}_{quote}"), end + 2 * quote.len_utf8()))
}

/// Takes a word from the beginning: an id becomes `#`, and so do the numbers of any other word.
fn word(rest: &str) -> (String, usize) {
    let length = rest.find(|c: char| !is_word(c)).unwrap_or(rest.len());
    let word = &rest[..length];
    let hexadecimal = word.chars().all(|c| c.is_ascii_hexdigit() || c == '-');
    let digits = word.chars().filter(char::is_ascii_digit).count();
    if hexadecimal && digits > 0 && word.len() >= 8 {
        return ("#".to_owned(), length);
    }
    let mut bare = String::with_capacity(length);
    let mut in_number = false;
    for c in word.chars() {
        let is_digit = c.is_ascii_digit();
        match (is_digit, in_number) {
            (true, false) => bare.push('#'),
            (true, true) => {}
            (false, _) => bare.push(c),
        }
        in_number = is_digit;
    }
    (bare, length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_one_cause_are_equal_without_their_details() {
        for (text, bare) in [
            ("", ""),
            ("connection refused", "connection refused"),
            ("503 Service Unavailable", "# Service Unavailable"),
            ("timeout after 1.5 s (attempt 12)", "timeout after #.# s (attempt #)"),
            ("order 550e8400-e29b-41d4-a716-446655440000 is locked", "order # is locked"),
            ("no row deadbeef00 in shard_17", "no row # in shard_#"),
            ("duplicate key 'ann@x.org' for \"mail\"", "duplicate key '_' for \"_\""),
            ("cannot read `a b`: it's gone", "cannot read `_`: it's gone"),
            ("10.0.0.7:5432 refused", "#.#.#.#:# refused"),
            ("an open 'quote", "an open 'quote"),
            ("added facade", "added facade"),
            ("naïve Größe 7", "naïve Größe #"),
            ("\u{1b}[31mred\u{7}", "[#mred"),
            ("''", "'_'"),
        ] {
            assert_eq!(without_details(text), bare, "{text:?}");
        }
    }

    #[test]
    fn an_endless_error_is_cut() {
        for text in ["x ".repeat(1 << 19), "'".repeat(1 << 20), "ß".repeat(1 << 20)] {
            assert!(without_details(&text).len() <= COMPARED + 2);
        }
    }

    #[test]
    fn a_group_is_selected_by_route_or_handler_and_reason() {
        let all = DeadLetterFilter::all().topic("orders");
        let up_to = Some(LetterId(9));
        let filter = selecting(&all, "billing", false, DeadReason::Exhausted, up_to);
        let expected = DeadLetterFilter { up_to, ..all.clone() };
        assert_eq!(filter, expected.clone().route("billing").reason(DeadReason::Exhausted));
        let filter = selecting(&all, "mail/send", true, DeadReason::Rejected, up_to);
        assert_eq!(filter, expected.handler("mail", "send").reason(DeadReason::Rejected));
    }
}
