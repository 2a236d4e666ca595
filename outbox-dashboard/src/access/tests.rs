//! The table of routes and roles: every route of the router, with every role.

use super::{Access, Grant, Needs, Permission, Role};
use crate::{
    Dashboard,
    routes::{Entry, entries},
};
use axum::{Router, body::Body, extract::ConnectInfo};
use http::{Method, Request, StatusCode, header};
use outbox_sea_orm::prelude::Outbox;
use std::{collections::BTreeSet, net::SocketAddr};
use tests::databases::{Database, TempDatabase};
use tower::ServiceExt;

/// The header by which the test says who asks.
const AS: &str = "x-role";

/// Gives the roles that differ: none, the reader, each act alone, the operator.
fn roles() -> Vec<(String, Option<Role>)> {
    let acts = Permission::ALL.map(|act| (act.to_string(), Some(Role::acts([act]))));
    let ends = [
        ("nobody".to_owned(), None),
        ("reader".to_owned(), Some(Role::Reader)),
        ("operator".to_owned(), Some(Role::Operator)),
    ];
    ends.into_iter().chain(acts).collect()
}

fn role_named(name: &str) -> Option<Role> {
    roles().into_iter().find(|(role, _)| role == name).and_then(|(_, role)| role)
}

/// What a route answers to a role, before its handler runs.
#[derive(Debug, PartialEq, Eq)]
enum Door {
    Open,
    Unknown,
    Denied,
}

fn expected(needs: Needs, role: Option<&Role>) -> Door {
    let allows = |role: &Role| match needs {
        Needs::Public | Needs::Read => true,
        Needs::Act(permission) => role.allows(permission),
        Needs::AnyOf(permissions) => permissions.iter().any(|one| role.allows(*one)),
    };
    match role {
        _ if needs == Needs::Public => Door::Open,
        None => Door::Unknown,
        Some(role) if allows(role) => Door::Open,
        Some(_) => Door::Denied,
    }
}

/// Gives a path of the route, with things that do not exist.
fn path_of(entry: &Entry) -> String {
    let part = |part: &str| if part.starts_with('{') { "999" } else { part }.to_owned();
    entry.path.split('/').map(part).collect::<Vec<_>>().join("/")
}

async fn ask(router: &Router, entry: &Entry, role: &str) -> Door {
    let is_api = entry.path.starts_with("/api/");
    let kind = if is_api { "application/json" } else { "application/x-www-form-urlencoded" };
    let request = Request::builder()
        .method(&entry.method)
        .uri(path_of(entry))
        .header(header::HOST, "127.0.0.1")
        .header(header::CONTENT_TYPE, kind)
        .header(AS, role)
        .extension(ConnectInfo(SocketAddr::from(([127, 0, 0, 1], 5_000))))
        .body(Body::from(if is_api { "{}" } else { "" }))
        .unwrap();
    let answer = router.clone().oneshot(request).await.unwrap();
    match answer.status() {
        // The handler of a stranger's login, of which the test makes a 403 too, says so.
        StatusCode::FORBIDDEN if role == "nobody" => Door::Unknown,
        StatusCode::FORBIDDEN => Door::Denied,
        status => {
            assert_ne!(status, StatusCode::METHOD_NOT_ALLOWED, "{} {}", entry.method, entry.path);
            assert!(!status.is_server_error(), "{} {}: {status}", entry.method, entry.path);
            Door::Open
        }
    }
}

#[tokio::test]
async fn every_route_lets_in_who_may_and_nobody_else() {
    let temp = TempDatabase::create(Database::Sqlite).await;
    let outbox = Outbox::builder(temp.connect().await).source("/shop").install().await.unwrap();
    let access = Access::custom(|parts| {
        let name = parts.headers.get(AS)?.to_str().ok()?;
        Some(Grant::new(name, role_named(name)?))
    });
    let dashboard = Dashboard::builder().database("orders", outbox).access(access).build().unwrap();
    let router = dashboard.router();
    let mut opened = BTreeSet::new();
    for entry in entries() {
        for (name, role) in roles() {
            let door = ask(&router, &entry, &name).await;
            let expected = expected(entry.needs, role.as_ref());
            assert_eq!(door, expected, "{} {} as {name}", entry.method, entry.path);
            if door == Door::Open {
                opened.insert(name);
            }
        }
    }
    assert_eq!(opened.len(), roles().len(), "each role was let in somewhere: {opened:?}");
}

#[test]
fn a_route_that_changes_something_needs_an_act_and_each_act_has_a_route() {
    let mut seen = BTreeSet::new();
    for Entry { method, path, needs, .. } in entries() {
        match needs {
            Needs::Act(permission) => drop(seen.insert(permission)),
            Needs::AnyOf(permissions) => {
                assert!(!permissions.is_empty(), "{path}");
                seen.extend(permissions);
            }
            Needs::Public => assert!(path.starts_with("/assets/"), "{path} is open to everybody"),
            Needs::Read => assert_eq!(method, Method::GET, "{path} changes something, for readers"),
        }
    }
    for permission in Permission::ALL {
        assert!(seen.contains(&permission), "no route needs {permission}");
    }
}
