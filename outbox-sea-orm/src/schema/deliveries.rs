//! What consumers write beside the inbox, in the transactions of their handlers.

use super::{
    Schema,
    append::{EVENT_COLUMNS, EVENT_MARKS, push_message},
    handover, micros,
};
use crate::{dialect::Dialect, namespace::Tables};
use outbox_core::{
    event::{LetterId, Timestamp},
    failure::AttemptError,
    outbox::{Admission, Awaited, Claim, History, InboxKey, PutBy, lane_of},
};
use sea_orm::{ConnectionTrait, DbErr, Value};
use std::{sync::Arc, time::Duration};

/// Writes the inbox row unless stored deliveries come first, where one statement can say so.
pub(super) fn admit_text(dialect: Dialect, tables: &Tables, keep: Duration) -> Arc<str> {
    let keep = micros(keep);
    let (insert, unless_there) = dialect.insert_if_absent();
    dialect.sql(
        tables,
        &format!(
            "{insert} {{inbox}} (consumer, handler, source, message_id, keep_until) SELECT ?, ?, ?, ?, {{now}} + {keep} \
             WHERE NOT EXISTS (SELECT 1 FROM {{deliveries}} d WHERE d.consumer = ? AND d.handler = ? AND d.lane = ?)\
             {unless_there}"
        ),
    )
}

const LANE: &str = "consumer = ? AND handler = ? AND lane = ?";

impl Schema {
    /// Notes that a message was received, unless it had been already or stored deliveries of its lane come first.
    ///
    /// # Errors
    /// As [`receive`](Self::receive).
    pub async fn admit<C: ConnectionTrait>(
        &self,
        conn: &C,
        key: InboxKey<'_>,
        lane: Option<i64>,
    ) -> Result<Admission, DbErr> {
        let Some(lane) = lane else {
            return Ok(if self.receive(conn, key).await? {
                Admission::First
            } else {
                Admission::Repeat
            });
        };
        super::inbox::check(&key)?;
        let place = [Value::from(key.consumer), Value::from(key.handler), Value::from(lane)];
        if self.dialect.is_mysql() {
            // There, an insert from a selection locks what it has read, and what it has not found.
            let text = self.filled(&format!("SELECT 1 FROM {{deliveries}} WHERE {LANE} LIMIT 1"));
            if conn.query_one_raw(self.statement(&text, place.to_vec())).await?.is_none() {
                return Ok(if self.receive(conn, key).await? {
                    Admission::First
                } else {
                    Admission::Repeat
                });
            }
        } else {
            let mut bound = super::inbox::values(&key);
            bound.extend(place);
            if conn.execute_raw(self.statement(&self.admit, bound)).await?.rows_affected() > 0 {
                return Ok(Admission::First);
            }
        }
        Ok(if self.is_known(conn, &key).await? { Admission::Repeat } else { Admission::Behind })
    }

    /// Says what [`admit`](Self::admit) would say at this moment, without writing.
    ///
    /// # Errors
    /// As [`receive`](Self::receive).
    pub(crate) async fn admission<C: ConnectionTrait>(
        &self,
        conn: &C,
        key: InboxKey<'_>,
        lane: Option<i64>,
    ) -> Result<Admission, DbErr> {
        super::inbox::check(&key)?;
        if self.is_known(conn, &key).await? {
            return Ok(Admission::Repeat);
        }
        let Some(lane) = lane else { return Ok(Admission::First) };
        let text = self.filled(&format!("SELECT 1 FROM {{deliveries}} WHERE {LANE} LIMIT 1"));
        let place = vec![Value::from(key.consumer), Value::from(key.handler), Value::from(lane)];
        let stored = conn.query_one_raw(self.statement(&text, place)).await?;
        Ok(if stored.is_some() { Admission::Behind } else { Admission::First })
    }

    /// Tells whether a message was received before.
    ///
    /// # Errors
    /// As [`receive`](Self::receive).
    pub(crate) async fn is_received<C: ConnectionTrait>(
        &self,
        conn: &C,
        key: InboxKey<'_>,
    ) -> Result<bool, DbErr> {
        super::inbox::check(&key)?;
        self.is_known(conn, &key).await
    }

    async fn is_known<C: ConnectionTrait>(
        &self,
        conn: &C,
        key: &InboxKey<'_>,
    ) -> Result<bool, DbErr> {
        let text =
            self.filled("SELECT 1 FROM {inbox} WHERE consumer = ? AND handler = ? AND source = ? AND message_id = ?");
        Ok(conn.query_one_raw(self.statement(&text, super::inbox::values(key))).await?.is_some())
    }

    /// Stores a delivery; one that is stored already stays as it is. `false` when it should go behind others of its lane
    /// and there are none.
    ///
    /// # Errors
    /// What the database said.
    pub async fn put_by<C: ConnectionTrait>(
        &self,
        conn: &C,
        delivery: &PutBy<'_>,
    ) -> Result<bool, DbErr> {
        let PutBy { consumer, handler, message, due_in, .. } = delivery;
        if due_in.is_none() {
            let lane = lane_of(message);
            let Some(head) = self.head(conn, consumer, handler, lane).await? else {
                return Ok(false);
            };
            // Written, not only locked: whoever finishes the head on a snapshot that does not show what is put behind it
            // is told so by the database.
            let text = self.filled("UPDATE {deliveries} SET due_at = due_at WHERE stored_id = ?");
            conn.execute_raw(self.statement(&text, vec![Value::from(head)])).await?;
        }
        self.insert_delivery(conn, delivery, None).await.map(|()| true)
    }

