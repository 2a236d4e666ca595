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
    for (path, text) in FILES {
        let path = folder.join(path);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(path, fill(text, &new.name, &sources))?;
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
    let taken = ["test", "core", "std", "alloc", "proc-macro", "outbox-core", "outbox-sea-orm"];
    if starts && name.len() <= MAX_NAME && name.chars().all(is_plain) && !taken.contains(&name) {
        return Ok(());
    }
    Err(CliError::Usage(format!(
        "`{name}` is no name of a service: small letters, digits and `-`, at most {MAX_NAME}, a letter first, and no \
         name of a crate that it uses"
    )))
}

/// Where the service gets the framework from.
struct Sources {
    sea_orm: String,
    http: String,
}

impl Sources {
    fn of(folder: Option<&Path>) -> Result<Self, CliError> {
        let Some(folder) = folder else {
            let version = concat!("version = \"", env!("CARGO_PKG_VERSION"), "\"");
            return Ok(Self { sea_orm: version.to_owned(), http: version.to_owned() });
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

fn fill(text: &str, name: &str, sources: &Sources) -> String {
    text.replace("{source_sea_orm}", &sources.sea_orm)
        .replace("{source_http}", &sources.http)
        .replace("{crate_name}", &name.replace('-', "_"))
        .replace("{name}", name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_that_of_a_package() {
        for name in ["orders", "order-desk", "a1"] {
            assert!(check(name).is_ok(), "{name}");
        }
        for name in ["", "Orders", "1st", "../up", "a/b", "outbox-core", "test", &"a".repeat(41)] {
            assert!(
                check(name).unwrap_err().to_string().contains("no name of a service"),
                "{name}"
            );
        }
    }

    #[test]
    fn nothing_of_the_template_is_left_unfilled() {
        let sources = Sources { sea_orm: "version = \"1\"".into(), http: "version = \"1\"".into() };
        for (path, text) in FILES {
            let filled = fill(text, "order-desk", &sources);
            for hole in ["{name}", "{crate_name}", "{source_"] {
                assert!(!filled.contains(hole), "{path}: {hole}");
            }
        }
    }
}
