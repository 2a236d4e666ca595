//! Boundaries: work that one module does and no other.

use super::{
    code::item_ends,
    tree::{File, libraries, none},
};

/// Lists where shipped code has one of these pieces outside the given places.
fn outside(
    pieces: &[&str],
    files: impl Iterator<Item = &'static File>,
    places: &[&str],
) -> Vec<String> {
    let elsewhere = files.filter(|file| !file.is_in(places));
    let found = elsewhere.flat_map(|file| {
        let code = file.shipped();
        let lines = |piece: &&str| {
            code.lines_with(piece).into_iter().map(|line| (line, (*piece).to_owned())).collect()
        };
        let hits: Vec<(usize, String)> =
            pieces.iter().flat_map(|piece| -> Vec<_> { lines(piece) }).collect();
        hits.into_iter().map(|(line, piece)| format!("{}:{line}: {piece}", file.path))
    });
    found.collect()
}

/// Fails unless the module itself still does what is forbidden elsewhere, so that a rule cannot
/// outlive its names.
fn module_does(pieces: &[&str], module: &str) {
    let mut files = libraries().filter(|file| file.path.starts_with(module)).peekable();
    assert!(files.peek().is_some(), "{module} is gone");
    assert!(!outside(pieces, files, &[]).is_empty(), "{module} no longer has any of {pieces:?}");
}

#[test]
fn only_the_clock_is_asked_for_the_time() {
    const CLOCK: &str = "outbox-core/src/runtime/clock.rs";
    const ASKS: [&str; 5] =
        ["Instant::now", "SystemTime::now", "OffsetDateTime::now_utc", "Utc::now", ".elapsed()"];
    module_does(&ASKS, CLOCK);
    none("asks a clock; take outbox_core::runtime::now()", outside(&ASKS, libraries(), &[CLOCK]));
}

#[test]
fn only_the_module_of_ids_is_random() {
    const IDS: &str = "outbox-core/src/event/id.rs";
    const DICE: [&str; 8] = [
        "fastrand::",
        "rand::",
        "getrandom::",
        "Uuid::new_v4",
        "Uuid::now_v6",
        "Uuid::now_v7",
        "RandomState::new",
        "use fastrand",
    ];
    module_does(&DICE, IDS);
    none(
        "makes an id or a random number; take outbox_core::event's",
        outside(&DICE, libraries(), &[IDS]),
    );
}

#[test]
fn only_the_runtime_starts_tasks() {
    const RUNTIME: &str = "outbox-core/src/runtime/";
    // BEGIN and COMMIT run on tasks of their own, on the caller's runtime, so that dropping the caller's future cannot
    // interrupt them.
    const TRANSACTION: &str = "outbox-sea-orm/src/transaction/";
    const TO_COMPLETION: &str = "outbox-sea-orm/src/pool/run_to_completion.rs";
    const STARTS: [&str; 9] = [
        "tokio::spawn",
        "task::spawn",
        "task::spawn_blocking",
        "task::spawn_local",
        "task::Builder",
        "thread::spawn",
        "thread::Builder",
        "JoinSet",
        "Handle::current",
    ];
    module_does(&STARTS, RUNTIME);
    module_does(&STARTS, TRANSACTION);
    module_does(&STARTS, TO_COMPLETION);
    none(
        "starts a task; take outbox_core::runtime's",
        outside(&STARTS, libraries(), &[RUNTIME, TRANSACTION, TO_COMPLETION]),
    );
}

/// Words of SQL that some of the databases do not have, or have with another meaning.
const DIFFERING_SQL: [&str; 34] = [
    "ON CONFLICT",
    "ON DUPLICATE KEY",
    "INSERT IGNORE",
    "INSERT OR IGNORE",
    "REPLACE INTO",
    "FOR UPDATE",
    "FOR SHARE",
    "LOCK IN SHARE MODE",
    "SKIP LOCKED",
    "RETURNING",
    "LATERAL",
    "MATERIALIZED",
    "STRAIGHT_JOIN",
    "FORCE INDEX",
    "pg_",
    "NOTIFY",
    "LISTEN ",
    "AUTOINCREMENT",
    "AUTO_INCREMENT",
    "GENERATED ",
    "BIGSERIAL",
    "BYTEA",
    "LONGBLOB",
    "ENGINE=",
    "COLLATE",
    "utf8mb4",
    "PRAGMA",
    "BEGIN IMMEDIATE",
    "SET TRANSACTION",
    "ISOLATION LEVEL",
    "json_each",
    "strftime",
    "unixepoch",
    "clock_timestamp",
];

