//! The documents for programs: those of the command line, as the OpenAPI document tells them.

use crate::{
    client::{Answer, Client},
    schema::{check, differences},
    world::{OrderPlaced, World},
};
use outbox_core::admin::{AdminStore, OperatorNote, letter_by_id};
use outbox_core::event::LetterId;
use outbox_core::transport::{Memory, Publisher};
use outbox_dashboard::Access;
use outbox_sea_orm::prelude::*;
use sea_orm::ConnectionTrait;
use serde_json::{Value, json};
use std::{collections::BTreeSet, fs, path::PathBuf, time::Duration};
use tests::{
    databases::{Database, TempDatabase},
    equals, on_every_database, wait_until,
};

/// The questions of the command line whose documents were committed, and those of the API.
const QUESTIONS: [(&str, &str, &str); 14] = [
    ("overview", "/api/overview", "/api/overview"),
    ("find-key", "/api/find", "/api/find?q=order-1"),
    ("follow-key", "/api/follow", "/api/follow?q=order-1"),
    ("explain-key", "/api/explain", "/api/explain?q=order-1"),
    ("explain-waiting", "/api/explain", "/api/explain?q=order-9"),
    ("explain-saga", "/api/explain", "/api/explain?q=order-7"),
    ("dead-letters-list", "/api/dead-letters", "/api/dead-letters"),
    ("dead-letters-groups", "/api/dead-letters/groups", "/api/dead-letters/groups"),
    ("dead-letters-show", "/api/dead-letters/{id}", "/api/dead-letters/1"),
    ("deferred", "/api/deferred", "/api/deferred"),
    ("scheduled", "/api/scheduled", "/api/scheduled"),
    ("sagas-list", "/api/sagas", "/api/sagas"),
    ("sagas-show", "/api/sagas/{id}", "/api/sagas/order-7"),
    ("audit", "/api/audit", "/api/audit"),
];

/// Writes the names and kinds of a document, as the tests of the command line do.
fn shape(value: &Value, path: &str, lines: &mut BTreeSet<String>) {
    let kind = match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                shape(value, &format!("{path}.{name}"), lines);
            }
            return;
        }
        Value::Array(items) => {
            for item in items {
                shape(item, &format!("{path}[]"), lines);
            }
            "list"
        }
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "text",
    };
    lines.insert(format!("{path}: {kind}\n"));
}

fn of_command_line(name: &str) -> String {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../outbox-cli/tests/cli/golden");
    fs::read_to_string(folder.join(format!("{name}.json.txt"))).unwrap()
}

/// Tells the story whose documents the command line's tests have committed.
async fn storied(temp: &TempDatabase) -> World {
    let world = World::open(temp).await;
    for order in ["order-1", "order-2", "order-2"] {
        world.place(order, "two chairs").await;
    }
    world.bury(3).await;
    world.place("order-9", "a table").await;
    world.schedule("order-8").await;
    world.stuck_saga().await;
    let note = OperatorNote::new("ann", "a duplicate");
    world.outbox.discard(&[LetterId(3)], &note).await.unwrap();
    world
}

async fn openapi(client: &Client) -> Value {
    let answer = client.get("/api/openapi.json").await;
    answer.says(200, &[]);
    answer.json()
}

/// Schemas of what the command line does not write.
const OF_THE_API: [&str; 10] = [
    "ActOnLetters",
    "ApplyRequest",
    "PauseRequest",
    "PlanRequest",
    "PlanState",
    "Problem",
    "RateRequest",
    "ResendRequest",
    "ResumeRequest",
    "Trial",
];

