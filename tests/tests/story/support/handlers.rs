//! Handlers of the tests' consumers, in the test process and in its victims alike.

use super::event::Sample;
use outbox_sea_orm::{
    Outbox, OutboxTransaction,
    consumer::{Consumer, ConsumerBuilder, HandlerContext, HandlerError},
    failure::RetryPolicy,
};
use sea_orm::{ConnectionTrait, DbErr};
use std::{io::Write, time::Duration};

pub(crate) type Cx = HandlerContext<OutboxTransaction>;

/// The lease of a consumer's claims: after it another consumer takes over what a dead one had claimed.
const CLAIM: Duration = Duration::from_secs(1);

/// Inserts one row, in the transaction of the inbox row.
pub(crate) async fn effect(event: Sample, cx: &Cx) -> Result<(), DbErr> {
    let (message, sample) = (cx.message().id, format!("{} {}", event.key, event.n));
    let sql =
        format!("INSERT INTO story_effects (message, sample) VALUES ('{message}', '{sample}')");
    cx.tx.execute_unprepared(&sql).await.map(|_| ())
}

/// Inserts as `effect` does; of five events the second fails twice, and the third is rejected.
async fn troubled(event: Sample, cx: &Cx) -> Result<(), HandlerError> {
    let (fifth, attempt) = (event.n % 5, cx.attempt());
    effect(event, cx).await?;
    match fifth {
        2 if attempt < 3 => Err("not yet".into()),
        3 => Err(HandlerError::reject("never")),
        _ => Ok(()),
    }
}

/// Snoozes at the first attempt; then one event aborts its process at each attempt.
async fn killing(event: Sample, cx: &Cx) -> Result<(), HandlerError> {
    let kills = event.n == 3 && event.key == "k0";
    effect(event, cx).await?;
    match cx.attempt() {
        1 => Err(HandlerError::snooze(Duration::from_millis(200))),
        _ if kills => std::process::abort(),
        _ => Ok(()),
    }
}

/// Inserts; one event aborts its process at each attempt.
async fn aborting(event: Sample, cx: &Cx) -> Result<(), DbErr> {
    let kills = event.n == 2 && event.key == "k2";
    effect(event, cx).await?;
    if kills {
        std::process::abort();
    }
    Ok(())
}

/// Inserts, prints a line, and never returns.
async fn holding(event: Sample, cx: &Cx) -> Result<(), HandlerError> {
    effect(event, cx).await?;
    writeln!(std::io::stdout(), "holds")?;
    std::future::pending().await
}

/// A consumer with the handler of that name; its retries are deferred, and soon due.
pub(crate) fn consumer(outbox: &Outbox, handler: &str) -> ConsumerBuilder<Outbox> {
    let consumer = Consumer::builder("story", outbox);
    let consumer = match handler {
        "troubled" => consumer.on("troubled", troubled),
        "killing" => consumer.on("killing", killing),
        "aborting" => consumer.on("aborting", aborting),
        // Under the other's name, so that both may have one message.
        "holding" => return consumer.on("effect", holding).lease(CLAIM),
        _ => return consumer.on("effect", effect).lease(CLAIM),
    };
    let retry = RetryPolicy::attempts(5, Duration::from_millis(100)).factor(1.0);
    consumer.retry(retry).max_unacked_time(Duration::ZERO).lease(CLAIM)
}
