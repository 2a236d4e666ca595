//! Links of the documents lead somewhere, and the guide's table of contents has all of its pages.

use super::tree::{File, files, none, root};
use std::{
    collections::BTreeSet,
    path::{Component, Path, PathBuf},
};

/// The documents in one page for language models.
const FOR_MODELS: &str = "docs/llms.txt";

fn documents() -> impl Iterator<Item = &'static File> {
    files().iter().filter(|file| file.path.ends_with(".md") || file.path == FOR_MODELS)
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
fn the_guides_tables_of_contents_have_all_of_its_pages() {
    let pages: BTreeSet<PathBuf> = documents()
        .map(|file| PathBuf::from(&file.path))
        .filter(|path| path.starts_with("docs/guide") && !path.ends_with("SUMMARY.md"))
        .collect();
    for contents in ["docs/guide/SUMMARY.md", FOR_MODELS] {
        let found = documents().find(|file| file.path == contents).expect("a table of contents");
        let linked = links(&found.text).into_iter().map(|link| resolve(contents, link));
        let listed: BTreeSet<PathBuf> =
            linked.filter(|path| path.starts_with("docs/guide")).collect();
        assert_eq!(listed, pages, "{contents}");
    }
}
