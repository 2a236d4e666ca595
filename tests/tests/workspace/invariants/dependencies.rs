//! Who may know whom.

use super::tree::{files, libraries, manifests, none};
use std::collections::BTreeSet;

/// Databases, brokers and HTTP: what the core names none of.
const OUTSIDE_WORLD: [&str; 26] = [
    "sea-orm",
    "sea-orm-migration",
    "sea-query",
    "sqlx",
    "rusqlite",
    "tokio-postgres",
    "mysql_async",
    "diesel",
    "axum",
    "hyper",
    "reqwest",
    "http",
    "tonic",
    "tower",
    "lapin",
    "amqprs",
    "rdkafka",
    "rskafka",
    "async-nats",
    "redis",
    "aws-sdk-sns",
    "aws-sdk-sqs",
    "fred",
    "rumqttc",
    "paho-mqtt",
    "rustls",
];

/// Databases only: what transports know nothing of.
const DATABASES: &[&str] = OUTSIDE_WORLD.split_at(8).0;

/// Lists what a manifest depends on, for its users and for its tests.
fn dependencies(manifest: &toml::Table, for_tests: bool) -> BTreeSet<String> {
    let tables: &[&str] = if for_tests {
        &["dependencies", "build-dependencies", "dev-dependencies"]
    } else {
        &["dependencies", "build-dependencies"]
    };
    let targets = manifest
        .get("target")
        .and_then(toml::Value::as_table)
        .into_iter()
        .flat_map(|targets| targets.values());
    let places = targets.filter_map(toml::Value::as_table).chain([manifest]);
    let found =
        places.flat_map(|place| tables.iter().filter_map(|table| place.get(*table)?.as_table()));
    found.flat_map(|table| table.keys().cloned()).collect()
}

fn ours(name: &str) -> bool {
    name.starts_with("outbox-saga-")
}

#[test]
fn the_core_names_no_database_no_broker_and_no_http() {
    let manifests = manifests();
    let (_, core) =
        manifests.iter().find(|(file, _)| file.path == "outbox-core/Cargo.toml").unwrap();
    let known = dependencies(core, true);
    assert!(known.contains("tokio"), "the manifest was read");
    none(
        "outbox-core depends on",
        OUTSIDE_WORLD
            .iter()
            .filter(|name| known.contains(**name))
            .map(ToString::to_string)
            .collect(),
    );

    let core = libraries().filter(|file| file.path.starts_with("outbox-core/src/"));
    let found = core.flat_map(|file| {
        let code = file.shipped();
        let names = OUTSIDE_WORLD.iter().map(|name| format!("{}::", name.replace('-', "_")));
        names
            .flat_map(|name| {
                code.lines_with(&name)
                    .into_iter()
                    .map(|line| format!("{}:{line}: {name}", file.path))
                    .collect::<Vec<_>>()
            })
            .collect::<Vec<_>>()
    });
    none("outbox-core names", found.collect());
}

#[test]
fn transports_know_neither_sql_nor_each_other() {
    let manifests = manifests();
    let transports: Vec<_> =
        manifests.iter().filter(|(file, _)| file.path.starts_with("transports/")).collect();
    assert!(!transports.is_empty());
    let faults = transports.iter().flat_map(|(file, manifest)| {
        let forbidden = |name: &String| {
            DATABASES.contains(&name.as_str()) || (ours(name) && name != "outbox-saga-core")
        };
        dependencies(manifest, false)
            .into_iter()
            .filter(forbidden)
            .map(|name| format!("{}: {name}", file.path))
    });
    none("a transport knows the core alone", faults.collect());
}

#[test]
fn dependencies_point_at_the_core_and_macros_at_nothing() {
    let may: [(&str, &[&str]); 6] = [
        ("outbox-macros", &[]),
        ("outbox-core", &["outbox-saga-macros"]),
        ("outbox-sea-orm", &["outbox-saga-core", "outbox-saga-macros"]),
        ("outbox-metrics", &["outbox-saga-core"]),
        ("outbox-otel", &["outbox-saga-core"]),
        ("tests", &[]),
    ];
    let manifests = manifests();
    let faults = may.iter().flat_map(|(member, allowed)| {
        let path = format!("{member}/Cargo.toml");
        let (_, manifest) = manifests.iter().find(|(file, _)| file.path == path).unwrap();
        let known = dependencies(manifest, false).into_iter();
        known
            .filter(|name| ours(name) && !allowed.contains(&name.as_str()))
            .map(move |name| format!("{member} -> {name}"))
    });
    none("an arrow against the direction", faults.collect());
}

