//! Four services with a database each: an order is completed in all of them, or compensated in all
//! of them.
//!
//! `orders/`, `payments.rs`, `stock.rs` and `shipping.rs` are the services as users write them,
//! `events.rs` has their messages. `orders/saga.rs` is orchestrated: it sends commands and
//! continues by the replies. `notices.rs` is choreographed: it subscribes to events. `service/`
//! runs them, `story/` shows what happens.
//!
//! `operations.rs` has what operators look at while the shop serves.
//!
//! `next/` has the changes of the next release: the programs `shop` and `shop-next` run side by
//! side during a rollout.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "an example speaks to its reader")]
#![expect(unreachable_pub, reason = "written as a library would be")]

mod events;
mod next;
mod notices;
mod operations;
mod options;
mod orders;
mod payments;
mod service;
mod shipping;
mod stock;
mod story;
mod telemetry;

use options::{Command, Options, USAGE};
use service::Location;
use std::process::ExitCode;
use story::{Figures, Shop};
use telemetry::Telemetry;

/// A release of the shop.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Release {
    /// The present one.
    #[default]
    This,
    /// The next one.
    Next,
}

/// An invalid command line.
const MISUSED: u8 = 2;

/// Runs a release of the shop as the command line says.
pub async fn main(release: Release) -> ExitCode {
    let options = match options::parse(std::env::args().skip(1)) {
        Ok(Command::Run(options)) => Options { release, ..options },
        Ok(Command::Help) => {
            print!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        Err(faults) => {
            eprintln!("{}\n\n{USAGE}", faults.join("\n"));
            return MISUSED.into();
        }
    };
    match run(options).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("the shop failed: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runs the shop; `false` when a promise was broken.
async fn run(options: Options) -> anyhow::Result<bool> {
    // The HTTP client of the customers needs a provider of cryptography, though nothing here is
    // encrypted.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let telemetry = Telemetry::start()?;
    let location = Location::choose(options.database.clone(), options.data.clone())?;
    let mut shop = Shop::open(&location, &options).await?;
    for service in shop.services() {
        telemetry.database(service.name, &service.outbox);
    }
    let [orders, payments, stock, shipping] = shop.services().map(|service| service.url());
    println!(
        "orders at {orders}, payments at {payments}, stock at {stock}, shipping at {shipping}"
    );
    println!("{location}");
    let ended = if options.serve {
        story::serve(&mut shop, &location, &options).await
    } else {
        story::run(&mut shop, &options).await
    };
    shop.stop().await?;
    telemetry.stop().await?;
    let figures = Figures::read(&shop).await?;
    println!("\n{figures}");
    ended?;
    // Where orders were left standing on purpose, the figures only tell.
    Ok(figures.is_well() || (options.serve && options.faults))
}
