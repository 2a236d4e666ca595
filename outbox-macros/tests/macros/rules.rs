//! The pure rules behind the attributes.

use crate::event::value::{check_header_name, check_wire_name, duration, snake_case};
use outbox_core::event::Headers;
use proptest::prelude::*;
use std::time::Duration;

#[test]
fn durations_are_a_whole_number_and_a_unit() {
    for (text, millis) in
        [("1ms", 1), ("500ms", 500), ("30s", 30_000), ("15m", 900_000), ("2h", 7_200_000)]
    {
        assert_eq!(duration(text), Ok(Duration::from_millis(millis)), "{text}");
    }
    assert_eq!(duration("7d"), Ok(Duration::from_hours(7 * 24)));
    assert_eq!(duration("36500d"), Ok(Duration::from_hours(36_500 * 24)));
    let wrong = [
        "",
        "7",
        "d",
        "0s",
        "0d",
        "-1s",
        "1.5h",
        "7 d",
        "7days",
        "1h30m",
        "36501d",
        "99999999999999999999d",
        "1µs",
        "٣s",
    ];
    for text in wrong {
        assert!(duration(text).is_err(), "{text}");
    }
}

#[test]
fn names_become_snake_case() {
    for (name, snake) in [
        ("Charged", "charged"),
        ("PaymentEvent", "payment_event"),
        ("HTTPServer", "http_server"),
        ("OrderV2", "order_v2"),
        ("Already_Snake", "already_snake"),
        ("r#Type", "type"),
        ("ID", "id"),
        ("ÄnderungErfasst", "änderung_erfasst"),
    ] {
        assert_eq!(snake_case(name), snake, "{name}");
    }
}

#[test]
fn names_on_the_wire_have_1_to_255_bytes_and_no_space() {
    for name in ["order.placed", "a", "Order:Placed/v1", &"x".repeat(255)] {
        assert_eq!(check_wire_name("type", name), Ok(()), "{name}");
    }
    for name in ["", "order placed", "a\n", "\u{a0}x", &"x".repeat(256)] {
        assert!(check_wire_name("type", name).is_err(), "{name}");
    }
}

/// Every attribute of CloudEvents and of the envelope, and the borders of the rule.
#[test]
fn header_names_are_judged_as_when_an_event_is_saved() {
    let attributes = "id source type subject time specversion datacontenttype dataschema data data_base64 partitionkey sequence \
                      expirytime eventversion aggregatetype topic key traceparent tracestate correlationid causationid sagaid \
                      sagastep replyto a1 Tenant tenant-id \u{fc}";
    let (longest, longer) = ("x".repeat(64), "x".repeat(65));
    for name in attributes.split(' ').chain(["", &longest, &longer]) {
        assert_eq!(Headers::check_name(name).is_ok(), check_header_name(name).is_ok(), "{name}");
    }
}

proptest! {
    #[test]
    fn any_header_name_is_judged_as_when_an_event_is_saved(name in "[a-z0-9_A-Z-]{0,70}|[a-z]{1,12}|\\PC{0,8}") {
        prop_assert_eq!(Headers::check_name(&name).is_ok(), check_header_name(&name).is_ok());
    }

    #[test]
    fn any_text_is_a_duration_longer_than_zero_or_advice(text in "\\PC{0,12}|[0-9]{0,25}(ms|s|m|h|d)") {
        if let Ok(time) = duration(&text) {
            prop_assert!(time > Duration::ZERO && time <= Duration::from_hours(36_500 * 24));
        }
    }
}
