//! The participants' handlers, and their failures.

use crate::trip::{BOOKED, Book, Booked, Cancel, Full};
use outbox_sea_orm::prelude::*;
use sea_orm::ConnectionTrait;

/// Ledgers, and at times rejects, fails or panics.
pub(crate) async fn on_book(command: Book, cx: &HandlerContext) -> Result<(), HandlerError> {
    let (_, amount) = BOOKED.into_iter().find(|(what, _)| *what == command.what).unwrap();
    write(cx, &command.trip, &command.what, amount).await?;
    match fastrand::u8(..100) {
        // The rejection rolls the write back.
        0..5 if command.what == "seat" => Ok(cx.reject(Full { reason: "no seat".into() })?),
        0..5 => Ok(cx.reject_with_reason("fully booked")?),
        5..12 => Err(HandlerError::retry("not this time")),
        12..15 => panic!("a bug"),
        _ if command.what == "seat" => Ok(cx.reply(Booked { amount })?),
        _ => Ok(()),
    }
}

/// Cancels a booking.
pub(crate) async fn on_cancel(command: Cancel, cx: &HandlerContext) -> Result<(), HandlerError> {
    let (_, amount) = BOOKED.into_iter().find(|(what, _)| *what == command.what).unwrap();
    write(cx, &command.trip, &format!("cancel {}", command.what), -amount).await?;
    match fastrand::u8(..100) {
        0..5 => Ok(cx.reject_with_reason("not now")?),
        5..12 => Err(HandlerError::retry("not this time")),
        _ => Ok(()),
    }
}

async fn write(
    cx: &HandlerContext,
    trip: &str,
    entry: &str,
    amount: i64,
) -> Result<(), HandlerError> {
    let sql = format!(
        "INSERT INTO story_ledger (of_trip, entry, amount) VALUES ('{trip}', '{entry}', {amount})"
    );
    cx.tx.execute_unprepared(&sql).await?;
    Ok(())
}
