//! What users add from a registry: the names of the packages, what they say of themselves, their files.

use super::tree::{File, files, manifests, none, root};
use std::{collections::BTreeSet, fs, process::Command};

/// What the names of packages begin with, since the folders' names are other people's packages.
const PREFIX: &str = "outbox-saga-";
/// Most keywords and most categories that a registry takes.
const MOST: usize = 5;
/// Most bytes of a keyword.
const LONGEST: usize = 20;
const LICENCES: [&str; 2] = ["LICENSE-MIT", "LICENSE-APACHE"];
/// What stays out of a package: the manifest of the workspace says why.
const LEFT_OUT: [&str; 3] = ["tests/", "examples/", "proptest-regressions/"];

/// A package that users add.
struct Package {
    /// From the root.
    folder: &'static str,
    manifest: toml::Table,
}

impl Package {
    /// The last part of its folder: `outbox-http`.
    fn short(&self) -> &'static str {
        self.folder.rsplit('/').next().unwrap_or_default()
    }

    /// Its name, from that of its folder.
    fn name(&self) -> String {
        format!("{PREFIX}{}", self.short().trim_start_matches("outbox-"))
    }

    /// What it says of itself.
    fn says(&self, key: &str) -> Option<&toml::Value> {
        self.manifest.get("package")?.get(key)
    }

    fn list(&self, key: &str) -> Vec<&str> {
        let list = self.says(key).and_then(toml::Value::as_array);
        list.into_iter().flatten().filter_map(toml::Value::as_str).collect()
    }
}

/// Lists the packages that users add: the libraries and the command line.
fn packages() -> Vec<Package> {
    let package = |(file, manifest): (&'static File, toml::Table)| {
        let folder = file.path.strip_suffix("/Cargo.toml")?;
        let package = Package { folder, manifest };
        package.short().starts_with("outbox-").then_some(package)
    };
    let packages: Vec<Package> = manifests().into_iter().filter_map(package).collect();
    assert!(packages.len() >= 14, "the packages were found: {}", packages.len());
    packages
}

/// Reads a table under `[workspace]`.
fn workspace(table: &str) -> toml::Table {
    let manifest = files().iter().find(|file| file.path == "Cargo.toml").expect("it is there");
    let manifest: toml::Table = manifest.text.parse().expect("a manifest is TOML");
    manifest["workspace"][table].as_table().expect("a table").clone()
}

#[test]
fn every_package_has_the_prefix_and_its_library_the_name_of_its_folder() {
    let (shared, inherited) = (workspace("package"), workspace("dependencies"));
    let mut faults = Vec::new();
    for package in packages() {
        let (folder, name) = (package.folder, package.name());
        if package.says("name") != Some(&name.clone().into()) {
            faults.push(format!("{folder}: its package is not {name}"));
        }
        let library = package.manifest.get("lib").and_then(|library| library.get("name"));
        if library != Some(&package.short().replace('-', "_").into()) {
            faults.push(format!("{folder}: its library has another name"));
        }
        // No other package needs the command line.
        let asked = inherited.get(&name).map(|asked| (asked.get("path"), asked.get("version")));
        let path = toml::Value::from(folder);
        let expected = (Some(&path), shared.get("version"));
        if asked.map_or(folder != "outbox-cli", |asked| asked != expected) {
            faults.push(format!("{folder}: others ask for another path or version"));
        }
    }
    none("`outbox-saga-http` in `transports/outbox-http` is `outbox_http` in code", faults);
}

