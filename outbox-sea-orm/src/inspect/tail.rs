//! Following events: reads from an id on, partition by partition and of the archive.

use super::{
    column,
    events::{EventRow, Place, WindowEdge},
    flag, number, query,
};
use crate::{dialect::ORIGIN_RELAY, outbox::Outbox, schema::stored};
use async_trait::async_trait;
use outbox_core::{
    admin::{TailEvent, TailLetter, TailRead, TailStore},
    event::{EventId, LetterId},
    outbox::{PartitionNo, StoreError},
};
use sea_orm::Value;
use std::collections::BTreeMap;

/// Ids of one statement.
const CHUNK: usize = 500;

#[async_trait]
impl TailStore for Outbox {
    async fn newest_event(&self) -> Result<EventId, StoreError> {
        let mut newest =
            number(self, "SELECT max(event_id) FROM {archive} WHERE event_id > ?", vec![0.into()])
                .await?;
        for partition in partitions(self) {
            let events = format!("{{events}} e{}", self.schema().dialect().by_key());
            let sql = format!(
                "SELECT e.event_id FROM {events} WHERE e.partition_no = ? \
                 ORDER BY e.event_id DESC LIMIT 1"
            );
            newest = newest.max(number(self, &sql, vec![Value::from(partition)]).await?);
        }
        Ok(EventId(newest))
    }

    async fn events_after(&self, after: EventId, limit: u32) -> Result<TailRead, StoreError> {
        let mut read = TailRead::default();
        let rows = i64::from(limit);
        for place in partitions(self).map(Place::Partition).chain([Place::Archive]) {
            let window = (WindowEdge::From, after.0.saturating_add(1), rows);
            let all = ("1 = ?", Value::from(1_i32));
            let found = place.window(self, window, all, rows).await?;
            if let Some(last) = found.last()
                && found.len() >= usize::try_from(limit).unwrap_or(usize::MAX)
            {
                let known = read.complete_to.unwrap_or(last.id);
                read.complete_to = Some(known.min(last.id));
            }
            read.events.extend(found.into_iter().map(event));
        }
        read.events.sort_by_key(|event| event.id);
        // The relay may have archived it between two of the reads; the last one counts.
        read.events.dedup_by(|later, kept| {
            let same = later.id == kept.id;
            if same && kept.finished_at.is_none() {
                kept.finished_at = later.finished_at;
            }
            same
        });
        Ok(read)
    }

    async fn still_waiting(
        &self,
        events: &[(PartitionNo, EventId)],
    ) -> Result<Vec<EventId>, StoreError> {
        let mut by_partition: BTreeMap<PartitionNo, Vec<EventId>> = BTreeMap::new();
        for (partition, id) in events {
            by_partition.entry(*partition).or_default().push(*id);
        }
        let mut waiting = Vec::new();
        for (partition, ids) in by_partition {
            for chunk in ids.chunks(CHUNK) {
                let marks = vec!["?"; chunk.len()].join(", ");
                let sql = format!(
                    "SELECT event_id FROM {{events}} WHERE partition_no = ? AND event_id IN ({marks})"
                );
                let mut values = vec![Value::from(stored(partition))];
                values.extend(chunk.iter().map(|id| Value::from(id.0)));
                for row in query(self, &sql, values).await? {
                    waiting.push(EventId(column(&row, 0)?));
                }
            }
        }
        Ok(waiting)
    }

    async fn given_up(&self, events: &[EventId]) -> Result<Vec<TailLetter>, StoreError> {
        let mut letters = Vec::new();
        for chunk in events.chunks(CHUNK) {
            let marks = vec!["?"; chunk.len()].join(", ");
            let sql = format!(
                "SELECT event_id, letter_id, CASE WHEN resolution = 'redriven' THEN 1 ELSE 0 END \
                 FROM {{letters}} WHERE event_id IN ({marks}) AND origin = {ORIGIN_RELAY}"
            );
            let values = chunk.iter().map(|id| Value::from(id.0)).collect();
            for row in query(self, &sql, values).await? {
                letters.push(TailLetter {
                    event: EventId(column(&row, 0)?),
                    letter: LetterId(column(&row, 1)?),
                    redriven: flag(&row, 2)?,
                });
            }
        }
        letters.sort_by_key(|letter| letter.letter);
        Ok(letters)
    }

    async fn letters_between(
        &self,
        above: LetterId,
        up_to: LetterId,
    ) -> Result<Vec<LetterId>, StoreError> {
        let sql = "SELECT letter_id FROM {letters} WHERE letter_id > ? AND letter_id <= ? ORDER BY letter_id";
        let rows = query(self, sql, vec![Value::from(above.0), Value::from(up_to.0)]).await?;
        rows.iter().map(|row| column(row, 0).map(LetterId)).collect()
    }
}

/// Lists the partitions as they are stored.
fn partitions(outbox: &Outbox) -> impl Iterator<Item = i16> + use<> {
    (0..outbox.schema().partitions()).map(|number| stored(PartitionNo(number)))
}

fn event(row: EventRow) -> TailEvent {
    TailEvent {
        partition: row.partition,
        id: row.id,
        message: row.message,
        topic: row.topic,
        event_type: row.event_type,
        key: row.key,
        created_at: row.created_at,
        finished_at: row.finished_at,
    }
}
