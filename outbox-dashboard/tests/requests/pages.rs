//! The pages that read: what they say, and what they do where strangers, mistakes and a database
//! that is away come in.

use crate::{
    client::Client,
    world::{OrderPlaced, SOON, World},
};
use outbox_core::transport::{Memory, Publisher};
use outbox_dashboard::{Colour, Dashboard};
use outbox_sea_orm::{EnqueueOptions, prelude::*};
use sea_orm::ConnectionTrait;
use std::time::Duration;
use tests::{
    databases::{Database, TempDatabase},
    on_every_database,
};

/// All pages, with what each says of the world below.
const PAGES: [(&str, &[&str]); 11] = [
    ("/", &["What stands still", "3 dead letters wait for a decision", "1 saga is stuck"]),
    (
        "/follow?q=order-1",
        &[
            "is a dead letter of route <code>billing</code>",
            "Redrive letter",
            "class=\"lanes\"",
            "dead letter",
        ],
    ),
    ("/overview", &["/shop", "none is live", "No relay is live"]),
    ("/routes", &["No relay is running", "Nothing is paused or limited"]),
    ("/letters", &["# from billing", "exhausted", ">billing<", ">3</a>"]),
    ("/letters?route=billing&reason=exhausted", &["order.placed", ">order-1<", ">order-2<"]),
    ("/letters/1", &["two chairs", "503 from billing", "order-", "attempt 1"]),
    ("/sagas", &["ship v1", "order-7", ">stuck<", "hand-over"]),
    ("/waiting", &["Deferred deliveries", "Scheduled events", "None."]),
    ("/audit", &["No operator has acted here"]),
    ("/doctor", &["orders"]),
];

async fn storied(temp: &TempDatabase) -> World {
    let world = World::with_letters(temp, 3).await;
    world.stuck_saga().await;
    world
}

on_every_database! {
    async fn each_page_says_what_there_is_in_a_hundred_kib(temp: &TempDatabase) {
        let world = storied(temp).await;
        let client = world.client();
        for (path, texts) in PAGES {
            let page = client.get(path).await;
            page.says(200, texts);
            assert!(page.body.len() <= 100 * 1024, "{path} has {} bytes", page.body.len());
            assert!(!page.body.contains(" style="), "{path} has an inline style");
        }
    }

    async fn a_saga_shows_its_steps_its_sentence_and_its_timeline(temp: &TempDatabase) {
        let world = World::open(temp).await;
        let saga = world.stuck_saga().await;
        let page = world.client().get(&format!("/sagas/{saga}")).await;
        page.says(200, &["is stuck at step <code>hand-over</code>", "the carrier is closed", "class=\"saga\"", "pack: done", "hand-over: stuck"]);
        page.says(200, &["Resume: go on where it is stuck", ">started<", ">stuck<", "It cannot be cancelled: its pivot"]);
        assert!(!page.body.contains("Cancel: compensate"), "what would be refused is not offered");
        let follow = world.client().get(&format!("/follow?q={saga}")).await;
        follow.says(200, &["is stuck at step", "Resume the saga", "Skip step hand-over", &format!("href=\"./sagas/{saga}?db=orders#acts\"")]);
    }
}

/// Opens two services in SQLite.
async fn two() -> (TempDatabase, TempDatabase, World, World) {
    let (one, other) = (
        TempDatabase::create(Database::Sqlite).await,
        TempDatabase::create(Database::Sqlite).await,
    );
    let (orders, billing) = (World::with_letters(&one, 2).await, World::open(&other).await);
    (one, other, orders, billing)
}

fn client_of(orders: &World, billing: &World) -> Client {
    let dashboard = Dashboard::builder()
        .database("orders", orders.outbox.clone())
        .database("billing", billing.outbox.clone())
        .environment("production", Colour::Red)
        .build();
    Client::of(dashboard.unwrap().router())
}

