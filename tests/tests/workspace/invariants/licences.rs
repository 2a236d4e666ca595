//! Licences of what the workspace depends on: `deny.toml` allows them, as `cargo deny` would check.

use super::tree::{files, none, root};
use serde_json::Value;
use std::{collections::BTreeSet, process::Command};

/// The packages that are compiled on this system for any feature. Those of other systems are left
/// out: cargo has not downloaded them.
fn packages() -> Vec<Value> {
    let run = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version=1", "--locked", "--offline", "--all-features"])
        .args(["--filter-platform", "host-tuple"])
        .current_dir(root())
        .output()
        .expect("cargo starts");
    assert!(run.status.success(), "cargo: {}", String::from_utf8_lossy(&run.stderr));
    let metadata: Value = serde_json::from_slice(&run.stdout).expect("cargo writes JSON");
    metadata["packages"].as_array().expect("a list").clone()
}

/// The licences that `deny.toml` allows.
fn allowed() -> BTreeSet<String> {
    let deny = files().iter().find(|file| file.path == "deny.toml").expect("there are rules");
    let deny: toml::Table = deny.text.parse().expect("the rules are TOML");
    let allowed = deny["licenses"]["allow"].as_array().expect("a list").iter();
    allowed.map(|licence| licence.as_str().expect("a name").to_owned()).collect()
}

/// Tells whether a licence expression can be met with allowed licences alone. A slash stands for
/// `OR`, as in expressions of old crates.
///
/// # Source
/// SPDX 2.3, annex D: `AND` binds closer than `OR`, and `WITH` closer than both.
fn is_met(expression: &str, allowed: &BTreeSet<String>) -> bool {
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut rest = &words[..];
    any(&mut rest, allowed) == Some(true) && rest.is_empty()
}

/// Reads alternatives from the words, and tells whether one of them is met.
fn any(rest: &mut &[&str], allowed: &BTreeSet<String>) -> Option<bool> {
    let mut met = all(rest, allowed)?;
    while let ["OR", behind @ ..] = *rest {
        *rest = behind;
        met |= all(rest, allowed)?;
    }
    Some(met)
}

/// Reads conditions from the words, and tells whether all of them are met.
fn all(rest: &mut &[&str], allowed: &BTreeSet<String>) -> Option<bool> {
    let mut met = one(rest, allowed)?;
    while let ["AND", behind @ ..] = *rest {
        *rest = behind;
        met &= one(rest, allowed)?;
    }
    Some(met)
}

/// Reads a licence, or an expression in brackets, and tells whether it is met.
fn one(rest: &mut &[&str], allowed: &BTreeSet<String>) -> Option<bool> {
    match *rest {
        ["(", behind @ ..] => {
            *rest = behind;
            let met = any(rest, allowed)?;
            *rest = rest.strip_prefix(&[")"])?;
            Some(met)
        }
        [licence, "WITH", exception, behind @ ..] => {
            *rest = behind;
            Some(allowed.contains(&format!("{licence} WITH {exception}")))
        }
        [licence, behind @ ..] => {
            *rest = behind;
            Some(allowed.contains(*licence))
        }
        [] => None,
    }
}

#[test]
fn every_dependency_has_a_licence_that_is_allowed() {
    let (packages, allowed) = (packages(), allowed());
    let others: Vec<&Value> = packages.iter().filter(|it| !it["source"].is_null()).collect();
    assert!(others.len() > 200, "the packages were found: {}", others.len());
    let forbidden = others.into_iter().filter_map(|package| {
        let (name, version) = (&package["name"], &package["version"]);
        match package["license"].as_str() {
            Some(expression) if is_met(expression, &allowed) => None,
            Some(expression) => Some(format!("{name} {version}: {expression}")),
            None => Some(format!("{name} {version} names no licence")),
        }
    });
    none("a licence that deny.toml does not allow", forbidden.collect());
}

#[test]
fn an_expression_is_met_by_one_side_of_an_or_and_both_of_an_and() {
    let allowed = ["MIT", "Apache-2.0", "Apache-2.0 WITH LLVM-exception", "ISC"];
    let allowed: BTreeSet<String> = allowed.map(str::to_owned).into();
    for met in [
        "MIT",
        "GPL-3.0 OR MIT",
        "MIT/GPL-3.0",
        "GPL-3.0 / MIT",
        "MIT AND ISC",
        "GPL-3.0 OR MIT AND ISC",
        "(GPL-3.0 OR MIT) AND ISC",
        "Apache-2.0 WITH LLVM-exception",
        "GPL-2.0 WITH Classpath-exception OR (ISC)",
    ] {
        assert!(is_met(met, &allowed), "{met}");
    }
    for unmet in [
        "",
        "GPL-3.0",
        "MIT AND GPL-3.0",
        "(MIT OR ISC) AND GPL-3.0",
        "MIT AND (GPL-3.0 OR MPL-2.0)",
        "MIT WITH LLVM-exception",
        "MIT OR",
        "(MIT",
        "MIT ISC",
    ] {
        assert!(!is_met(unmet, &allowed), "{unmet}");
    }
}
