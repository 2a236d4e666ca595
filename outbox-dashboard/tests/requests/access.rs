//! Who gets in, what a forged request does, and what protects each answer.

use crate::{client::Client, world::World};
use base64::{Engine, prelude::BASE64_STANDARD};
use outbox_dashboard::{Access, Dashboard, DashboardError, Grant, Permission, Role};
use serde_json::json;
use std::net::SocketAddr;
use tests::databases::{Database, TempDatabase};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

const PASSWORD: &str = "correct horse battery";
const TOKEN: &str = "7d3f0c6b1f5e4b0f9a41";

async fn world() -> (TempDatabase, World) {
    let temp = TempDatabase::create(Database::Sqlite).await;
    let world = World::with_letters(&temp, 1).await;
    (temp, world)
}

fn basic(user: &str) -> String {
    format!("Basic {}", BASE64_STANDARD.encode(format!("{user}:{PASSWORD}")))
}

#[tokio::test]
async fn without_a_login_only_this_machine_gets_in_and_is_told_what_to_do() {
    let (_temp, world) = world().await;
    world.client().get("/letters").await.says(200, &[]);
    for client in [
        world.client().of_peer("10.0.0.7:5000"),
        world.client().with("x-forwarded-for", "10.0.0.7"),
        world.client().with("host", "rebound.example"),
    ] {
        let refused = client.get("/letters").await;
        refused.says(403, &["Only this machine gets in"]);
        assert!(!refused.body.contains("billing"), "nothing of the database: {}", refused.body);
        let act = client.post("/letters/1/discard", &[("why", "x")]).await;
        act.says(403, &["Only this machine gets in"]);
    }
    let page_of_others = world.client().with("origin", "https://evil.example");
    page_of_others.get("/letters").await.says(403, &["a page of another machine asks"]);
    assert_eq!(world.dead_and_pending().await, (1, 0));
}

#[tokio::test]
async fn a_dashboard_in_a_service_that_says_nothing_of_access_is_read_here_and_not_acted_on() {
    let (_temp, world) = world().await;
    let dashboard = Dashboard::builder().database("orders", world.outbox.clone()).build().unwrap();
    let client = Client::of(dashboard.router());
    let page = client.get("/letters/1").await;
    page.says(200, &["two chairs"]);
    assert!(!page.body.contains("method=\"post\""), "{}", page.body);
    for path in ["/letters/1/discard", "/letters/plan"] {
        let act = client.post(path, &[("act", "discard"), ("all", "1"), ("why", "x")]).await;
        act.says(403, &["loopback has no permission to", "give it `Access::loopback()`"]);
    }
    let body = json!({ "letters": [1], "why": "x" });
    let act = client.post_json("/api/dead-letters/discard", &body);
    act.await.says(403, &["Access::loopback()"]);
    assert_eq!((world.dead_and_pending().await, world.audit().await), ((1, 0), Vec::new()));
    world.client().submit("/letters/1/discard", &[("why", "the service says so")]).await;
}

