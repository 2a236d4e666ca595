//! Writes answers, as text for people or as JSON for programs.

mod table;
mod text;

pub(crate) use outbox_core::admin::Answer;
pub(crate) use outbox_core::admin::{
    ago_text as ago, cut_text as cut, instant_text as instant, shown_text as shown,
    span_text as span,
};
pub(crate) use table::Table;
pub(crate) use text::quoted;

use crate::error::CliError;
use outbox_core::{admin::escaped_json, failure::full_text};
use serde::Serialize;
use std::{
    fmt::Display,
    io::{self, IsTerminal, Write},
};

/// Where answers go.
pub(crate) struct Output {
    to: Box<dyn Write + Send>,
    pub(crate) json: bool,
}

impl Output {
    /// Writes to the standard output.
    pub(crate) fn stdout(json: bool) -> Self {
        Self { to: Box::new(io::stdout()), json }
    }

    /// Writes one line. What a database has given must have passed [`shown`] before.
    pub(crate) fn line(&mut self, text: impl Display) -> Result<(), CliError> {
        Ok(writeln!(self.to, "{text}")?)
    }

    /// Writes a document for programs.
    pub(crate) fn document(&mut self, value: &impl Serialize) -> Result<(), CliError> {
        let json = serde_json::to_string_pretty(value).map_err(io::Error::from)?;
        Ok(writeln!(self.to, "{}", escaped_json(&json))?)
    }

    /// Writes a document in one line, of a command that writes many.
    pub(crate) fn document_line(&mut self, value: &impl Serialize) -> Result<(), CliError> {
        let json = serde_json::to_string(value).map_err(io::Error::from)?;
        writeln!(self.to, "{}", escaped_json(&json))?;
        Ok(self.to.flush()?)
    }

    /// Clears the screen of a terminal, else separates what follows by an empty line.
    pub(crate) fn next_screen(&mut self) -> Result<(), CliError> {
        let clear = if io::stdout().is_terminal() { "\x1b[2J\x1b[H" } else { "\n" };
        write!(self.to, "{clear}")?;
        Ok(self.to.flush()?)
    }
}

/// Writes an error with its causes to the standard error.
pub(crate) fn report(error: &CliError) {
    warn(&full_text(error));
}

/// Writes a line to the standard error. Where that cannot be written, nobody is there to read it.
pub(crate) fn warn(text: &str) {
    let _ = writeln!(io::stderr(), "outbox: {}", shown(text));
}
