//! Four services with a database each: an order goes through all of them, or is undone in all of them.
//!
//! `orders/`, `payments.rs`, `stock.rs` and `shipping.rs` are the services as users write them, `events.rs` is what they say to
//! each other. `orders/saga.rs` is orchestrated: it asks the others and goes on by their answers. `notices.rs` is
//! choreographed: it listens, and nobody asks it. `service/` runs them, `story/` shows what happens.
//!
//! `next/` is what the next release changes: the programs `shop` and `shop-next` run side by side during a rollout.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "an example speaks to its reader")]
#![expect(unreachable_pub, reason = "written as a library would be")]

mod events;
mod next;
mod notices;
mod options;
mod orders;
mod payments;
mod service;
mod shipping;
mod stock;
mod story;

use options::{Command, Options, USAGE};
use service::Place;
use std::process::ExitCode;
use story::{Figures, Shop};

/// A release of the shop.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Release {
    /// This one.
    #[default]
    This,
    /// The one that follows it.
    Next,
}

/// A command line that cannot be understood.
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
    // RUST_LOG=debug shows what the outbox itself has to say.
    if std::env::var_os("RUST_LOG").is_some() {
        let filter = tracing_subscriber::EnvFilter::from_default_env();
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    }
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
    // The client that customers use asks for a provider of cryptography, though nothing here is encrypted.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let place = Place::choose(options.database.clone(), options.data.clone())?;
    let mut shop = Shop::open(&place, &options).await?;
    let [orders, payments, stock, shipping] = shop.services().map(|service| service.url());
    println!(
        "orders at {orders}, payments at {payments}, stock at {stock}, shipping at {shipping}"
    );
    println!("{place}");
    let told = if options.serve {
        story::serve(&mut shop).await
    } else {
        story::tell(&mut shop, &options).await
    };
    shop.stop().await?;
    let figures = Figures::read(&shop).await?;
    println!("\n{figures}");
    told?;
    Ok(figures.is_well())
}
