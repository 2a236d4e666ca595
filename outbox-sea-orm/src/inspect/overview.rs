//! One database at a glance: relays, partitions, running parts and controls.

use super::{column, counted, flag, instant, maybe_instant, name, now, query, short, shown};
use crate::{
    outbox::Outbox,
    schema::{decode::span, live::RENEWED_WITHIN},
};
use outbox_core::{
    admin::{
        AdminStore, ConsumerView, Control, ControlAction, Controls, InstanceFacts, Live, Overview,
        RelayView, SagasLive,
    },
    outbox::{PartitionNo, StoreError},
    saga::SagaAdmin,
};
use sea_orm::{QueryResult, Value};

/// Most relays, running parts or instances that one read gives: each row has up to 16 KiB.
const MOST: i64 = 200;
/// Most instances that one read gives: each row has up to 64 KiB.
const MOST_INSTANCES: i64 = 60;
/// A part that has written nothing for so long, in microseconds, is not shown.
const SHOWN_FOR: i64 = 3_600_000_000;

pub(super) async fn overview(outbox: &Outbox) -> Result<Overview, StoreError> {
    let owners = partition_owners(outbox).await?;
    let unowned = owners.iter().filter(|(_, owner)| owner.is_none()).count();
    let parts = running_parts(outbox).await?;
    Ok(Overview {
        now: now(outbox).await?,
        source: outbox.source().to_owned(),
        events: outbox.stats().await?,
        deferred: counted(outbox, "{deferred}", Vec::new()).await?,
        scheduled: counted(outbox, "{scheduled}", Vec::new()).await?,
        sagas: outbox.saga_counts().await?,
        relays: relays(outbox, &owners).await?,
        unowned: u16::try_from(unowned).unwrap_or(u16::MAX),
        coordinators: coordinators(&parts),
        consumers: parts.into_iter().filter_map(consumer).collect(),
        controls: controls(outbox).await?,
    })
}

/// Reads which relay owns which partition.
pub(crate) async fn partition_owners(
    outbox: &Outbox,
) -> Result<Vec<(PartitionNo, Option<String>)>, StoreError> {
    let sql = "SELECT partition_no, owner FROM {partitions} ORDER BY partition_no";
    let owner = |row: &QueryResult| Ok((partition(column(row, 0)?), column(row, 1)?));
    query(outbox, sql, Vec::new()).await?.iter().map(owner).collect()
}

pub(super) fn partition(number: i16) -> PartitionNo {
    PartitionNo(u16::try_from(number).unwrap_or_default())
}

/// Reads the relays that have a valid lease or own a partition.
pub(crate) async fn relays(
    outbox: &Outbox,
    owners: &[(PartitionNo, Option<String>)],
) -> Result<Vec<RelayView>, StoreError> {
    let sql = format!(
        "SELECT r.relay_id, CASE WHEN r.lease_until >= {{now}} THEN 1 ELSE 0 END, r.started_at, r.lease_until, {}, \
         l.written_at FROM {{relays}} r LEFT JOIN {{live}} l ON l.id = r.relay_id WHERE r.lease_until >= {{now}} \
         OR EXISTS (SELECT 1 FROM {{partitions}} w WHERE w.owner = r.relay_id) ORDER BY r.relay_id LIMIT {MOST}",
        short(outbox, "l.body")
    );
    let relay = |row: &QueryResult| {
        let id: String = column(row, 0)?;
        let owned = owners.iter().filter(|(_, owner)| owner.as_ref() == Some(&id));
        let state = match live(column::<Option<String>>(row, 4)?) {
            Some(Live::Relay(state)) => Some(state),
            _ => None,
        };
        Ok(RelayView {
            live: flag(row, 1)?,
            started_at: instant(row, 2)?,
            lease_until: instant(row, 3)?,
            partitions: owned.map(|(partition, _)| *partition).collect(),
            written_at: maybe_instant(row, 5)?.filter(|_| state.is_some()),
            state,
            id,
        })
    };
    query(outbox, &sql, Vec::new()).await?.iter().map(relay).collect()
}

/// Reads what a part wrote about itself; a later program may write another form.
fn live(body: Option<String>) -> Option<Live> {
    serde_json::from_str(&body?).ok()
}

