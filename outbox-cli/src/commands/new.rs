//! `new`: writes a service that builds and passes its tests.

use crate::{args::New, error::CliError, output::Output};
use std::{fs, path::Path, process::ExitCode};

/// The files of the service, each with its path.
macro_rules! template {
    ($($path:literal <- $source:literal),* $(,)?) => {
        &[$(($path, include_str!(concat!("../../template/", $source)))),*]
    };
}

const FILES: &[(&str, &str)] = template![
    "Cargo.toml" <- "Cargo.toml.in",
    ".gitignore" <- "gitignore.in",
    "README.md" <- "README.md.in",
    "compose.yaml" <- "compose.yaml.in",
    "src/lib.rs" <- "src/lib.rs.in",
    "src/entity.rs" <- "src/entity.rs.in",
    "src/migration.rs" <- "src/migration.rs.in",
    "src/events.rs" <- "src/events.rs.in",
    "src/orders.rs" <- "src/orders.rs.in",
    "src/received.rs" <- "src/received.rs.in",
    "src/shipment.rs" <- "src/shipment.rs.in",
    "src/main.rs" <- "src/main.rs.in",
    "tests/service.rs" <- "tests/service.rs.in",
];

/// Longest name of a service.
const MAX_NAME: usize = 40;
/// Names that Cargo refuses, those of crates that are there without a dependency, and those that code
/// gives to the framework's crates: a library of the service would have the same one.
const TAKEN: [&str; 13] = [
    "alloc",
    "build",
    "core",
    "deps",
    "examples",
    "incremental",
    "outbox-core",
    "outbox-http",
    "outbox-saga-core",
    "outbox-sea-orm",
    "proc-macro",
    "std",
    "test",
];
/// Rust's keywords, also those that are reserved.
const KEYWORDS: [&str; 51] = [
    "abstract", "as", "async", "await", "become", "box", "break", "const", "continue", "crate",
    "do", "dyn", "else", "enum", "extern", "false", "final", "fn", "for", "gen", "if", "impl",
    "in", "let", "loop", "macro", "match", "mod", "move", "mut", "override", "priv", "pub", "ref",
    "return", "self", "static", "struct", "super", "trait", "true", "try", "type", "typeof",
    "unsafe", "unsized", "use", "virtual", "where", "while", "yield",
];

/// Writes the service into a new folder of its name.
pub(super) fn new(new: &New, output: &mut Output) -> Result<ExitCode, CliError> {
    check(&new.name)?;
    let folder = Path::new(&new.name);
    if folder.exists() {
        return Err(CliError::Usage(format!(
            "{} exists already: choose another name, or another folder",
            new.name
        )));
    }
    let sources = Sources::of(new.source.as_deref())?;
    let secret = secret()?;
    for (path, text) in FILES {
        let path = folder.join(path);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(path, fill(text, &new.name, &sources, &secret))?;
    }
    output.line(format!(
        "{name}: {} files. Next:\n    cd {name}\n    cargo test\n    cargo run",
        FILES.len(),
        name = new.name
    ))?;
    Ok(ExitCode::SUCCESS)
}

/// Refuses a name that is no name of a package.
fn check(name: &str) -> Result<(), CliError> {
    let starts = name.starts_with(|c: char| c.is_ascii_lowercase());
    let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let is_taken = TAKEN.contains(&name) || KEYWORDS.contains(&name) || is_dependency(name);
    if starts && name.len() <= MAX_NAME && name.chars().all(is_plain) && !is_taken {
        return Ok(());
    }
    Err(CliError::Usage(format!(
        "`{name}` is no name of a service: small letters, digits and `-`, at most {MAX_NAME}, a letter first, no \
         keyword of Rust, and no name of a crate that it uses"
    )))
}

/// Whether the service depends on a crate of this name.
fn is_dependency(name: &str) -> bool {
    let manifest = include_str!("../../template/Cargo.toml.in");
    let dependencies = manifest.split_once("[dependencies]").map_or("", |(_, behind)| behind);
    dependencies.lines().filter_map(|line| line.split_once(" = ")).any(|(of, _)| of == name)
}

