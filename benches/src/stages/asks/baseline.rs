//! The same transactions written by hand: no claims, no relays, no transport.

use super::{Dispatch, Load, REPLIES, STEPS, Services, TIME_LIMIT, Work, ours::coordinator, waves};
use crate::{
    load::fill::PARTITIONS,
    stages::{sagas::start, write::INSERT_ORDER},
};
use anyhow::{Result, ensure};
use outbox_core::{event::MessageId, outbox::partition_of};
use sea_orm::sqlx::{
    self, PgPool, Postgres, Row, Transaction,
    types::{JsonValue, Uuid},
};
use serde_json::json;
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};
use tokio::{
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    task::JoinSet,
};

/// Messages that one statement deletes: as many as a relay deletes at most.
const BATCH: usize = 500;
/// Ours has so many saga steps, commands and replies in work at once; a task of the baseline does
/// them one after the other.
const HANDS_EACH: usize = 3;
const NOW: &str = "(extract(epoch FROM statement_timestamp()) * 1000000)::bigint";
/// The timeout of a reply and the retention of the inbox, in microseconds.
const AWAITED: i64 = 600_000_000;
const KEPT: i64 = 7 * 86_400_000_000;

/// A stored message: its partition and id.
type Stored = (i16, i64);

/// A message to write.
struct Written<'a> {
    topic: &'a str,
    event_type: &'a str,
    aggregate_type: Option<&'a str>,
    key: &'a str,
    payload: Vec<u8>,
    headers: JsonValue,
}

/// One task of the baseline: both databases, and the channel of delivered messages.
#[derive(Clone)]
struct Hand {
    asking: PgPool,
    asked: PgPool,
    commands: UnboundedSender<Stored>,
    answers: UnboundedSender<Stored>,
}

/// Runs existing sagas, each from its first step to its last; the time runs until the last message
/// is deleted.
pub(super) async fn carry(services: &Services, load: Load) -> Result<Duration> {
    let (asking, asked) = (&services.asking, &services.asked);
    let starter = coordinator(&asking.outbox, load.at_once).await?;
    starter.shutdown(TIME_LIMIT).await?;
    let mut took = Duration::ZERO;
    for (count, first) in waves(load) {
        start(&asking.outbox, &starter, count, |number| Dispatch { number: first + number })
            .await?;
        let begun = Instant::now();
        // The baseline knows its number of sagas and queries once.
        let due = sqlx::query(
            "SELECT saga_id FROM outbox_sagas WHERE due_at IS NOT NULL ORDER BY due_at",
        );
        let due: Arc<[Uuid]> =
            due.fetch_all(&asking.pool).await?.iter().map(|row| row.get(0)).collect();
        ensure!(due.len() == count as usize, "{} sagas are due", due.len());
        let ((commands, delivered), (answers, taken)) = (unbounded_channel(), unbounded_channel());
        let hand =
            Hand { asking: asking.pool.clone(), asked: asked.pool.clone(), commands, answers };
        let (next, mut hands) = (Arc::new(AtomicUsize::new(0)), JoinSet::new());
        hands.spawn(delete(asking.pool.clone(), delivered));
        hands.spawn(delete(asked.pool.clone(), taken));
        for _ in 0..load.at_once * HANDS_EACH {
            let (hand, due, next) = (hand.clone(), Arc::clone(&due), Arc::clone(&next));
            hands.spawn(async move {
                while let Some(saga) = due.get(next.fetch_add(1, Relaxed)) {
                    for step in STEPS {
                        hand.step(*saga, step).await?;
                    }
                }
                Ok(())
            });
        }
        drop(hand);
        while let Some(ended) = hands.join_next().await {
            ended??;
        }
        took = begun.elapsed();
    }
    Ok(took)
}

/// Deletes delivered messages in batches, as a relay does.
async fn delete(pool: PgPool, mut delivered: UnboundedReceiver<Stored>) -> Result<()> {
    let mut batch = Vec::new();
    while delivered.recv_many(&mut batch, BATCH).await > 0 {
        let (partitions, ids): (Vec<i16>, Vec<i64>) = batch.drain(..).unzip();
        sqlx::query(
            "DELETE FROM outbox_events e USING unnest($1::smallint[], $2::bigint[]) AS d(partition_no, event_id) \
             WHERE e.partition_no = d.partition_no AND e.event_id = d.event_id",
        )
        .bind(partitions)
        .bind(ids)
        .execute(&pool)
        .await?;
    }
    Ok(())
}

