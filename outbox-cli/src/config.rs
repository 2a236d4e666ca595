//! Which databases a command is about: from the command line, the configuration file or the
//! environment.

use crate::{
    args::Global,
    error::CliError,
    file_fault::without_value,
    output::{self, quoted},
    urls::{name_of, without_password},
};
use serde::Deserialize;
use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
};

/// A database with an outbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    /// Its name, for headings.
    pub(crate) name: String,
    pub(crate) url: String,
    pub(crate) namespace: String,
    /// Whether acts ask first, and show where they act.
    pub(crate) production: bool,
}

impl fmt::Display for Target {
    /// Writes name and URL, without the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name, without_password(&self.url))
    }
}

/// The configuration file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    /// The context of reads where none is named.
    default: Option<String>,
    #[serde(default)]
    contexts: BTreeMap<String, Context>,
    #[serde(default)]
    serve: Serve,
}

/// How the page is served.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Serve {
    /// The file of logins, seen from the folder of this file.
    logins: Option<PathBuf>,
}

/// Databases that belong together.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Context {
    #[serde(default)]
    production: bool,
    databases: Vec<Entry>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: Option<String>,
    url: String,
    #[serde(default)]
    namespace: String,
}

/// Gives the databases that a command reads.
pub(crate) fn targets(global: &Global) -> Result<Vec<Target>, CliError> {
    select(global, Use::Read)
}

/// Gives the databases that people read and act on, on a page.
pub(crate) fn served(global: &Global) -> Result<Vec<Target>, CliError> {
    select(global, Use::Act)
}

/// Gives the one database that a command acts on.
pub(crate) fn target(global: &Global) -> Result<Target, CliError> {
    let mut all = select(global, Use::Act)?;
    if all.len() == 1
        && let Some(only) = all.pop()
    {
        return Ok(only);
    }
    Err(CliError::Usage(format!(
        "name the database to act on with --on: {}",
        names(all.iter().map(|target| &target.name))
    )))
}

/// Gives the options that select a database again, for a command that is printed; `URL` stands for one
/// that may have a password.
pub(crate) fn selecting(global: &Global, name: &str, databases: usize) -> String {
    let url = global
        .database
        .iter()
        .find(|url| name_of(url) == name)
        .map(|url| if without_password(url) == *url { url.as_str() } else { "URL" });
    let file = global.config.as_ref().map(|path| path.display().to_string());
    let of_context = global.database.is_empty() && databases > 1;
    let options = [
        ("database", url),
        ("namespace", global.namespace.as_deref()),
        ("config", file.as_deref()),
        ("context", global.context.as_deref()),
        ("on", (of_context || global.on.is_some()).then_some(name)),
    ];
    let given = options.into_iter().filter_map(|(option, value)| Some((option, value?)));
    given.map(|(option, value)| format!(" --{option}={}", quoted(value))).collect()
}

/// Whether a command changes something: then no context counts that the operator has not named,
/// unless it is the only one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Use {
    Read,
    Act,
}

fn select(global: &Global, to: Use) -> Result<Vec<Target>, CliError> {
    let mut targets = if global.database.is_empty() {
        match url_of_environment(global) {
            Some(url) => given(&[url], global),
            None => from_file(global, to)?,
        }
    } else {
        given(&global.database, global)
    };
    if let Some(on) = &global.on {
        let known = names(targets.iter().map(|target| &target.name));
        targets.retain(|target| target.name == *on);
        if targets.is_empty() {
            return Err(CliError::Usage(format!("no database is called `{on}`: {known}")));
        }
    }
    Ok(targets)
}

/// Databases whose URLs were given.
fn given(urls: &[String], global: &Global) -> Vec<Target> {
    let target = |url: &String| Target {
        name: name_of(url),
        url: url.clone(),
        namespace: global.namespace.clone().unwrap_or_default(),
        production: false,
    };
    urls.iter().map(target).collect()
}

/// What a page shows of the context.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Environment {
    pub(crate) name: String,
    pub(crate) production: bool,
}

/// Gives the context that counts, if one does.
pub(crate) fn environment(global: &Global) -> Result<Option<Environment>, CliError> {
    if url_of_environment(global).is_some() || !global.database.is_empty() {
        return Ok(None);
    }
    let (_, file) = read(global)?;
    let name = context_name(&file, global.context.as_deref(), Use::Act)?;
    let production = file.contexts.get(&name).is_some_and(|context| context.production);
    Ok(Some(Environment { name, production }))
}

/// Gives the file of logins that the configuration file names.
pub(crate) fn logins(global: &Global) -> Result<Option<PathBuf>, CliError> {
    let (path, file) = read(global)?;
    let folder = path.as_deref().and_then(Path::parent).unwrap_or(Path::new(""));
    Ok(file.serve.logins.map(|logins| folder.join(logins)))
}

/// Gives the variable `DATABASE_URL`, where it counts.
fn url_of_environment(global: &Global) -> Option<String> {
    let url = std::env::var("DATABASE_URL").ok().filter(|url| !url.is_empty());
    url.filter(|_| global.context.is_none())
}

/// Reads the configuration file; an empty one where there is none. One that is there and cannot be
/// read may name logins, without which the page must not be served.
fn read(global: &Global) -> Result<(Option<PathBuf>, File), CliError> {
    let path = global.config.clone().or_else(usual_file);
    let text = match &path {
        Some(path) => match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(_) if global.config.is_none() && is_missing(path) => String::new(),
            Err(error) => return Err(CliError::Usage(format!("{}: {error}", path.display()))),
        },
        None => String::new(),
    };
    let file = toml::from_str(&text).map_err(|error| {
        let path = path.clone().unwrap_or_default();
        CliError::Usage(format!("{}: {}", path.display(), without_value(&text, &error)))
    })?;
    Ok((path, file))
}