/// Sends a request as it is written, and gives the answer.
async fn asked(address: SocketAddr, version: &str) -> String {
    let request = format!(
        "POST /letters/1/discard {version}\r\nHost: {address}\r\nConnection: close\r\n\
         Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 5\r\n\r\nwhy=x"
    );
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn a_page_that_is_served_by_itself_is_acted_on_from_here_and_not_through_a_proxy_as_it_comes()
{
    let (_temp, world) = world().await;
    let dashboard = Dashboard::builder().database("orders", world.outbox.clone()).build().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serving = tokio::spawn(async move { dashboard.serve(listener).await });
    // As nginx asks an upstream unless it is told otherwise: for the upstream's own address.
    let proxied = asked(address, "HTTP/1.0").await;
    assert!(proxied.contains(" 403 ") && proxied.contains("a proxy has forwarded"), "{proxied}");
    assert_eq!(world.dead_and_pending().await, (1, 0));
    let direct = asked(address, "HTTP/1.1").await;
    assert!(direct.contains(" 303 "), "{direct}");
    assert_eq!(world.dead_and_pending().await, (0, 0));
    serving.abort();
}

#[tokio::test]
async fn a_nested_router_that_does_not_know_its_peer_says_how_to_tell_it() {
    use tower::ServiceExt;
    let (_temp, world) = world().await;
    let dashboard = Dashboard::builder().database("orders", world.outbox.clone()).build().unwrap();
    let nested = axum::Router::new().nest("/outbox", dashboard.router());
    let request = http::Request::get("/outbox/letters").body(axum::body::Body::empty()).unwrap();
    let answer = nested.oneshot(request).await.unwrap();
    assert_eq!(answer.status(), 403);
    let body = http_body_util::BodyExt::collect(answer.into_body()).await.unwrap().to_bytes();
    let body = String::from_utf8(body.to_vec()).unwrap();
    assert!(body.contains("into_make_service_with_connect_info"), "{body}");
}

#[tokio::test]
async fn an_address_that_others_reach_is_not_served_without_a_login() {
    let (_temp, world) = world().await;
    let listener = TcpListener::bind("0.0.0.0:0").await.unwrap();
    let dashboard = Dashboard::builder().database("orders", world.outbox.clone()).build().unwrap();
    let refused = dashboard.serve(listener).await.unwrap_err();
    assert!(matches!(refused, DashboardError::NoLogin(_)), "{refused}");
    let unsafe_login = Access::basic([("ann", "ann", Role::Operator)]);
    let dashboard = Dashboard::builder().database("orders", world.outbox.clone());
    let refused = dashboard.access(unsafe_login).build().unwrap_err();
    assert!(refused.to_string().contains("fewer than 12 characters"), "{refused}");
}

#[tokio::test]
async fn a_login_is_asked_for_and_its_name_is_in_the_audit() {
    let (_temp, world) = world().await;
    let access = || {
        Access::basic([("ann", PASSWORD, Role::Operator), ("rita", PASSWORD, Role::Reader)])
            .with_bearer([("robot", TOKEN, Role::acts([Permission::Discard]))])
    };
    // From anywhere: the login counts.
    let client = || world.client_with(access()).of_peer("10.0.0.7:5000");
    let asked = client().get("/letters").await;
    asked.says(401, &["Log in first"]);
    let challenges: Vec<_> = asked.headers.get_all("www-authenticate").iter().collect();
    assert_eq!(challenges.len(), 2, "{challenges:?}");
    let stranger = client().with("authorization", &basic("eve"));
    stranger.get("/letters").await.says(401, &["no login has this name"]);
    client().get("/assets/style.css").await.says(200, &[]);
    let guesser = world.client_with(access()).of_peer("10.0.0.9:5000");
    let guesser = guesser.with("authorization", &basic("eve"));
    for _ in 0..11 {
        guesser.get("/letters").await.says(401, &[]);
    }
    for path in ["/letters", "/api/dead-letters"] {
        let late = guesser.get(path).await;
        late.says(429, &["Too many logins have failed", "then log in again"]);
        assert!(late.headers["retry-after"].to_str().unwrap().parse::<u64>().unwrap() <= 1);
    }

    let rita = client().with("authorization", &basic("rita"));
    rita.get("/letters").await.says(200, &[]);
    let denied = rita.post("/letters/1/discard", &[("why", "x")]).await;
    denied.says(403, &["You may not do that", "rita has no permission to discard"]);
    let robot = client().with("authorization", &format!("Bearer {TOKEN}"));
    robot.post("/letters/1/redrive", &[("why", "x")]).await.says(403, &["robot has no permission"]);
    robot.submit("/letters/1/discard", &[("why", "a duplicate")]).await;
    assert_eq!(world.audit().await[0].by, "robot");
}

#[tokio::test]
async fn the_login_of_the_service_counts_and_who_may_plan_one_act_may_plan_no_other() {
    let (_temp, world) = world().await;
    let access = Access::custom(|parts| {
        let user = parts.headers.get("x-user")?.to_str().ok()?;
        Some(Grant::new(user, Role::acts([Permission::Discard])))
    });
    let client = world.client_with(access);
    client.get("/letters").await.says(403, &["You are not let in"]);
    let carl = client.with("x-user", "carl");
    for (act, status) in [("redrive", 403), ("purge", 403), ("discard", 303)] {
        let answer = carl.post("/letters/plan", &[("act", act), ("route", "billing")]).await;
        assert_eq!(answer.status.as_u16(), status, "{act}: {}", answer.body);
    }
    // Of a plan of somebody else, too.
    let filter = outbox_core::admin::DeadLetterFilter::all().route("billing");
    let act = outbox_core::admin::Act::Redrive;
    let plan =
        outbox_core::admin::ActStore::plan(&world.outbox, act, &filter, false).await.unwrap();
    for act in ["apply", "cancel"] {
        let path = format!("/plans/{}/{act}", plan.id);
        carl.post(&path, &[("why", "x")]).await.says(403, &["carl has no permission to redrive"]);
    }
    let page = carl.get(&format!("/plans/{}", plan.id)).await;
    page.says(200, &["You may look at this plan, and not apply it"]);
}

#[tokio::test]
async fn a_post_of_another_page_does_nothing() {
    let (_temp, world) = world().await;
    let client = || {
        let access = Access::basic([("ann", PASSWORD, Role::Operator)]);
        world.client_with(access).with("authorization", &basic("ann"))
    };
    let form = [("why", "forged")];
    for (name, value) in [
        ("sec-fetch-site", "cross-site"),
        ("sec-fetch-site", "same-site"),
        ("origin", "https://evil.example"),
        ("origin", "null"),
        ("origin", "http://127.0.0.1:9999"),
    ] {
        let client = client().with(name, value);
        for path in ["/letters/1/discard", "/api/dead-letters/discard"] {
            let answer = client.post(path, &form).await;
            assert_eq!(answer.status, 403, "{name}: {value}: {}", answer.body);
            assert!(answer.body.contains("another page"), "{}", answer.body);
        }
        client.get("/letters").await.says(200, &[]);
    }
    assert_eq!((world.dead_and_pending().await, world.audit().await), ((1, 0), Vec::new()));
    let own =
        client().with("origin", "http://127.0.0.1:8080").with("sec-fetch-site", "same-origin");
    own.submit("/letters/1/discard", &form).await;
}

#[tokio::test]
async fn each_answer_keeps_a_browser_from_doing_more_than_it_should() {
    let (_temp, world) = world().await;
    let client = world.client();
    for path in ["/letters", "/letters/1", "/no-such-page", "/assets/style.css", "/letters/9"] {
        let answer = client.get(path).await;
        let header = |name: &str| answer.headers.get(name).map(|value| value.to_str().unwrap());
        let policy = header("content-security-policy").unwrap_or_default();
        assert!(policy.starts_with("default-src 'none'"), "{path}: {policy}");
        assert!(
            policy.contains("frame-ancestors 'none'") && !policy.contains("unsafe"),
            "{policy}"
        );
        assert_eq!(header("x-content-type-options"), Some("nosniff"), "{path}");
        assert_eq!(header("referrer-policy"), Some("same-origin"), "{path}");
        let is_kept = path.starts_with("/assets/");
        assert_eq!(header("cache-control") == Some("no-store"), !is_kept, "{path}");
    }
}
