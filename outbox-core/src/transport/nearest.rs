//! The name that is spelled most like another one, so that an error can suggest it.

/// Gives the candidate that differs least from a name: by a third of its letters at most, or two.
pub(super) fn nearest<'a>(
    name: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let most = (name.chars().count() / 3).max(2);
    let measured = candidates.into_iter().map(|candidate| (distance(name, candidate), candidate));
    measured.filter(|(letters, _)| *letters <= most).min().map(|(_, candidate)| candidate)
}

/// Counts the letters to insert, remove or replace.
///
/// # Source
/// Wagner and Fischer, "The String-to-String Correction Problem", 1974.
fn distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (i, a) in from.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, b) in to.iter().enumerate() {
            let replaced = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelled_name_finds_the_one_that_was_meant() {
        let known = ["orders", "order-items", "payments"];
        for (name, expected) in [
            ("ordres", Some("orders")),
            ("order", Some("orders")),
            ("Orders", Some("orders")),
            ("order-item", Some("order-items")),
            ("paymants", Some("payments")),
            ("shipping", None),
            ("", None),
        ] {
            assert_eq!(nearest(name, known), expected, "{name}");
        }
        assert_eq!(nearest("orders", []), None);
    }
}
