//! What an operator pauses and slows down, and the rows that running parts write about themselves.

use crate::outbox::{LEASE, owner_of_all};
use outbox_core::{
    admin::{
        ControlAction, ControlScope, ControlStore, LastFailure, Live, OperatorNote, RelayLive,
        RouteLive,
    },
    failure::FailureClass,
    outbox::{Store, StoreError},
    testing::store::PARTITIONS,
};
use outbox_sea_orm::Outbox;
use sea_orm::{ConnectionTrait, Statement};
use std::time::Duration;
use tests::{databases::TempDatabase, in_time, on_every_database, wait_until};

const SOON: Duration = Duration::from_secs(30);
const PAUSE: ControlAction = ControlAction::Pause;

pub(crate) async fn installed(temp: &TempDatabase) -> Outbox {
    let builder = Outbox::builder(temp.connect().await).source("/shop").partitions(PARTITIONS);
    builder.install().await.unwrap()
}

pub(crate) fn ann() -> OperatorNote {
    OperatorNote::new("ann", "the bank is down")
}

/// Reads a column of strings.
async fn texts(outbox: &Outbox, sql: &str) -> Vec<String> {
    let db = outbox.connection();
    let rows = db.query_all_raw(Statement::from_string(db.get_database_backend(), sql)).await;
    rows.unwrap().iter().map(|row| row.try_get_by_index(0).unwrap()).collect()
}

/// Gives what the live rows of a kind say.
pub(crate) async fn live(outbox: &Outbox, kind: &str) -> Vec<Live> {
    let rows = texts(outbox, &format!("SELECT body FROM outbox_live WHERE kind = '{kind}'")).await;
    rows.iter().map(|body| serde_json::from_str(body).unwrap()).collect()
}

/// The audit, a row a line: act, target, operator, number and outcome.
async fn audit(outbox: &Outbox) -> Vec<String> {
    let db = outbox.connection();
    let sql =
        "SELECT act, target, done_by, reason, done, outcome FROM outbox_audit ORDER BY audit_id";
    let rows = db.query_all_raw(Statement::from_string(db.get_database_backend(), sql)).await;
    let line = |row: &sea_orm::QueryResult| {
        let text = |at| row.try_get_by_index::<String>(at).unwrap();
        let done: i64 = row.try_get_by_index(4).unwrap();
        assert_eq!((text(3).as_str(), text(5).as_str()), ("the bank is down", "done"));
        format!("{} {}: {} {done}", text(0), text(1), text(2))
    };
    rows.unwrap().iter().map(line).collect()
}