impl Hand {
    async fn step(&self, saga: Uuid, step: &str) -> Result<()> {
        let mut call = json!({ "sagaid": saga, "sagastep": step, "sagaround": "1", "sagaphase": "do", "correlationid": saga });
        let (command, stored, work) = self.ask(saga, step, &call).await?;
        call["causationid"] = json!(command);
        let (answer, answered) = self.work(saga, step, command, &work, call).await?;
        self.commands.send(stored)?;
        self.complete(saga, step, answer).await?;
        self.answers.send(answered)?;
        Ok(())
    }

    /// The step's first transaction: progress, record and command.
    async fn ask(
        &self,
        saga: Uuid,
        step: &str,
        call: &JsonValue,
    ) -> Result<(Uuid, Stored, Vec<u8>)> {
        let mut tx = self.asking.begin().await?;
        let (mut progress, data, seq) = open(&mut tx, saga).await?;
        let dispatch: Dispatch = serde_json::from_str(&data)?;
        let work = Work::new(dispatch.number)?;
        let payload = serde_json::to_vec(&work)?;
        let mut headers = call.clone();
        headers["replyto"] = json!(REPLIES);
        let (id, stored) = insert(
            &mut tx,
            Written {
                topic: "work",
                event_type: "work.do",
                aggregate_type: Some("order"),
                key: &work.order,
                payload: payload.clone(),
                headers,
            },
        )
        .await?;
        let (pivot, compensates, sends, reply_due_us) = (false, false, 1, AWAITED);
        if let Some(steps) = progress["steps"].as_array_mut() {
            let command = json!({ "round": 1, "sends": sends, "reply_due_us": reply_due_us });
            steps.push(json!({ "step": step, "state": "waiting", "failures": 0, "failing_us": 0, "unfinished_attempts": 0,
                "pivot": pivot, "compensates": compensates, "command": command }));
        }
        let body = json!({ "command_sent": { "step": step, "data": dispatch, "pivot": pivot, "compensates": compensates,
            "sends": sends, "reply_due_us": reply_due_us } });
        log(&mut tx, saga, seq + 1, "command_sent", Some(step), &body).await?;
        let update = format!(
            "UPDATE outbox_sagas SET progress = $1, data = $2, seq = $3, changed_at = {NOW}, due_at = {NOW} + $4 \
             WHERE saga_id = $5"
        );
        sqlx::query(sqlx::AssertSqlSafe(update))
            .bind(progress.to_string())
            .bind(serde_json::to_string(&dispatch)?)
            .bind(seq + 1)
            .bind(AWAITED)
            .bind(saga)
            .execute(&mut *tx)
            .await?;
        tx.commit().await?;
        Ok((id, stored, payload))
    }

    /// The second, of the other service: inbox row, barrier row, effect and reply.
    async fn work(
        &self,
        saga: Uuid,
        step: &str,
        command: Uuid,
        payload: &[u8],
        headers: JsonValue,
    ) -> Result<(Uuid, Stored)> {
        let work: Work = serde_json::from_slice(payload)?;
        let mut tx = self.asked.begin().await?;
        receive(&mut tx, ["asked", "work"], command).await?;
        let note = format!(
            "INSERT INTO outbox_saga_barrier (consumer, saga_id, step, round, phase, outcome, written_at, keep_until) \
             VALUES ($1, $2, $3, $4, $5, $6, {NOW}, {NOW} + $7) ON CONFLICT DO NOTHING"
        );
        let noted = sqlx::query(sqlx::AssertSqlSafe(note))
            .bind("asked")
            .bind(saga)
            .bind(step)
            .bind(1_i64)
            .bind("do")
            .bind("done")
            .bind(KEPT)
            .execute(&mut *tx)
            .await?;
        ensure!(noted.rows_affected() == 1, "the step `{step}` of {saga} was done already");
        sqlx::query(INSERT_ORDER).bind(step).bind(work.number).execute(&mut *tx).await?;
        let (key, payload) = (saga.to_string(), b"null".to_vec());
        let answer = Written {
            topic: REPLIES,
            event_type: "outbox.saga.done",
            aggregate_type: None,
            key: &key,
            payload,
            headers,
        };
        let written = insert(&mut tx, answer).await?;
        tx.commit().await?;
        Ok(written)
    }