/// Makes the secret with which the service signs and verifies webhooks where it is given none. One
/// of the template would be that of all services.
fn secret() -> Result<String, CliError> {
    let mut bytes = [0; 32];
    let random = rustls::crypto::ring::default_provider().secure_random;
    random.fill(&mut bytes).map_err(|_| {
        CliError::Usage("the system gives no random numbers for the service's secret".to_owned())
    })?;
    // These digits are letters of base64, in which the secret is read.
    let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(format!("whsec_{digits}"))
}

/// Where the service gets the framework from.
struct Sources {
    sea_orm: String,
    http: String,
}

impl Sources {
    fn of(folder: Option<&Path>) -> Result<Self, CliError> {
        let Some(folder) = folder else {
            return Err(CliError::Usage(
                "the framework's packages are in no registry yet: give the folder of its source \
                 with --source FOLDER"
                    .to_owned(),
            ));
        };
        let folder = fs::canonicalize(folder).unwrap_or_else(|_| folder.to_owned());
        let path = |of: &str| {
            let path = folder.join(of);
            match path.join("Cargo.toml").is_file() {
                true => Ok(format!("path = {:?}", path.display().to_string())),
                false => Err(CliError::Usage(format!(
                    "--source {}: there is no {of} in it; name the folder of the framework's source",
                    folder.display()
                ))),
            }
        };
        Ok(Self { sea_orm: path("outbox-sea-orm")?, http: path("transports/outbox-http")? })
    }
}

fn fill(text: &str, name: &str, sources: &Sources, secret: &str) -> String {
    text.replace("{source_sea_orm}", &sources.sea_orm)
        .replace("{webhook_secret}", secret)
        .replace("{source_http}", &sources.http)
        .replace("{crate_name}", &name.replace('-', "_"))
        .replace("{name}", name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_that_of_a_package() {
        for name in ["orders", "order-intake", "a1"] {
            assert!(check(name).is_ok(), "{name}");
        }
        for name in [
            "",
            "Orders",
            "1st",
            "../up",
            "a/b",
            "outbox-core",
            "outbox-saga-core",
            "outbox-saga-sea-orm",
            "test",
            "build",
            "match",
            "gen",
            &"a".repeat(41),
        ] {
            assert!(
                check(name).unwrap_err().to_string().contains("no name of a service"),
                "{name}"
            );
        }
    }

    fn filled(text: &str) -> String {
        let sources = Sources { sea_orm: "version = \"1\"".into(), http: "version = \"1\"".into() };
        fill(text, "order-intake", &sources, "whsec_secret")
    }

    #[test]
    fn no_service_has_the_name_of_a_crate_that_it_depends_on() {
        let manifest = FILES.iter().find(|(path, _)| *path == "Cargo.toml").unwrap().1;
        let manifest: toml::Table = toml::from_str(&filled(manifest)).unwrap();
        let mut names = Vec::new();
        for part in ["dependencies", "dev-dependencies"] {
            names.extend(manifest[part].as_table().unwrap().keys());
        }
        assert!(names.len() > 10, "{names:?}");
        for name in names {
            let name = name.replace('_', "-");
            let in_code = name.replace("outbox-saga-", "outbox-");
            assert!(check(&name).is_err() && check(&in_code).is_err(), "{name}");
        }
    }

    #[test]
    fn each_service_has_a_secret_of_its_own() {
        let [first, second] = [secret().unwrap(), secret().unwrap()];
        assert_ne!(first, second);
        outbox_http::Secret::parse(&first).unwrap();
    }

    #[test]
    fn nothing_of_the_template_is_left_unfilled() {
        for (path, text) in FILES {
            let filled = filled(text);
            for hole in ["{name}", "{crate_name}", "{source_", "{webhook_secret}"] {
                assert!(!filled.contains(hole), "{path}: {hole}");
            }
            assert!(!filled.contains("whsec_M"), "{path}: one secret for all services");
        }
    }
}
