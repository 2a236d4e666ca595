//! Where the database rejects a write of a stranger's message, that message is given up, and the
//! others are handled.

use crate::support::{AckDecision, Cx, Queue, SOON, Sample, World, command, effect, message};
use outbox_core::event::MessageParts;
use outbox_sea_orm::{
    consumer::{Consumer, HandlerError},
    event::Message,
    failure::RetryPolicy,
};
use sea_orm::{ConnectOptions, ConnectionTrait, DbBackend};
use std::time::Duration;
use tests::{databases::TempDatabase, on_every_database, servers};

/// The sender of the message that the database rejects.
const POISON: &str = "/poison";

/// Makes the database reject rows of a table in which a column has a value.
async fn refuse(world: &World, table: &str, column: &str, value: &str) {
    let condition = format!("NEW.{column} = '{value}'");
    let statements = match world.db.get_database_backend() {
        DbBackend::Postgres => vec![
            format!(
                "CREATE FUNCTION refuse_{table}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF {condition} THEN RAISE \
                 EXCEPTION 'refused'; END IF; RETURN NEW; END $$"
            ),
            format!(
                "CREATE TRIGGER refuse BEFORE INSERT ON {table} FOR EACH ROW EXECUTE FUNCTION refuse_{table}()"
            ),
        ],
        DbBackend::MySql => vec![format!(
            "CREATE TRIGGER refuse_{table} BEFORE INSERT ON {table} FOR EACH ROW IF {condition} THEN SIGNAL SQLSTATE '45000' \
             SET MESSAGE_TEXT = 'refused'; END IF"
        )],
        _ => vec![format!(
            "CREATE TRIGGER refuse_{table} BEFORE INSERT ON {table} WHEN {condition} BEGIN SELECT RAISE(ABORT, 'refused'); END"
        )],
    };
    for statement in statements {
        world.db.execute_unprepared(&statement).await.unwrap();
    }
}

/// A message of the stranger; with a step and a reply topic it is a command of a saga.
fn poison(n: u64, to: Option<(&str, &str)>) -> Message {
    let poison =
        Message::new(MessageParts { source: POISON.into(), ..message("k", n).into_parts() });
    match to {
        Some((step, answers)) => command(&poison, step, answers),
        None => poison,
    }
}

/// Fails for the first event of a key, rejects the second, and handles the others.
async fn by_number(sample: Sample, cx: &Cx) -> Result<(), HandlerError> {
    let n = sample.n;
    effect(sample, cx).await?;
    match n {
        1 => Err("down".into()),
        2 => Err(HandlerError::reject("no")),
        _ => Ok(()),
    }
}

/// The outcome of a message whose row the database rejects.
struct Case {
    table: &'static str,
    column: &'static str,
    value: &'static str,
    poison: Message,
    /// How long the delivery may stay unacknowledged: at zero it is deferred for its retry.
    hold: Duration,
    reason: &'static str,
}

/// Every table with rows of a message.
fn cases() -> Vec<Case> {
    let case = |table, column, value, poison, reason| Case {
        table,
        column,
        value,
        poison,
        hold: SOON,
        reason,
    };
    vec![
        case("outbox_inbox", "source", POISON, poison(3, None), "exhausted"),
        Case {
            hold: Duration::ZERO,
            ..case("outbox_deferred", "source", POISON, poison(1, None), "not_retried")
        },
        case("outbox_dead_letters", "source", POISON, poison(2, None), "rejected"),
        case(
            "outbox_saga_barrier",
            "step",
            "poison",
            poison(3, Some(("poison", "answers"))),
            "exhausted",
        ),
        case("outbox_events", "topic", "poison", poison(3, Some(("step", "poison"))), "exhausted"),
    ]
}

on_every_database! {
    async fn every_write_of_what_a_stranger_gave_has_a_way_out_when_it_is_refused(db: &TempDatabase) {
        for Case { table, column, value, poison, hold, reason } in cases() {
            let temp = TempDatabase::create(db.database()).await;
            let world = World::open(&temp).await;
            refuse(&world, table, column, value).await;
            let (queue, subscriber) = Queue::open();
            let retry = RetryPolicy::attempts(2, Duration::from_millis(10));
            let consumer = Consumer::builder("story", &world.outbox).on_command("by_number", by_number).retry(retry).max_unacked_time(hold);
            let consumer = consumer.commands_from(POISON, "answers").commands_from(POISON, "poison");
            let handle = consumer.subscribe(subscriber).start().await.unwrap();
            let answers = tokio::join!(queue.deliver(Ok(poison)), queue.deliver(Ok(message("other", 5))));
            assert_eq!(answers, (AckDecision::Ack, AckDecision::Ack), "{table}");
            let stats = *handle.stats().borrow();
            assert_eq!((stats.returned, stats.store_down), (0, false), "{table}: the others do not wait");
            let letters = world.letters().await;
            let found: Vec<_> = letters.iter().map(|l| (l.reason.as_str(), l.payload.contains("\"k\""))).collect();
            assert_eq!(found, [(reason, true)], "{table}: its letter has the body");
            assert_eq!((world.count("story_effects").await, world.count("outbox_deferred").await), (1, 0), "{table}");
            handle.shutdown(SOON).await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_delivery_larger_than_a_packet_of_mariadb_is_rejected_and_the_others_are_handled() {
    let server = servers::mariadb::start_with(&["--max-allowed-packet=1M"]).await;
    let mut options = ConnectOptions::new(server.url());
    options.sqlx_logging(false);
    let world = World::on(sea_orm::Database::connect(options).await.unwrap()).await;
    let (queue, subscriber) = Queue::open();
    let consumer = Consumer::builder("story", &world.outbox)
        .on("by_number", by_number)
        .max_unacked_time(Duration::ZERO);
    let handle = consumer.subscribe(subscriber).start().await.unwrap();
    // The server says so of the first; over the second it ends the connection while that is still being written to.
    for mib in [2, 24] {
        let mut large = poison(1, None).into_parts();
        large.payload = [&large.payload[..], &vec![b' '; mib * 1024 * 1024]].concat().into();
        let answers = tokio::join!(
            queue.deliver(Ok(Message::new(large))),
            queue.deliver(Ok(message("other", 5)))
        );
        assert!(
            matches!(answers.0, AckDecision::Reject(_)),
            "{mib} MiB, neither stored nor a letter: {:?}",
            answers.0
        );
        assert_eq!(answers.1, AckDecision::Ack);
    }
    let stats = *handle.stats().borrow();
    handle.shutdown(SOON).await.unwrap();
    assert_eq!((stats.returned, stats.store_down, stats.handled), (0, false, 2));
}
