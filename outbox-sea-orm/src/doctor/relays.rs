//! Relays, partitions and routes.

use super::{Checked, finding, fine, or_fine};
use crate::{
    inspect::{WINDOW, column, name, partition_owners, query, relays},
    outbox::Outbox,
};
use outbox_core::{
    admin::{Finding, RelayView, Severity, safe_text},
    outbox::StoreError,
};
use std::collections::BTreeSet;

/// A partition counts as overfull from so many waiting events on.
const OVERFULL: i64 = 1_000;

/// Every partition has a live owner.
pub(super) async fn partitions_owned(outbox: &Outbox) -> Checked {
    const CHECK: &str = "partitions-owned";
    let seen_by = "SELECT partition_no, owner FROM outbox_partitions";
    let owners = partition_owners(outbox).await?;
    let relays = relays(outbox, &owners).await?;
    let live: Vec<&RelayView> = relays.iter().filter(|relay| relay.live).collect();
    if live.is_empty() {
        return Ok(vec![finding(
            CHECK,
            Severity::Critical,
            "no relay is live: no event leaves this outbox",
            "start a relay, in a service or by outbox relay",
            "SELECT relay_id, lease_until FROM outbox_relays",
        )]);
    }
    let is_owned =
        |owner: &Option<String>| live.iter().any(|relay| Some(&relay.id) == owner.as_ref());
    let free = owners.iter().filter(|(_, owner)| !is_owned(owner));
    let free: Vec<String> = free.map(|(partition, _)| partition.to_string()).collect();
    let owned = format!("{} live relays own all {} partitions", live.len(), owners.len());
    if free.is_empty() {
        return Ok(fine(CHECK, owned, seen_by));
    }
    Ok(vec![finding(
        CHECK,
        Severity::Warning,
        format!("no live relay owns partition {}", free.join(", ")),
        "repeat this in 20 s: a live relay takes it within its lease; else see the check relay-routes",
        seen_by,
    )])
}

/// Waiting events, and the sender of the first one, of each partition.
async fn waiting(outbox: &Outbox) -> Result<Vec<(i64, i64, Option<String>)>, StoreError> {
    let by_key = outbox.schema().dialect().by_key();
    let most = WINDOW + 1;
    let one = |partition: u16| {
        format!(
            "SELECT {partition} AS no, (SELECT count(*) FROM (SELECT 1 AS one FROM {{events}} e{by_key} \
             WHERE e.partition_no = {partition} LIMIT {most}) c{partition}) AS waiting, (SELECT e.source FROM {{events}} \
             e{by_key} WHERE e.partition_no = {partition} ORDER BY e.event_id LIMIT 1) AS source"
        )
    };
    let parts: Vec<String> = (0..outbox.schema().partitions()).map(one).collect();
    let rows = query(outbox, &parts.join(" UNION ALL "), Vec::new()).await?;
    (0_i64..).zip(&rows).map(|(no, row)| Ok((no, column(row, 1)?, column(row, 2)?))).collect()
}

/// No partition has most of the events.
pub(super) async fn partition_balance(outbox: &Outbox) -> Checked {
    const CHECK: &str = "partition-balance";
    let seen_by = "SELECT partition_no, count(*) FROM outbox_events GROUP BY partition_no";
    let waiting = waiting(outbox).await?;
    let total: i64 = waiting.iter().map(|(_, count, _)| count).sum();
    let fullest = waiting.iter().max_by_key(|(_, count, _)| *count);
    let Some((partition, count, _)) = fullest.filter(|(_, n, _)| *n >= OVERFULL && 2 * *n > total)
    else {
        return Ok(fine(CHECK, "no partition has most of the waiting events", seen_by));
    };
    let count = if *count > WINDOW { format!("more than {WINDOW}") } else { count.to_string() };
    Ok(vec![finding(
        CHECK,
        Severity::Info,
        format!(
            "partition {partition} has {count} of the waiting events, more than all others together"
        ),
        "look at its first key: one key that fails, or one that most events have, fills a partition",
        seen_by,
    )])
}

