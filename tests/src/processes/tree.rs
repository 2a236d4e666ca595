//! The processes that a child has started in turn: a database server is many.

use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use std::{
    collections::HashMap,
    fs,
    process::Command,
    time::{Duration, Instant},
};

/// How long the kernel may take to stop all threads of the processes that are frozen.
const STOPPED_WITHIN: Duration = Duration::from_secs(10);

/// Freezes a process and all its descendants, the parent first, so that none is born meanwhile. Gives the descendants, when no
/// thread of any of them runs any more: a signal to stop reaches a thread on another core late, which may answer until then.
pub(super) fn freeze(root: Pid) -> Vec<Pid> {
    let mut frozen = vec![root];
    let _ = kill_process(root, Signal::STOP);
    loop {
        let born: Vec<Pid> =
            descendants(root).into_iter().filter(|process| !frozen.contains(process)).collect();
        if born.is_empty() {
            wait_until_stopped(&frozen);
            return frozen.split_off(1);
        }
        signal_all(&born, Signal::STOP);
        frozen.extend(born);
    }
}

/// Waits until no thread of these runs any more.
fn wait_until_stopped(processes: &[Pid]) {
    let begun = Instant::now();
    while let Some(running) = processes.iter().find(|process| !is_stopped(**process)) {
        assert!(
            begun.elapsed() < STOPPED_WITHIN,
            "process {running:?} still runs {STOPPED_WITHIN:?} after SIGSTOP"
        );
        // It takes as long as another core needs to be interrupted.
        std::thread::yield_now();
    }
}

/// Tells whether all threads of a process stand still: stopped, or ended.
fn is_stopped(process: Pid) -> bool {
    let stands_still = |state: &str| state.starts_with(['T', 't', 'Z', 'X']);
    if cfg!(target_os = "linux") {
        let threads = fs::read_dir(format!("/proc/{}/task", process.as_raw_pid()))
            .into_iter()
            .flatten()
            .flatten();
        let stats =
            threads.filter_map(|thread| fs::read_to_string(thread.path().join("stat")).ok());
        stats.into_iter().all(|stat| state_of_stat(&stat).is_none_or(stands_still))
    } else {
        family()
            .iter()
            .find(|member| member.id == process)
            .is_none_or(|member| stands_still(&member.state))
    }
}

/// Lets a process and all its descendants go on, the children first, so that none of them is missed by its parent.
pub(super) fn thaw(root: Pid) {
    let mut all = descendants(root);
    all.reverse();
    all.push(root);
    signal_all(&all, Signal::CONT);
}

/// Sends each a signal, and ignores those that have just ended.
pub(super) fn signal_all(processes: &[Pid], signal: Signal) {
    for &process in processes {
        let _ = kill_process(process, signal);
    }
}

/// Tells whether a process has ended; one that only waits to be reaped by its parent has.
pub(super) fn is_gone(process: Pid) -> bool {
    test_kill_process(process).is_err()
        || family().iter().all(|member| member.id != process || member.has_ended)
}

/// Lists the descendants of a process, parents before children.
fn descendants(root: Pid) -> Vec<Pid> {
    let mut children: HashMap<Option<Pid>, Vec<Pid>> = HashMap::new();
    for member in family().into_iter().filter(|member| !member.has_ended) {
        children.entry(member.parent).or_default().push(member.id);
    }
    let mut found = vec![root];
    let mut next = 0;
    while let Some(&parent) = found.get(next) {
        found.extend(children.remove(&Some(parent)).unwrap_or_default());
        next += 1;
    }
    found.split_off(1)
}

/// One process of this machine.
struct Member {
    id: Pid,
    parent: Option<Pid>,
    state: String,
    has_ended: bool,
}

/// Lists the processes of this machine: from `/proc` where there is one, else as `ps` tells.
fn family() -> Vec<Member> {
    if cfg!(target_os = "linux") {
        let folders = fs::read_dir("/proc").into_iter().flatten().flatten();
        let stats =
            folders.filter_map(|folder| fs::read_to_string(folder.path().join("stat")).ok());
        stats.filter_map(|stat| member_of_stat(&stat)).collect()
    } else {
        let output = Command::new("ps").args(["-A", "-o", "pid=,ppid=,state="]).output();
        let text = output
            .map(|output| String::from_utf8_lossy(&output.stdout).into_owned())
            .unwrap_or_default();
        text.lines().filter_map(member_of_ps).collect()
    }
}

/// The state in a line of `stat`, of a process or a thread.
fn state_of_stat(stat: &str) -> Option<&str> {
    stat.rsplit_once(')')?.1.split_whitespace().next()
}

/// Reads a line of `/proc/<id>/stat`: the id, the name in brackets (which may hold brackets), the state, the parent.
fn member_of_stat(stat: &str) -> Option<Member> {
    let (id, rest) = stat.split_once(" (")?;
    let mut fields = rest.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?;
    member(id, fields.next()?, state)
}

/// Reads a line of `ps -o pid=,ppid=,state=`.
fn member_of_ps(line: &str) -> Option<Member> {
    let mut fields = line.split_whitespace();
    member(fields.next()?, fields.next()?, fields.next()?)
}

fn member(id: &str, parent: &str, state: &str) -> Option<Member> {
    let id = Pid::from_raw(id.parse().ok()?)?;
    let parent = Pid::from_raw(parent.parse().ok()?);
    Some(Member { id, parent, state: state.to_owned(), has_ended: state.starts_with(['Z', 'X']) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_brackets_and_spaces_does_not_hide_the_parent() {
        let member = member_of_stat("41 (a) S (b)) Z 7 41 41 0").unwrap();
        assert_eq!((member.id.as_raw_pid(), member.parent.map(Pid::as_raw_pid)), (41, Some(7)));
        assert!(member.has_ended);
        assert_eq!(state_of_stat("41 (a) S (b)) T 7 41 41 0"), Some("T"));
        assert!(!member_of_ps("  41   7 S+").unwrap().has_ended);
        assert!(member_of_stat("nonsense").is_none());
    }
}
