//! The size of statements and results: bounded by bytes as well as by rows.

use outbox_core::event::{Headers, Message, NewEvent};
use sea_orm::Value;

/// Most bytes of one statement, or one row: MySQL's smallest usual `max_allowed_packet` is 1 MiB,
/// and an event may fill as much alone.
pub(crate) const STATEMENT_BYTES: usize = 960 * 1024;
/// Most bytes of one result, or one row; also what one transaction moves or deletes within the
/// database.
pub(crate) const RESULT_BYTES: usize = 4 * 1024 * 1024;
/// Bytes of a row beside its strings and its payload.
const ROW: usize = 256;

/// Counts the first items that have at most `bytes` together, at least one.
pub(crate) fn fitting_count(sizes: impl IntoIterator<Item = usize>, bytes: usize) -> usize {
    let mut total = 0_usize;
    sizes
        .into_iter()
        .enumerate()
        .take_while(|(at, size)| {
            total = total.saturating_add(*size);
            *at == 0 || total <= bytes
        })
        .count()
}

/// Cuts a list into chunks of at most `rows` items and at most `bytes`, each of at least one item.
pub(crate) fn chunks_by_size<T>(
    mut items: &[T],
    rows: usize,
    bytes: usize,
    size: impl Fn(&T) -> usize,
) -> impl Iterator<Item = &[T]> {
    std::iter::from_fn(move || {
        if items.is_empty() {
            return None;
        }
        let most = &items[..items.len().min(rows)];
        let (chunk, rest) = items.split_at(fitting_count(most.iter().map(&size), bytes));
        items = rest;
        Some(chunk)
    })
}

/// Cuts a list into parts of a power of two, the largest first, where `cuts`: so that there are few
/// different statements.
pub(crate) fn powers_of_two<T>(mut items: &[T], cuts: bool) -> impl Iterator<Item = &[T]> {
    std::iter::from_fn(move || {
        let largest = items.len().checked_ilog2().map(|log| 1 << log)?;
        let (part, rest) = items.split_at(if cuts { largest } else { items.len() });
        items = rest;
        Some(part)
    })
}

/// Writes the condition that a column has one of these values, which are padded with the last one
/// up to a power of two: so that there are few different statements.
pub(crate) fn one_of(column: &str, mut values: Vec<Value>) -> (String, Vec<Value>) {
    let padded = values.len().next_power_of_two();
    if let Some(last) = values.last().cloned() {
        values.resize(padded, last);
    }
    (format!("{column} IN ({})", vec!["?"; padded].join(", ")), values)
}

/// Gives the bytes of an event's row in a statement.
pub(crate) fn event_size(event: &NewEvent) -> usize {
    let texts = [&event.topic, &event.event_type, &event.content_type]
        .map(String::len)
        .iter()
        .sum::<usize>();
    let optional =
        [&event.key, &event.aggregate_type].map(|text| text.as_ref().map_or(0, String::len));
    ROW + event.payload.len()
        + headers_size(&event.headers)
        + texts
        + optional.iter().sum::<usize>()
}

/// Gives the bytes of a message's row in a statement.
pub(crate) fn message_size(message: &Message) -> usize {
    let texts = [&message.topic, &message.event_type, &message.content_type, &message.source]
        .map(String::len);
    let optional =
        [&message.key, &message.aggregate_type].map(|text| text.as_ref().map_or(0, String::len));
    let texts = texts.iter().chain(&optional).sum::<usize>();
    ROW + message.payload.len() + headers_size(&message.headers) + texts
}

fn headers_size(headers: &Headers) -> usize {
    headers.iter().map(|(name, value)| name.len() + value.len() + 6).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_cut_into_few_sizes_or_left_whole() {
        for (items, expected) in [
            (0, &[][..]),
            (1, &[1]),
            (7, &[4, 2, 1]),
            (64, &[64]),
            (500, &[256, 128, 64, 32, 16, 4]),
        ] {
            let items = vec![(); items];
            let sizes = |cuts| powers_of_two(&items, cuts).map(<[()]>::len).collect::<Vec<_>>();
            assert_eq!(sizes(true), expected);
            assert_eq!(sizes(false), if items.is_empty() { vec![] } else { vec![items.len()] });
        }
    }

    #[test]
    fn a_list_of_values_is_padded_to_a_power_of_two() {
        for (values, condition, padded) in
            [(&[7][..], "n IN (?)", &[7][..]), (&[7, 8, 9], "n IN (?, ?, ?, ?)", &[7, 8, 9, 9])]
        {
            let of = |values: &[i64]| values.iter().copied().map(Value::from).collect::<Vec<_>>();
            assert_eq!(one_of("n", of(values)), (condition.to_owned(), of(padded)));
        }
    }

    #[test]
    fn a_chunk_has_the_items_that_fit_by_rows_and_bytes_and_one_at_least() {
        for (sizes, rows, bytes, expected) in [
            (&[][..], 3, 10, &[][..]),
            (&[1, 1, 1, 1], 3, 10, &[3, 1]),
            (&[5, 5, 5], 3, 10, &[2, 1]),
            (&[5, 6, 5], 3, 10, &[1, 1, 1]),
            (&[11, 1, 11, 11], 3, 10, &[1, 1, 1, 1]),
            (&[usize::MAX, 1, usize::MAX], 3, 10, &[1, 1, 1]),
            (&[0, 10, 0, 1], 9, 10, &[3, 1]),
            (&[10, 0, 0], 1, 10, &[1, 1, 1]),
        ] {
            let cut: Vec<usize> =
                chunks_by_size(sizes, rows, bytes, |size| *size).map(<[usize]>::len).collect();
            assert_eq!(cut, expected, "{sizes:?} by {rows} rows and {bytes} bytes");
        }
    }
}