#[tokio::test]
async fn the_documents_are_described_as_those_of_the_command_line() {
    let temp = TempDatabase::create(Database::Sqlite).await;
    let openapi = openapi(&World::open(&temp).await.client()).await;
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../outbox-cli/schema/common.json");
    let common: Value = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    let (mut compared, mut all) = (0, Vec::new());
    for (name, theirs) in openapi["components"]["schemas"].as_object().unwrap() {
        if OF_THE_API.contains(&name.as_str()) {
            continue;
        }
        let ours = &common["$defs"][name];
        assert!(ours.is_object(), "the command line has it: {name}");
        differences((&openapi, theirs), (&common, ours), name, &mut all);
        compared += 1;
    }
    assert!(compared > 15, "{compared}");
    assert!(all.is_empty(), "schemas.rs and common.json say the same: {all:#?}");
}

fn is_problem(answer: &Answer, status: u16, says: &str) {
    answer.says(status, &[says]);
    assert_eq!(answer.headers["content-type"], "application/problem+json");
    assert_eq!(answer.json()["status"], status);
}

on_every_database! {
    async fn every_question_has_the_document_of_the_command_line_and_fits_its_schema(temp: &TempDatabase) {
        let world = storied(temp).await;
        let client = world.client();
        let openapi = openapi(&client).await;
        for (name, path, url) in QUESTIONS {
            let answer = client.get(url).await;
            answer.says(200, &[]);
            assert_eq!(answer.headers["content-type"], "application/json");
            let document = answer.json();
            let mut lines = BTreeSet::new();
            shape(&document, "", &mut lines);
            assert_eq!(lines.into_iter().collect::<String>(), of_command_line(name), "{url}");
            check(&openapi, "get", path, "200", &document);
        }
        let letter = letter_by_id(&world.outbox, LetterId(1)).await.unwrap().unwrap();
        let message = letter.message.unwrap().id;
        for (path, url) in [
            ("/api/life", format!("/api/life?q={message}")),
            ("/api/inbox", format!("/api/inbox?q={message}")),
            ("/api/controls", "/api/controls".to_owned()),
            ("/api/doctor", "/api/doctor".to_owned()),
            ("/api/follow", "/api/follow?q=nothing-has-this-name".to_owned()),
        ] {
            check(&openapi, "get", path, "200", &client.get(&url).await.json());
        }
    }

    async fn letters_are_acted_on_by_number_and_by_a_plan(temp: &TempDatabase) {
        let world = World::with_letters(temp, 4).await;
        let client = world.client();
        let openapi = openapi(&client).await;
        let named = json!({ "letters": [1, 1, 99], "why": "a duplicate" });
        let done = client.post_json("/api/dead-letters/discard", &named).await.json();
        check(&openapi, "post", "/api/dead-letters/discard", "200", &done);
        assert_eq!(done, json!({ "database": "orders", "result": {
            "plan": null, "outcome": "done", "done": 1, "skipped": 1, "refused": 0, "after": null, "complete": true,
        } }));

        let request = json!({ "act": "redrive", "route": "billing" });
        let plan = client.post_json("/api/dead-letters/plan", &request).await.json();
        check(&openapi, "post", "/api/dead-letters/plan", "200", &plan);
        assert_eq!((&plan["result"]["count"]["count"], &plan["result"]["first"]), (&json!(3), &json!([2, 3, 4])));
        let page = format!("/api/plans/{}", plan["result"]["id"]);
        check(&openapi, "get", "/api/plans/{id}", "200", &client.get(&page).await.json());
        let apply = json!({ "why": "repaired", "canary": "1h" });
        let answer = client.post_json(&format!("{page}/apply"), &apply).await;
        answer.says(202, &["\"outcome\":\"running\"", "\"done\":1"]);
        check(&openapi, "post", "/api/plans/{id}/apply", "202", &answer.json());
        let answer = client.send(http::Method::POST, &format!("{page}/cancel"), None, "").await;
        answer.says(200, &["\"outcome\":\"cancelled\"", "\"done\":1"]);
        check(&openapi, "post", "/api/plans/{id}/cancel", "200", &answer.json());
        let state = client.get(&page).await.json();
        check(&openapi, "get", "/api/plans/{id}", "200", &state);
        assert_eq!(state["result"]["audit"]["outcome"], "cancelled");
        let again = client.post_json(&format!("{page}/apply"), &apply).await;
        is_problem(&again, 409, "has ended as cancelled");
        let acts: Vec<_> = world.audit().await.into_iter().map(|row| (row.act, row.by, row.reason)).collect();
        let row = |act: &str, why: &str| (act.to_owned(), "loopback".to_owned(), why.to_owned());
        let cancelled = row("cancel plan", "no reason was asked for");
        assert_eq!(acts, [row("discard", "a duplicate"), row("redrive", "repaired"), cancelled]);
    }

    async fn a_letter_is_sent_again_a_route_paused_and_a_saga_moved(temp: &TempDatabase) {
        let world = World::with_letters(temp, 1).await;
        let saga = world.stuck_saga().await;
        let client = world.client();
        let openapi = openapi(&client).await;
        let content = json!({ "payload_base64": "e30=", "why": "it was wrong" });
        let sent = client.post_json("/api/dead-letters/1/resend", &content).await.json();
        check(&openapi, "post", "/api/dead-letters/{id}/resend", "200", &sent);
        let late = client.post_json("/api/dead-letters/1/resend", &content).await;
        is_problem(&late, 409, "letter 1 was resent by loopback");
        check(&openapi, "post", "/api/dead-letters/{id}/resend", "409", &late.json());

        let pause = json!({ "scope": "route", "name": "billing", "why": "they migrate", "lasts": "1h" });
        let paused = client.post_json("/api/controls/pause", &pause).await.json();
        check(&openapi, "post", "/api/controls/pause", "200", &paused);
        let rate = json!({ "route": "billing", "per_second": 2.5, "why": "slowly" });
        let limited = client.post_json("/api/controls/rate", &rate).await.json();
        check(&openapi, "post", "/api/controls/rate", "200", &limited);
        assert_eq!(limited["result"].as_array().unwrap().len(), 2);
        let resume = json!({ "scope": "route", "name": "billing", "why": "done" });
        let resumed = client.post_json("/api/controls/resume", &resume).await.json();
        check(&openapi, "post", "/api/controls/resume", "200", &resumed);
        assert_eq!(resumed["result"], 2);

        let skip = json!({ "step": "hand-over", "why": "by hand" });
        let moved = client.post_json(&format!("/api/sagas/{saga}/skip"), &skip).await.json();
        check(&openapi, "post", "/api/sagas/{id}/skip", "200", &moved);
        assert_eq!(moved["result"], saga.to_string());
        let late = client.post_json(&format!("/api/sagas/{saga}/skip"), &skip).await;
        is_problem(&late, 409, "does not allow that");
    }
}

