//! Runs the program.

use serde_json::Value;
use std::{
    path::Path,
    process::{Command, Output, Stdio},
};

/// What one run wrote, and its exit code.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

/// Prepares the program: nothing of this machine's environment decides what it does.
pub(crate) fn command(arguments: &[&str]) -> Command {
    prepared(Command::new(env!("CARGO_BIN_EXE_outbox")), arguments)
}

/// Prepares the program with SIGHUP ignored, as `nohup` starts it, or not: otherwise it is as
/// whoever runs the tests has started them.
pub(crate) fn command_at_hang_up(is_ignored: bool, arguments: &[&str]) -> Command {
    let mut command = Command::new("env");
    let signal = if is_ignored { "--ignore-signal=HUP" } else { "--default-signal=HUP" };
    command.args([signal, env!("CARGO_BIN_EXE_outbox")]);
    prepared(command, arguments)
}

fn prepared(mut command: Command, arguments: &[&str]) -> Command {
    command.args(arguments).stdin(Stdio::null());
    for variable in ["DATABASE_URL", "OUTBOX_CONTEXT", "OUTBOX_CONFIG", "OUTBOX_OPERATOR"] {
        command.env_remove(variable);
    }
    // No file of a user's.
    command.env("HOME", Path::new("/nonexistent")).env_remove("XDG_CONFIG_HOME");
    command.env("USER", "ann").env("NO_COLOR", "1");
    command
}

/// Runs the program to its end.
pub(crate) fn run(mut command: Command) -> Ran {
    let Output { status, stdout, stderr } = command.output().expect("the program starts");
    Ran {
        code: status.code().expect("no signal ended it"),
        out: String::from_utf8(stdout).expect("it writes UTF-8"),
        err: String::from_utf8(stderr).expect("it writes UTF-8"),
    }
}

/// Runs the program on a database.
pub(crate) fn on(url: &str, arguments: &[&str]) -> Ran {
    let mut all = vec!["--database", url];
    all.extend(arguments);
    run(command(&all))
}

impl Ran {
    /// Expects an exit code, and gives what was written.
    #[track_caller]
    pub(crate) fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, code, "out: {}\nerr: {}", self.out, self.err);
        self
    }

    /// Reads the document.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {}", self.out))
    }
}
