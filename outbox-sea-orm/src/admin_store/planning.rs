//! Plans: what an act will do, counted and said before it is done.

use super::{
    column,
    plans::{Selection, StoredPlan, refusal},
};
use crate::{
    dialect::{ORIGIN_CONSUMER, ORIGIN_RELAY},
    error::database,
    outbox::Outbox,
    schema::micros,
};
use outbox_core::{
    admin::{Act, Bounded, DeadLetterFilter, Plan, PlanId},
    event::{LetterId, Timestamp},
    outbox::{ConsumerStore, StoreError},
};
use sea_orm::{ConnectionTrait, Value};
use std::time::Duration;

/// Counting stops here.
const MOST: u64 = 100_000;
/// Letters that a plan names.
const FIRST: u32 = 10;
/// How long a plan may wait for its first chunk: time to read it, and to ask somebody.
const VALID: Duration = Duration::from_mins(15);
/// Expired plans that a new one deletes.
const PRUNED: i64 = 500;

/// What a plan counts of its letters.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Counts {
    letters: Bounded,
    /// Letters behind which later events of their keys wait.
    parking: u64,
    /// Letters of consumers.
    received: u64,
    /// Of those, letters that are older than what the inbox remembers.
    beyond_inbox: u64,
    /// Of those, letters whose message cannot be read.
    unreadable: u64,
    /// Letters of relays whose event does not decode.
    undecodable: u64,
}

impl Outbox {
    /// Plans an act: counts its letters, and stores the plan.
    pub(super) async fn plan_act(
        &self,
        act: Act,
        filter: &DeadLetterFilter,
        all: bool,
    ) -> Result<Plan, StoreError> {
        if filter.is_empty() && !all {
            return Err(refusal(format!(
                "the filter has no condition, so that every open letter would be selected to {act}: add a \
                 condition, or say that all are meant"
            )));
        }
        if let Some(letter) = filter.letter {
            self.check_letter(&**self.work(), letter).await?;
        }
        let selection = self.select(filter).await?;
        let counts = self.count_letters(&selection, 0).await?;
        let first = self.first_letters(&selection, 0).await?;
        let (id, expires_at) = self.insert_plan(act, &selection).await?;
        Ok(Plan {
            id,
            act,
            selection: selection.filter.to_string(),
            count: counts.letters,
            first,
            notes: notes(act, &counts, self.inbox_retention()),
            expires_at,
        })
    }

    /// Says again what a stored plan will do, with the letters that no chunk has looked at.
    pub(super) async fn plan_of(&self, stored: &StoredPlan) -> Result<Plan, StoreError> {
        let StoredPlan { id, act, selection, after, expires_at, .. } = stored;
        let counts = self.count_letters(selection, *after).await?;
        Ok(Plan {
            id: *id,
            act: *act,
            selection: selection.filter.to_string(),
            count: counts.letters,
            first: self.first_letters(selection, *after).await?,
            notes: notes(*act, &counts, self.inbox_retention()),
            expires_at: Timestamp::from_micros(*expires_at),
        })
    }

    /// Binds a filter to the letters that exist now.
    async fn select(&self, filter: &DeadLetterFilter) -> Result<Selection, StoreError> {
        let schema = self.schema();
        let sql = schema.filled("SELECT {now}, max(letter_id) FROM {letters} WHERE letter_id > ?");
        let row = self
            .work()
            .query_one_raw(schema.statement(&sql, vec![Value::from(0_i64)]))
            .await
            .map_err(database)?
            .ok_or_else(|| StoreError::Mismatch("the database gives no time".into()))?;
        let newest = LetterId(column::<Option<i64>>(&row, 1)?.unwrap_or(0));
        let up_to = filter.up_to.map_or(newest, |up_to| up_to.min(newest));
        let bound = filter.letter.is_none().then_some(up_to);
        let filter = DeadLetterFilter { up_to: bound, include_resolved: false, ..filter.clone() };
        Ok(Selection { filter, up_to, planned_at: column(&row, 0)? })
    }

    async fn count_letters(&self, selection: &Selection, after: i64) -> Result<Counts, StoreError> {
        let schema = self.schema();
        let (condition, values) = selection.open(after, selection.up_to);
        let keep = micros(self.inbox_retention());
        let received = format!("x.origin = {ORIGIN_CONSUMER}");
        let count = |of: &str| format!("count(CASE WHEN {of} THEN 1 END)");
        let sql = schema.filled(&format!(
            "SELECT count(*), {}, {}, {}, {}, {} FROM (SELECT parks, message_key, origin, dead_at, headers, reason \
             FROM {{letters}} WHERE {condition} ORDER BY letter_id LIMIT {}) x",
            count(&format!("{} AND x.message_key IS NOT NULL", schema.dialect().is_set("x.parks"))),
            count(&received),
            count(&format!("{received} AND x.dead_at < {{now}} - {keep}")),
            count(&format!("{received} AND x.headers = ''")),
            count(&format!("x.origin = {ORIGIN_RELAY} AND x.reason = 'undecodable'")),
            MOST + 1
        ));
        let row =
            self.reads().query_one_raw(schema.statement(&sql, values)).await.map_err(database)?;
        let Some(row) = row else { return Ok(Counts::default()) };
        let count = |index| column::<i64>(&row, index).map(i64::unsigned_abs);
        let letters = count(0)?;
        Ok(Counts {
            letters: Bounded { count: letters.min(MOST), or_more: letters > MOST },
            parking: count(1)?,
            received: count(2)?,
            beyond_inbox: count(3)?,
            unreadable: count(4)?,
            undecodable: count(5)?,
        })
    }