/// Whether nothing has this name, not even a link that leads nowhere.
fn is_missing(path: &Path) -> bool {
    let found = std::fs::symlink_metadata(path);
    found.is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound)
}

fn from_file(global: &Global, to: Use) -> Result<Vec<Target>, CliError> {
    let (path, file) = read(global)?;
    if let Some(path) = path.as_deref().filter(|path| path.exists()) {
        warn_of_readers(path);
    }
    let name = context_name(&file, global.context.as_deref(), to)?;
    let context = file.contexts.get(&name).ok_or_else(|| {
        CliError::Usage(format!("no context is called `{name}`: {}", names(file.contexts.keys())))
    })?;
    let target = |entry: &Entry| Target {
        name: entry.name.clone().unwrap_or_else(|| name_of(&entry.url)),
        url: entry.url.clone(),
        namespace: entry.namespace.clone(),
        production: context.production,
    };
    Ok(context.databases.iter().map(target).collect())
}

/// Chooses the context.
fn context_name(file: &File, named: Option<&str>, to: Use) -> Result<String, CliError> {
    if let Some(named) = named {
        return Ok(named.to_owned());
    }
    let mut contexts = file.contexts.keys();
    match (contexts.next(), contexts.next(), &file.default) {
        (None, ..) => Err(CliError::Usage(
            "no database is given: --database URL, DATABASE_URL, or a context in \
             ~/.config/outbox/config.toml"
                .to_owned(),
        )),
        (Some(only), None, _) => Ok(only.clone()),
        (Some(_), Some(_), Some(default)) if to == Use::Read => Ok(default.clone()),
        (Some(_), Some(_), _) => Err(CliError::Usage(format!(
            "there are several contexts: name one with --context: {}",
            names(file.contexts.keys())
        ))),
    }
}

fn names<'a>(names: impl Iterator<Item = &'a String>) -> String {
    names.map(String::as_str).collect::<Vec<_>>().join(", ")
}

fn usual_file() -> Option<PathBuf> {
    let base = std::env::var_os("XDG_CONFIG_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".config")))?;
    Some(base.join("outbox").join("config.toml"))
}

/// Warns where others can read a file that may have passwords.
#[cfg(unix)]
fn warn_of_readers(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    let mode = std::fs::metadata(path).map_or(0, |metadata| metadata.permissions().mode());
    if mode & 0o077 != 0 {
        output::warn(&format!(
            "{} can be read by others, and may have passwords: chmod 600 it",
            path.display()
        ));
    }
}

#[cfg(not(unix))]
fn warn_of_readers(_path: &Path) {}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> File {
        toml::from_str(text).unwrap()
    }

    #[test]
    fn an_act_on_several_databases_names_all_of_them() {
        let global = |urls: &[&str]| {
            let mut line = vec!["outbox", "audit"];
            urls.iter().for_each(|url| line.extend(["--database", url]));
            <crate::Cli as clap::Parser>::parse_from(line).global
        };
        let refused = target(&global(&["sqlite:///a.db", "sqlite:///b.db"])).unwrap_err();
        assert!(refused.to_string().ends_with("with --on: a, b"), "{refused}");
        assert_eq!(target(&global(&["sqlite:///a.db"])).unwrap().name, "a");
    }

    #[test]
    fn printed_commands_ask_the_same_database_and_have_no_password() {
        for (line, options) in [
            (&["--database", "sqlite:///a.db"][..], " --database=sqlite:///a.db"),
            (&["--database", "postgres://me:secret@db/a"], " --database=URL"),
            (&["--database", "postgres://me:12/secret@db/a"], ""),
            (&["--database", "sqlite:///a.db?key=secret"], " --database=URL"),
            (
                &["--database", "sqlite:///a.db", "--namespace", "n"],
                " --database=sqlite:///a.db --namespace=n",
            ),
            (
                &["--config", "my file", "--context", "live"],
                " --config='my file' --context=live --on=a",
            ),
        ] {
            let all = ["outbox", "audit"].iter().chain(line).copied();
            let global = <crate::Cli as clap::Parser>::parse_from(all).global;
            assert_eq!(selecting(&global, "a", 2), options, "{line:?}");
        }
    }

    #[test]
    fn acts_have_no_silent_default_among_several_contexts() {
        let one = file("[contexts.a]\ndatabases = []");
        let two = file("default = 'b'\n[contexts.a]\ndatabases = []\n[contexts.b]\ndatabases = []");
        assert_eq!(context_name(&one, None, Use::Act).unwrap(), "a");
        assert_eq!(context_name(&two, None, Use::Read).unwrap(), "b");
        assert_eq!(context_name(&two, Some("a"), Use::Act).unwrap(), "a");
        let refused = context_name(&two, None, Use::Act).unwrap_err().to_string();
        assert!(refused.contains("--context: a, b"), "{refused}");
        let none = context_name(&file(""), None, Use::Read).unwrap_err().to_string();
        assert!(none.contains("--database URL"), "{none}");
    }

    #[test]
    fn a_misspelt_setting_is_refused() {
        let error = toml::from_str::<File>("[contexts.a]\ndatabase = 1").unwrap_err();
        assert!(error.message().contains("unknown field `database`"), "{error}");
    }
}