    /// The third: inbox row, progress and record; of the last step the saga's end too.
    async fn complete(&self, saga: Uuid, step: &str, answer: Uuid) -> Result<()> {
        let mut tx = self.asking.begin().await?;
        receive(&mut tx, ["asking", "replies"], answer).await?;
        let (mut progress, _, seq) = open(&mut tx, saga).await?;
        if let Some(known) = progress["steps"].as_array_mut().and_then(|steps| steps.last_mut()) {
            known["state"] = json!("done");
            known["output"] = JsonValue::Null;
        }
        let body = json!({ "done": { "step": step, "output": null, "pivot": false, "compensates": false, "attempt": 1 } });
        log(&mut tx, saga, seq + 1, "done", Some(step), &body).await?;
        let is_last = STEPS.last() == Some(&step);
        let next = if is_last {
            log(&mut tx, saga, seq + 2, "completed", None, &json!("completed")).await?;
            format!("state = 'completed', due_at = NULL, ended_at = {NOW}")
        } else {
            format!("due_at = {NOW}")
        };
        let update = format!(
            "UPDATE outbox_sagas SET progress = $1, seq = $2, changed_at = {NOW}, {next} WHERE saga_id = $3"
        );
        sqlx::query(sqlx::AssertSqlSafe(update))
            .bind(progress.to_string())
            .bind(seq + 1 + i64::from(is_last))
            .bind(saga)
            .execute(&mut *tx)
            .await?;
        tx.commit().await?;
        Ok(())
    }
}

/// Locks a saga's row; gives its progress, its data, and the length of its log.
async fn open(tx: &mut Transaction<'_, Postgres>, saga: Uuid) -> Result<(JsonValue, String, i64)> {
    let open =
        sqlx::query("SELECT progress, data, seq FROM outbox_sagas WHERE saga_id = $1 FOR UPDATE")
            .bind(saga);
    let row = open.fetch_one(&mut **tx).await?;
    Ok((serde_json::from_str(row.get(0))?, row.get(1), row.get(2)))
}

async fn log(
    tx: &mut Transaction<'_, Postgres>,
    saga: Uuid,
    seq: i64,
    kind: &str,
    step: Option<&str>,
    body: &JsonValue,
) -> Result<()> {
    let log = format!(
        "INSERT INTO outbox_saga_log (saga_id, seq, kind, step, body, at_us) VALUES ($1, $2, $3, $4, $5, {NOW})"
    );
    let log = sqlx::query(sqlx::AssertSqlSafe(log))
        .bind(saga)
        .bind(seq)
        .bind(kind)
        .bind(step)
        .bind(body.to_string());
    log.execute(&mut **tx).await?;
    Ok(())
}

/// Inserts the inbox row of a handler's message; fails where there is one.
async fn receive(
    tx: &mut Transaction<'_, Postgres>,
    [consumer, handler]: [&str; 2],
    message: Uuid,
) -> Result<()> {
    let receive = format!(
        "INSERT INTO outbox_inbox (consumer, handler, source, message_id, keep_until) \
         VALUES ($1, $2, $3, $4, {NOW} + $5) ON CONFLICT DO NOTHING"
    );
    let received = sqlx::query(sqlx::AssertSqlSafe(receive))
        .bind(consumer)
        .bind(handler)
        .bind("bench")
        .bind(message)
        .bind(KEPT)
        .execute(&mut **tx)
        .await?;
    ensure!(received.rows_affected() == 1, "{message} was received already");
    Ok(())
}

/// Writes one message; gives its id, partition and position.
async fn insert(
    tx: &mut Transaction<'_, Postgres>,
    message: Written<'_>,
) -> Result<(Uuid, Stored)> {
    let Written { topic, event_type, aggregate_type, key, payload, headers } = message;
    let id = MessageId::generate();
    let partition = i16::try_from(partition_of(Some(key), id, PARTITIONS).0)?;
    let insert = format!(
        "INSERT INTO outbox_events (partition_no, message_id, source, topic, event_type, event_version, aggregate_type, \
         message_key, content_type, payload, headers, created_at, expires_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, \
         $9, $10, $11, {NOW}, NULL) RETURNING event_id"
    );
    let row = sqlx::query(sqlx::AssertSqlSafe(insert))
        .bind(partition)
        .bind(*id.as_uuid())
        .bind("bench")
        .bind(topic)
        .bind(event_type)
        .bind(1_i32)
        .bind(aggregate_type)
        .bind(key)
        .bind("application/json")
        .bind(payload)
        .bind(headers.to_string())
        .fetch_one(&mut **tx)
        .await?;
    Ok((*id.as_uuid(), (partition, row.get(0))))
}
