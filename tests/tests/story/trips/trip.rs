//! A trip over two services, and the failures of its local steps.

use outbox_sea_orm::prelude::*;
use sea_orm::ConnectionTrait;
use serde::{Deserialize, Serialize};

/// The topic for the participants' replies.
pub(crate) const REPLIES: &str = "trips.replies";

/// The remote steps, and what each of them books.
pub(crate) const BOOKED: [(&str, i64); 3] = [("seat", 10), ("room", 5), ("pay", 100)];

/// The role of a process.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Role {
    /// Its service's database.
    pub(crate) url: String,
    /// Whether it drives the sagas, or is a participant.
    pub(crate) drives_sagas: bool,
    /// The queue that it receives from, and the one that it sends to.
    pub(crate) receives: String,
    pub(crate) sends: String,
    pub(crate) seed: u64,
    pub(crate) lease_ms: u64,
}

/// The saga's data.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Trip {
    pub(crate) number: i64,
}

#[derive(Debug, Serialize, Deserialize, OutboxEvent)]
#[outbox(type = "trip.book", topic = "trips", no_key)]
pub(crate) struct Book {
    pub(crate) what: String,
    pub(crate) trip: String,
}

#[derive(Debug, Serialize, Deserialize, OutboxEvent)]
#[outbox(type = "trip.cancel", topic = "trips", no_key)]
pub(crate) struct Cancel {
    pub(crate) what: String,
    pub(crate) trip: String,
}

#[derive(Debug, Serialize, Deserialize, OutboxEvent)]
#[outbox(type = "trip.booked", no_key)]
pub(crate) struct Booked {
    pub(crate) amount: i64,
}

#[derive(Debug, Serialize, Deserialize, OutboxEvent)]
#[outbox(type = "trip.full", no_key)]
pub(crate) struct Full {
    pub(crate) reason: String,
}

#[saga(name = "story-trip", version = 1)]
impl Trip {
    #[step(compensate = release, retry(max_attempts = 30, backoff = "5ms", max_backoff = "40ms"),
           compensate_retry(max_attempts = 30, backoff = "5ms", max_backoff = "40ms"))]
    async fn hold(&mut self, cx: &StepContext) -> Result<(), StepError> {
        at_times("hold")?;
        book(&cx.tx, cx.correlation(), "hold", 1).await
    }

    #[step(reply = Booked, reject = Full, timeout = "1s", compensate = cancel_seat,
           compensate_retry(max_attempts = 100, backoff = "5ms", max_backoff = "40ms"))]
    async fn seat(&mut self, cx: &StepContext) -> Result<Book, StepError> {
        at_times("seat")?;
        Ok(self.command("seat", cx))
    }

    #[step(remote, timeout = "1s", compensate = cancel_room,
           compensate_retry(max_attempts = 100, backoff = "5ms", max_backoff = "40ms"))]
    async fn room(&mut self, cx: &StepContext) -> Result<Book, StepError> {
        Ok(self.command("room", cx))
    }

    #[step(
        remote,
        timeout = "1s",
        pivot,
        retry(max_attempts = 30, backoff = "5ms", max_backoff = "40ms")
    )]
    async fn pay(&mut self, cx: &StepContext) -> Result<Book, StepError> {
        at_times("pay")?;
        Ok(self.command("pay", cx))
    }

    #[step(retry(max_attempts = 30, backoff = "5ms", max_backoff = "40ms"))]
    async fn tell(&mut self, cx: &StepContext) -> Result<(), StepError> {
        at_times("tell")?;
        book(&cx.tx, cx.correlation(), "tell", 0).await
    }

    async fn release(&mut self, cx: &StepContext) -> Result<(), StepError> {
        at_times("release")?;
        book(&cx.tx, cx.correlation(), "release", -1).await
    }

    async fn cancel_seat(
        &mut self,
        booked: Option<Booked>,
        cx: &StepContext,
    ) -> Result<Cancel, StepError> {
        assert!(
            booked.is_none_or(|booked| booked.amount == 10),
            "the compensation takes the reply"
        );
        Ok(Cancel { what: "seat".into(), trip: cx.correlation().to_owned() })
    }

    async fn cancel_room(&mut self, cx: &StepContext) -> Result<Cancel, StepError> {
        Ok(Cancel { what: "room".into(), trip: cx.correlation().to_owned() })
    }
}

impl Trip {
    fn command(&self, what: &str, cx: &StepContext) -> Book {
        assert_eq!(cx.correlation(), format!("trip-{}", self.number));
        Book { what: what.to_owned(), trip: cx.correlation().to_owned() }
    }
}

/// Fails at times.
fn at_times(what: &str) -> Result<(), StepError> {
    if fastrand::u8(..100) < 8 {
        Err(StepError::retry(format!("no {what} this time")))
    } else {
        Ok(())
    }
}

async fn book(
    tx: &OutboxTransaction,
    trip: &str,
    entry: &str,
    amount: i64,
) -> Result<(), StepError> {
    let sql = format!(
        "INSERT INTO story_ledger (of_trip, entry, amount) VALUES ('{trip}', '{entry}', {amount})"
    );
    tx.execute_unprepared(&sql).await?;
    Ok(())
}