#[tokio::test]
async fn several_databases_are_one_view_and_each_is_one_click_away() {
    let (_one, _other, orders, billing) = two().await;
    billing.place("order-1", "an invoice").await;
    let client = client_of(&orders, &billing);
    let page = client.get("/follow?q=order-1").await;
    // What the one has given up, and what waits in the other.
    page.says(
        200,
        &["Redrive letter", "waits: its partition", ">orders<", ">billing<", "production"],
    );
    page.says(200, &["href=\"?db=billing&#38;q=order-1\""]);
    let billing_only = client.get("/follow?q=order-1&db=billing").await;
    assert!(!billing_only.body.contains("Redrive letter"), "{}", billing_only.body);
    client.get("/overview?db=nowhere").await.says(404, &["There is no such database"]);
}

#[tokio::test]
async fn a_database_that_is_away_is_a_notice_and_the_others_are_shown() {
    let (_one, _other, orders, billing) = two().await;
    let client = client_of(&orders, &billing);
    let drop = "DROP TABLE outbox_events";
    billing.outbox.connection().execute_unprepared(drop).await.unwrap();
    for path in ["/", "/overview", "/routes", "/follow?q=order-1"] {
        let page = client.get(path).await;
        page.says(200, &["Database billing cannot be asked", "orders"]);
    }
}

#[tokio::test]
async fn what_strangers_write_is_text_on_every_page() {
    let temp = TempDatabase::create(Database::Sqlite).await;
    let world = World::open(&temp).await;
    // A key has no control characters; a content has what its sender likes.
    let canary = "<img src=x onerror=alert(1)>\"'&";
    world.place(canary, &format!("{canary}\u{202e}\u{9b}31m")).await;
    world.place(canary, canary).await;
    world.bury(2).await;
    let client = world.client();
    let key = url::form_urlencoded::byte_serialize(canary.as_bytes()).collect::<String>();
    let paths = ["/letters", "/letters?list=1", "/letters/1", "/", "/overview"].map(str::to_owned);
    let searched =
        [format!("/follow?q={key}"), format!("/letters?key={key}"), format!("/sagas?name={key}")];
    let mut shown = 0;
    for path in paths.into_iter().chain(searched) {
        let page = client.get(&path).await;
        page.says(200, &[]);
        assert!(!page.body.contains("<img"), "{path}: {}", page.body);
        assert!(!page.body.contains(['\u{202e}', '\u{9b}']), "{path}: {}", page.body);
        shown += usize::from(page.body.contains("&lt;img src=x onerror=alert(1)&gt;"));
    }
    assert!(shown >= 4, "the canary was shown on {shown} pages only");
}

#[tokio::test]
async fn a_wrong_address_says_what_is_wrong_with_it() {
    let temp = TempDatabase::create(Database::Sqlite).await;
    let client = World::open(&temp).await.client();
    let long = format!("/follow?q={}", "x".repeat(2_000));
    for (path, status, text) in [
        ("/nowhere", 404, "There is no such page"),
        ("/letters/seven", 404, "a number"),
        ("/letters/7", 404, "There is no such letter"),
        ("/letters?after=x", 400, "the number of a letter"),
        ("/letters?reason=sad", 400, "reason"),
        ("/letters?handler=send", 400, "consumer"),
        ("/sagas?state=happy", 400, "a state of sagas"),
        ("/sagas/7", 404, "There is no such saga"),
        ("/sagas/00000000-0000-0000-0000-000000000007", 404, "There is no such saga"),
        ("/waiting?deferred=x", 400, "the number of a row"),
        ("/audit?before=x", 400, "the number of an act"),
        ("/assets/nothing", 404, ""),
        (long.as_str(), 400, "more than 1024 bytes"),
        ("/follow?q=a%00b", 400, "NUL"),
        ("/live/nothing", 404, "no such live page"),
        ("/live/letters?root=./", 400, "groups of letters are not live"),
        ("/follow?q=nothing-like-it", 200, "Nothing of key nothing-like-it waits"),
        ("/follow?q=00000000-0000-0000-0000-000000000007", 200, "Nothing is stored of message"),
    ] {
        client.get(path).await.says(status, &[text]);
    }
}

