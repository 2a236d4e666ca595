//! The public API of each library crate is the one of `docs/surface/<crate>.txt`, and the crate that
//! users depend on shows no more of it than a user can remember.

use super::{
    api::{Api, Shown},
    tree::{files, none, root, sources},
};
use std::{collections::BTreeSet, fs};

const FOLDER: &str = "docs/surface";
const CRATES: [(&str, &str); 13] = [
    ("outbox_core", "outbox-core"),
    ("outbox_macros", "outbox-macros"),
    ("outbox_sea_orm", "outbox-sea-orm"),
    ("outbox_metrics", "outbox-metrics"),
    ("outbox_otel", "outbox-otel"),
    ("outbox_dashboard", "outbox-dashboard"),
    ("outbox_http", "transports/outbox-http"),
    ("outbox_amqp", "transports/outbox-amqp"),
    ("outbox_kafka", "transports/outbox-kafka"),
    ("outbox_nats", "transports/outbox-nats"),
    ("outbox_redis", "transports/outbox-redis"),
    ("outbox_mqtt", "transports/outbox-mqtt"),
    ("outbox_sqs", "transports/outbox-sqs"),
];
/// The crate that users depend on.
const FACADE: &str = "outbox_sea_orm";
/// Most types, traits, functions and macros that it shows, each counted once whatever paths it has.
const MOST: usize = 120;
/// Its tools for tests. A program does not see them: they are behind a feature of their own.
const TOOLS: &str = "outbox_sea_orm::testing::";

fn api() -> Api {
    let mut api = Api::default();
    for (name, folder) in CRATES {
        api.read(name, &format!("{folder}/src"), files());
    }
    api
}

/// Counts the items that a user has to know; constants are left out.
fn counted(shown: &BTreeSet<Shown>) -> usize {
    let is_counted = |shown: &&Shown| {
        !["const", "static"].contains(&shown.kind.as_str()) && !shown.path.starts_with(TOOLS)
    };
    shown.iter().filter(is_counted).map(|shown| &shown.item).collect::<BTreeSet<_>>().len()
}

/// `SURFACE=overwrite` writes it down.
#[test]
fn the_public_api_of_each_library_crate_is_the_one_that_is_written_down() {
    let (api, mut faults) = (api(), Vec::new());
    let overwrite = std::env::var_os("SURFACE").is_some_and(|what| what == "overwrite");
    for (name, folder) in CRATES {
        let line = |Shown { path, kind, .. }: &Shown| format!("{path} ({kind})\n");
        let made: String = api.of(name).iter().map(line).collect();
        assert!(!made.is_empty(), "{name} shows something");
        let page = format!("{FOLDER}/{}.txt", folder.trim_start_matches("transports/"));
        if overwrite {
            fs::write(root().join(&page), made).expect("it can be written");
            continue;
        }
        let written = fs::read_to_string(root().join(&page)).unwrap_or_default();
        let [old, new]: [BTreeSet<&str>; 2] = [&written, &made].map(|text| text.lines().collect());
        faults.extend(old.difference(&new).map(|line| format!("{page}: gone: {line}")));
        faults.extend(new.difference(&old).map(|line| format!("{page}: new: {line}")));
        if old == new && written != made {
            faults.push(format!("{page}: not in order"));
        }
    }
    none("the API differs from what is written down; SURFACE=overwrite mends that", faults);
}

#[test]
fn the_crate_that_users_depend_on_shows_no_more_than_a_user_can_remember() {
    let count = counted(&api().of(FACADE));
    assert!(count > 50, "the items were found: {count}");
    assert!(count <= MOST, "{FACADE} shows {count} items; at most {MOST}");
}

#[test]
fn no_library_re_exports_by_a_glob() {
    // The suites that users run are among them.
    let of_libraries = sources().filter(|file| {
        CRATES.iter().any(|(_, folder)| file.path.starts_with(&format!("{folder}/src/")))
    });
    let found = of_libraries.flat_map(|file| {
        let code = file.shipped();
        let all = code.tokens();
        let is_glob = |at: &usize| {
            let mut statement = all[*at..].iter().take_while(|token| token.text != ";");
            all[*at].text == "pub"
                && all[*at + 1].text == "use"
                && statement.any(|token| token.text == "*")
        };
        let globs = (0..all.len().saturating_sub(1)).filter(is_glob);
        globs.map(|at| format!("{}:{}", file.path, all[at].line)).collect::<Vec<_>>()
    });
    none("list the items, so that none is shown by accident", found.collect());
}
