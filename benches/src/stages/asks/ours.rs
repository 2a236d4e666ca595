//! Our services: a coordinator, a consumer on each side, and a relay on each side, all with their defaults but for how much
//! is in work at once.

use super::{Dispatch, Load, PATIENCE, REPLIES, Services, Work, steps_of, waves};
use crate::{
    load::{ours::Watched, rabbit::Queue},
    stages::{sagas::start, write::INSERT_ORDER},
};
use anyhow::{Context, Result};
use outbox_amqp::{AmqpPublisher, AmqpSubscriber};
use outbox_core::{
    consumer::ConsumerHandle,
    transport::{Publisher, Subscriber},
};
use outbox_sea_orm::prelude::*;
use sea_orm::{ConnectionTrait, DbBackend, Statement};
use std::time::{Duration, Instant};
use tests::servers::rabbitmq;
use tokio::time::timeout;

/// Carries sagas over the transport within the process.
pub(super) async fn in_process(services: &Services, load: Load) -> Result<Duration> {
    carry(services, load, Memory::channel(), Memory::channel()).await
}

/// Carries sagas over RabbitMQ, with a queue for commands and one for answers.
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

/// Gives a coordinator of the sagas here.
pub(super) async fn coordinator(outbox: &Outbox, at_once: usize) -> Result<Sagas> {
    let sagas =
        Sagas::builder(outbox).register(Dispatch::saga()).reply_to(REPLIES).concurrency(at_once);
    Ok(sagas.start().await?)
}

/// Lets running services carry sagas that are there already. The time runs from the start of the coordinator until the last
/// saga is completed and the last message deleted.
async fn carry<P: Publisher, S: Subscriber>(
    services: &Services,
    load: Load,
    (commands, to_asked): (P, S),
    (answers, to_asking): (P, S),
) -> Result<Duration> {
    let (asking, asked, at_once) = (&services.asking.outbox, &services.asked.outbox, load.at_once);
    let all = u64::from(steps_of(waves(load).iter().map(|(count, _)| count).sum()));
    let starter = coordinator(asking, at_once).await?;
    starter.shutdown(PATIENCE).await?;
    // What it takes is due at once, for whoever carries sagas then.
    let takes =
        Consumer::new("asking", asking).replies(&starter).concurrency(at_once).subscribe(to_asking);
    let does = Consumer::new("asked", asked)
        .on_command("work", work)
        .commands_from("bench", REPLIES)
        .concurrency(at_once)
        .subscribe(to_asked);
    let (takes, does) = (takes.start().await?, does.start().await?);
    let (sent, answered) = (Watched::new(asking, all), Watched::new(asked, all));
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
        sagas.shutdown(PATIENCE).await?;
    }
    for relay in relays {
        relay.shutdown(PATIENCE).await?;
    }
    takes.shutdown(PATIENCE).await?;
    does.shutdown(PATIENCE).await?;
    Ok(took)
}

/// Waits until so many answers are taken and committed: the last one of a saga completes it.
async fn handled(takes: &ConsumerHandle, answers: u32) -> Result<()> {
    let mut stats = takes.stats();
    let handled = stats.wait_for(|stats| stats.handled >= u64::from(answers));
    timeout(PATIENCE, handled).await.context("the sagas stand still")??;
    Ok(())
}

/// Does a step. That it is done is answered by the consumer.
async fn work(command: Work, cx: &HandlerContext) -> Result<(), HandlerError> {
    let call = cx.call().ok_or_else(|| HandlerError::reject("it is no command of a saga"))?;
    let values = [call.step.as_str().into(), command.number.into()];
    cx.tx
        .execute_raw(Statement::from_sql_and_values(DbBackend::Postgres, INSERT_ORDER, values))
        .await?;
    Ok(())
}
