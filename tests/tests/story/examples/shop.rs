//! The shop, on every database, with and without faults.

use crate::support::LATE;
use tests::{
    databases::{Database, TempDatabase},
    on_every_database,
    processes::{Process, program},
};

/// Runs the shop and gives the figures at its end by their names.
async fn figures(arguments: &[&str]) -> impl Fn(&str) -> u64 + use<> {
    let mut process = Process::start(program("shop").args(arguments));
    let (status, lines) = process.finish(LATE * 2).await;
    assert!(status.success(), "{status}, {lines:#?}");
    assert!(lines.iter().any(|line| line.contains("books balanced")), "{lines:#?}");
    let lines: Vec<String> = lines.to_vec();
    move |name| {
        let figure = lines
            .iter()
            .rev()
            .find_map(|line| line.trim_start().strip_prefix(name)?.strip_prefix(": "));
        let figure = figure.unwrap_or_else(|| panic!("no {name} in {lines:#?}"));
        figure.split_whitespace().next().unwrap().parse().unwrap()
    }
}

/// The arguments that say where its databases are.
fn place(db: &TempDatabase) -> Vec<&str> {
    if db.database() == Database::Sqlite { Vec::new() } else { vec!["--database", db.url()] }
}

on_every_database! {
    async fn every_order_is_paid_or_declined_and_nothing_is_lost(db: &TempDatabase) {
        let figure = figures(&[&["--orders", "40"][..], &place(db)].concat()).await;
        assert_eq!((figure("orders"), figure("payments"), figure("lost"), figure("dead")), (40, 40, 0, 0));
        assert_eq!((figure("completed"), figure("compensated"), figure("stuck")), (40, 0, 0));
        assert_eq!((figure("parcels"), figure("notices")), (40, 40));
        assert!(figure("delivered") >= 320, "three commands an order and their answers, and what is told to those who listen");
    }

    async fn with_faults_there_is_one_payment_an_order_and_nothing_is_lost(db: &TempDatabase) {
        let some = ["--orders", "100", "--declines", "10", "--no-stock", "7", "--faults"];
        let figure = figures(&[&some[..], &place(db)].concat()).await;
        assert_eq!((figure("orders"), figure("payments"), figure("lost"), figure("dead")), (100, 83, 0, 0));
        assert_eq!((figure("completed"), figure("compensated"), figure("stuck")), (83, 17, 0));
        assert_eq!((figure("parcels"), figure("notices")), (83, 100));
        assert!(figure("retried") > 0 && figure("duplicates") > 0, "there were faults");
    }
}