#[tokio::test]
async fn what_is_wrong_is_a_problem_document_that_says_what() {
    let temp = TempDatabase::create(Database::Sqlite).await;
    let world = World::with_letters(&temp, 1).await;
    let client = world.client();
    let openapi = openapi(&client).await;
    for (path, says, status) in [
        ("/api/find", "`q` is missing", 400),
        ("/api/life?q=order-1", "a UUID", 400),
        ("/api/dead-letters?limit=0", "from 1 to 1000", 400),
        ("/api/dead-letters?limit=many", "`limit`", 400),
        ("/api/dead-letters?reason=sad", "such as `rejected`", 400),
        ("/api/sagas?state=lost", "`state` is running", 400),
        ("/api/overview?db=stock", "no such database", 404),
        ("/api/dead-letters/x", "has a number", 404),
        ("/api/plans/7", "There is no plan 7", 404),
        ("/api/nothing", "no such page", 404),
        ("/api/sagas/a%00b", "`id` has a NUL", 400),
        ("/api/find?q=a%00b", "`q` has a NUL", 400),
    ] {
        let answer = client.get(path).await;
        is_problem(&answer, status, says);
        check(&openapi, "get", "/api/overview", &status.to_string(), &answer.json());
    }
}

#[tokio::test]
async fn an_act_whose_document_is_wrong_is_refused_and_nothing_is_done() {
    let temp = TempDatabase::create(Database::Sqlite).await;
    let world = World::with_letters(&temp, 1).await;
    let client = world.client();
    for (path, document, says) in [
        ("/api/dead-letters/redrive", json!({ "letters": [1] }), "missing field `why`"),
        ("/api/dead-letters/redrive", json!({ "letters": [1], "why": " " }), "a reason is missing"),
        ("/api/dead-letters/redrive", json!({ "letters": [], "why": "x" }), "1 to 1000 numbers"),
        (
            "/api/dead-letters/redrive",
            json!({ "letters": [1], "why": "x", "by": "eve" }),
            "unknown field `by`",
        ),
        ("/api/dead-letters/1/resend", json!({ "why": "x" }), "one of `payload`"),
        ("/api/dead-letters/plan", json!({ "act": "dance" }), "`act` is `redrive`"),
        (
            "/api/controls/pause",
            json!({ "scope": "world", "name": "x", "why": "x" }),
            "`scope` is `route`",
        ),
        (
            "/api/controls/pause",
            json!({ "scope": "route", "name": "a\0b", "why": "x" }),
            "`name` has a NUL",
        ),
        (
            "/api/controls/rate",
            json!({ "route": "a\0b", "per_second": 1.0, "why": "x" }),
            "`name` has a NUL",
        ),
        (
            "/api/dead-letters/plan",
            json!({ "act": "redrive", "topic": "a\0b" }),
            "`topic` has a NUL",
        ),
        (
            "/api/sagas/00000000-0000-0000-0000-000000000007/skip",
            json!({ "step": "a\0b", "why": "x" }),
            "`step` has a NUL",
        ),
    ] {
        let answer = client.post_json(path, &document).await;
        is_problem(&answer, 400, says);
    }
    let form = client.post("/api/dead-letters/redrive", &[("why", "x")]).await;
    is_problem(&form, 415, "cannot be read");
    let huge = json!({ "payload": "x".repeat(600 * 1024), "why": "x" });
    is_problem(&client.post_json("/api/dead-letters/1/resend", &huge).await, 413, "cannot be read");
    assert_eq!((world.dead_and_pending().await, world.audit().await), ((1, 0), Vec::new()));
}