/// Reads what consumers and coordinators have written about themselves within the last hour.
pub(crate) async fn running_parts(outbox: &Outbox) -> Result<Vec<ConsumerView<Live>>, StoreError> {
    let sql = format!(
        "SELECT id, name, CASE WHEN written_at >= {{now}} - {RENEWED_WITHIN} THEN 1 ELSE 0 END, {}, written_at \
         FROM {{live}} WHERE kind <> 'relay' AND written_at >= {{now}} - {SHOWN_FOR} ORDER BY name, id LIMIT {MOST}",
        short(outbox, "body")
    );
    let part = |row: &QueryResult| -> Result<Option<ConsumerView<Live>>, StoreError> {
        let Some(state) = live(column(row, 3)?) else { return Ok(None) };
        Ok(Some(ConsumerView {
            id: name(row, 0)?,
            name: name(row, 1)?,
            live: flag(row, 2)?,
            state,
            written_at: instant(row, 4)?,
        }))
    };
    let rows = query(outbox, &sql, Vec::new()).await?;
    rows.iter().map(part).filter_map(Result::transpose).collect()
}

/// Gives the coordinators of sagas.
pub(crate) fn coordinators(parts: &[ConsumerView<Live>]) -> Vec<ConsumerView<SagasLive>> {
    let coordinator = |part: &ConsumerView<Live>| match &part.state {
        Live::Sagas(state) => Some(ConsumerView {
            id: part.id.clone(),
            name: part.name.clone(),
            live: part.live,
            state: state.clone(),
            written_at: part.written_at,
        }),
        Live::Relay(_) | Live::Consumer(_) => None,
    };
    parts.iter().filter_map(coordinator).collect()
}

fn consumer(part: ConsumerView<Live>) -> Option<ConsumerView> {
    let ConsumerView { id, name, live, state, written_at } = part;
    match state {
        Live::Consumer(state) => Some(ConsumerView { id, name, live, state, written_at }),
        Live::Relay(_) | Live::Sagas(_) => None,
    }
}

/// Reads the instances of all consumers, those with a valid lease first.
pub(crate) async fn instances(
    outbox: &Outbox,
    parts: &[ConsumerView<Live>],
) -> Result<Vec<InstanceFacts>, StoreError> {
    let sql = format!(
        "SELECT instance_id, consumer, CASE WHEN lease_until >= {{now}} THEN 1 ELSE 0 END, {} FROM {{instances}} \
         ORDER BY lease_until DESC LIMIT {MOST_INSTANCES}",
        short(outbox, "handlers")
    );
    let instance = |row: &QueryResult| {
        let id: String = column(row, 0)?;
        let state = parts.iter().find(|part| part.id == id).and_then(|part| match &part.state {
            Live::Consumer(state) => Some(state.clone()),
            Live::Relay(_) | Live::Sagas(_) => None,
        });
        let handlers: Option<String> = column(row, 3)?;
        Ok(InstanceFacts {
            consumer: column(row, 1)?,
            live: flag(row, 2)?,
            handlers: handlers.and_then(|h| serde_json::from_str(&h).ok()).unwrap_or_default(),
            state,
            id,
        })
    };
    query(outbox, &sql, Vec::new()).await?.iter().map(instance).collect()
}

/// Reads the controls in force.
pub(super) async fn controls(outbox: &Outbox) -> Result<Controls, StoreError> {
    let sql = format!(
        "SELECT scope, name, rate, set_by, {}, set_at, until, until - {{now}} FROM {{controls}} \
         WHERE until IS NULL OR until > {{now}} ORDER BY scope, name, action LIMIT ?",
        short(outbox, "reason")
    );
    let control = |row: &QueryResult| -> Result<Option<Control>, StoreError> {
        // A later program may have other scopes.
        let Ok(scope) = column::<String>(row, 0)?.parse() else { return Ok(None) };
        let rate: Option<i64> = column(row, 2)?;
        // Rates are small: a number of events a thousand seconds.
        let rate = rate.map(|rate| i32::try_from(rate).map_or(f64::MAX, f64::from) / 1_000.0);
        Ok(Some(Control {
            scope,
            name: column(row, 1)?,
            action: rate.map_or(ControlAction::Pause, ControlAction::Rate),
            by: name(row, 3)?,
            reason: shown(&column::<Option<String>>(row, 4)?.unwrap_or_default()),
            set_at: instant(row, 5)?,
            until: maybe_instant(row, 6)?,
            ends_in: column::<Option<i64>>(row, 7)?.map(span),
        }))
    };
    let rows = query(outbox, &sql, vec![Value::from(MOST * 5)]).await?;
    let controls = rows.iter().map(control).filter_map(Result::transpose);
    Ok(Controls(controls.collect::<Result<_, _>>()?))
}
