//! The files of the tree.

use super::code::{Code, Part};
use std::{
    fs,
    path::{Path, PathBuf},
    sync::LazyLock,
};

/// What git does not keep, and git's own.
const NOT_OURS: [&str; 4] = ["target", ".git", ".scratch", "node_modules"];

/// A text file of the tree.
pub(super) struct File {
    /// From the root, with slashes.
    pub(super) path: String,
    pub(super) text: String,
}

/// The root of the workspace.
pub(super) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the package is a member")
}

/// Every text file of the tree, by path.
pub(super) fn files() -> &'static [File] {
    static FILES: LazyLock<Vec<File>> = LazyLock::new(|| {
        let mut paths = Vec::new();
        walk(root(), &mut paths);
        let read = |path: PathBuf| {
            let name = path.strip_prefix(root()).ok()?.to_string_lossy().replace('\\', "/");
            Some(File { path: name, text: fs::read_to_string(path).ok()? })
        };
        let mut files: Vec<File> = paths.into_iter().filter_map(read).collect();
        files.sort_by(|a, b| a.path.cmp(&b.path));
        files
    });
    assert!(FILES.len() > 50, "the tree is here, not an empty folder");
    &FILES
}

fn walk(folder: &Path, paths: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let (path, name) = (entry.path(), entry.file_name());
        match entry.file_type() {
            // In a worktree `.git` is a file.
            _ if NOT_OURS.iter().any(|not| name == *not) => (),
            Ok(kind) if kind.is_dir() => walk(&path, paths),
            Ok(kind) if kind.is_file() => paths.push(path),
            _ => (),
        }
    }
}

/// Every Rust source but the inputs and outputs of macro tests.
pub(super) fn sources() -> impl Iterator<Item = &'static File> {
    files().iter().filter(|file| {
        file.path.ends_with(".rs")
            && !file.path.contains("/ui/")
            && !file.path.contains("/snapshots/")
    })
}

/// The sources of the libraries: what users get. Modules with tools for tests are left out.
pub(super) fn libraries() -> impl Iterator<Item = &'static File> {
    sources().filter(|file| {
        (file.path.starts_with("outbox-") || file.path.starts_with("transports/"))
            && file.path.contains("/src/")
            && !file.path.contains("/src/testing/")
            && !file.path.ends_with("/tests.rs")
            && !file.path.contains("/tests/")
    })
}

/// The manifests of the members.
pub(super) fn manifests() -> Vec<(&'static File, toml::Table)> {
    let members = files().iter().filter(|file| file.path.ends_with("/Cargo.toml"));
    members.map(|file| (file, file.text.parse().expect("a manifest is TOML"))).collect()
}

impl File {
    /// Tells whether it is one of these files, or in one of these folders (which end in a slash).
    pub(super) fn is_in(&self, places: &[&str]) -> bool {
        places.iter().any(|place| match place.ends_with('/') {
            true => self.path.starts_with(place),
            false => self.path == *place,
        })
    }

    /// Its code, without tests.
    pub(super) fn shipped(&self) -> Code {
        self.code(Part::Shipped)
    }

    /// A part of its code.
    pub(super) fn code(&self, part: Part) -> Code {
        Code::read(&self.text, part)
    }
}

/// Fails with a list of faults, if there are any.
pub(super) fn none(rule: &str, faults: Vec<String>) {
    assert!(faults.is_empty(), "{rule}\n  {}", faults.join("\n  "));
}
