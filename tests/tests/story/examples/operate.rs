//! An operator at the command line `outbox`, while orders of the shop stand still.

use rustix::process::Signal;
use std::{
    io::Write,
    process::{Command, Output, Stdio},
    time::Duration,
};
use tests::{processes::program, wait_until};

/// Long enough for a busy machine.
const SOON: Duration = Duration::from_secs(60);

/// A shop whose orders stand still, with its standard input.
struct Shop {
    child: std::process::Child,
    folder: tempfile::TempDir,
}

impl Drop for Shop {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Shop {
    /// Starts the shop, and waits until it says where to look.
    async fn standing_still() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let output = std::fs::File::create(folder.path().join("output")).unwrap();
        let child = program("shop")
            .args(["--serve", "--faults", "--data"])
            .arg(folder.path())
            .stdin(Stdio::piped())
            .stdout(output)
            .spawn()
            .unwrap();
        let mut shop = Self { child, folder };
        wait_until(SOON, "the shop says where to look", async || {
            assert!(shop.child.try_wait().unwrap().is_none(), "{}", shop.output());
            shop.output().contains("In another terminal")
        })
        .await;
        shop
    }

    fn output(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("output")).unwrap()
    }

    /// Runs the command line on all databases of the shop.
    fn outbox(&self, arguments: &[&str]) -> Output {
        let mut command: Command = program("outbox");
        command.arg("--config").arg(self.folder.path().join("outbox.toml"));
        command.args(arguments).env_remove("DATABASE_URL").env("USER", "ann").stdin(Stdio::null());
        command.output().unwrap()
    }

    /// Gives what a command wrote, in words that are separated by one space.
    fn told(&self, arguments: &[&str]) -> String {
        let Output { stdout, stderr, .. } = self.outbox(arguments);
        let both = [stdout, stderr].concat();
        String::from_utf8(both).unwrap().split_whitespace().collect::<Vec<_>>().join(" ")
    }

    fn mend(&mut self) {
        self.child.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
    }

    async fn stop(mut self) {
        let id = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(id, Signal::TERM).unwrap();
        let mut ended = None;
        wait_until(SOON, "the shop ends", async || {
            ended = self.child.try_wait().unwrap();
            ended.is_some()
        })
        .await;
        assert!(ended.unwrap().success(), "{}", self.output());
    }
}

/// Expects each of some texts in what a command wrote.
#[track_caller]
fn has(told: &str, texts: &[&str]) {
    for text in texts {
        assert!(told.contains(text), "`{text}` is missing:\n{told}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_sees_why_an_order_stands_still_and_what_moves_it() {
    let mut shop = Shop::standing_still().await;

    has(&shop.told(&["overview"]), &["== orders", "== shipping", "payments", "open dead letters"]);
    wait_until(SOON, "the command of order 7 waits for payments", async || {
        let told = shop.told(&["explain", "order-7"]);
        (told.contains("order-7") && told.contains("payments")).then_some(()).ok_or(told)
    })
    .await;
    has(&shop.told(&["follow", "order-7"]), &["accept", "reserve", "take"]);
    let drawn = shop.told(&["sagas", "show", "order-7", "--mermaid"]);
    has(&drawn, &["flowchart TD", "place-order v1", "reserve-stock", "take-payment"]);

    let groups = shop.told(&["dead-letters", "groups"]);
    has(&groups, &["shipping/tell-customer", "a notice needs a customer with a name"]);
    let redrive = ["--on", "shipping", "--yes", "dead-letters", "redrive"];
    let canary = [&redrive[..], &["--consumer", "shipping", "--canary", "10s"]].concat();
    let stopped = shop.outbox(&canary);
    assert_eq!(stopped.status.code(), Some(5), "{stopped:?}");
    has(&shop.told(&["--on", "shipping", "audit"]), &["redrive", "ann", "stopped"]);

    shop.mend();
    wait_until(SOON, "the saga of order 7 is completed", async || {
        let told = shop.told(&["sagas", "list", "--correlation", "order-7"]);
        told.contains("completed").then_some(()).ok_or(told)
    })
    .await;
    shop.stop().await;
}
