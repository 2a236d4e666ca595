//! Our services: a coordinator, a consumer on each side, and a relay on each side, with all
//! defaults but the concurrency.

use super::{Dispatch, Load, REPLIES, Services, TIME_LIMIT, Work, steps_of, waves};
use crate::{
    load::{ours::MeteredOutbox, rabbit::Queue},
    stages::{sagas::start, write::INSERT_ORDER},
};
use anyhow::{Context, Result};
use outbox_amqp::{AmqpPublisher, AmqpSubscriber};
use outbox_core::{
    consumer::Consumer,
    transport::{Publisher, Subscriber},
};
use outbox_sea_orm::prelude::*;
use sea_orm::{ConnectionTrait, DbBackend, Statement};
use std::time::{Duration, Instant};
use tests::servers::rabbitmq;
use tokio::time::timeout;

/// Runs sagas over the in-process transport.
pub(super) async fn in_process(services: &Services, load: Load) -> Result<Duration> {
    carry(services, load, Memory::channel(), Memory::channel()).await
}

/// Runs sagas over RabbitMQ, with a queue for commands and one for replies.
pub(super) async fn by_rabbit(services: &Services, load: Load) -> Result<Duration> {
    let (commands, answers) = (Queue::declare().await?, Queue::declare().await?);
    let took = carry(services, load, both_ends(&commands)?, both_ends(&answers)?).await?;
    commands.delete().await?;
    answers.delete().await?;
    Ok(took)
}

fn both_ends(queue: &Queue) -> Result<(AmqpPublisher, AmqpSubscriber)> {
    let url = rabbitmq::shared_url();
    Ok((
        AmqpPublisher::new(&url)?.queue(queue.name()).build()?,
        AmqpSubscriber::new(&url, queue.name())?.build()?,
    ))
}

/// Starts a coordinator of the sagas here.
pub(super) async fn coordinator(outbox: &Outbox, at_once: usize) -> Result<Sagas> {
    let sagas =
        Sagas::builder(outbox).register(Dispatch::saga()).reply_to(REPLIES).concurrency(at_once);
    Ok(sagas.start().await?)
}

/// Writes a saga that nobody runs.
pub(super) async fn start_one(outbox: &Outbox) -> Result<()> {
    let starter = coordinator(outbox, 1).await?;
    starter.shutdown(TIME_LIMIT).await?;
    start(outbox, &starter, 1, |number| Dispatch { number }).await
}

/// Runs existing sagas by running services. The time runs from the start of the coordinator until
/// the last saga is completed and the last message deleted.
async fn carry<P: Publisher, S: Subscriber>(
    services: &Services,
    load: Load,
    (commands, to_asked): (P, S),
    (answers, to_asking): (P, S),
) -> Result<Duration> {
    let (asking, asked, at_once) = (&services.asking.outbox, &services.asked.outbox, load.at_once);
    let all = u64::from(steps_of(waves(load).iter().map(|(count, _)| count).sum()));
    let starter = coordinator(asking, at_once).await?;
    starter.shutdown(TIME_LIMIT).await?;
    // The replies that it accepts make sagas due at once, for the next coordinator.
    let takes = Consumer::builder("asking", asking)
        .replies(&starter)
        .concurrency(at_once)
        .subscribe(to_asking);
    let does = Consumer::builder("asked", asked)
        .on_command("work", work)
        .commands_from("bench", REPLIES)
        .concurrency(at_once)
        .subscribe(to_asked);
    let (takes, does) = (takes.start().await?, does.start().await?);
    let (sent, answered) = (MeteredOutbox::new(asking, all), MeteredOutbox::new(asked, all));
    let relays = [sent.start(commands).await?, answered.start(answers).await?];
    let (mut took, mut steps) = (Duration::ZERO, 0);
    for (count, first) in waves(load) {
        start(asking, &starter, count, |number| Dispatch { number: first + number }).await?;
        steps += steps_of(count);
        let begun = Instant::now();
        let sagas = coordinator(asking, at_once).await?;
        handled(&takes, steps).await?;
        if u64::from(steps) == all {
            sent.all().await?;
            answered.all().await?;
        }
        took = begun.elapsed();
        sagas.shutdown(TIME_LIMIT).await?;
    }
    for relay in relays {
        relay.shutdown(TIME_LIMIT).await?;
    }
    takes.shutdown(TIME_LIMIT).await?;
    does.shutdown(TIME_LIMIT).await?;
    Ok(took)
}

/// Waits until so many replies are accepted and committed: the last one of a saga completes it.
async fn handled(takes: &Consumer, answers: u32) -> Result<()> {
    let mut stats = takes.stats();
    let handled = stats.wait_for(|stats| stats.handled >= u64::from(answers));
    timeout(TIME_LIMIT, handled).await.context("the sagas stand still")??;
    Ok(())
}

/// Runs a step. The consumer replies that it is done.
async fn work(command: Work, cx: &HandlerContext) -> Result<(), HandlerError> {
    let call = cx.command_id().ok_or_else(|| HandlerError::reject("it is no command of a saga"))?;
    let values = [call.step.as_str().into(), command.number.into()];
    cx.tx
        .execute_raw(Statement::from_sql_and_values(DbBackend::Postgres, INSERT_ORDER, values))
        .await?;
    Ok(())
}