#[tokio::test]
async fn links_hold_where_the_dashboard_is_nested_and_files_are_kept_by_the_browser() {
    let temp = TempDatabase::create(Database::Sqlite).await;
    let world = World::with_letters(&temp, 1).await;
    let dashboard = Dashboard::builder().database("orders", world.outbox.clone()).build().unwrap();
    let app = axum::Router::new().nest("/ops/outbox", dashboard.router());
    let client = Client::of(app);
    for (path, link) in [
        ("/ops/outbox", "href=\"outbox/letters\""),
        ("/ops/outbox/letters", "href=\"./overview\""),
        ("/ops/outbox/letters/1", "href=\"../overview\""),
    ] {
        let page = client.get(path).await;
        page.says(200, &[link]);
        let base = url::Url::parse("http://x").unwrap().join(path).unwrap();
        let mut files = 0;
        for part in page.body.split("assets/").skip(1) {
            let name = part.split('"').next().unwrap();
            let root = link.trim_start_matches("href=\"").rsplit_once('/').unwrap().0;
            let file = base.join(&format!("{root}/assets/{name}")).unwrap();
            let answer = client.get(&format!("{}?{}", file.path(), file.query().unwrap())).await;
            answer.says(200, &[]);
            assert!(answer.headers["cache-control"].to_str().unwrap().contains("immutable"));
            files += 1;
        }
        assert_eq!(files, 2, "style sheet and script");
    }
}

#[tokio::test]
async fn a_content_of_any_depth_costs_its_page_nothing() {
    let temp = TempDatabase::create(Database::Sqlite).await;
    let world = World::open(&temp).await;
    // 64 KiB, which the page shows whole.
    let nested = "[".repeat(32_768) + &"]".repeat(32_768);
    let letter = world.letter_with(nested.into_bytes()).await;
    let client = world.client();
    let page = client.get(&format!("/letters/{letter}")).await;
    page.says(200, &["[[[[", "]]]]"]);
    assert!(page.body.len() < 128 * 1024, "{} bytes", page.body.len());
    let form = [("payload", "[]"), ("why", "a mistake")];
    let compared = client.post(&format!("/letters/{letter}/resend"), &form).await;
    compared.says(200, &["removed:", "added:"]);
    assert!(compared.body.len() < 128 * 1024, "{} bytes", compared.body.len());
}

/// What is known of an event only to who may see its content: of its payload, its headers, the
/// errors of its route, and those of its handler.
const CONTENT: [&str; 4] = ["two chairs", "acme", "503 from billing", "the scanner is offline"];

async fn fails(_: OrderPlaced, _: &HandlerContext) -> Result<(), HandlerError> {
    Err(HandlerError::retry("the scanner is offline"))
}

/// An event that a route has given up, and one that a handler will try again in an hour, with these
/// headers.
async fn given_up_and_deferred(temp: &TempDatabase, headers: &[(&str, &str)]) -> World {
    let world = World::open(temp).await;
    let tx = world.outbox.begin().await.unwrap();
    let with_headers = headers
        .iter()
        .fold(EnqueueOptions::new(), |options, (name, value)| options.header(*name, *value));
    tx.emit_with(OrderPlaced::of("order-0"), with_headers).unwrap();
    tx.commit().await.unwrap();
    world.bury(1).await;
    let (publisher, subscriber) = Memory::channel();
    let consumer = Consumer::builder("warehouse", &world.outbox)
        .on("pack", fails)
        .retry(RetryPolicy::attempts(8, Duration::from_hours(1)))
        .max_unacked_time(Duration::ZERO);
    let consumer = consumer.subscribe(subscriber).start().await.unwrap();
    let mut parts = Message::for_test(&OrderPlaced::of("order-1")).unwrap().into_parts();
    for (name, value) in headers {
        parts.headers.insert(*name, *value).unwrap();
    }
    Publisher::publish(&publisher, &Message::new(parts)).await.unwrap();
    consumer.shutdown(SOON).await.unwrap();
    world
}

/// Where something of an event could be seen.
const OF_AN_EVENT: [&str; 14] = [
    "/letters/1",
    "/letters?list=1",
    "/letters?type=order.placed",
    "/follow?q=order-0",
    "/follow?q=order-1",
    "/waiting",
    "/api/dead-letters",
    "/api/dead-letters/1",
    "/api/dead-letters/groups?type=order.placed",
    "/api/follow?q=order-0",
    "/api/follow?q=order-1",
    "/api/explain?q=order-0",
    "/api/explain?q=order-1",
    "/api/deferred",
];

