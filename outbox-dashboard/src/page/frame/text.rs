//! Times, counts, states and texts of strangers, as pages show them.

use askama::filters::HtmlSafe;
use outbox_core::{
    admin::{Bounded, ago_text, cut_text, instant_text, shown_text},
    event::Timestamp,
    runtime::wall_clock,
};
use std::fmt;

/// Longest text of a stranger in a cell of a table, in characters.
pub(crate) const CELL: usize = 80;
/// Longest text of a stranger anywhere but in a payload, in characters.
pub(crate) const LONGEST: usize = 1_000;

/// HTML whose texts are escaped; templates write it as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Markup(String);

impl Markup {
    /// Takes HTML whose texts are escaped already.
    pub(crate) const fn escaped(html: String) -> Self {
        Self(html)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    #[cfg(test)]
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Markup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl HtmlSafe for Markup {}

/// Escapes a text for HTML and its attributes.
pub(crate) fn escaped(text: &str) -> String {
    let mut html = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => html.push_str("&amp;"),
            '<' => html.push_str("&lt;"),
            '>' => html.push_str("&gt;"),
            '"' => html.push_str("&quot;"),
            '\'' => html.push_str("&#39;"),
            c => html.push(c),
        }
    }
    html
}

/// Writes a text of a stranger, cut at so many characters; the rest shows on hover.
pub(crate) fn cell(text: &str, most: usize) -> Markup {
    let (cut, long) = (cut_text(text, most), cut_text(text, LONGEST));
    let title = match cut == long {
        true => String::new(),
        false => format!(" title=\"{}\"", escaped(&long)),
    };
    Markup(format!("<bdi{title}>{}</bdi>", escaped(&cut)))
}

/// Writes a text of a stranger.
pub(crate) fn text(text: &str) -> Markup {
    cell(text, LONGEST)
}

/// Writes a sentence: names in backquotes become code.
pub(crate) fn sentence(text: &str) -> Markup {
    let shown = cut_text(text, LONGEST);
    let mut html = String::from("<bdi>");
    let mut parts = shown.split('`').peekable();
    let mut is_code = false;
    while let Some(part) = parts.next() {
        // A last backquote that nothing closes is one.
        match (is_code, parts.peek()) {
            (true, Some(_)) => html.push_str(&format!("<code>{}</code>", escaped(part))),
            (true, None) => html.push_str(&format!("`{}", escaped(part))),
            (false, _) => html.push_str(&escaped(part)),
        }
        is_code = !is_code;
    }
    Markup(html + "</bdi>")
}

/// Writes a text of a stranger that has lines: line ends and tabs stay.
pub(crate) fn lines(text: &str) -> Markup {
    let mut html = String::with_capacity(text.len());
    for (number, line) in text.split('\n').enumerate() {
        if number > 0 {
            html.push('\n');
        }
        for (number, part) in line.trim_end_matches('\r').split('\t').enumerate() {
            if number > 0 {
                html.push('\t');
            }
            html.push_str(&escaped(&shown_text(part)));
        }
    }
    Markup(html)
}

/// Writes how long ago an instant was, with the instant for machines and on hover.
pub(crate) fn ago(at: Timestamp, now: Timestamp) -> Markup {
    let instant = instant_text(at);
    Markup(format!(
        "<time datetime=\"{0}\" title=\"{0}\">{1}</time>",
        escaped(&instant),
        escaped(&ago_text(at, now))
    ))
}

/// Writes the time of the day, with the instant for machines and on hover; the day too, where it is
/// another one than today.
pub(crate) fn clock(at: Timestamp, now: Timestamp) -> Markup {
    let instant = instant_text(at);
    let shown = match (instant.get(..10), instant.get(11..19)) {
        (Some(day), Some(time)) if instant_text(now).starts_with(day) => time.to_owned(),
        (Some(day), Some(time)) => format!("{day} {time}"),
        _ => instant.clone(),
    };
    Markup(format!("<time datetime=\"{0}\" title=\"{0}\">{1}</time>", escaped(&instant), shown))
}

/// Gives this host's clock, for pages whose rows come without the database's.
pub(crate) fn host_now() -> Timestamp {
    Timestamp::from(wall_clock())
}

/// Writes a count with commas.
pub(crate) fn number(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Writes a count that stops at a limit: `10,000+`.
pub(crate) fn bounded(count: Bounded) -> String {
    number(count.count) + if count.or_more { "+" } else { "" }
}

/// Writes a count of which it is known where counting stops.
pub(crate) fn up_to(count: u64, limit: u64) -> String {
    bounded(Bounded { count, or_more: count >= limit })
}

/// Writes a rate a second, with one digit behind the point where it is small.
pub(crate) fn rate(a_second: f64) -> String {
    if a_second >= 100.0 { format!("{a_second:.0}") } else { format!("{a_second:.1}") }
}

/// What a state means to an operator; shown by colour and shape beside its word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tone {
    /// It is as it should be.
    Good,
    /// It goes on.
    Busy,
    /// It waits, and nothing is wrong.
    Idle,
    /// It will hurt.
    Warn,
    /// It waits for somebody.
    Bad,
}

