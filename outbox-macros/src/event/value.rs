//! Rules of names, durations and headers: pure functions whose errors tell what to write instead.

use std::time::Duration;

/// Most bytes that the column of every database takes; the same limit as when an event is encoded.
const MAX_TEXT: usize = 255;
/// The longest duration: a hundred years of microseconds, which fit the databases' instants with
/// room to spare.
const MAX_DAYS: u64 = 36_500;
/// The same limit as `Headers::check_name`, which a test compares with this.
const MAX_HEADER: usize = 64;
/// Attribute names that the envelope itself uses, as in `Headers::check_name`.
const RESERVED: &[&str] = &[
    "id",
    "source",
    "type",
    "subject",
    "time",
    "specversion",
    "datacontenttype",
    "data",
    "data_base64",
    "partitionkey",
    "sequence",
    "expirytime",
    "eventversion",
    "aggregatetype",
    "topic",
];

/// Checks a name on the wire: of a type, a topic, an aggregate.
pub(crate) fn check_wire_name(what: &str, text: &str) -> Result<(), String> {
    let example = match what {
        "topic" => "orders",
        "aggregate" | "prefix" => "order",
        _ => "order.placed",
    };
    if text.is_empty() {
        return Err(format!("the {what} is empty: write a name such as `{example}`"));
    }
    if text.len() > MAX_TEXT {
        return Err(format!("the {what} has {} bytes; the most is {MAX_TEXT}", text.len()));
    }
    match text.chars().find(|c| c.is_whitespace() || c.is_control()) {
        Some(c) => {
            Err(format!("the {what} may not contain {c:?}: write a name such as `{example}`"))
        }
        None => Ok(()),
    }
}

/// Checks the name of a header by the rules of CloudEvents.
pub(crate) fn check_header_name(name: &str) -> Result<(), String> {
    let plain = name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    if name.is_empty() || name.len() > MAX_HEADER || !plain {
        return Err(format!(
            "a header name has 1 to {MAX_HEADER} characters of a-z and 0-9 (CloudEvents): write one such as `tenantid`"
        ));
    }
    if RESERVED.contains(&name) {
        return Err(format!("the header name `{name}` belongs to the envelope; choose another"));
    }
    Ok(())
}

/// Checks the value of a header.
pub(crate) fn check_header_value(value: &str) -> Result<(), String> {
    if value.chars().any(char::is_control) {
        return Err(
            "a header value may not contain control characters, such as line ends".to_owned()
        );
    }
    Ok(())
}

/// Reads a duration such as `500ms`, `30s`, `15m`, `2h` or `7d`, longer than zero.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let millis_each = match unit {
        "ms" => Some(1),
        "s" => Some(1_000),
        "m" => Some(60_000),
        "h" => Some(3_600_000),
        "d" => Some(86_400_000),
        _ => None,
    };
    let Some(millis_each) = millis_each.filter(|_| digits > 0) else {
        return Err(format!(
            "`{text}` is no duration: write a whole number and one of ms, s, m, h, d, such as `7d`"
        ));
    };
    let millis = number.parse::<u64>().ok().and_then(|n| n.checked_mul(millis_each));
    match millis {
        Some(0) => Err("the duration is zero: write a longer one, such as `1s`".to_owned()),
        Some(millis) if millis <= MAX_DAYS * 86_400_000 => Ok(Duration::from_millis(millis)),
        _ => Err(format!("`{text}` is too long; the most is {MAX_DAYS}d")),
    }
}

/// Writes a Rust name in snake case: `PaymentEvent` is `payment_event`, `HTTPServer` is
/// `http_server`.
pub(crate) fn snake_case(name: &str) -> String {
    let chars: Vec<char> = name.trim_start_matches("r#").chars().collect();
    let mut out = String::new();
    for (i, &c) in chars.iter().enumerate() {
        if c.is_uppercase() {
            let after_lower = i > 0 && !chars[i - 1].is_uppercase() && chars[i - 1] != '_';
            let ends_acronym = i > 0
                && chars[i - 1].is_uppercase()
                && chars.get(i + 1).is_some_and(|n| n.is_lowercase());
            if after_lower || ends_acronym {
                out.push('_');
            }
            out.extend(c.to_lowercase());
        } else {
            out.push(c);
        }
    }
    out
}
