//! The shop's storm, seen from the page: why an order is not shipped, and what can be done.

use crate::browser::Browser;
use std::{
    io::Write,
    process::{Child, Stdio},
    time::Duration,
};
use tests::{processes::program, wait_until};

/// Long enough for four services that start on a busy machine.
const LATE: Duration = Duration::from_mins(2);

/// A shop whose orders stand still, with its standard input. Dropped, it is killed.
struct Shop {
    child: Child,
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
        wait_until(LATE, "the shop says where to look", async || {
            assert!(shop.child.try_wait().unwrap().is_none(), "{}", shop.output());
            shop.output().contains("In another terminal")
        })
        .await;
        shop
    }

    fn output(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("output")).unwrap()
    }

    /// Gives the address of the page, as the shop prints it.
    fn page(&self) -> String {
        let output = self.output();
        let line = output.lines().find(|line| line.contains("operators look at ")).unwrap();
        let address = line.split("operators look at ").nth(1).unwrap();
        address.split(',').next().unwrap().to_owned()
    }

    fn mend(&mut self) {
        self.child.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_clicks_say_why_an_order_is_not_shipped_and_one_more_what_can_be_done() {
    let (browser, mut shop) = tokio::join!(Browser::open(), Shop::standing_still());
    browser.goto(&shop.page()).await;
    browser.press("Sagas").await;
    browser.open_row("order-7").await;
    // The sentence: what it waits for, since when, and what happens by itself.
    browser.wait_for_text_in(".sentence", "waits for the reply to step take-payment").await;
    browser.press("Follow it over all services").await;
    browser.wait_for_text("What a click would do").await;
    browser.wait_for_text("command sent step take-payment").await;
    shop.mend();
    // It is completed, or it gave up on a busy machine before payments worked again: the open page
    // shows which.
    wait_until(LATE, "the open page shows the end of the saga", async || {
        let text = browser.text().await;
        text.contains("completed") || text.contains("compensated")
    })
    .await;
}
