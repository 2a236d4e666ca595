//! Where emitted code finds the framework, for the manifests that users write.

use std::{env, fs, process::Command};

const ENVIRONMENT: &str = "OUTBOX_TEST_MANIFEST";

/// Runs in a child process, whose environment names a manifest; prints what was found there.
#[test]
fn found_in_the_manifest_of_the_environment() {
    if env::var_os(ENVIRONMENT).is_some() {
        match crate::paths::private(None, crate::paths::EVENTS) {
            Ok(path) => println!("found={}", path.to_string().replace(' ', "")),
            Err(fault) => println!("found={fault}"),
        }
    } else {
        // Of this very package.
        let path =
            crate::paths::private(None, &[crate::paths::CORE]).expect("a development dependency");
        assert_eq!(path.to_string().replace(' ', ""), "::outbox_core::__private");
    }
}

/// Asks a child process, since the manifest's folder is an environment variable.
fn found(package: &str, workspace: Option<&str>) -> String {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let member = folder.path().join("member");
    fs::create_dir_all(member.join("src")).expect("a folder");
    fs::write(member.join("src/lib.rs"), "").expect("a file");
    let package = if package.contains("[package]") {
        package.to_owned()
    } else {
        format!("[package]\nname = \"member\"\nversion = \"0.1.0\"\nedition = \"2024\"\n{package}")
    };
    fs::write(member.join("Cargo.toml"), package).expect("a file");
    let workspace = workspace.unwrap_or_default();
    let workspace = format!("[workspace]\nresolver = \"3\"\nmembers = [\"member\"]\n{workspace}");
    fs::write(folder.path().join("Cargo.toml"), workspace).expect("a file");
    let output = Command::new(env::current_exe().expect("this program has a path"))
        .args(["--exact", "manifests::found_in_the_manifest_of_the_environment", "--nocapture"])
        .env("CARGO_MANIFEST_DIR", &member)
        .env(ENVIRONMENT, "1")
        .output()
        .expect("this program runs");
    let text = String::from_utf8(output.stdout).expect("text");
    let line =
        text.lines().find_map(|line| line.split_once("found=")).expect("the answer is printed");
    line.1.to_owned()
}

const CORE: &str = "::outbox_core::__private";
const SEA_ORM: &str = "::outbox_sea_orm::__private";

#[test]
fn a_dependency_is_found_by_its_name() {
    assert_eq!(found("[dependencies]\noutbox-saga-core = \"0.1\"", None), CORE);
    assert_eq!(found("[dependencies]\noutbox-saga-sea-orm = \"0.1\"", None), SEA_ORM);
    assert_eq!(found("[dev-dependencies]\noutbox-saga-core = \"0.1\"", None), CORE);
    assert_eq!(found("[target.'cfg(unix)'.dependencies]\noutbox-saga-core = \"0.1\"", None), CORE);
}

#[test]
fn a_renamed_dependency_is_found_by_its_new_name() {
    let renamed =
        "[dependencies]\nmy-events = { package = \"outbox-saga-core\", version = \"0.1\" }";
    assert_eq!(found(renamed, None), "::my_events::__private");
    // Also one that is given the name of its library, or of another one.
    let short =
        "[dependencies]\noutbox-core = { package = \"outbox-saga-core\", version = \"0.1\" }";
    assert_eq!(found(short, None), CORE);
    let crossed =
        "[dependencies]\noutbox-core = { package = \"outbox-saga-sea-orm\", version = \"0.1\" }";
    assert_eq!(found(crossed, None), CORE);
}

#[test]
fn a_dependency_inherited_from_the_workspace_is_found_renamed_or_not() {
    let workspace = "[workspace.dependencies]\noutbox-saga-core = \"0.1\"\nkept = { package = \"outbox-saga-sea-orm\", version = \"0.1\" }";
    assert_eq!(
        found("[dependencies]\noutbox-saga-core = { workspace = true }", Some(workspace)),
        CORE
    );
    assert_eq!(found("[dependencies]\noutbox-saga-core.workspace = true", Some(workspace)), CORE);
    assert_eq!(
        found("[dependencies]\nkept.workspace = true", Some(workspace)),
        "::kept::__private"
    );
}

#[test]
fn of_two_the_normal_dependency_is_taken_and_then_the_one_of_applications() {
    let both = "[dependencies]\noutbox-saga-core = \"0.1\"\noutbox-saga-sea-orm = \"0.1\"";
    assert_eq!(found(both, None), SEA_ORM);
    let events = "[dependencies]\noutbox-saga-core = \"0.1\"\n[dev-dependencies]\noutbox-saga-sea-orm = \"0.1\"";
    assert_eq!(found(events, None), CORE);
    let application = "[dependencies]\noutbox-saga-sea-orm = \"0.1\"\n[dev-dependencies]\noutbox-saga-core = \"0.1\"";
    assert_eq!(found(application, None), SEA_ORM);
    let renamed = "[dependencies]\nevents = { package = \"outbox-saga-core\", version = \"0.1\" }\n[dev-dependencies]\noutbox-saga-sea-orm = \"0.1\"";
    assert_eq!(found(renamed, None), "::events::__private");
    let by_target = "[target.'cfg(unix)'.dependencies]\noutbox-saga-core = \"0.1\"\n[dev-dependencies]\noutbox-saga-sea-orm = \"0.1\"";
    assert_eq!(found(by_target, None), CORE);
}

#[test]
fn the_framework_itself_is_found_by_its_own_name() {
    let own = "[package]\nname = \"outbox-saga-core\"\nversion = \"0.1.0\"\nedition = \"2024\"";
    assert_eq!(found(own, None), CORE);
}

#[test]
fn a_member_of_this_workspace_finds_the_framework_by_the_names_of_its_libraries() {
    let workspace = "[workspace.dependencies]\noutbox-saga-core = { path = \"../outbox-core\", version = \"0.1.0\" }\noutbox-saga-sea-orm = { path = \"../outbox-sea-orm\", version = \"0.1.0\" }";
    let example = "[dependencies]\noutbox-saga-core.workspace = true\noutbox-saga-sea-orm = { workspace = true, features = [\"sqlx-sqlite\"] }";
    assert_eq!(found(example, Some(workspace)), SEA_ORM);
    // A published package asks for another one by its path alone, for its tests.
    let transport = "[dependencies]\noutbox-saga-core.workspace = true\n[dev-dependencies]\noutbox-saga-sea-orm = { path = \"../outbox-sea-orm\" }";
    assert_eq!(found(transport, Some(workspace)), CORE);
    // The store is a development dependency of itself, and the core its normal one.
    let store = "[package]\nname = \"outbox-saga-sea-orm\"\nversion = \"0.1.0\"\nedition = \"2024\"\n[dependencies]\noutbox-saga-core.workspace = true\n[dev-dependencies]\noutbox-saga-sea-orm = { path = \".\" }";
    assert_eq!(found(store, Some(workspace)), CORE);
}

#[test]
fn a_package_of_the_former_names_is_another_ones_and_is_not_taken() {
    let strangers = found("[dependencies]\noutbox-core = \"0.1\"\noutbox-sea-orm = \"0.1\"", None);
    assert!(strangers.starts_with("add `outbox-saga-sea-orm`"), "{strangers}");
}

#[test]
fn a_manifest_without_the_framework_gets_advice() {
    let advice = found("[dependencies]\nserde = \"1\"", None);
    assert_eq!(
        advice,
        "add `outbox-saga-sea-orm` or `outbox-saga-core` to the dependencies in Cargo.toml, or say where it is: `crate = path`"
    );
}
