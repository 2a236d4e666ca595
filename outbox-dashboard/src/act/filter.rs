//! The conditions on dead letters, as URLs and forms have them: the same words as the options of
//! `outbox dead-letters`.

use super::fields::{Fields, read, span, text};
use crate::access::Refusal;
use outbox_core::admin::DeadLetterFilter;

/// The names of the conditions.
pub(crate) const NAMES: [&str; 8] =
    ["topic", "type", "key", "route", "consumer", "handler", "reason", "older-than"];
/// Longest value of a condition: no name or key is longer.
const LONGEST: usize = 1_024;

/// Reads the conditions of a form or a query.
pub(crate) fn from_fields(fields: &Fields) -> Result<DeadLetterFilter, Refusal> {
    from(|name| fields.get(name))
}

/// Reads the conditions from what gives each by its name.
pub(crate) fn from<'a>(get: impl Fn(&str) -> Option<&'a str>) -> Result<DeadLetterFilter, Refusal> {
    for (name, value) in NAMES.into_iter().filter_map(|name| Some((name, get(name)?))) {
        if text(name, value)?.len() > LONGEST {
            return Err(Refusal::bad(format!("`{name}` has more than {LONGEST} bytes")));
        }
    }
    let text = |name| get(name).map(str::to_owned);
    let handler = text("handler");
    if handler.is_some() && get("consumer").is_none() {
        return Err(Refusal::bad("a handler is one of a consumer: `consumer` is missing"));
    }
    let a_reason = "why letters were given up, such as `rejected` or `exhausted`";
    Ok(DeadLetterFilter {
        topic: text("topic"),
        event_type: text("type"),
        key: text("key"),
        route: text("route"),
        consumer: text("consumer"),
        handler,
        reason: get("reason").map(|reason| read("reason", reason, a_reason)).transpose()?,
        older_than: get("older-than").map(|age| span("older-than", age)).transpose()?,
        ..DeadLetterFilter::default()
    })
}

/// Gives the conditions of a filter by their names, for a form or a link.
pub(crate) fn conditions(filter: &DeadLetterFilter) -> Vec<(&'static str, String)> {
    let reason = filter.reason.map(|reason| reason.to_string());
    let age = filter.older_than.map(|age| humantime::format_duration(age).to_string());
    let values = [
        &filter.topic,
        &filter.event_type,
        &filter.key,
        &filter.route,
        &filter.consumer,
        &filter.handler,
        &reason,
        &age,
    ];
    let given = NAMES.into_iter().zip(values);
    given.filter_map(|(name, value)| Some((name, value.clone()?))).collect()
}

/// Tells whether its conditions select the same letters as the filter, up to its bound: a plan of
/// one letter, or of a program with other conditions, cannot be planned again by a form.
pub(crate) fn is_whole(filter: &DeadLetterFilter) -> bool {
    let said = DeadLetterFilter {
        letter: None,
        dead_at: None,
        up_to: filter.up_to,
        include_resolved: filter.include_resolved,
        ..filter.clone()
    };
    said == *filter
}

#[cfg(test)]
mod tests {
    use super::*;
    use outbox_core::{event::LetterId, failure::DeadReason};
    use std::time::Duration;

    #[test]
    fn a_filter_is_read_as_it_is_written() {
        let every = DeadLetterFilter::all()
            .topic("orders")
            .event_type("order.placed")
            .key("a/b")
            .route("billing")
            .handler("mail", "send")
            .reason(DeadReason::NotRetried)
            .older_than(Duration::from_mins(90));
        for filter in [every, DeadLetterFilter::all(), DeadLetterFilter::all().key("7")] {
            let conditions = conditions(&filter);
            let get = |name: &str| {
                let found = conditions.iter().find(|(condition, _)| *condition == name);
                found.map(|(_, value)| value.as_str())
            };
            assert_eq!(from(get).unwrap(), filter);
        }
    }

    #[test]
    fn a_filter_with_more_than_a_form_has_is_not_whole() {
        let bounded = DeadLetterFilter { up_to: Some(LetterId(9)), ..DeadLetterFilter::all() };
        assert!(is_whole(&bounded.clone().topic("orders")) && is_whole(&bounded));
        assert!(!is_whole(&bounded.letter(LetterId(7))));
    }

    #[test]
    fn a_condition_that_is_wrong_is_refused() {
        let long = "x".repeat(LONGEST + 1);
        for (name, value) in [
            ("reason", "sad"),
            ("older-than", "old"),
            ("handler", "send"),
            ("key", long.as_str()),
            ("key", "a\0b"),
        ] {
            assert!(from(|asked| (asked == name).then_some(value)).is_err(), "{name}");
        }
    }
}