    /// Inserts a delivery unless it is there; one that is `left` waits for an instance that knows it.
    pub(super) async fn insert_delivery<C: ConnectionTrait>(
        &self,
        conn: &C,
        delivery: &PutBy<'_>,
        left: Option<Option<&Awaited>>,
    ) -> Result<(), DbErr> {
        let PutBy { consumer, handler, message, due_in, history } = delivery;
        let lane = lane_of(message);
        let kept = self.dialect.or_keep("stored_id");
        let (awaits, marks) = match left {
            Some(_) => {
                (format!(", {}, awaits_since", handover::AWAITS.join(", ")), ", ?, ?, ?, {now}")
            }
            None => (String::new(), ""),
        };
        let text = self.filled(&format!(
            "INSERT INTO {{deliveries}} (consumer, handler, lane, sequence_no, {EVENT_COLUMNS}, created_at, expires_at, \
             stored_at, due_at, attempts_started, attempts_finished, failures, failing_since, errors, letter_id{awaits}) \
             VALUES (?, ?, ?, ?, {EVENT_MARKS}, ?, ?, {{now}}, {{now}} + ?, ?, ?, ?, {{now}} - ?, ?, ?{marks}){kept}"
        ));
        let mut bound = vec![
            Value::from(*consumer),
            Value::from(*handler),
            Value::from(lane),
            Value::from(message.sequence.map(|id| id.0)),
        ];
        push_message(&mut bound, message);
        bound.extend([
            Value::from(message.created_at.as_micros()),
            Value::from(message.expires_at.map(Timestamp::as_micros)),
            Value::from(due_in.map(micros)),
            Value::from(i64::from(history.runs)),
            Value::from(i64::from(history.runs)),
            Value::from(i64::from(history.failures)),
            Value::from(failing(history)),
            Value::from(self.errors(conn, &history.errors).await?),
            Value::from(history.letter.map(|LetterId(id)| id)),
        ]);
        if let Some(awaited) = left {
            bound.extend(handover::values(awaited));
        }
        conn.execute_raw(self.statement(&text, bound)).await.map(|_| ())
    }

    /// Removes a stored delivery that is claimed, and makes the next of its lane due; `false` when the claim is lost.
    ///
    /// # Errors
    /// What the database said.
    pub async fn finish_delivery<C: ConnectionTrait>(
        &self,
        conn: &C,
        claim: &Claim,
    ) -> Result<bool, DbErr> {
        let mine = || vec![Value::from(claim.id), Value::from(&*claim.by)];
        let text = self.filled(
            "SELECT consumer, handler, lane FROM {deliveries} WHERE stored_id = ? AND claimed_by = ?{for_update}",
        );
        let Some(row) = conn.query_one_raw(self.statement(&text, mine())).await? else {
            return Ok(false);
        };
        let (consumer, handler): (String, String) =
            (row.try_get_by_index(0)?, row.try_get_by_index(1)?);
        let lane: Option<i64> = row.try_get_by_index(2)?;
        let text = self.filled("DELETE FROM {deliveries} WHERE stored_id = ? AND claimed_by = ?");
        if conn.execute_raw(self.statement(&text, mine())).await?.rows_affected() == 0 {
            return Ok(false);
        }
        // A second statement, which sees what was put behind this one while its row was waited for.
        if let Some(next) = self.head(conn, &consumer, &handler, lane).await? {
            let text = self.filled(
                "UPDATE {deliveries} SET due_at = {now} WHERE stored_id = ? AND due_at IS NULL",
            );
            conn.execute_raw(self.statement(&text, vec![Value::from(next)])).await?;
        }
        Ok(true)
    }

    /// Locks the first delivery of a lane.
    async fn head<C: ConnectionTrait>(
        &self,
        conn: &C,
        consumer: &str,
        handler: &str,
        lane: Option<i64>,
    ) -> Result<Option<i64>, DbErr> {
        let Some(lane) = lane else { return Ok(None) };
        let text = self.filled(&format!(
            "SELECT stored_id FROM {{deliveries}} WHERE {LANE} ORDER BY stored_id LIMIT 1{{for_update}}"
        ));
        let place = vec![Value::from(consumer), Value::from(handler), Value::from(lane)];
        let row = conn.query_one_raw(self.statement(&text, place)).await?;
        row.map(|row| row.try_get_by_index(0)).transpose()
    }

    /// Writes errors as they are stored; those that are new get the database's time.
    pub(super) async fn errors<C: ConnectionTrait>(
        &self,
        conn: &C,
        errors: &[AttemptError],
    ) -> Result<String, DbErr> {
        if errors.iter().all(|error| error.at != 0) {
            return Ok(serde_json::json!(errors).to_string());
        }
        // A condition makes it a question with a parameter, which every driver prepares.
        let text = self.filled("SELECT {now} FROM {meta} WHERE id = ?");
        let row = conn.query_one_raw(self.statement(&text, vec![Value::from(1_i32)])).await?;
        let now: i64 = row.map_or(Ok(0), |row| row.try_get_by_index(0))?;
        let mut errors = errors.to_vec();
        errors.iter_mut().filter(|error| error.at == 0).for_each(|error| error.at = now);
        Ok(serde_json::json!(errors).to_string())
    }
}

/// For how long a delivery has been failing; nothing before its first failure.
pub(super) fn failing(history: &History) -> Option<i64> {
    (history.failures > 0).then(|| micros(history.failing_for))
}