/// All live relays have the same routes.
pub(super) async fn relay_routes(outbox: &Outbox) -> Checked {
    const CHECK: &str = "relay-routes";
    let sql = "SELECT relay_id, routes FROM {relays} WHERE lease_until >= {now} ORDER BY relay_id LIMIT 200";
    let mut routes = BTreeSet::new();
    for row in query(outbox, sql, Vec::new()).await? {
        routes.insert(column::<i64>(&row, 1)?);
    }
    let seen_by = "SELECT relay_id, routes FROM outbox_relays";
    if routes.len() <= 1 {
        return Ok(fine(CHECK, "all live relays have the same routes", seen_by));
    }
    Ok(vec![finding(
        CHECK,
        Severity::Warning,
        format!(
            "live relays have {} different sets of routes: only one set works at a time",
            routes.len()
        ),
        "expected while a deployment rolls; else give all relays of the outbox the same routes",
        seen_by,
    )])
}

/// Every route that events wait for is one of a live relay.
pub(super) async fn missing_routes(outbox: &Outbox) -> Checked {
    const CHECK: &str = "missing-routes";
    let seen_by = "SELECT DISTINCT route FROM outbox_retries WHERE state = 'waiting'";
    let sql = format!(
        "SELECT DISTINCT w.route FROM (SELECT route FROM {{retries}} WHERE state = 'waiting' LIMIT {WINDOW}) w \
         ORDER BY w.route LIMIT 200"
    );
    let rows = query(outbox, &sql, Vec::new()).await?;
    let waiting: Vec<String> =
        rows.iter().map(|row| column(row, 0)).collect::<Result<_, StoreError>>()?;
    let owners = partition_owners(outbox).await?;
    let relays = relays(outbox, &owners).await?;
    let live: Vec<&RelayView> = relays.iter().filter(|relay| relay.live).collect();
    let tells_all =
        |relay: &&RelayView| relay.state.as_ref().is_some_and(|state| state.omitted == 0);
    if live.is_empty() || !live.iter().all(tells_all) {
        return Ok(Vec::new());
    }
    let has = |route: &String| {
        let states = live.iter().filter_map(|relay| relay.state.as_ref());
        states.flat_map(|state| &state.routes).any(|known| known.route == *route)
    };
    let missing = |route: &String| -> Option<Finding> {
        let (what, to_do) = match route.as_str() {
            "" => (
                "events wait for a route that takes them, and no live relay has one".to_owned(),
                "start a relay with a route for their topics; else they become dead letters",
            ),
            _ if has(route) => return None,
            route => (
                format!(
                    "events wait for route `{}`, which no live relay has",
                    safe_text(route, 255)
                ),
                "start a relay with it; else they become dead letters",
            ),
        };
        Some(finding(CHECK, Severity::Warning, what, to_do, seen_by))
    };
    let found = waiting.iter().filter_map(missing).collect();
    or_fine(CHECK, found, "live relays have every route that events wait for", seen_by)
}

/// One service writes to the outbox.
pub(super) async fn one_service(outbox: &Outbox) -> Checked {
    const CHECK: &str = "one-service";
    let rows = query(outbox, "SELECT source FROM {source} ORDER BY id LIMIT 1", Vec::new()).await?;
    let Some(owner) = rows.first().map(|row| name(row, 0)).transpose()? else {
        return Ok(Vec::new());
    };
    let others: BTreeSet<String> = waiting(outbox)
        .await?
        .into_iter()
        .filter_map(|(_, _, source)| source.map(|source| safe_text(&source, 255)))
        .filter(|source| *source != owner)
        .collect();
    let seen_by = "outbox_source, and the source of the first event of each partition";
    let found = others.iter().map(|other| {
        finding(
            CHECK,
            Severity::Warning,
            format!("the outbox belongs to `{owner}`, and has events of `{other}`"),
            "give each service an outbox of its own, by another database, schema or namespace",
            seen_by,
        )
    });
    or_fine(CHECK, found.collect(), "one service writes to the outbox", seen_by)
}