impl Tone {
    /// Gives the class of the style sheet.
    pub(crate) const fn class(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Busy => "busy",
            Self::Idle => "idle",
            Self::Warn => "warn",
            Self::Bad => "bad",
        }
    }
}

/// Writes a state.
pub(crate) fn state(tone: Tone, word: &str) -> Markup {
    Markup(format!(
        "<span class=\"state {}\">{}</span>",
        tone.class(),
        escaped(&cut_text(word, CELL))
    ))
}

/// Writes a value of a query.
pub(crate) fn query_value(value: &str) -> String {
    askama::filters::urlencode_strict(value).map_or_else(|never| match never {}, |v| v.to_string())
}

/// Writes a query of what is given: `?db=orders&route=billing`; nothing where nothing is.
pub(crate) fn query(parts: &[(&str, Option<&str>)]) -> String {
    let mut text = String::new();
    for (name, value) in parts {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            text.push(if text.is_empty() { '?' } else { '&' });
            text.push_str(name);
            text.push('=');
            text.push_str(&query_value(value));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_stranger_wrote_is_text_and_nothing_else() {
        for (written, html) in [
            ("orders/7", "<bdi>orders/7</bdi>"),
            ("<script>alert(1)</script>", "<bdi>&lt;script&gt;alert(1)&lt;/script&gt;</bdi>"),
            ("\" onload='x'", "<bdi>&quot; onload=&#39;x&#39;</bdi>"),
            ("a\u{202e}b\x1b[2J", "<bdi>a\\u{202e}b\\u{1b}[2J</bdi>"),
            ("grün &amp;", "<bdi>grün &amp;amp;</bdi>"),
        ] {
            assert_eq!(text(written).as_str(), html);
        }
        assert_eq!(cell("<abcdef>", 4).as_str(), "<bdi title=\"&lt;abcdef&gt;\">&lt;ab…</bdi>");
    }

    #[test]
    fn names_in_a_sentence_are_code_and_still_text() {
        for (written, html) in [
            ("route `billing` waits", "<bdi>route <code>billing</code> waits</bdi>"),
            ("`<b>` and `c`", "<bdi><code>&lt;b&gt;</code> and <code>c</code></bdi>"),
            ("one ` alone", "<bdi>one ` alone</bdi>"),
            ("", "<bdi></bdi>"),
        ] {
            assert_eq!(sentence(written).as_str(), html);
        }
    }

    #[test]
    fn lines_of_a_payload_stay_and_control_characters_are_shown() {
        assert_eq!(lines("{\r\n\t\"a\": 1\n}").as_str(), "{\n\t&quot;a&quot;: 1\n}");
        assert_eq!(lines("\u{0}\u{2066}<b>").as_str(), "\\u{0}\\u{2066}&lt;b&gt;");
    }

    #[test]
    fn counts_have_commas_and_say_where_they_stop() {
        for (count, text) in [(0, "0"), (999, "999"), (1_000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(number(count), text);
        }
        assert_eq!(up_to(10_000, 10_000), "10,000+");
        assert_eq!(up_to(9_999, 10_000), "9,999");
        assert_eq!(
            (rate(0.25), rate(99.96), rate(1234.5)),
            ("0.2".into(), "100.0".into(), "1234".into())
        );
    }

    #[test]
    fn an_instant_is_shown_relative_and_whole() {
        let now = Timestamp::from_micros(1_700_000_000_000_000);
        let at = Timestamp::from_micros(1_699_999_820_000_000);
        assert_eq!(
            ago(at, now).as_str(),
            "<time datetime=\"2023-11-14T22:10:20Z\" title=\"2023-11-14T22:10:20Z\">3 min ago</time>"
        );
        assert!(clock(at, now).as_str().ends_with(">22:10:20</time>"));
        let yesterday = Timestamp::from_micros(1_699_900_000_000_000);
        assert!(clock(yesterday, now).as_str().ends_with(">2023-11-13 18:26:40</time>"));
    }

    #[test]
    fn a_query_has_what_is_given_and_is_encoded() {
        assert_eq!(
            query(&[("db", None), ("key", Some("a/b c&d")), ("x", Some(""))]),
            "?key=a%2Fb%20c%26d"
        );
        assert_eq!(query(&[]), "");
    }
}
