//! The home of a private server: a folder, ports, and the user that it runs as.

use rustix::process::geteuid;
use std::{
    env,
    ffi::OsStr,
    fs,
    net::TcpListener,
    os::unix::{
        fs::{PermissionsExt, chown},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::Command,
};
use tempfile::TempDir;

/// The ports lie below the range from which systems give ports to clients. In that range a client
/// that reconnects to a stopped server can get the server's own port, and is then connected to
/// itself.
const LOWEST_PORT: u16 = 15_000;
const HIGHEST_PORT: u16 = 31_999;

/// Variable with folders of programs that come before the installed ones; `tests/run --current` sets it.
const PROGRAMS: &str = "OUTBOX_TEST_PROGRAMS";

/// Lines of the log that are shown when a server does not start.
const LOG_LINES_SHOWN: usize = 30;

/// A folder of its own, three free ports of 127.0.0.1, and a user.
pub(super) struct ServerHome {
    folder: TempDir,
    ports: [u16; 3],
    account: Option<Account>,
}

/// A user of this machine.
struct Account {
    user: u32,
    group: u32,
}

impl ServerHome {
    /// Makes a folder that belongs to the given user where the tests run as root (PostgreSQL refuses to run as root), and
    /// to the user of the tests otherwise.
    pub(super) fn new(account: &str) -> Self {
        let folder = tempfile::Builder::new().prefix("outbox-server-").tempdir();
        let folder = folder.expect("a folder can be made where temporary files go");
        let account = geteuid()
            .is_root()
            .then(|| account_of(account).or_else(|| account_of("nobody")))
            .flatten();
        if let Some(Account { user, group }) = account {
            chown(folder.path(), Some(user), Some(group)).expect("root may give a folder away");
            let visible = fs::Permissions::from_mode(0o755);
            fs::set_permissions(folder.path(), visible).expect("root may open a folder");
        }
        Self { folder, ports: free_ports(), account }
    }

    /// The folder.
    pub(super) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A path inside the folder, as text.
    pub(super) fn inside(&self, name: &str) -> String {
        self.folder.path().join(name).to_string_lossy().into_owned()
    }

    /// The port for clients.
    pub(super) fn port(&self) -> u16 {
        self.ports[0]
    }

    /// Two more ports, for servers that talk to themselves.
    pub(super) fn side_ports(&self) -> [u16; 2] {
        [self.ports[1], self.ports[2]]
    }

    /// The server's log file.
    pub(super) fn log(&self) -> PathBuf {
        self.folder.path().join("server.log")
    }

    /// The last lines of the log.
    pub(super) fn log_end(&self) -> String {
        let log = fs::read_to_string(self.log()).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..].join("\n")
    }

    /// Makes a command run in the folder, as the folder's user.
    pub(super) fn run_as_account(&self, command: &mut Command) {
        command.current_dir(self.folder.path());
        if let Some(Account { user, group }) = self.account {
            command.uid(user).gid(group);
        }
    }
}

/// Gives the path of a program: in a folder that `OUTBOX_TEST_PROGRAMS` names, or where it is installed.
///
/// # Panics
/// When it is not installed; the message names the package.
pub(super) fn installed(program: &str, package: &str) -> PathBuf {
    let (first, path) = (env::var_os(PROGRAMS), env::var_os("PATH"));
    let folders = folders(&first.unwrap_or_default(), &path.unwrap_or_default());
    let found = folders.into_iter().map(|folder| folder.join(program)).find(|path| path.is_file());
    found.unwrap_or_else(|| panic!("{program} is not installed: apt-get install {package}"))
}

/// Lists the folders of programs in the order in which they are searched; both arguments are lists as in the PATH.
fn folders(first: &OsStr, path: &OsStr) -> Vec<PathBuf> {
    // Debian keeps PostgreSQL's programs, and RabbitMQ's behind a script that insists on a user, outside the PATH.
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut versions: Vec<PathBuf> = versions.map(|version| version.path().join("bin")).collect();
    versions.sort();
    // An empty part of a list would be the folder that the test runs in.
    let mut folders: Vec<PathBuf> =
        env::split_paths(first).filter(|folder| !folder.as_os_str().is_empty()).collect();
    folders.extend(versions.into_iter().rev());
    folders.push("/usr/lib/rabbitmq/bin".into());
    folders.extend(env::split_paths(path));
    // Servers are outside the PATH of ordinary users.
    folders.push("/usr/sbin".into());
    folders
}

/// Looks a user up.
fn account_of(name: &str) -> Option<Account> {
    let users = fs::read_to_string("/etc/passwd").ok()?;
    let line = users.lines().find(|line| line.split(':').next() == Some(name))?;
    let mut fields = line.split(':').skip(2);
    Some(Account { user: fields.next()?.parse().ok()?, group: fields.next()?.parse().ok()? })
}

/// Finds free ports, all bound at once so that they differ.
fn free_ports() -> [u16; 3] {
    let mut held: Vec<TcpListener> = Vec::new();
    while held.len() < 3 {
        held.extend(TcpListener::bind(("127.0.0.1", fastrand::u16(LOWEST_PORT..=HIGHEST_PORT))));
    }
    [0, 1, 2].map(|i: usize| held[i].local_addr().expect("a bound socket has an address").port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_three_ports_differ_and_lie_below_those_of_clients() {
        let ports = free_ports();
        assert!(ports[0] != ports[1] && ports[1] != ports[2] && ports[0] != ports[2]);
        assert!(ports.iter().all(|port| (LOWEST_PORT..=HIGHEST_PORT).contains(port)));
    }

    #[test]
    fn programs_of_the_variable_come_before_all_installed_ones() {
        let folders = |first: &str| folders(OsStr::new(first), OsStr::new("/some/bin"));
        assert_eq!(
            folders("/current/bin:/other")[..2],
            ["/current/bin", "/other"].map(PathBuf::from)
        );
        let usual = folders("");
        assert_eq!(usual, folders("/current/bin")[1..], "an empty list adds no folder");
        assert_eq!(usual[usual.len() - 2..], ["/some/bin", "/usr/sbin"].map(PathBuf::from));
    }

    #[test]
    #[should_panic(expected = "no-such-server is not installed: apt-get install no-such-package")]
    fn a_missing_program_is_named_with_its_package() {
        installed("no-such-server", "no-such-package");
    }
}
