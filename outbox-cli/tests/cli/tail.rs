//! What `tail` writes while events come and go.

use crate::{
    program::command,
    world::{OrderPlaced, SOON, World},
};
use outbox_core::{
    failure::DeadReason,
    outbox::{ConsumerStore, History, ReceivedLetter, Store},
    testing::Recorder,
};
use outbox_sea_orm::{admin::AdminStore, prelude::*};
use rustix::process::{Pid, Signal, kill_process};
use sea_orm::{ConnectionTrait, TransactionTrait};
use serde_json::Value;
use std::{
    io::{BufRead, BufReader, Read},
    process::{Child, Stdio},
};
use tests::{
    databases::{Database, TempDatabase, waiting_for_locks},
    equals, on_every_database, wait_until,
};

/// A running `tail`, which has begun to follow.
pub(crate) struct Tail(Child);

impl Tail {
    pub(crate) fn start(url: &str, arguments: &[&str]) -> Self {
        let mut all = vec!["--database", url, "tail", "--every", "50ms", "--for", "30s"];
        all.extend(arguments);
        let mut tail = command(&all);
        let mut tail = tail.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(tail.stderr.take().unwrap()).read_line(&mut line).unwrap();
        assert!(line.contains("following"), "{line}");
        Self(tail)
    }

    /// Waits for its end, and gives what it wrote.
    pub(crate) fn finish(mut self) -> String {
        let mut out = String::new();
        self.0.stdout.take().unwrap().read_to_string(&mut out).unwrap();
        assert_eq!(self.0.wait().unwrap().code(), Some(0), "{out}");
        out
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        let _ = self.0.kill();
    }
}

/// Runs a relay that delivers all, until nothing waits.
async fn deliver(world: &World) {
    let relay = Relay::builder(&world.outbox).route("billing", topic("orders"), Recorder::new());
    let relay = relay.start().await.unwrap();
    wait_until(SOON, "nothing waits", async || {
        equals(world.outbox.stats().await.unwrap().pending, 0)
    })
    .await;
    relay.shutdown(SOON).await.unwrap();
}

/// Gives a message up, as a consumer does, in a transaction that stays open.
async fn give_up(world: &World) -> OutboxTransaction {
    let event = OrderPlaced { order: "order-1".to_owned(), note: String::new() };
    let (message, history) = (Message::for_test(&event).unwrap(), History::default());
    let letter = ReceivedLetter {
        consumer: "mail",
        handler: "send",
        message: Ok(&message),
        reason: DeadReason::NotRetried,
        history: &history,
    };
    let tx = Store::begin(&world.outbox).await.unwrap();
    world.outbox.write_dead_letter(&tx, &letter).await.unwrap();
    tx
}

#[tokio::test]
async fn a_signal_ends_tail_also_while_a_database_is_slow_to_answer() {
    let temp = TempDatabase::create(Database::Postgres).await;
    let world = World::open(&temp).await;
    let db = world.outbox.connection();
    for signal in [Signal::INT, Signal::TERM, Signal::HUP] {
        let tail = Tail::start(&world.url, &[]);
        let lock = db.begin().await.unwrap();
        lock.execute_unprepared("LOCK TABLE outbox_events").await.unwrap();
        wait_until(SOON, "a look waits for the lock", async || {
            equals(waiting_for_locks(db).await, 1)
        })
        .await;
        kill_process(Pid::from_child(&tail.0), signal).unwrap();
        assert_eq!(tail.finish(), "", "{signal:?}");
        lock.rollback().await.unwrap();
        wait_until(SOON, "the look is over", async || equals(waiting_for_locks(db).await, 0)).await;
    }
}

on_every_database! {
    async fn events_are_followed_from_their_creation_to_their_end(temp: &TempDatabase) {
        let world = World::open(temp).await;
        let old = world.place("order-0", "old").await;
        let tail = Tail::start(&world.url, &["--lines", "6", "--json"]);
        let text = Tail::start(&world.url, &["--lines", "2", "--key", "order-1"]);
        let first = world.place("order-1", "x").await;
        // It waits until the events have been seen: what comes and goes between two looks is not.
        let seen = Tail::start(&world.url, &["--lines", "1", "--key", "order-2"]);
        let second = world.place("order-2", "x").await;
        let line = seen.finish();
        assert!(line.contains("created") && line.contains(&second.to_string()), "{line}");
        deliver(&world).await;
        world.place("order-3", "x").await;
        let out = tail.finish();
        let lines: Vec<Value> =
            out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let of = |kind: &str| -> Vec<String> {
            let is_it = |line: &&Value| line["result"]["kind"] == kind;
            let key = |line: &Value| line["result"]["key"].as_str().unwrap().to_owned();
            lines.iter().filter(is_it).map(key).collect()
        };
        assert_eq!(of("created"), ["order-1", "order-2", "order-3"], "{out}");
        let mut confirmed = of("confirmed");
        confirmed.sort();
        assert_eq!(confirmed, ["order-0", "order-1", "order-2"], "{out}");
        assert!(!out.contains("secret") && out.contains(&old.to_string()), "{out}");
        let text = text.finish();
        let lines: Vec<&str> = text.lines().collect();
        let [created, confirmed] = lines[..] else { panic!("{text}") };
        assert!(created.contains("created    ") && created.contains(&first.to_string()), "{text}");
        assert!(confirmed.contains("confirmed  ") && confirmed.contains("order.placed"), "{text}");
    }

    async fn a_key_is_compared_as_it_is_and_shown_without_what_a_terminal_obeys(
        temp: &TempDatabase
    ) {
        let world = World::open(temp).await;
        let key = " order\u{202e}7 ";
        let tail = Tail::start(&world.url, &["--lines", "1", "--key", key]);
        world.place("order7", "x").await;
        let id = world.place(key, "x").await;
        let line = tail.finish();
        assert!(line.contains(&id.to_string()) && line.contains("order\\u{202e}7"), "{line}");
    }

    async fn a_dead_letter_that_commits_after_later_ones_is_shown(temp: &TempDatabase) {
        // SQLite has one writer.
        if temp.database() == Database::Sqlite {
            return;
        }
        let world = World::open(temp).await;
        let mut tail = Tail::start(&world.url, &["--lines", "2"]);
        let mut out = BufReader::new(tail.0.stdout.take().unwrap());
        let late = give_up(&world).await;
        let other = give_up(&world).await;
        world.outbox.commit(other).await.unwrap();
        let (mut first, mut second) = (String::new(), String::new());
        out.read_line(&mut first).unwrap();
        assert!(first.contains("dead ") && first.contains("letter 2 by mail/send: "), "{first}");
        world.outbox.commit(late).await.unwrap();
        out.read_line(&mut second).unwrap();
        assert!(second.contains("dead ") && second.contains("letter 1 by mail/send: "), "{second}");
    }

    async fn an_event_that_is_given_up_is_dead_and_says_by_whom_and_why(temp: &TempDatabase) {
        let world = World::open(temp).await;
        let tail = Tail::start(&world.url, &["--lines", "2"]);
        let seen = Tail::start(&world.url, &["--lines", "1"]);
        world.place("order-1", "x").await;
        seen.finish();
        world.bury(1, "503 from billing").await;
        let out = tail.finish();
        let lines: Vec<&str> = out.lines().collect();
        assert!(lines[0].contains("created"), "{out}");
        assert!(lines[1].contains("dead ") && lines[1].contains("letter 1 by billing: "), "{out}");
    }
}