/// Checks that the answers have nothing of the content.
async fn hides_content(client: &Client) {
    client.get("/letters/1").await.says(200, &["Events of this type are sensitive", "(hidden)"]);
    for path in OF_AN_EVENT {
        let page = client.get(path).await;
        page.says(200, &[]);
        for secret in CONTENT {
            assert!(!page.body.contains(secret), "{path} says {secret:?}: {}", page.body);
        }
    }
}

#[tokio::test]
async fn of_a_sensitive_type_neither_content_nor_headers_nor_errors_are_shown() {
    let temp = TempDatabase::create(Database::Sqlite).await;
    let world = given_up_and_deferred(&temp, &[("tenant", "acme")]).await;
    let dashboard =
        Dashboard::builder().database("orders", world.outbox.clone()).sensitive("order.placed");
    let (open, hides) = (world.client(), Client::of(dashboard.build().unwrap().router()));
    hides_content(&hides).await;
    let mut shown = String::new();
    for path in OF_AN_EVENT {
        shown.push_str(&open.get(path).await.body);
    }
    for secret in CONTENT {
        assert!(shown.contains(secret), "{secret:?} would be shown");
    }
}

#[tokio::test]
async fn of_a_marked_event_neither_content_nor_headers_nor_errors_are_shown() {
    let temp = TempDatabase::create(Database::Sqlite).await;
    let headers = [("tenant", "acme"), (outbox_core::event::SENSITIVE, "true")];
    let world = given_up_and_deferred(&temp, &headers).await;
    // Its type is given to no dashboard.
    let client = world.client();
    hides_content(&client).await;
    for path in ["/letters", "/api/dead-letters/groups"] {
        let page = client.get(path).await;
        page.says(200, &[]);
        assert!(!page.body.contains("503 from billing"), "{path}: {}", page.body);
    }
}

/// Goes through a list by its links, and gives the rows of each page.
async fn rows_of_pages(client: &Client, path: &str) -> Vec<usize> {
    let base = url::Url::parse("http://x").unwrap().join(path).unwrap();
    let (mut path, mut rows) = (path.to_owned(), Vec::new());
    loop {
        let page = client.get(&path).await;
        page.says(200, &[]);
        rows.push(page.body.matches("<tr data-row>").count());
        let Some((before, _)) = page.body.split_once("\" rel=\"next\"") else { return rows };
        let link = before.rsplit_once("href=\"").unwrap().1.replace("&#38;", "&");
        let next = base.join(&link).unwrap();
        path = format!("{}?{}", next.path(), next.query().unwrap());
        assert!(rows.len() < 10, "it does not end: {rows:?}");
    }
}

#[tokio::test]
async fn a_list_goes_on_by_its_links_to_the_end_however_large_its_rows_are() {
    let temp = TempDatabase::create(Database::Sqlite).await;
    let world = World::open(&temp).await;
    for _ in 0..20 {
        world.place("order-0", &"x".repeat(400 * 1024)).await;
    }
    world.bury(20).await;
    let client = world.client();
    // Eight MiB of contents, of which a list shows nothing.
    assert_eq!(rows_of_pages(&client, "/letters?list=1").await, [20]);
    for (more, pages) in [(30, vec![50]), (1, vec![50, 1])] {
        let open = world.dead_and_pending().await.0;
        for _ in 0..more {
            world.place("order-0", "two chairs").await;
        }
        world.bury(open + more).await;
        assert_eq!(rows_of_pages(&client, "/letters?list=1").await, pages);
    }
    // Twelve sagas, of which eight fit one result.
    let sagas = "INSERT INTO outbox_sagas (saga_id, name, version, correlation_id, state, progress, data, seq, \
        epoch, started_at, changed_at, ended_at) \
        WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 12) \
        SELECT randomblob(16), 'ship', 1, 'order-' || n, 'completed', hex(zeroblob(250000)), 'null', 1, 0, 1, 1, 1 \
        FROM n";
    world.outbox.connection().execute_unprepared(sagas).await.unwrap();
    assert_eq!(rows_of_pages(&client, "/sagas").await, [8, 4]);
}
