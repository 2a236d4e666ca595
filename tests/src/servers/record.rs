//! The record of the servers that were started, for the last lines of `tests/run`.

use std::{env, ffi::OsStr, fs::OpenOptions, io::Write, path::Path};

/// Variable that names the file of the record; `tests/run` sets it.
const RECORD: &str = "OUTBOX_TEST_SERVERS";

/// Adds a server to the record, where there is one: a line with its name, a tab and the path of its program.
pub(super) fn add(name: &str, program: &OsStr) {
    let Some(record) = env::var_os(RECORD) else { return };
    let line = format!("{name}\t{}\n", Path::new(program).display());
    // In one write: tests of other processes add their lines to the same file.
    let added = OpenOptions::new().append(true).create(true).open(record);
    let added = added.and_then(|mut file| file.write_all(line.as_bytes()));
    added.unwrap_or_else(|error| panic!("{RECORD} names no file that can be written: {error}"));
}
