//! Child processes.

use std::{path::Path, process::Command, time::Duration};
use tests::processes::{Process, program};

const SOON: Duration = Duration::from_secs(10);

fn shell(script: &str) -> Process {
    Process::start(Command::new("sh").args(["-c", script]))
}

/// Tells whether a process is there, reaped or not.
fn exists(id: u32) -> bool {
    Path::new(&format!("/proc/{id}")).exists()
}

#[tokio::test]
async fn a_line_is_waited_for_and_what_came_before_it_is_kept() {
    let mut process = shell("echo one; echo port 17; echo two; exec sleep 60");
    assert_eq!(process.wait_for_line(SOON, "port").await, "port 17");
    assert_eq!(process.lines(), ["one", "port 17"]);
    assert!(process.is_running());
}

#[tokio::test]
#[should_panic(expected = "sh ended its output without \"ready\":\nonly this")]
async fn a_line_that_never_comes_fails_as_soon_as_the_process_ends() {
    shell("echo only this").wait_for_line(SOON, "ready").await;
}

#[tokio::test]
#[should_panic(expected = "sh wrote no \"ready\" within 50ms:\nonly this")]
async fn a_line_that_is_late_fails_with_what_came_instead() {
    let mut process = shell("echo only this; exec sleep 60");
    process.wait_for_line(SOON, "only").await;
    process.wait_for_line(Duration::from_millis(50), "ready").await;
}

#[tokio::test]
async fn a_process_that_ends_by_itself_gives_its_code_and_all_its_lines() {
    let mut process = shell("echo a; echo b; exit 7");
    let (status, lines) = process.finish(SOON).await;
    assert_eq!(status.code(), Some(7));
    assert_eq!(lines, ["a", "b"]);
}

#[tokio::test]
async fn a_request_to_end_lets_the_process_clean_up() {
    let mut process = shell("trap 'echo bye; exit 0' TERM; echo up; while :; do sleep 0.05; done");
    process.wait_for_line(SOON, "up").await;
    assert!(process.terminate(SOON).await.success());
    assert!(process.finish(SOON).await.1.contains(&"bye".to_owned()));
}

#[tokio::test]
async fn a_process_that_will_not_end_is_killed_and_the_test_fails() {
    let mut process = shell("trap '' TERM; echo up; while :; do sleep 0.05; done");
    process.wait_for_line(SOON, "up").await;
    let id = process.id();
    let refusal =
        tokio::spawn(async move { process.terminate(Duration::from_millis(200)).await }).await;
    assert!(refusal.unwrap_err().is_panic());
    assert!(!exists(id));
}

#[tokio::test]
async fn killing_takes_the_descendants_too_and_leaves_no_zombie() {
    let mut process = shell("sleep 61 & echo $!; wait");
    let child: u32 = process.wait_for_line(SOON, "").await.parse().unwrap();
    assert!(exists(child));
    process.kill().await;
    assert!(!exists(process.id()), "the child is reaped");
    tests::wait_until(SOON, "init reaps the orphan", async || {
        std::fs::read_to_string(format!("/proc/{child}/stat"))
            .map_or(true, |stat| stat.contains(") Z "))
    })
    .await;
}

#[tokio::test]
async fn dropping_ends_and_reaps() {
    let process = shell("exec sleep 62");
    let id = process.id();
    drop(process);
    assert!(!exists(id));
}

#[tokio::test]
async fn a_paused_process_stands_still_until_it_is_resumed() {
    let mut process = shell("echo up; read _ < /dev/null; while sleep 0.01; do echo tick; done");
    process.wait_for_line(SOON, "tick").await;
    process.pause();
    let state = || std::fs::read_to_string(format!("/proc/{}/stat", process.id())).unwrap();
    tests::wait_until(SOON, "it is stopped", async || state().contains(") T ")).await;
    process.resume();
    process.wait_for_line(SOON, "tick").await;
    assert!(process.is_running());
}

#[tokio::test]
async fn a_program_of_the_workspace_is_found_and_passes_codes_on() {
    let mut process =
        Process::start(program("with-servers").args(["--", "sh", "-c", "echo found; exit 3"]));
    let (status, lines) = process.finish(SOON).await;
    assert_eq!((status.code(), lines), (Some(3), &["found".to_owned()][..]));
}

#[test]
#[should_panic(
    expected = "no-such-program is not built: cargo build -p no-such-program --bins --examples"
)]
fn a_program_that_is_not_built_is_named() {
    let _ = program("no-such-program");
}