#[tokio::test]
async fn the_documents_of_several_databases_are_one_list_and_one_that_is_away_is_an_error() {
    let (one, two) = (
        TempDatabase::create(Database::Sqlite).await,
        TempDatabase::create(Database::Postgres).await,
    );
    let (orders, stock) = (World::with_letters(&one, 1).await, World::open(&two).await);
    let dashboard = outbox_dashboard::Dashboard::builder()
        .access(Access::loopback())
        .database("orders", orders.outbox.clone())
        .database("stock", stock.outbox.clone());
    let client = Client::of(dashboard.build().unwrap().router());
    let both = client.get("/api/dead-letters").await.json();
    let count = |at: usize| both[at]["result"].as_array().unwrap().len();
    assert_eq!((&both[0]["database"], &both[1]["database"]), (&json!("orders"), &json!("stock")));
    assert_eq!((count(0), count(1)), (1, 0));
    let no_database =
        client.post_json("/api/dead-letters/redrive", &json!({ "letters": [1], "why": "x" })).await;
    is_problem(&no_database, 400, "several databases");

    stock.outbox.connection().close_by_ref().await.unwrap();
    drop(two);
    wait_until(crate::world::SOON, "a database that is away is told", async || {
        equals(client.get("/api/overview").await.status.as_u16(), 503)
    })
    .await;
    let answer = client.get("/api/overview").await;
    is_problem(&answer, 503, "stock");
    client.get("/api/overview?db=orders").await.says(200, &[]);
}

