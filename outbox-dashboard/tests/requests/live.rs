//! Live updates: one reader for all that have a page open, and none when nobody has.

use crate::world::World;
use axum::{Router, body::Body, extract::ConnectInfo};
use http::{Request, StatusCode};
use http_body_util::BodyExt;
use outbox_dashboard::Dashboard;
use sea_orm::ConnectionTrait;
use std::{net::SocketAddr, time::Duration};
use tests::databases::{Database, TempDatabase};
use tower::ServiceExt;

/// Long enough for a busy machine.
const SOON: Duration = Duration::from_secs(30);

/// A stream of events.
struct Events {
    body: Body,
    text: String,
}

impl Events {
    async fn open(router: &Router, path: &str, last: Option<&str>) -> Self {
        let peer = SocketAddr::from(([127, 0, 0, 1], 5_000));
        let mut request = Request::get(path).header("host", "127.0.0.1:8080");
        if let Some(last) = last {
            request = request.header("last-event-id", last);
        }
        let request = request.extension(ConnectInfo(peer)).body(Body::empty()).unwrap();
        let answer = router.clone().oneshot(request).await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
        assert_eq!(answer.headers()["content-type"], "text/event-stream");
        Self { body: answer.into_body(), text: String::new() }
    }

    /// Waits for the next event, and gives it as it is written.
    async fn written(&mut self) -> String {
        let event = tokio::time::timeout(SOON, async {
            loop {
                if let Some((event, rest)) = self.text.split_once("\n\n") {
                    let (event, rest) = (event.to_owned(), rest.to_owned());
                    self.text = rest;
                    return event;
                }
                let frame = self.body.frame().await.unwrap().unwrap().into_data().unwrap();
                self.text.push_str(std::str::from_utf8(&frame).unwrap());
            }
        });
        event.await.expect("an event comes")
    }

    /// Waits for the next event, and gives its id and its data; a comment has none.
    async fn next(&mut self) -> (String, String) {
        let event = self.written().await;
        let part = |name: &str| {
            let lines = event.lines().filter_map(|line| line.strip_prefix(name));
            lines.collect::<Vec<_>>().join("\n")
        };
        (part("id: "), part("data: "))
    }
}

async fn router(world: &World) -> Router {
    Dashboard::builder().database("orders", world.outbox.clone()).build().unwrap().router()
}

#[tokio::test]
async fn an_open_page_is_sent_again_when_it_has_changed() {
    let temp = TempDatabase::create(Database::Sqlite).await;
    let world = World::open(&temp).await;
    let router = router(&world).await;
    let mut events = Events::open(&router, "/live/letters?list=1&root=./", None).await;
    let (first, data) = events.next().await;
    assert!(data.contains("No open dead letter") && data.contains("data-live=\"letters-orders\""));
    world.place("order-1", "two chairs").await;
    world.bury(1).await;
    let (second, data) = events.next().await;
    assert!(first != second && data.contains("href=\"./letters/1?db=orders\""), "{data}");
}

#[tokio::test]
async fn what_was_seen_before_a_break_is_not_sent_again() {
    let temp = TempDatabase::create(Database::Sqlite).await;
    let world = World::open(&temp).await;
    let router = router(&world).await;
    let path = "/live/letters?list=1&root=./";
    let (seen, _) = Events::open(&router, path, None).await.next().await;
    for mut again in [
        Events::open(&router, path, Some(&seen)).await,
        Events::open(&router, &format!("{path}&last={seen}"), None).await,
    ] {
        assert_eq!(again.next().await, (String::new(), String::new()), "a comment");
    }
    let mut other = Events::open(&router, path, Some("0")).await;
    assert_eq!(other.next().await.0, seen);
}

#[tokio::test]
async fn a_forged_root_leads_nowhere() {
    let temp = TempDatabase::create(Database::Sqlite).await;
    let world = World::with_letters(&temp, 1).await;
    let router = router(&world).await;
    for root in ["https://evil.example/", "//evil.example/", "javascript:x/", "\"><script>/"] {
        let root: String = url::form_urlencoded::byte_serialize(root.as_bytes()).collect();
        let path = format!("/live/letters?list=1&root={root}");
        let (_, data) = Events::open(&router, &path, None).await.next().await;
        assert!(!data.contains("evil") && !data.contains("script"), "{data}");
        assert!(data.contains("href=\"./letters/1?db=orders\""), "{data}");
    }
}

#[tokio::test]
async fn a_page_that_cannot_be_read_again_says_why_until_it_can() {
    let temp = TempDatabase::create(Database::Sqlite).await;
    let world = World::open(&temp).await;
    let saga = world.stuck_saga().await;
    let router = router(&world).await;
    let mut events = Events::open(&router, &format!("/live/saga?id={saga}&root=./"), None).await;
    assert!(events.written().await.contains("id: "));
    let db = world.outbox.connection();
    db.execute_unprepared("ALTER TABLE outbox_sagas RENAME TO away").await.unwrap();
    let stale = events.written().await;
    assert!(
        stale.starts_with("event: stale\ndata: The outbox does not fit this program"),
        "{stale}"
    );
    assert!(!stale.contains("id: "), "what was seen is the body before it: {stale}");
    db.execute_unprepared("ALTER TABLE away RENAME TO outbox_sagas").await.unwrap();
    let again = events.written().await;
    assert!(again.contains("id: ") && !again.starts_with("event: stale"), "{again}");
}
