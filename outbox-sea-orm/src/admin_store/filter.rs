//! The SQL condition of a filter of dead letters.

use crate::{
    dialect::{ORIGIN_CONSUMER, ORIGIN_RELAY},
    schema::{consumer_route, micros},
};
use outbox_core::{admin::DeadLetterFilter, event::LetterId};
use sea_orm::Value;

/// Writes the condition of a filter.
pub(crate) fn condition(
    filter: &DeadLetterFilter,
    after: Option<LetterId>,
) -> (String, Vec<Value>) {
    let mut parts = vec!["1 = 1".to_owned()];
    let mut values = Vec::new();
    let texts = [
        ("topic", filter.topic.as_deref()),
        ("event_type", filter.event_type.as_deref()),
        ("message_key", filter.key.as_deref()),
        ("route", filter.route.as_deref()),
        ("reason", filter.reason.map(|r| r.as_str())),
    ];
    for (column, text) in texts {
        if let Some(text) = text {
            parts.push(format!("{column} = ?"));
            values.push(Value::from(text));
        }
    }
    if let Some(consumer) = &filter.consumer {
        let route = consumer_route(consumer, filter.handler.as_deref().unwrap_or_default());
        parts.push(format!("origin = {ORIGIN_CONSUMER}"));
        parts.push(match filter.handler {
            Some(_) => "route = ?".to_owned(),
            None => format!("substr(route, 1, {}) = ?", route.chars().count()),
        });
        values.push(Value::from(route));
    }
    if filter.handler.is_some() && filter.consumer.is_none() {
        // Handlers of two consumers may have one name.
        parts.push("1 = 0".to_owned());
    }
    if filter.route.is_some() {
        parts.push(format!("origin = {ORIGIN_RELAY}"));
    }
    if let Some(times) = &filter.dead_at {
        parts.push("dead_at >= ? AND dead_at < ?".to_owned());
        values.extend([Value::from(times.start.as_micros()), Value::from(times.end.as_micros())]);
    }
    if let Some(age) = filter.older_than {
        parts.push("dead_at <= {now} - ?".to_owned());
        values.push(Value::from(micros(age)));
    }
    if let Some(letter) = filter.letter {
        parts.push("letter_id = ?".to_owned());
        values.push(Value::from(letter.0));
    }
    if let Some(up_to) = filter.up_to {
        parts.push("letter_id <= ?".to_owned());
        values.push(Value::from(up_to.0));
    }
    if !filter.include_resolved {
        parts.push("resolution IS NULL".to_owned());
    }
    if let Some(after) = after {
        parts.push("letter_id > ?".to_owned());
        values.push(Value::from(after.0));
    }
    (parts.join(" AND "), values)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handler_without_its_consumer_selects_nothing() {
        let handler = DeadLetterFilter { handler: Some("h".into()), ..DeadLetterFilter::all() };
        assert_eq!(condition(&handler, None).0, "1 = 1 AND 1 = 0 AND resolution IS NULL");
        let of_consumer = condition(&handler.consumer("c"), None);
        let expected = "1 = 1 AND origin = 'consumer' AND route = ? AND resolution IS NULL";
        assert_eq!(of_consumer, (expected.to_owned(), vec![Value::from("c/h")]));
    }
}
