//! Child processes: started, watched line by line, frozen, ended, and always reaped.

mod tree;

use crate::wait::Steps;
use rustix::process::{Pid, Signal, kill_process};
use std::{
    env,
    fs::File,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, ExitStatus, Stdio},
    thread,
    time::Duration,
};
use tokio::{
    sync::mpsc,
    time::{Instant, timeout_at},
};

/// How long the kernel may take to end processes that were killed.
const KILLED_WITHIN: Duration = Duration::from_secs(10);

/// Gives a command for a binary or example of this workspace, as it was built last.
///
/// # Panics
/// When it is not built: `tests/run` builds all of them before the tests, `cargo test -p tests` alone does not.
#[must_use]
pub fn program(name: &str) -> Command {
    let from_env = ["CARGO_BIN_EXE_", "NEXTEST_BIN_EXE_"]
        .iter()
        .find_map(|prefix| env::var_os(format!("{prefix}{name}")));
    let built = from_env
        .map(PathBuf::from)
        .into_iter()
        .chain(beside_this_program(name))
        .find(|path| path.is_file());
    Command::new(
        built.unwrap_or_else(|| {
            panic!("{name} is not built: cargo build -p {name} --bins --examples")
        }),
    )
}

/// Lists where cargo puts a program, seen from a test or another program of the same target folder.
fn beside_this_program(name: &str) -> Vec<PathBuf> {
    let this = env::current_exe().expect("the path of the running program is known");
    let folders = this.ancestors().skip(1).take(2);
    folders.flat_map(|folder| [folder.join(name), folder.join("examples").join(name)]).collect()
}

/// Lines of a process that are shown when its test fails.
const LAST_LINES: usize = 60;

/// A child process. Dropped, it and its descendants are killed and it is reaped.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    lines: mpsc::UnboundedReceiver<String>,
    seen: Vec<String>,
}

