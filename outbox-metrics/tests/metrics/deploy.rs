//! The alerts and the dashboard of `deploy/`: they use only metrics and labels that are emitted.

use crate::page::{read, rows};
use outbox_core::telemetry::prometheus::label_name;
use serde_json::Value;
use std::collections::BTreeSet;

/// The names that a query may use: those of metrics, with the series of histograms, and of labels.
fn known() -> (BTreeSet<String>, BTreeSet<String>) {
    let (mut metrics, mut labels) = (BTreeSet::new(), BTreeSet::new());
    for row in rows() {
        match &*row.kind {
            "histogram" => metrics.extend(
                ["bucket", "sum", "count"].map(|series| format!("{}_{series}", row.prometheus)),
            ),
            _ => _ = metrics.insert(row.prometheus),
        }
        labels.extend(row.labels.iter().map(|label| label_name(label)));
    }
    (metrics, labels)
}

/// Lists the words of a text that are names of this framework.
fn names(text: &str) -> BTreeSet<&str> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words
        .filter(|word| ["outbox_", "messaging_", "error_"].iter().any(|it| word.starts_with(it)))
        .collect()
}

/// Checks queries: each names a metric, and nothing that is not emitted.
fn check(queries: &[String], place: &str) -> BTreeSet<String> {
    let (metrics, labels) = known();
    let mut used = BTreeSet::new();
    for query in queries {
        let names = names(query);
        let strange: Vec<_> = names
            .iter()
            .filter(|name| !metrics.contains(**name) && !labels.contains(**name))
            .collect();
        assert!(strange.is_empty(), "{place}: {query}: nothing emits {strange:?}");
        let of_query: Vec<_> = names.into_iter().filter(|name| metrics.contains(*name)).collect();
        assert!(!of_query.is_empty(), "{place}: {query}: it names a metric");
        used.extend(of_query.into_iter().map(str::to_owned));
    }
    used
}

#[test]
fn the_alerts_use_only_what_is_emitted() {
    let rules = read("deploy/prometheus/rules.yml");
    let mut queries: Vec<String> = Vec::new();
    let mut in_query = false;
    for line in rules.lines() {
        let text = line.trim_start();
        let depth = line.len() - text.len();
        if let Some(query) = text.strip_prefix("expr: ") {
            queries.push(query.trim_matches('|').to_owned());
            in_query = true;
        } else if in_query && depth > 8 {
            queries.last_mut().expect("it has begun").push_str(text);
        } else {
            in_query = false;
        }
    }
    let alerts = rules.lines().filter(|line| line.trim_start().starts_with("- alert: ")).count();
    assert!(alerts >= 10, "the alerts were found: {alerts}");
    assert_eq!(queries.len(), alerts, "each alert has a query");
    check(&queries, "rules.yml");
    // Texts name labels too.
    let (metrics, labels) = known();
    let strange: Vec<_> = names(&rules)
        .into_iter()
        .filter(|name| !metrics.contains(*name) && !labels.contains(*name))
        .collect();
    assert!(strange.is_empty(), "nothing emits {strange:?}");
}

#[test]
fn the_dashboard_shows_each_metric_and_only_what_is_emitted() {
    let dashboard: Value = serde_json::from_str(&read("deploy/grafana/outbox.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let mut queries = Vec::new();
    for panel in panels {
        for target in panel["targets"].as_array().unwrap() {
            queries.push(target["expr"].as_str().unwrap().to_owned());
            let legend = target["legendFormat"].as_str().unwrap();
            let (_, labels) = known();
            let strange: Vec<_> =
                names(legend).into_iter().filter(|name| !labels.contains(*name)).collect();
            assert!(strange.is_empty(), "{legend}: no label is called {strange:?}");
        }
    }
    let used = check(&queries, "outbox.json");
    let missing: Vec<_> = rows()
        .into_iter()
        .filter(|row| !used.iter().any(|name| name.starts_with(&row.prometheus)))
        .map(|row| row.name)
        .collect();
    assert!(missing.is_empty(), "no panel shows {missing:?}");
}
