//! The file of logins: people with passwords, programs with tokens, and what each may do.

use crate::{error::CliError, file_fault::without_value};
use outbox_dashboard::{Access, Permission, Role};
use serde::Deserialize;
use std::path::Path;

/// The file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    user: Vec<User>,
    #[serde(default)]
    token: Vec<Token>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct User {
    name: String,
    password: String,
    role: Written,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Token {
    name: String,
    token: String,
    role: Written,
}

/// A role as it is written: `"reader"`, `"operator"`, or the acts, such as `["redrive", "control"]`.
#[derive(Deserialize)]
#[serde(try_from = "Text")]
struct Written(Role);

#[derive(Deserialize)]
#[serde(untagged)]
enum Text {
    Name(String),
    Acts(Vec<String>),
}

impl TryFrom<Text> for Written {
    type Error = String;

    fn try_from(text: Text) -> Result<Self, String> {
        match text {
            Text::Name(name) if name == "reader" => Ok(Self(Role::Reader)),
            Text::Name(name) if name == "operator" => Ok(Self(Role::Operator)),
            Text::Name(name) => {
                Err(format!("`{name}` is no role: reader, operator, or a list of acts"))
            }
            Text::Acts(acts) => {
                let act = |name: &String| name.parse().map_err(|()| unknown(name));
                Ok(Self(Role::Acts(acts.iter().map(act).collect::<Result<_, String>>()?)))
            }
        }
    }
}

fn unknown(name: &str) -> String {
    let known: Vec<&str> = Permission::ALL.iter().map(|permission| permission.as_str()).collect();
    format!("`{name}` is no act: {}", known.join(", "))
}

impl std::fmt::Debug for User {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("User").field("name", &self.name).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Token").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Reads the logins. A file that others can read is refused: it has passwords.
pub(crate) fn read(path: &Path) -> Result<Access, CliError> {
    let fault = |text: String| CliError::Usage(format!("{}: {text}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|error| fault(error.to_string()))?;
    if is_read_by_others(path) {
        return Err(fault("others can read it, and it has passwords: chmod 600 it".to_owned()));
    }
    let file: File = toml::from_str(&text).map_err(|error| fault(without_value(&text, &error)))?;
    let users = file.user.into_iter().map(|user| (user.name, user.password, user.role.0));
    let tokens = file.token.into_iter().map(|token| (token.name, token.token, token.role.0));
    Ok(Access::basic(users).with_bearer(tokens))
}

#[cfg(unix)]
fn is_read_by_others(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    let mode = std::fs::metadata(path).map_or(0o777, |metadata| metadata.permissions().mode());
    mode & 0o077 != 0
}

#[cfg(not(unix))]
fn is_read_by_others(_path: &Path) -> bool {
    false
}
