//! `top` on a terminal.

use crate::{
    program::{command, command_at_hang_up, on},
    world::{SOON, World},
};
use rustix::{
    fs::{Mode, OFlags, open},
    process::{Pid, Signal, kill_process},
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{Winsize, tcsetwinsize},
};
use sea_orm::ConnectionTrait;
use std::{
    fs::File,
    io::{Read, Write},
    process::{Child, Stdio},
};
use tests::{
    databases::{Database, TempDatabase},
    processes::Process,
};

/// A program on a terminal of its own.
struct Terminal {
    master: File,
    child: Child,
    /// What the program has written so far.
    written: Vec<u8>,
}

impl Terminal {
    fn start(arguments: &[&str]) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let size = Winsize { ws_row: 30, ws_col: 120, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&master, size).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap();
        let slave = || {
            let flags = OFlags::RDWR | OFlags::NOCTTY;
            Stdio::from(open(&*name, flags, Mode::empty()).unwrap())
        };
        let mut program = command_at_hang_up(false, arguments);
        program.env("TERM", "xterm").stdin(slave()).stdout(slave()).stderr(slave());
        let child = program.spawn().unwrap();
        // Its ends of the terminal are closed here, so that the last read ends with the program.
        drop(program);
        Self { master: master.into(), child, written: Vec::new() }
    }

    /// Reads until a text was written; the test's time limit ends a wait for one that never is.
    fn wait_for(&mut self, text: &str) {
        self.wait_until(|written| written.contains(text));
    }

    /// Reads until a text was written at a line and column.
    fn wait_for_at(&mut self, place: (u16, u16), text: &str) {
        let moves = format!("\u{1b}[{};{}H", place.0, place.1);
        self.wait_until(|written| {
            let mut behind = written.split(&moves).skip(1);
            behind.any(|behind| without_styles(behind).starts_with(text))
        });
    }

    fn wait_until(&mut self, is_there: impl Fn(&str) -> bool) {
        let mut buffer = [0; 4096];
        while !is_there(&String::from_utf8_lossy(&self.written)) {
            let read = self.master.read(&mut buffer).expect("the program writes");
            self.written.extend_from_slice(&buffer[..read]);
        }
    }

    fn press(&mut self, keys: &str) {
        self.master.write_all(keys.as_bytes()).unwrap();
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A text behind the changes of style with which it begins: they depend on what was written before.
fn without_styles(mut text: &str) -> &str {
    while let Some(behind) = text.strip_prefix("\u{1b}[")
        && let Some((style, rest)) = behind.split_once('m')
        && style.chars().all(|c| c.is_ascii_digit() || c == ';')
    {
        text = rest;
    }
    text
}

#[tokio::test]
async fn top_draws_a_screen_that_obeys_keys_and_leaves_the_terminal_as_it_was() {
    let temp = TempDatabase::create(Database::Sqlite).await;
    let world = World::open(&temp).await;
    world.place("order-1", "x").await;
    let mut top = Terminal::start(&["--database", &world.url, "top", "--every", "50ms"]);
    top.wait_for("q ends");
    // Blanks are not written.
    top.wait_for("waiting,");
    world.place("order-2", "x").await;
    // The screen writes what has changed: the number, in the second line behind `events`.
    top.wait_for_at((2, 11), "2");
    top.press(" ");
    top.wait_for("paused");
    top.press("q");
    // Back from the alternate screen.
    top.wait_for("\u{1b}[?1049l");
    assert_eq!(top.child.wait().unwrap().code(), Some(0));
}

#[tokio::test]
async fn a_signal_that_stops_top_leaves_the_terminal_as_it_was() {
    let temp = TempDatabase::create(Database::Sqlite).await;
    let world = World::open(&temp).await;
    world.place("order-1", "x").await;
    for signal in [Signal::TERM, Signal::HUP, Signal::INT] {
        let mut top = Terminal::start(&["--database", &world.url, "top", "--every", "50ms"]);
        // Where no event waits, no comma follows.
        top.wait_for("waiting,");
        kill_process(Pid::from_child(&top.child), signal).unwrap();
        // Back from the alternate screen.
        top.wait_for("\u{1b}[?1049l");
        assert_eq!(top.child.wait().unwrap().code(), Some(0), "{signal:?}");
    }
}

#[tokio::test]
async fn a_database_that_is_away_is_a_line_of_the_screen_and_the_others_are_shown() {
    let temp = TempDatabase::create(Database::Sqlite).await;
    let world = World::open(&temp).await;
    world.place("order-1", "x").await;
    // A port that nothing listens on.
    let away = "postgres://me:secret@127.0.0.1:1/orders";
    let mut top = Terminal::start(&["--database", away, "--database", &world.url, "top"]);
    // Blanks are not written.
    top.wait_for("(postgres://me:***@127.0.0.1:1/orders)");
    top.wait_for("opened:");
    top.wait_for("waiting,");
    top.press("q");
    top.wait_for("\u{1b}[?1049l");
    assert_eq!(top.child.wait().unwrap().code(), Some(3));
    let written = String::from_utf8_lossy(&top.written);
    assert!(!written.contains("outbox: "), "a line over the screen: {written}");
    assert!(!written.contains("secret"), "{written}");
}

#[tokio::test]
async fn top_opens_a_database_once_and_not_with_each_look() {
    let temp = TempDatabase::create(Database::Postgres).await;
    let world = World::open(&temp).await;
    world.place("order-1", "x").await;
    let mut top =
        Process::start(&mut command(&["--database", &world.url, "top", "--every", "50ms"]));
    for _ in 0..2 {
        top.wait_for_line(SOON, "events    1 waiting").await;
    }
    // From here on the server lets nobody in; who is in stays.
    let closed = format!("ALTER DATABASE {} WITH ALLOW_CONNECTIONS false", temp.name());
    let server = Database::Postgres.server_url().unwrap();
    let another = sea_orm::Database::connect(server).await.unwrap();
    another.execute_unprepared(&closed).await.unwrap();
    // One of them may have been under way.
    for _ in 0..3 {
        top.wait_for_line(SOON, "events    1 waiting").await;
    }
    assert!(top.terminate(SOON).await.success());
}

#[tokio::test]
async fn without_a_terminal_top_writes_the_overview_as_text_or_as_documents() {
    let temp = TempDatabase::create(Database::Sqlite).await;
    let world = World::open(&temp).await;
    world.place("order-1", "x").await;
    let twice = ["top", "--times", "2", "--every", "50ms"];
    let text = on(&world.url, &twice).exits(0).out;
    assert_eq!(text.matches("events    1 waiting").count(), 2, "{text}");
    assert!(!text.contains('\u{1b}'), "{text:?}");
    let document = on(&world.url, &["--json", "top", "--times", "1"]).exits(0).json();
    assert_eq!(document[0]["result"]["events"]["pending"], 1, "{document}");
}
