//! Signed webhooks to customers, each over a route of its own.
//!
//! The endpoint of Bolt is broken. Its events are tried for a while, here two seconds, in life three
//! days; then the first dead letter disables the webhook: the route is paused, Bolt is told, and no
//! further attempt is made or counted. Acme notices nothing. When Bolt has repaired its endpoint, it is
//! enabled again, and everything is replayed, in order.
#![expect(clippy::print_stdout, reason = "an example speaks to its reader")]

mod customer;

use customer::Customer;
use outbox_core::admin::{ControlAction, ControlScope, ControlStore};
use outbox_http::HttpPublisher;
use outbox_sea_orm::{
    admin::{AdminStore, DeadLetterFilter, OperatorNote, redrive_all},
    failure::DeadLetter,
    prelude::*,
};
use sea_orm::Database;
use serde::{Deserialize, Serialize};
use std::{error::Error, sync::Arc, time::Duration};
use tokio::sync::watch;

const SOON: Duration = Duration::from_secs(30);

#[derive(Debug, Serialize, Deserialize, OutboxEvent)]
#[outbox(type = "invoice.created", topic = "webhooks")]
struct InvoiceCreated {
    #[outbox(header = "customer")] // chooses the route
    customer: String,
    #[outbox(key)] // invoices of one account keep their order
    account: String,
    number: u32,
}

/// The route of a customer. Its name is stored, and never used for another customer.
fn route(customer: &Customer) -> Result<Route, Box<dyn Error>> {
    let name = customer.name;
    let selector =
        topic("webhooks").only_if(1, move |message| message.headers.get("customer") == Some(name));
    let publisher = HttpPublisher::new(&customer.url)?.signed(customer.secret).allow_loopback();
    let retry = RetryPolicy::default()
        .backoff(Duration::from_millis(100))
        .give_up_after(Duration::from_secs(2));
    // What comes after a dead letter waits behind it, so that the replay is in order.
    Ok(Route::new(format!("customer-{name}"), selector, publisher).retry(retry).park_when_dead())
}

/// Pauses the route of the first dead letter, and tells the customer.
async fn disable(outbox: Outbox, letter: Arc<DeadLetter>, disabled: Arc<watch::Sender<String>>) {
    let note = OperatorNote::new("webhooks", "the endpoint has failed for too long");
    let paused = outbox
        .set_control(ControlScope::Route, &letter.route, ControlAction::Pause, None, &note)
        .await;
    match paused {
        Ok(()) => drop(disabled.send_replace(letter.route.clone())), // here: a mail to the customer
        // The next dead letter comes here again.
        Err(error) => println!("{} could not be disabled: {error}", letter.route),
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let db =
        Database::connect(format!("sqlite://{}/shop.db?mode=rwc", folder.path().display())).await?;
    let outbox = Outbox::builder(db).source("shop").install().await?;

    let acme = Customer::open("acme", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").await?;
    let bolt = Customer::open("bolt", "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD").await?;
    bolt.break_endpoint();

    let (disabled, mut is_disabled) = watch::channel(String::new());
    let (disabled, of_letters) = (Arc::new(disabled), outbox.clone());
    let relay = Relay::builder(&outbox)
        .add_route(route(&acme)?)
        .add_route(route(&bolt)?)
        .on_dead_letter(move |letter| disable(of_letters.clone(), letter, disabled.clone()))
        .start()
        .await?;

    let tx = outbox.begin().await?;
    for number in 1..=3 {
        for customer in [&acme, &bolt] {
            let (customer, account) = (customer.name.to_owned(), format!("{}-1", customer.name));
            tx.emit(InvoiceCreated { customer, account, number })?;
        }
    }
    tx.commit().await?;

    let route = tokio::time::timeout(SOON, is_disabled.wait_for(|name| !name.is_empty())).await??;
    println!(
        "{} is disabled; acme has {:?}, bolt {:?}",
        *route,
        acme.seen(3).await?,
        bolt.seen(0).await?
    );
    drop(route);

    bolt.repair_endpoint();
    let note = OperatorNote::new("bolt", "the endpoint is repaired");
    outbox.end_controls(ControlScope::Route, "customer-bolt", &note).await?;
    let letters = DeadLetterFilter::all().route("customer-bolt");
    let replayed = redrive_all(&outbox, &letters, &note, |_| {}).await?;
    println!("enabled again, {} replayed; bolt has {:?}", replayed.redriven, bolt.seen(3).await?);

    relay.shutdown(Duration::from_secs(5)).await?;
    assert_eq!(outbox.stats().await?.pending, 0);
    Ok(())
}