    async fn first_letters(
        &self,
        selection: &Selection,
        after: i64,
    ) -> Result<Vec<LetterId>, StoreError> {
        let schema = self.schema();
        let (condition, values) = selection.open(after, selection.up_to);
        let sql = schema.filled(&format!(
            "SELECT letter_id FROM {{letters}} WHERE {condition} ORDER BY letter_id LIMIT {FIRST}"
        ));
        let rows =
            self.reads().query_all_raw(schema.statement(&sql, values)).await.map_err(database)?;
        rows.iter().map(|row| column(row, 0).map(LetterId)).collect()
    }

    /// Stores a plan, and deletes those that have expired before their first chunk.
    async fn insert_plan(
        &self,
        act: Act,
        selection: &Selection,
    ) -> Result<(PlanId, Timestamp), StoreError> {
        let schema = self.schema();
        let expires_at = selection.planned_at.saturating_add(micros(VALID));
        let filter = serde_json::to_string(&selection.filter)
            .map_err(|error| StoreError::Refused(error.into()))?;
        let values = vec![
            Value::from(act.as_str()),
            Value::from(filter),
            Value::from(selection.up_to.0),
            Value::from(selection.planned_at),
            Value::from(expires_at),
        ];
        let expired = schema.filled(&schema.dialect().prune(
            "{plans}",
            "plan_id",
            "expires_at < {now} AND audit_id IS NULL",
        ));
        let tx = self.begin_read_committed().await?;
        tx.execute_raw(schema.statement(&expired, vec![Value::from(PRUNED)]))
            .await
            .map_err(database)?;
        let insert = "INSERT INTO {plans} (act, selection, up_to, after_letter, planned_at, expires_at) \
                      VALUES (?, ?, ?, 0, ?, ?)";
        let id = schema.insert_with_id(&tx, insert, "plan_id", values).await.map_err(database)?;
        tx.commit().await?;
        Ok((PlanId(id), Timestamp::from_micros(expires_at)))
    }
}

/// Says what an act makes of the order of keys, and what it refuses and why.
fn notes(act: Act, counts: &Counts, inbox: Duration) -> Vec<String> {
    let (redrives, mut notes) = (act == Act::Redrive, Vec::new());
    let mut note = |count: u64, text: &str| {
        if count > 0 {
            notes.push(format!(
                "{} {text}",
                if count == 1 { "1 letter".into() } else { format!("{count} letters") }
            ));
        }
    };
    if redrives {
        note(
            counts.parking,
            "with a parked key: the letter's event is delivered first, and the later events of its key, which wait, \
             follow it in their order.",
        );
        note(
            counts.received,
            "of consumers: the message is run by its handler again, and nothing is published.",
        );
        note(
            counts.beyond_inbox,
            &format!(
                "older than the {} h for which the inbox remembers messages, so that a handler may have had the same \
                 message since: refused without force.",
                inbox.as_secs() / 3_600
            ),
        );
        note(
            counts.unreadable,
            "with a received message that cannot be read: refused, since no handler could take it.",
        );
        note(
            counts.undecodable,
            "with an event that does not decode: stored again as it is, and given up again unless this version reads it.",
        );
    } else {
        note(
            counts.parking,
            "with a parked key: the later events of its key, which wait, are delivered without the letter's event.",
        );
    }
    if act == Act::Purge {
        note(
            counts.letters.count,
            "whose payload, headers and errors are deleted: nothing brings them back.",
        );
    }
    if counts.letters.or_more {
        notes.push(format!("Counted are the first {MOST} letters; the act applies to all."));
    }
    notes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_says_what_becomes_of_keys_and_what_is_refused() {
        let every = Counts {
            letters: Bounded { count: 9, or_more: false },
            parking: 1,
            received: 4,
            beyond_inbox: 3,
            unreadable: 2,
            undecodable: 1,
        };
        let inbox = Duration::from_hours(14 * 24);
        let starts = |act, counts: &Counts| -> Vec<String> {
            let first_words =
                |note: &String| note.split([':', ',']).next().unwrap_or("").to_owned();
            notes(act, counts, inbox).iter().map(first_words).collect()
        };
        assert_eq!(
            starts(Act::Redrive, &every),
            [
                "1 letter with a parked key",
                "4 letters of consumers",
                "3 letters older than the 336 h for which the inbox remembers messages",
                "2 letters with a received message that cannot be read",
                "1 letter with an event that does not decode",
            ]
        );
        assert_eq!(starts(Act::Discard, &every), ["1 letter with a parked key"]);
        assert_eq!(
            starts(Act::Purge, &every),
            ["1 letter with a parked key", "9 letters whose payload"]
        );
        let plain = Counts { letters: Bounded { count: 9, or_more: false }, ..Counts::default() };
        assert!(starts(Act::Redrive, &plain).is_empty() && starts(Act::Discard, &plain).is_empty());
        let many = Counts { letters: Bounded { count: MOST, or_more: true }, ..Counts::default() };
        assert_eq!(
            starts(Act::Redrive, &many),
            ["Counted are the first 100000 letters; the act applies to all."]
        );
    }
}
