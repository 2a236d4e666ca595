//! What `tests/run` says that the tests of each package need is what their sources use.

use super::tree::{files, manifests, none, sources};
use std::collections::BTreeMap;

/// What a source uses, and the need that it has for it.
const USES: [(&str, &str); 15] = [
    ("on_every_database!", "postgres"),
    ("on_every_database!", "mariadb"),
    ("Database::Postgres", "postgres"),
    ("Database::MariaDb", "mariadb"),
    ("servers::postgres", "postgres"),
    ("servers::mariadb", "mariadb"),
    ("servers::redis", "redis"),
    ("servers::rabbitmq", "amqp"),
    ("servers::kafka", "kafka"),
    ("servers::mosquitto", "mqtt"),
    ("servers::nats", "nats"),
    ("servers::aws", "sqs"),
    ("servers::pgbouncer", "pgbouncer"),
    ("schemathesis", "api"),
    ("chromedriver", "browser"),
];

/// The table of `tests/run`: needs by package.
fn table() -> BTreeMap<&'static str, Vec<&'static str>> {
    let script = files().iter().find(|file| file.path == "tests/run").expect("the script is there");
    let (_, table) = script.text.split_once("\nneeds='\n").expect("the script has the table");
    let (table, _) = table.split_once("\n'").expect("the table ends");
    let rows = table.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        Some((words.next()?, words.filter(|need| *need != "-").collect()))
    });
    rows.collect()
}

/// Tells whether a text uses something: by its path, or in a list of imports such as
/// `servers::{Server, nats}`.
fn uses(text: &str, what: &str) -> bool {
    let Some(name) = what.strip_prefix("servers::") else { return text.contains(what) };
    let mut lists = text.split("servers::{").skip(1).filter_map(|rest| rest.split('}').next());
    let is_named =
        |list: &str| list.split(',').any(|item| item.split_whitespace().next() == Some(name));
    text.contains(what) || lists.any(is_named)
}

#[test]
fn an_import_is_a_use_under_its_own_name_and_under_another() {
    for (text, expected) in [
        ("use tests::servers::nats;", true),
        ("use tests::servers::{Server, nats};", true),
        ("use tests::servers::{Server, nats as server};", true),
        ("use tests::servers::{Server, mosquitto};", false),
        ("use outbox_nats::NatsPublisher;", false),
    ] {
        assert_eq!(uses(text, "servers::nats"), expected, "{text}");
    }
}

#[test]
fn what_the_tests_of_a_package_need_is_what_tests_run_brings_up_for_them() {
    let table = table();
    assert!(table.len() > 15, "the table was read");
    let mut faults = Vec::new();
    let packages = manifests().into_iter().filter_map(|(file, manifest)| {
        let name = manifest.get("package")?.get("name")?.as_str()?.to_owned();
        Some((name, file.path.strip_suffix("Cargo.toml")?))
    });
    let packages: BTreeMap<String, &str> = packages.collect();
    for (package, needs) in &table {
        let Some(folder) = packages.get(*package) else {
            faults.push(format!("{package} is no package"));
            continue;
        };
        // The tools of all tests name every server, and so does this file.
        let texts = sources().filter(|file| {
            file.path.starts_with(folder)
                && !file.path.starts_with("tests/src/")
                && !file.path.ends_with("invariants/needs.rs")
        });
        for file in texts {
            let used = USES.iter().filter(|(what, _)| uses(&file.text, what));
            let silent = used.filter(|(_, need)| !needs.contains(need));
            faults.extend(silent.map(|(_, need)| format!("{package}: {need}, for {}", file.path)));
        }
    }
    none("a need that the table of tests/run lacks", faults);
}