#[test]
fn sql_that_differs_by_database_lives_with_the_dialects() {
    const DIALECTS: &str = "outbox-sea-orm/src/dialect/";
    let texts = |file: &'static File| {
        let code = file.shipped();
        let found = code.texts().flat_map(|text| {
            let words = DIFFERING_SQL.iter().filter(|word| text.text.contains(**word));
            words.map(|word| format!("{}:{}: {word}", file.path, text.line)).collect::<Vec<_>>()
        });
        found.collect::<Vec<_>>()
    };
    let store = || libraries().filter(|file| file.path.starts_with("outbox-sea-orm/src/"));
    assert!(
        store().filter(|file| file.is_in(&[DIALECTS])).flat_map(texts).count() > 10,
        "the words are still the dialects'"
    );
    none(
        "SQL for one database outside dialect/",
        store().filter(|file| !file.is_in(&[DIALECTS])).flat_map(texts).collect(),
    );
}

#[test]
fn only_the_dialects_ask_which_database_it_is() {
    const DIALECTS: &str = "outbox-sea-orm/src/dialect/";
    const DATABASES: [&str; 7] = [
        "Dialect::Postgres",
        "Dialect::MySql",
        "Dialect::MariaDb",
        "Dialect::Sqlite",
        "DbBackend::Postgres",
        "DbBackend::MySql",
        "DbBackend::Sqlite",
    ];
    module_does(&DATABASES, DIALECTS);
    none(
        "asks which database it is; add a method to Dialect that says what differs",
        outside(&DATABASES, libraries(), &[DIALECTS]),
    );
}

#[test]
fn no_sql_stands_outside_the_store() {
    const STATEMENTS: [&str; 5] =
        ["INSERT INTO ", "DELETE FROM ", "SELECT ", "CREATE TABLE ", "UPDATE "];
    let others = libraries().filter(|file| !file.path.starts_with("outbox-sea-orm/"));
    let found = others.flat_map(|file| {
        let code = file.shipped();
        let lines = code.texts().filter(|text| {
            let sql = text.text.trim_start_matches(['b', 'r', '#', '"']);
            STATEMENTS.iter().any(|statement| sql.starts_with(statement))
        });
        lines.map(|text| format!("{}:{}", file.path, text.line)).collect::<Vec<_>>()
    });
    none("SQL outside outbox-sea-orm", found.collect());
}

#[test]
fn no_row_of_an_event_is_ever_updated() {
    let store = libraries().filter(|file| file.path.starts_with("outbox-sea-orm/src/"));
    let found = store.flat_map(|file| {
        let code = file.shipped();
        let lines = code.texts().filter(|text| {
            let words: Vec<&str> =
                text.text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').collect();
            let words: Vec<&str> = words.into_iter().filter(|word| !word.is_empty()).collect();
            words
                .windows(2)
                .any(|pair| pair[0] == "UPDATE" && ["events", "outbox_events"].contains(&pair[1]))
        });
        lines.map(|text| format!("{}:{}", file.path, text.line)).collect::<Vec<_>>()
    });
    none("an event is finished or left alone; its row is never updated", found.collect());
}

/// The owners of the state of a relay's board, each with the file in which it keeps what must hold
/// among its fields.
const OWNERS: [(&str, &str); 9] = [
    ("entries/entry.rs", "EventEntry"),
    ("entries/leg.rs", "RouteLeg"),
    ("entries/history.rs", "AttemptHistory"),
    ("reading/partition.rs", "Partition"),
    ("queues/key_queue.rs", "KeyQueue"),
    ("queues/eviction.rs", "EvictedFrom"),
    ("queues/memory.rs", "RouteMemory"),
    ("queues/route_queue/mod.rs", "RouteQueue"),
    ("outcomes/destination.rs", "Destination"),
];

#[test]
fn the_owners_of_the_board_keep_their_fields_to_themselves() {
    let mut open = Vec::new();
    for (file, owner) in OWNERS {
        let path = format!("outbox-core/src/relay/board/{file}");
        let found = libraries().find(|found| found.path == path);
        let code = found.unwrap_or_else(|| panic!("{path} is gone")).shipped();
        let all = code.tokens();
        let named =
            (1..all.len()).find(|at| all[at - 1].text == "struct" && all[*at].text == owner);
        let begins = named.unwrap_or_else(|| panic!("{path} no longer has {owner}"));
        let fields = &all[begins..item_ends(all, begins)];
        let public = fields.iter().filter(|token| token.text == "pub");
        open.extend(public.map(|token| format!("{path}:{}: {owner}", token.line)));
    }
    none("a field that other rooms could write; add a method that says what happened", open);
}