impl Process {
    /// Starts a command with its standard output under watch, its errors among the test's, and no input.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn start(command: &mut Command) -> Self {
        let mut process = Self::spawn(command.stdout(Stdio::piped()).stderr(Stdio::inherit()));
        if let Some(output) = process.child.stdout.take() {
            process.lines = read_lines(output);
        }
        process
    }

    /// Starts a command that writes its output and errors to the end of a file.
    ///
    /// # Panics
    /// When it cannot be started or the file cannot be written.
    #[must_use]
    pub fn start_logged(command: &mut Command, log: &Path) -> Self {
        let open = || File::options().create(true).append(true).open(log);
        let files = open().and_then(|output| Ok((output, open()?)));
        let (output, errors) =
            files.unwrap_or_else(|error| panic!("{} cannot be written: {error}", log.display()));
        Self::spawn(command.stdout(output).stderr(errors))
    }

    fn spawn(command: &mut Command) -> Self {
        let name = Path::new(command.get_program())
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let child = command.stdin(Stdio::null()).spawn();
        let child = child.unwrap_or_else(|error| panic!("{name} cannot be started: {error}"));
        Self { name, child, lines: mpsc::unbounded_channel().1, seen: Vec::new() }
    }

    /// Gives its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Tells whether it still runs (or is frozen), and how it ended if not.
    pub fn is_running(&mut self) -> bool {
        self.ended().is_none()
    }

    fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("a child can be waited for")
    }

    /// Gives the lines of its standard output that were waited for so far, up to the last match.
    #[must_use]
    pub fn lines(&self) -> &[String] {
        &self.seen
    }

    /// Waits for a line of its standard output in which a text stands, and gives the line.
    ///
    /// # Panics
    /// When the output ends or the deadline passes before; the message shows the lines that came.
    ///
    /// # Cancel safety
    /// Lines read by a call that is dropped are in [`lines`](Self::lines).
    pub async fn wait_for_line(&mut self, deadline: Duration, text: &str) -> String {
        let end = Instant::now() + deadline;
        loop {
            match timeout_at(end, self.lines.recv()).await {
                Ok(Some(line)) => {
                    self.seen.push(line.clone());
                    if line.contains(text) {
                        return line;
                    }
                }
                Ok(None) => panic!(
                    "{} ended its output without {text:?}:\n{}",
                    self.name,
                    self.seen.join("\n")
                ),
                Err(_) => panic!(
                    "{} wrote no {text:?} within {deadline:?}:\n{}",
                    self.name,
                    self.seen.join("\n")
                ),
            }
        }
    }

    /// Waits until it has ended by itself, and gives how it ended and every line that it wrote.
    ///
    /// # Panics
    /// When it has not ended within the deadline; it is killed then.
    pub async fn finish(&mut self, deadline: Duration) -> (ExitStatus, &[String]) {
        let status = self.wait(deadline).await;
        while let Some(line) = self.lines.recv().await {
            self.seen.push(line);
        }
        (status, &self.seen)
    }

    /// Waits until it has ended by itself.
    ///
    /// # Panics
    /// When it has not ended within the deadline; it is killed then.
    pub async fn wait(&mut self, deadline: Duration) -> ExitStatus {
        let mut steps = Steps::until(deadline);
        loop {
            if let Some(status) = self.ended() {
                return status;
            }
            if !steps.next().await {
                self.kill_at_once();
                panic!("{} did not end within {deadline:?} and was killed", self.name);
            }
        }
    }

    /// Asks it to end (SIGTERM) and waits for it.
    ///
    /// # Panics
    /// When it has not ended within the deadline; it is killed then.
    pub async fn terminate(&mut self, deadline: Duration) -> ExitStatus {
        self.signal(Signal::TERM);
        self.wait(deadline).await
    }

    /// Kills it and its descendants (SIGKILL), as a machine that loses power would, and waits until all are gone.
    ///
    /// # Panics
    /// When one of them is still there after ten seconds.
    pub async fn kill(&mut self) {
        let descendants = self.kill_at_once();
        let mut steps = Steps::until(KILLED_WITHIN);
        while !descendants.iter().all(|&process| tree::is_gone(process)) {
            assert!(steps.next().await, "descendants of {} survive SIGKILL", self.name);
        }
    }

    /// Freezes it and its descendants (SIGSTOP): they keep their connections and answer nothing.
    pub fn pause(&mut self) {
        if self.is_running() {
            tree::freeze(self.pid());
        }
    }

    /// Lets it and its descendants go on (SIGCONT).
    pub fn resume(&mut self) {
        if self.is_running() {
            tree::thaw(self.pid());
        }
    }

    /// Sends it alone a signal, unless it has ended.
    pub fn signal(&mut self, signal: Signal) {
        // A child that was not reaped keeps its id, so that the signal cannot reach another
        // process. An error means that it has just ended.
        if self.is_running() {
            let _ = kill_process(self.pid(), signal);
        }
    }

    fn kill_at_once(&mut self) -> Vec<Pid> {
        if !self.is_running() {
            return Vec::new();
        }
        let descendants = tree::freeze(self.pid());
        tree::signal_all(&descendants, Signal::KILL);
        let _ = self.child.kill();
        let _ = self.child.wait();
        descendants
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }
}

impl Process {
    /// Prints the last lines of the process, for the output of a failed test.
    fn print_last_lines(&mut self) {
        while let Ok(line) = self.lines.try_recv() {
            self.seen.push(line);
        }
        let last = self.seen.len().saturating_sub(LAST_LINES);
        let text = format!("--- {} said last:\n{}\n---\n", self.name, self.seen[last..].join("\n"));
        // An error leaves the output without these lines, and the test fails all the same.
        let _ = std::io::Write::write_all(&mut std::io::stderr(), text.as_bytes());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill_at_once();
        if thread::panicking() {
            self.print_last_lines();
        }
    }
}

/// Reads lines on a thread of its own, so that a child never waits for a reader.
fn read_lines(output: ChildStdout) -> mpsc::UnboundedReceiver<String> {
    let (sender, receiver) = mpsc::unbounded_channel();
    thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    receiver
}
