//! A content that is hidden: shown once, to who may see it and says why, after the audit says so.

use crate::{
    client::Client,
    schema::check,
    world::{SOON, World},
};
use outbox_core::admin::AuditOutcome;
use outbox_dashboard::{Access, Dashboard, Grant, Permission, Role};
use sea_orm::{ConnectionTrait, DbBackend, Statement, TransactionTrait};
use serde_json::json;
use std::pin::pin;
use tests::{
    databases::{Database, TempDatabase},
    equals, on_every_database, wait_until,
};

/// A content that would run as a script.
const CANARY: &str = "<script>window.ran=1</script>";
/// What of it stands in no answer but that of who may see it.
const SECRET: &str = "window.ran";
const CONTENT: &str = "/letters/1/content?db=orders";
const API: &str = "/api/dead-letters/1/content?db=orders";

/// An outbox whose letter 1 has the content.
async fn world(temp: &TempDatabase) -> World {
    let world = World::open(temp).await;
    world.place("order-0", CANARY).await;
    world.bury(1).await;
    world
}

/// Asks a dashboard that hides the content.
fn hiding(world: &World, access: Access) -> Client {
    let dashboard = Dashboard::builder().database("orders", world.outbox.clone());
    let dashboard = dashboard.sensitive("order.placed").access(access);
    Client::of(dashboard.build().unwrap().router())
}

/// Lets in whom the header names: a reader, an operator, and who may do all acts but see contents,
/// or nothing else.
fn by_role() -> Access {
    Access::custom(|parts| {
        let name = parts.headers.get("x-role")?.to_str().ok()?;
        let others = Permission::ALL.into_iter().filter(|act| *act != Permission::ShowContent);
        let may = match name {
            "reader" => Role::Reader,
            "operator" => Role::Operator,
            "sees" => Role::acts([Permission::ShowContent]),
            _ => Role::acts(others),
        };
        Some(Grant::new(name, may))
    })
}

on_every_database! {
    async fn a_hidden_content_is_shown_once_to_who_says_why(temp: &TempDatabase) {
        let world = world(temp).await;
        let client = hiding(&world, Access::loopback());
        let letter = client.get("/letters/1").await;
        letter.says(200, &["Show its content once", "action=\"../letters/1/content?db=orders\""]);
        assert!(!letter.body.contains(SECRET), "{}", letter.body);
        let long = "x".repeat(1_001);
        for (why, says) in [
            ("", "A reason is missing"),
            (" ", "A reason is missing"),
            ("two\nlines", "one line"),
            (long.as_str(), "1000 characters at most"),
        ] {
            let refused = client.post(CONTENT, &[("why", why)]).await;
            refused.says(400, &[says]);
            assert!(!refused.body.contains(SECRET), "{}", refused.body);
        }
        client.get(CONTENT).await.says(405, &["is not asked that way"]);
        assert_eq!(world.audit().await, Vec::new(), "nobody saw anything");

        let shown = client.post(CONTENT, &[("why", "the customer asks <b>which</b>")]).await;
        shown.says(200, &["&lt;script&gt;window.ran=1", "503 from billing", "has seen it"]);
        for tag in ["<script>window", "<b>which"] {
            assert!(!shown.body.contains(tag), "{tag} would be obeyed: {}", shown.body);
        }
        assert_eq!(shown.headers["cache-control"], "no-store");
        let audit = world.audit().await;
        let [row] = audit.as_slice() else { panic!("{audit:?}") };
        assert_eq!((row.by.as_str(), row.act.as_str(), row.reason.as_str()), ("loopback", "show content", "the customer asks <b>which</b>"));
        assert_eq!((row.done, row.outcome), (1, AuditOutcome::Done));
        assert!(row.target.starts_with("letter 1, message "), "{}", row.target);
        assert!(row.target.ends_with(" of type order.placed"), "{}", row.target);
        for path in ["/letters/1", "/letters?list=1", "/audit", "/follow?q=order-0", "/api/dead-letters/1"] {
            let page = client.get(path).await;
            page.says(200, &[]);
            assert!(!page.body.contains(SECRET), "{path} keeps it: {}", page.body);
        }
    }

    async fn a_program_gets_a_hidden_content_by_the_same_way(temp: &TempDatabase) {
        let world = world(temp).await;
        let client = hiding(&world, Access::loopback());
        let openapi = client.get("/api/openapi.json").await.json();
        for (document, says) in [(json!({}), "missing field"), (json!({ "why": " " }), "a reason is missing")] {
            client.post_json(API, &document).await.says(400, &[says]);
        }
        assert_eq!(world.audit().await, Vec::new());
        let shown = client.post_json(API, &json!({ "why": "the customer asks" })).await;
        shown.says(200, &[]);
        assert_eq!(shown.headers["cache-control"], "no-store");
        let document = shown.json();
        check(&openapi, "post", "/api/dead-letters/{id}/content", "200", &document);
        assert_eq!(document["result"]["message"]["data"]["note"], CANARY);
        assert_eq!(document["result"]["errors"][0]["text"], "503 from billing");
        assert_eq!(world.audit().await.len(), 1);
    }

    async fn a_content_that_cannot_be_audited_is_not_shown(temp: &TempDatabase) {
        let world = world(temp).await;
        let client = hiding(&world, Access::loopback());
        world.outbox.connection().execute_unprepared("DROP TABLE outbox_audit").await.unwrap();
        let page = client.post(CONTENT, &[("why", "the customer asks")]).await;
        let document = client.post_json(API, &json!({ "why": "the customer asks" })).await;
        for answer in [page, document] {
            assert!(answer.status.is_server_error(), "{answer:?}");
            assert!(!answer.body.contains(SECRET), "{}", answer.body);
        }
    }
}