on_every_database! {
    async fn a_control_is_in_force_until_it_is_ended_and_the_audit_has_who_and_why(temp: &TempDatabase) {
        let outbox = installed(temp).await;
        assert!(outbox.controls().await.unwrap().0.is_empty());
        let (route, hour) = (ControlScope::Route, Some(Duration::from_hours(1)));
        outbox.set_control(route, "billing", PAUSE, None, &ann()).await.unwrap();
        outbox.set_control(route, "billing", ControlAction::Rate(2.5), None, &ann()).await.unwrap();
        outbox.set_control(ControlScope::Key, "orders/7", PAUSE, hour, &ann()).await.unwrap();
        outbox.set_control(route, "billing", ControlAction::Rate(100.0), None, &ann()).await.unwrap();

        let controls = outbox.controls().await.unwrap();
        let seen: Vec<_> = controls.0.iter().map(|c| (c.scope, c.name.as_str(), c.action.as_str())).collect();
        let expected = [(ControlScope::Key, "orders/7", "pause"), (route, "billing", "pause"), (route, "billing", "rate")];
        assert_eq!(seen, expected, "by scope and name");
        assert_eq!(controls.rate("billing"), Some(100.0), "in place of the former one");
        let key = controls.pause(ControlScope::Key, "orders/7").unwrap();
        assert_eq!((key.by.as_str(), key.reason.as_str()), ("ann", "the bank is down"));
        let left = key.ends_in.unwrap();
        assert!(left <= Duration::from_hours(1) && left > Duration::from_mins(50), "{left:?}");
        assert_eq!(key.until.unwrap().as_micros() - key.set_at.as_micros(), 3_600_000_000);

        assert_eq!(outbox.end_controls(route, "billing", &ann()).await.unwrap(), 2);
        assert_eq!(outbox.end_controls(route, "billing", &ann()).await.unwrap(), 0, "a double click");
        assert_eq!(outbox.controls().await.unwrap().0.len(), 1);
        let expected = [
            "pause route billing: ann 1",
            "rate route billing, 2.5 events a second: ann 1",
            "pause key orders/7, for 3600s: ann 1",
            "rate route billing, 100 events a second: ann 1",
            "resume route billing: ann 2",
        ];
        assert_eq!(audit(&outbox).await, expected);
    }

    async fn a_control_ends_by_itself_and_the_next_write_deletes_it(temp: &TempDatabase) {
        let outbox = installed(temp).await;
        let short = Some(Duration::from_millis(5));
        outbox.set_control(ControlScope::Topic, "orders", PAUSE, short, &ann()).await.unwrap();
        wait_until(SOON, "the pause is over", async || outbox.controls().await.unwrap().0.is_empty()).await;
        let names = "SELECT name FROM outbox_controls";
        assert_eq!(texts(&outbox, names).await, ["orders"], "nobody has written since");
        assert_eq!(outbox.end_controls(ControlScope::Topic, "orders", &ann()).await.unwrap(), 0);
        outbox.set_control(ControlScope::Saga, "place-order", PAUSE, None, &ann()).await.unwrap();
        assert_eq!(texts(&outbox, names).await, ["place-order"]);
        assert_eq!(audit(&outbox).await.len(), 2);
    }

    async fn what_no_part_can_obey_is_refused_and_not_audited(temp: &TempDatabase) {
        let outbox = installed(temp).await;
        let rate = ControlAction::Rate;
        for (scope, name, action) in [
            (ControlScope::Route, "billing", rate(0.0)),
            (ControlScope::Route, "billing", rate(f64::NAN)),
            (ControlScope::Topic, "orders", rate(1.0)),
            (ControlScope::Route, "bil\0ling", PAUSE),
            (ControlScope::Key, "", PAUSE),
        ] {
            let refused = outbox.set_control(scope, name, action, None, &ann()).await;
            assert!(matches!(refused, Err(StoreError::Refused(_))), "{scope} {name:?} {action:?}: {refused:?}");
        }
        assert!(outbox.controls().await.unwrap().0.is_empty() && audit(&outbox).await.is_empty());
    }

    async fn of_two_operators_at_once_both_are_audited_and_the_last_word_counts(temp: &TempDatabase) {
        let outbox = installed(temp).await;
        let bob = Outbox::builder(temp.connect().await).source("/shop").build().await.unwrap();
        let operate = async |outbox: &Outbox, rate: f64| {
            let mut ended = 0;
            for _ in 0..10 {
                let rate = ControlAction::Rate(rate);
                outbox.set_control(ControlScope::Route, "billing", rate, None, &ann()).await.unwrap();
                ended += outbox.end_controls(ControlScope::Route, "billing", &ann()).await.unwrap();
            }
            ended
        };
        let both = async { tokio::join!(operate(&outbox, 1.0), operate(&bob, 2.0)) };
        let (one, other) = in_time(SOON, "two operators end", both).await;
        let lines = audit(&outbox).await;
        let resumed = lines.iter().filter(|line| line.starts_with("resume")).count();
        assert_eq!(lines.len() - resumed, 20, "{lines:?}");
        assert_eq!(resumed as u64, one + other, "each control was ended once");
        assert!(outbox.controls().await.unwrap().0.is_empty());
    }

    async fn a_live_row_is_replaced_and_goes_with_its_part_or_a_day_later(temp: &TempDatabase) {
        let outbox = installed(temp).await;
        let (store, fence) = owner_of_all(outbox.connection(), outbox.schema(), LEASE).await;
        let (relays, id) = (store.live.clone().unwrap(), fence.relay.as_str());
        let failure = LastFailure::new("héllo\0 \"quoted\"\n", FailureClass::Transient, Duration::ZERO);
        let row = |delivered| {
            let route = RouteLive { route: "billing".into(), delivered, last_failure: Some(failure.clone()), ..RouteLive::default() };
            Live::Relay(RelayLive { routes: vec![route], ..RelayLive::default() })
        };
        for delivered in [1, 2] {
            relays.write_live(id, "", row(delivered)).await.unwrap();
            assert_eq!(live(&outbox, "relay").await, [row(delivered)]);
        }
        let rows = outbox.operator().unwrap();
        rows.write_live("other", "receipts", Live::Consumer(Default::default())).await.unwrap();
        assert_eq!(texts(&outbox, "SELECT name FROM outbox_live WHERE kind = 'consumer'").await, ["receipts"]);
        relays.delete_live(id).await.unwrap();
        assert!(live(&outbox, "relay").await.is_empty());

        store.janitor.prune(500).await.unwrap();
        assert_eq!(live(&outbox, "consumer").await.len(), 1, "it is younger than a day");
        let age = "UPDATE outbox_live SET written_at = written_at - 86500000000";
        outbox.connection().execute_unprepared(age).await.unwrap();
        store.janitor.prune(500).await.unwrap();
        assert!(live(&outbox, "consumer").await.is_empty());
    }
}