#[test]
fn every_package_says_what_a_registry_asks_for() {
    let mut faults = Vec::new();
    for package in packages() {
        let mut fault = |text: String| faults.push(format!("{}: {text}", package.folder));
        let is_said = |key: &str| package.says(key).and_then(toml::Value::as_str);
        if is_said("description").is_none_or(str::is_empty) {
            fault("description".to_owned());
        }
        if is_said("readme") != Some("README.md") {
            fault("readme".to_owned());
        }
        if package.says("publish") != Some(&true.into()) {
            fault("publish".to_owned());
        }
        for key in ["keywords", "categories"] {
            if !(1..=MOST).contains(&package.list(key).len()) {
                fault(format!("{key}: 1 to {MOST}"));
            }
        }
        let is_plain = |keyword: &&str| {
            keyword.len() <= LONGEST
                && keyword.starts_with(|c: char| c.is_ascii_alphanumeric())
                && keyword.chars().all(|c| c.is_ascii_alphanumeric() || "_-+".contains(c))
        };
        for keyword in package.list("keywords").iter().filter(|keyword| !is_plain(keyword)) {
            fault(format!("the keyword {keyword}"));
        }
    }
    none("a package does not say", faults);
}

#[test]
fn other_members_are_not_published() {
    let ours: BTreeSet<&str> = packages().iter().map(|package| package.folder).collect();
    assert_eq!(workspace("package").get("publish"), Some(&false.into()));
    let others = manifests().into_iter().filter(|(file, manifest)| {
        let is_ours = file.path.strip_suffix("/Cargo.toml").is_some_and(|it| ours.contains(it));
        let publish = manifest["package"].get("publish");
        !is_ours && publish.is_none_or(|it| it.get("workspace") != Some(&true.into()))
    });
    none(
        "`publish.workspace = true` is missing",
        others.map(|(file, _)| file.path.clone()).collect(),
    );
}

/// A path without a version is taken out of what is published. A version would have to be published
/// first, and a package that is tested with one that depends on it could never be.
#[test]
fn for_their_tests_packages_ask_for_each_other_by_a_path_alone() {
    let packages = packages();
    let mut faults = Vec::new();
    for package in &packages {
        let asked = package.manifest.get("dev-dependencies").and_then(toml::Value::as_table);
        for (name, asked) in asked.into_iter().flatten().filter(|(it, _)| it.starts_with(PREFIX)) {
            let path = asked.get("path").and_then(toml::Value::as_str);
            let there =
                path.and_then(|it| fs::canonicalize(root().join(package.folder).join(it)).ok());
            let of = packages.iter().find(|of| of.name() == *name);
            let expected = of.and_then(|of| fs::canonicalize(root().join(of.folder)).ok());
            if there.is_none() || there != expected || asked.get("version").is_some() {
                faults.push(format!("{}: {name}", package.folder));
            }
        }
    }
    none("`{ path = \"..\" }` without a version", faults);
}

#[test]
fn every_package_has_its_sources_its_readme_and_the_texts_of_its_licences() {
    let mut faults = Vec::new();
    for package in packages() {
        for licence in LICENCES {
            let [own, ours] = [root().join(package.folder), root().to_owned()]
                .map(|folder| fs::read_to_string(folder.join(licence)).unwrap_or_default());
            if ours.is_empty() || own != ours {
                faults.push(format!("{}/{licence}: a link to that of the root", package.folder));
            }
        }
        let run = Command::new(env!("CARGO"))
            .args(["package", "--list", "--locked", "--offline", "--allow-dirty", "--package"])
            .arg(package.name())
            .current_dir(root())
            .output()
            .expect("cargo starts");
        assert!(run.status.success(), "cargo: {}", String::from_utf8_lossy(&run.stderr));
        let listed = String::from_utf8_lossy(&run.stdout).replace('\\', "/");
        let listed: BTreeSet<&str> = listed.lines().collect();
        let folder = format!("{}/", package.folder);
        let own = files().iter().filter_map(|file| file.path.strip_prefix(&folder));
        let own = own.filter(|path| !LEFT_OUT.iter().any(|out| path.starts_with(out)));
        let gone = own.chain(LICENCES).filter(|path| !listed.contains(path));
        faults.extend(gone.map(|path| format!("{folder}{path}: not in the package")));
        let tests = listed.iter().filter(|path| LEFT_OUT.iter().any(|out| path.starts_with(out)));
        faults.extend(tests.map(|path| format!("{folder}{path}: in the package")));
    }
    none("what `cargo package --list` shows", faults);
}