#[test]
fn every_member_takes_versions_lints_and_dependencies_from_the_workspace() {
    let mut faults = Vec::new();
    for (file, manifest) in manifests() {
        let inherits = |table: &toml::Table, key: &str| {
            table
                .get(key)
                .and_then(toml::Value::as_table)
                .is_some_and(|value| value.get("workspace") == Some(&true.into()))
        };
        if file.text.contains("[workspace]") {
            faults.push(format!("{}: a workspace inside the workspace", file.path));
        }
        if manifest.get("lints").and_then(|lints| lints.get("workspace")) != Some(&true.into()) {
            faults.push(format!("{}: lints", file.path));
        }
        let package = manifest["package"].as_table().unwrap();
        let inherited = ["version", "edition", "rust-version", "license"];
        faults.extend(
            inherited
                .iter()
                .filter(|key| !inherits(package, key))
                .map(|key| format!("{}: {key}", file.path)),
        );
        for table in ["dependencies", "dev-dependencies", "build-dependencies"] {
            let Some(table) = manifest.get(table).and_then(toml::Value::as_table) else { continue };
            // What a package that is published asks of another one for its tests: see `packages`.
            let is_own_path = |name: &str| ours(name) && table[name].get("path").is_some();
            faults.extend(
                table
                    .keys()
                    .filter(|name| !inherits(table, name) && !is_own_path(name))
                    .map(|name| format!("{}: {name}", file.path)),
            );
        }
    }
    none("not inherited from the workspace", faults);
}

/// Reads a TOML file of the root.
fn table(path: &str) -> toml::Table {
    files().iter().find(|file| file.path == path).unwrap().text.parse().unwrap()
}

#[test]
fn nothing_that_is_banned_is_in_the_lockfile() {
    let (deny, lock) = (table("deny.toml"), table("Cargo.lock"));
    let name = |entry: &toml::Value| entry["name"].as_str().unwrap().to_owned();
    let banned: BTreeSet<String> =
        deny["bans"]["deny"].as_array().unwrap().iter().map(name).collect();
    let locked: BTreeSet<String> = lock["package"].as_array().unwrap().iter().map(name).collect();
    assert!(banned.contains("openssl") && locked.contains("tokio"), "both files were read");
    none("banned by deny.toml", banned.intersection(&locked).cloned().collect());
}

#[test]
fn every_dependency_comes_from_crates_io() {
    const CRATES_IO: &str = "registry+https://github.com/rust-lang/crates.io-index";
    let (deny, lock) = (table("deny.toml"), table("Cargo.lock"));
    let sources = deny["sources"].as_table().unwrap();
    let denied = toml::Table::from_iter(
        ["unknown-registry", "unknown-git"].map(|rule| (rule.to_owned(), "deny".into())),
    );
    assert_eq!(sources, &denied, "deny.toml allows crates.io and nothing else");

    let packages = lock["package"].as_array().unwrap();
    // Members have no source.
    let source = |package: &toml::Value| Some(package.get("source")?.as_str()?.to_owned());
    let from_crates_io = packages.iter().filter(|it| source(it).as_deref() == Some(CRATES_IO));
    assert!(from_crates_io.count() > 200, "the lockfile was read");
    let others = packages.iter().filter_map(|package| {
        let source = source(package).filter(|source| source != CRATES_IO)?;
        Some(format!("{:?}: {source}", package["name"]))
    });
    none("a dependency that is not from crates.io", others.collect());

    let members: BTreeSet<String> = manifests()
        .iter()
        .map(|(_, manifest)| manifest["package"]["name"].as_str().unwrap().to_owned())
        .collect();
    let strangers = packages.iter().filter(|package| source(package).is_none());
    let strangers = strangers.map(|package| package["name"].as_str().unwrap().to_owned());
    none(
        "a package outside the workspace that is read from a path",
        strangers.filter(|name| !members.contains(name)).collect(),
    );
}
