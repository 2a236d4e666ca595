//! What the consumers of the stories do, in the test and in its victims alike.

use super::event::Told;
use outbox_sea_orm::{
    Outbox, OutboxTransaction,
    consumer::{Consumer, HandlerContext, HandlerError},
    failure::RetryPolicy,
};
use sea_orm::{ConnectionTrait, DbErr};
use std::{io::Write, time::Duration};

pub(crate) type Cx = HandlerContext<OutboxTransaction>;

/// How soon what a dead consumer had claimed is another's.
const CLAIM: Duration = Duration::from_secs(1);

/// What a handler does: one row, in the transaction of its inbox row.
pub(crate) async fn effect(event: Told, cx: &Cx) -> Result<(), DbErr> {
    let (message, told) = (cx.message().id, format!("{} {}", event.key, event.n));
    let sql = format!("INSERT INTO story_effects (message, told) VALUES ('{message}', '{told}')");
    cx.tx.execute_unprepared(&sql).await.map(|_| ())
}

/// The same with trouble: of five, the second succeeds at its third attempt, and the third is rejected.
async fn troubled(event: Told, cx: &Cx) -> Result<(), HandlerError> {
    let (fifth, attempt) = (event.n % 5, cx.attempt());
    effect(event, cx).await?;
    match fifth {
        2 if attempt < 3 => Err("not yet".into()),
        3 => Err(HandlerError::reject("never")),
        _ => Ok(()),
    }
}

/// Asks for a moment first; then one of them ends its process, each time.
async fn killing(event: Told, cx: &Cx) -> Result<(), HandlerError> {
    let kills = event.n == 3 && event.key == "k0";
    effect(event, cx).await?;
    match cx.attempt() {
        1 => Err(HandlerError::snooze(Duration::from_millis(200))),
        _ if kills => std::process::abort(),
        _ => Ok(()),
    }
}

/// One of them ends its process, each time it is run.
async fn aborting(event: Told, cx: &Cx) -> Result<(), DbErr> {
    let kills = event.n == 2 && event.key == "k2";
    effect(event, cx).await?;
    if kills {
        std::process::abort();
    }
    Ok(())
}

/// Does its work, says so, and never returns.
async fn holding(event: Told, cx: &Cx) -> Result<(), HandlerError> {
    effect(event, cx).await?;
    writeln!(std::io::stdout(), "holds")?;
    std::future::pending().await
}

/// A consumer with the handler of that name; what it retries is stored, and soon due.
pub(crate) fn consumer(outbox: &Outbox, handler: &str) -> Consumer<Outbox> {
    let consumer = Consumer::new("story", outbox);
    let consumer = match handler {
        "troubled" => consumer.on("troubled", troubled),
        "killing" => consumer.on("killing", killing),
        "aborting" => consumer.on("aborting", aborting),
        // Under the other's name, so that both may have one message.
        "holding" => return consumer.on("effect", holding).lease(CLAIM),
        _ => return consumer.on("effect", effect).lease(CLAIM),
    };
    let retry = RetryPolicy::attempts(5, Duration::from_millis(100)).factor(1.0);
    consumer.retry(retry).hold(Duration::ZERO).lease(CLAIM)
}
