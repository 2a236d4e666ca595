//! Texts of failures as operators see them: on one line, bounded, and without secrets. Pure.

/// Bytes of a text that are looked at, many times as many as are shown.
const LOOKED_AT: usize = 4 * 1024;
/// What stands in place of a secret.
const HIDDEN: &str = "***";
/// Names whose values are secrets, in lower case; a longer name may end with them.
const SECRET_NAMES: [&str; 8] =
    ["password", "passwd", "pwd", "secret", "token", "api_key", "apikey", "signature"];
/// Schemes of the `Authorization` header.
const SCHEMES: [&str; 2] = ["bearer ", "basic "];
/// Shortest credentials behind a scheme: a shorter word is part of a sentence.
const SHORTEST_CREDENTIALS: usize = 12;

/// Gives a text on one line, without secrets, at most so many bytes.
pub(crate) fn shown(text: &str, longest: usize) -> String {
    let on_one_line: String =
        cut(text.trim(), LOOKED_AT).chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let hidden = without_secrets(&on_one_line);
    cut(&hidden, longest).to_owned()
}

/// Cuts a text at a character.
fn cut(text: &str, longest: usize) -> &str {
    let mut end = text.len().min(longest);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// Hides the user of a URL, credentials, and the values of names that say that they are secret.
fn without_secrets(text: &str) -> String {
    // The same bytes, with other letters: positions of one are positions of the other.
    let lower = text.to_ascii_lowercase();
    let (mut hidden, mut at) = (String::with_capacity(text.len()), 0);
    while let Some(c) = text[at..].chars().next() {
        if let Some((from, to)) = secret_at(&lower, at) {
            hidden.push_str(&text[at..from]);
            hidden.push_str(HIDDEN);
            at = to;
        } else {
            hidden.push(c);
            at += c.len_utf8();
        }
    }
    hidden
}

/// Finds the secret of which a mark begins at a position: from where to where.
fn secret_at(lower: &str, at: usize) -> Option<(usize, usize)> {
    let rest = &lower[at..];
    if rest.starts_with("://") {
        let from = at + "://".len();
        let host = until(lower, from, |c| "/?#\"'".contains(c) || c.is_whitespace());
        let user = lower[from..host].rfind('@')?;
        return Some((from, from + user));
    }
    let is_end = |c: char| "\"'&,;)}]".contains(c) || c.is_whitespace();
    if let Some(scheme) = SCHEMES.iter().find(|scheme| rest.starts_with(**scheme)) {
        let from = at + scheme.len();
        let to = until(lower, from, is_end);
        return (to - from >= SHORTEST_CREDENTIALS).then_some((from, to));
    }
    let name = SECRET_NAMES.iter().find(|name| rest.starts_with(**name))?;
    let behind = at + name.len();
    let assigns = until(lower, behind, |c| !"\"' ".contains(c));
    if !lower[assigns..].starts_with(['=', ':']) {
        return None;
    }
    let from = until(lower, assigns + 1, |c| !"\"' ".contains(c));
    let to = until(lower, from, is_end);
    (to > from).then_some((from, to))
}

/// Gives the position of the first such character from a position on, or the end.
fn until(text: &str, from: usize, is_it: impl Fn(char) -> bool) -> usize {
    text[from..].find(is_it).map_or(text.len(), |found| from + found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_hidden_and_all_else_is_shown() {
        for (text, expected) in [
            ("connection refused", "connection refused"),
            ("amqp://ann:pw@mq:5672/%2f: refused", "amqp://***@mq:5672/%2f: refused"),
            ("https://host/a@b was not found", "https://host/a@b was not found"),
            ("https://h/x?token=abc&n=1", "https://h/x?token=***&n=1"),
            ("Authorization: Bearer eyJhbGciOi.J9 denied", "Authorization: Bearer *** denied"),
            ("a bearer of bad news", "a bearer of bad news"),
            ("{\"client_secret\": \"a b\"}", "{\"client_secret\": \"*** b\"}"),
            ("PASSWORD = hunter2; user=ann", "PASSWORD = ***; user=ann"),
            ("an unknown token was sent", "an unknown token was sent"),
            ("größe: token=größe!", "größe: token=***"),
            ("password=", "password="),
        ] {
            assert_eq!(shown(text, 300), expected, "{text}");
        }
    }

    #[test]
    fn a_text_is_on_one_line_and_cut_at_a_character() {
        assert_eq!(shown(" a\nb\0c\u{85} ", 300), "a b c");
        assert_eq!(shown(&"é".repeat(200), 299).len(), 298);
        assert_eq!(shown(&"x".repeat(10_000), 300).len(), 300);
    }
}
