//! Links of the documents lead somewhere, and the guide's table of contents has all of its pages.

use super::tree::{File, files, none, root};
use std::{
    collections::BTreeSet,
    path::{Component, Path, PathBuf},
};

fn documents() -> impl Iterator<Item = &'static File> {
    files().iter().filter(|file| file.path.ends_with(".md"))
}

/// The targets of a document's links, without those in blocks of code.
fn links(text: &str) -> Vec<&str> {
    let prose = text.split("```").step_by(2);
    let ends = prose.flat_map(|prose| prose.split("](").skip(1));
    ends.filter_map(|rest| rest.split_once(')')).map(|(target, _)| target).collect()
}

/// The anchor of a heading, as readers of Markdown make it.
fn anchor(heading: &str) -> String {
    let words = heading.trim_start_matches('#').trim().to_lowercase();
    words
        .chars()
        .filter_map(|c| match c {
            ' ' => Some('-'),
            c if c.is_alphanumeric() || c == '-' || c == '_' => Some(c),
            _ => None,
        })
        .collect()
}

/// A path relative to a document, from the root of the repository.
fn resolve(document: &str, target: &str) -> PathBuf {
    let mut path = Path::new(document).parent().unwrap_or(Path::new("")).to_path_buf();
    for part in Path::new(target).components() {
        match part {
            Component::ParentDir => {
                path.pop();
            }
            Component::CurDir => {}
            part => path.push(part),
        }
    }
    path
}

fn leads_nowhere(document: &File, target: &str) -> bool {
    if target.contains("://") || target.starts_with("mailto:") {
        return false;
    }
    let (path, fragment) = target.split_once('#').unwrap_or((target, ""));
    let path =
        if path.is_empty() { document.path.clone().into() } else { resolve(&document.path, path) };
    let found = files().iter().find(|file| Path::new(&file.path) == path);
    let Some(found) = found else {
        // A folder, or a file that is no text.
        return !fragment.is_empty() || !root().join(path).exists();
    };
    let is_heading = |line: &str| line.starts_with('#') && anchor(line) == fragment;
    !fragment.is_empty() && found.path.ends_with(".md") && !found.text.lines().any(is_heading)
}

#[test]
fn every_link_of_a_document_leads_somewhere() {
    let all: Vec<(&File, &str)> = documents()
        .flat_map(|document| links(&document.text).into_iter().map(move |link| (document, link)))
        .collect();
    assert!(all.len() >= 100, "documents have links");
    let broken = all.into_iter().filter(|(document, link)| leads_nowhere(document, link));
    none(
        "a link that leads nowhere",
        broken.map(|(document, link)| format!("{}: {link}", document.path)).collect(),
    );
}

#[test]
fn the_guides_table_of_contents_has_all_of_its_pages() {
    let in_guide = |file: &&File| file.path.starts_with("docs/guide/");
    let summary = documents().find(|file| file.path == "docs/guide/SUMMARY.md");
    let listed: BTreeSet<PathBuf> = links(&summary.expect("a table of contents").text)
        .into_iter()
        .map(|link| resolve("docs/guide/SUMMARY.md", link))
        .collect();
    let pages: BTreeSet<PathBuf> = documents()
        .filter(in_guide)
        .filter(|file| !file.path.ends_with("SUMMARY.md"))
        .map(|file| PathBuf::from(&file.path))
        .collect();
    assert_eq!(listed, pages);
}