#[tokio::test]
async fn each_role_sees_a_hidden_content_or_is_refused() {
    let temp = TempDatabase::create(Database::Sqlite).await;
    let world = world(&temp).await;
    let mut seen = 0;
    for (role, sees) in [("reader", false), ("others", false), ("sees", true), ("operator", true)] {
        let client = hiding(&world, by_role()).with("x-role", role);
        let letter = client.get("/letters/1").await;
        letter.says(200, &["Events of this type are sensitive"]);
        assert_eq!(letter.body.contains("Show its content once"), sees, "{role}: {}", letter.body);
        let page = client.post(CONTENT, &[("why", "the customer asks")]).await;
        let document = client.post_json(API, &json!({ "why": "the customer asks" })).await;
        for answer in [page, document] {
            assert_eq!(answer.status.as_u16(), if sees { 200 } else { 403 }, "{role}: {answer:?}");
            assert_eq!(answer.body.contains(SECRET), sees, "{role}: {}", answer.body);
        }
        seen += if sees { 2 } else { 0 };
        assert_eq!(world.audit().await.len(), seen, "{role}");
    }
    let stranger = hiding(&world, by_role());
    stranger.post(CONTENT, &[("why", "x")]).await.says(403, &["You are not let in"]);
    let forged = hiding(&world, by_role()).with("x-role", "operator");
    let forged = forged.with("sec-fetch-site", "cross-site");
    forged.post(CONTENT, &[("why", "x")]).await.says(403, &["another page"]);
    assert_eq!(world.audit().await.len(), seen);
}

#[tokio::test]
async fn only_a_content_that_is_hidden_and_there_is_asked_for() {
    let temp = TempDatabase::create(Database::Sqlite).await;
    let world = world(&temp).await;
    let open = world.client();
    assert!(!open.get("/letters/1").await.body.contains("Show its content once"));
    open.post(CONTENT, &[("why", "x")]).await.says(409, &["content of letter 1 is not hidden"]);
    let hides = hiding(&world, Access::loopback());
    for (path, says) in [
        ("/letters/9/content", "There is no dead letter 9"),
        ("/letters/x/content", "A dead letter has a number"),
        ("/letters/1/content?db=stock", "no database of this dashboard is named"),
    ] {
        hides.post(path, &[("why", "x")]).await.says(404, &[says]);
    }
    assert_eq!(world.audit().await, Vec::new());
}

#[tokio::test]
async fn of_two_databases_the_named_one_shows_its_content_and_has_the_row() {
    let first = TempDatabase::create(Database::Sqlite).await;
    let second = TempDatabase::create(Database::Sqlite).await;
    let (orders, billing) = (world(&first).await, World::open(&second).await);
    billing.place("order-0", "the other secret").await;
    billing.bury(1).await;
    let dashboard = Dashboard::builder()
        .database("orders", orders.outbox.clone())
        .database("billing", billing.outbox.clone())
        .sensitive("order.placed")
        .access(Access::loopback());
    let client = Client::of(dashboard.build().unwrap().router());
    let unnamed = client.post("/letters/1/content", &[("why", "x")]).await;
    unnamed.says(400, &["there are several databases"]);
    let shown = client.post("/letters/1/content?db=billing", &[("why", "x")]).await;
    shown.says(200, &["the other secret"]);
    assert!(!shown.body.contains(SECRET), "{}", shown.body);
    assert_eq!((orders.audit().await.len(), billing.audit().await.len()), (0, 1));
}

#[tokio::test]
async fn nothing_is_answered_before_the_row_of_the_audit_is_committed() {
    let temp = TempDatabase::create(Database::Postgres).await;
    let world = world(&temp).await;
    let held = world.outbox.connection().begin().await.unwrap();
    held.execute_unprepared("LOCK TABLE outbox_audit IN EXCLUSIVE MODE").await.unwrap();
    let client = hiding(&world, Access::loopback());
    let mut asked = pin!(client.post(CONTENT, &[("why", "x")]));
    let waits = wait_until(SOON, "the row waits for the lock", async || {
        let waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'outbox_audit'::regclass";
        let statement = Statement::from_string(DbBackend::Postgres, waiting);
        let row = held.query_one_raw(statement).await.unwrap().unwrap();
        equals(row.try_get_by_index::<i64>(0).unwrap(), 1)
    });
    tokio::select! {
        () = waits => {}
        early = &mut asked => panic!("nothing is shown yet: {}", early.body),
    }
    held.rollback().await.unwrap();
    let shown = asked.await;
    shown.says(200, &["&lt;script&gt;window.ran=1"]);
    assert_eq!(world.audit().await.len(), 1);
}