#[tokio::test]
async fn what_no_repeat_mends_is_not_told_as_a_database_that_is_away() {
    let temp = TempDatabase::create(Database::Sqlite).await;
    let world = World::with_letters(&temp, 1).await;
    let client = world.client();
    let openapi = openapi(&client).await;
    let db = world.outbox.connection();
    for table in ["outbox_live", "outbox_dead_letters", "outbox_sagas"] {
        db.execute_unprepared(&format!("DROP TABLE {table}")).await.unwrap();
    }
    for path in ["/api/overview", "/api/dead-letters", "/api/sagas"] {
        let answer = client.get(path).await;
        is_problem(&answer, 500, "database orders: ");
        answer.says(500, &["run the migration", "outbox migrate status"]);
        check(&openapi, "get", path, "500", &answer.json());
    }
    for page in ["/letters/1", "/sagas/00000000-0000-0000-0000-000000000007"] {
        client.get(page).await.says(500, &["does not fit this program", "outbox migrate status"]);
    }
}

async fn fails(_: OrderPlaced, _: &HandlerContext) -> Result<(), HandlerError> {
    Err(HandlerError::retry("the scanner is offline"))
}

async fn works(_: OrderPlaced, _: &HandlerContext) -> Result<(), HandlerError> {
    Ok(())
}

#[tokio::test]
async fn what_has_no_instant_comes_last_in_a_history() {
    let temp = TempDatabase::create(Database::Sqlite).await;
    let world = World::open(&temp).await;
    let (publisher, subscriber) = Memory::channel();
    let consumer = Consumer::builder("warehouse", &world.outbox)
        .on("pack", fails)
        .on("count", works)
        .retry(RetryPolicy::attempts(1, Duration::from_millis(1)));
    let consumer = consumer.subscribe(subscriber).start().await.unwrap();
    let message = Message::for_test(&OrderPlaced::of("order-1")).unwrap();
    Publisher::publish(&publisher, &message).await.unwrap();
    let (client, path) = (world.client(), format!("/api/life?q={}", message.id));
    let mut entries = Value::Null;
    wait_until(crate::world::SOON, "one handler is done, and one has given up", async || {
        entries = client.get(&path).await.json();
        let has =
            |kind: &str| entries.as_array().unwrap().iter().any(|entry| entry["kind"] == kind);
        has("received") && has("dead_letter")
    })
    .await;
    let is_timed: Vec<bool> =
        entries.as_array().unwrap().iter().map(|entry| !entry["at"].is_null()).collect();
    assert!(is_timed.is_sorted_by(|before, after| before >= after), "{entries:#}");
    consumer.shutdown(crate::world::SOON).await.unwrap();
}

#[tokio::test]
async fn a_program_gets_all_rows_by_asking_on_until_a_page_is_empty() {
    let temp = TempDatabase::create(Database::Sqlite).await;
    let world = World::open(&temp).await;
    for _ in 0..20 {
        world.place("order-0", &"x".repeat(400 * 1024)).await;
    }
    world.bury(20).await;
    let (client, mut after, mut pages) = (world.client(), 0, Vec::new());
    loop {
        let page = client.get(&format!("/api/dead-letters?limit=50&after={after}")).await.json();
        let letters = page[0]["result"].as_array().unwrap();
        pages.push(letters.len());
        let Some(last) = letters.last() else { break };
        after = last["id"].as_i64().unwrap();
    }
    assert_eq!((pages.iter().sum::<usize>(), pages.last()), (20, Some(&0)), "{pages:?}");
    assert!(pages.len() > 2, "a page ends by its bytes: {pages:?}");
    let limit = &openapi(&client).await["paths"]["/api/dead-letters"]["get"]["parameters"];
    assert!(limit.to_string().contains("until one is empty"), "{limit}");
}
