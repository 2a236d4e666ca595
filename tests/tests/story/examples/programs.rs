//! The output of the small examples.

use crate::support::LATE;
use tests::processes::{Process, program};

/// Runs a program to its end and gives the lines that it printed.
async fn printed(name: &str) -> Vec<String> {
    let mut process = Process::start(&mut program(name));
    let (status, lines) = process.finish(LATE).await;
    assert!(status.success(), "{name}: {status}, {lines:#?}");
    lines.iter().map(|line| line.trim_end().to_owned()).collect()
}

#[tokio::test]
async fn quickstart_receives_its_event() {
    let lines = printed("quickstart").await;
    assert_eq!(lines, ["received OrderPlaced { order_id: 1, total: 4200 } from shop"]);
}

#[tokio::test]
async fn after_commit_shows_what_a_listener_and_an_event_survive() {
    let lines = printed("after-commit").await;
    assert_eq!(
        lines,
        [
            "                          the process lives on  killed right after COMMIT",
            "the order is saved        yes                   yes",
            "mail of the listener      yes                   no",
            "mail of the event         yes                   yes",
            "",
            "A listener is a convenience that dies with its process. What must happen goes through the outbox.",
        ]
    );
}

#[tokio::test]
async fn delivery_guarantees_shows_one_fault_under_three_guarantees() {
    let lines = printed("delivery-guarantees").await;
    assert_eq!(
        lines[2..6],
        [
            "route                   sent    answers lost    payments",
            "at most once               4               4           4",
            "at least once              8               4           8",
            "effectively once           8               4           4",
        ]
    );
}

#[tokio::test]
async fn polling_publisher_shows_what_three_nights_do_to_a_poller_and_to_a_relay() {
    let lines = printed("polling-publisher").await;
    assert_eq!(
        lines[..9],
        [
            "The destination is down for a while",
            "    by hand       0 of 8 done once, 0 twice, 0 paid before placed",
            "    with a relay  8 of 8 done once, 0 twice, 0 paid before placed",
            "The answer to \"order 2 is placed\" is lost",
            "    by hand       7 of 8 done once, 1 twice, 0 paid before placed",
            "    with a relay  8 of 8 done once, 0 twice, 0 paid before placed",
            "\"Order 2 is placed\" is refused for ever",
            "    by hand       7 of 8 done once, 0 twice, 1 paid before placed",
            "    with a relay  6 of 8 done once, 0 twice, 0 paid before placed",
        ]
    );
}

#[tokio::test]
async fn webhooks_out_disables_a_broken_endpoint_and_replays_in_order() {
    assert_eq!(
        printed("webhooks-out").await,
        [
            "customer-bolt is disabled; acme has [1, 2, 3], bolt []",
            "enabled again, 1 replayed; bolt has [1, 2, 3]",
        ]
    );
}

#[tokio::test]
async fn custom_transport_carries_its_events_as_lines_of_a_file() {
    let mut lines = printed("custom-transport").await;
    assert_eq!(lines.pop().as_deref(), Some("lines in the file: 3"));
    lines.sort();
    assert_eq!(
        lines,
        (1..=3).map(|order| format!("handled order.placed: order {order}")).collect::<Vec<_>>()
    );
}

#[tokio::test]
async fn tenants_shows_that_a_rejected_event_of_one_tenant_stops_no_other() {
    assert_eq!(
        printed("tenants").await,
        [
            "acme    [1, 2, 3] billed, 0 dead letters",
            "bolt    [1, 3] billed, 1 dead letters",
            "coyote  [1, 2, 3] billed, 0 dead letters",
        ]
    );
}

#[tokio::test]
async fn from_a_hand_made_table_loses_no_event_and_lets_none_be_overtaken_over_a_kill() {
    assert_eq!(
        printed("from-a-hand-made-table").await,
        [
            "killed after delivery 20 of 48",
            "waiting: 0 in the old table, 0 in the outbox",
            "received: 48 of 48, 0 overtaken",
        ]
    );
}
