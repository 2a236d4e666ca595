//! The page `docs/metrics.md`, and the registry that it describes.

use outbox_core::telemetry::{metric, prometheus::metric_name};
use std::{fs, path::PathBuf};

/// A row of the table of metrics.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) prometheus: String,
    pub(crate) kind: String,
    pub(crate) unit: String,
    pub(crate) labels: Vec<String>,
}

/// Reads a file of the workspace.
pub(crate) fn read(path: &str) -> String {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..");
    fs::read_to_string(root.join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Reads the table of metrics.
pub(crate) fn rows() -> Vec<Row> {
    let page = read("docs/metrics.md");
    let table = page
        .lines()
        .skip_while(|line| !line.starts_with("| name | Prometheus |"))
        .skip(2)
        .take_while(|line| line.starts_with('|'));
    let row = |line: &str| {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [name, prometheus, kind, unit, labels, when] = cells[..] else {
            panic!("a row has six cells: {line}");
        };
        assert!(!when.is_empty(), "it says when the metric changes: {line}");
        let words = |cell: &str| -> Vec<String> {
            cell.split('`').skip(1).step_by(2).map(str::to_owned).collect()
        };
        let word = |cell: &str| words(cell).pop().unwrap_or_default();
        Row {
            name: word(name),
            prometheus: word(prometheus),
            kind: kind.to_owned(),
            unit: word(unit),
            labels: words(labels),
        }
    };
    table.map(row).collect()
}

#[test]
fn the_page_lists_each_metric_of_the_registry_and_no_other() {
    let described = metric::ALL.iter().map(|metric| Row {
        name: metric.name.to_owned(),
        prometheus: metric_name(metric),
        kind: metric.kind.as_str().to_owned(),
        unit: metric.unit.to_owned(),
        labels: metric.labels.iter().map(ToString::to_string).collect(),
    });
    let (written, described) = (rows(), described.collect::<Vec<_>>());
    for (row, expected) in written.iter().zip(&described) {
        assert_eq!(row, expected);
    }
    assert_eq!(written.len(), described.len());
}
