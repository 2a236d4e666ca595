//! Consumers, sagas and what they leave behind.

use super::{Checked, finding, fine, or_fine};
use crate::{
    inspect::{
        WINDOW, column, coordinators, counted, instances, name, now, oldest_deferred, oldest_open,
        query, running_parts, senders,
    },
    outbox::Outbox,
};
use outbox_core::{
    admin::Severity,
    outbox::{ConsumerStore, StoreError},
};
use std::{collections::BTreeSet, time::Duration};

/// An open letter that is older has been overlooked.
const OVERLOOKED: Duration = Duration::from_hours(24);
/// A saga that is due for so long, in microseconds, is driven by nobody.
const OVERDUE: i64 = 60_000_000;

/// Every deferred delivery has a running handler.
pub(super) async fn deferred_handlers(outbox: &Outbox) -> Checked {
    const CHECK: &str = "deferred-handlers";
    let seen_by = "SELECT DISTINCT consumer, handler FROM outbox_deferred, beside outbox_instances";
    let senders = senders(outbox, "deferred").await?;
    let handlers: BTreeSet<(String, String)> =
        senders.rows.into_iter().map(|(consumer, handler, _)| (consumer, handler)).collect();
    let instances = instances(outbox, &[]).await?;
    let mut found = Vec::new();
    for (consumer, handler) in handlers {
        let mut live = instances.iter().filter(|i| i.live && i.consumer == consumer).peekable();
        let what = if live.peek().is_none() {
            format!(
                "deliveries are deferred for consumer `{consumer}`, of which no instance is running"
            )
        } else if handler.is_empty()
            || live.any(|i| {
                i.handlers
                    .iter()
                    .any(|h| h.name == handler || h.renamed_from.as_deref() == Some(&handler))
            })
        {
            continue;
        } else {
            format!(
                "deliveries are deferred for handler `{handler}` of consumer `{consumer}`, which no running instance has"
            )
        };
        let to_do = "start the consumer with that handler, or rename the handler that takes its place (renamed_from)";
        found.push(finding(CHECK, Severity::Warning, what, to_do, seen_by));
    }
    or_fine(CHECK, found, "every deferred delivery has a running handler", seen_by)
}

/// Every saga that is due has a coordinator.
pub(super) async fn saga_definitions(outbox: &Outbox) -> Checked {
    const CHECK: &str = "saga-definitions";
    let seen_by = "SELECT DISTINCT name, version FROM outbox_sagas WHERE due_at is a minute ago";
    let sql = format!(
        "SELECT DISTINCT w.name, w.version FROM (SELECT name, version FROM {{sagas}} \
         WHERE due_at IS NOT NULL AND due_at < {{now}} - {OVERDUE} LIMIT {WINDOW}) w ORDER BY w.name, w.version LIMIT 100"
    );
    let coordinators = coordinators(&running_parts(outbox).await?);
    let live: Vec<_> = coordinators.iter().filter(|coordinator| coordinator.live).collect();
    let mut found = Vec::new();
    for row in query(outbox, &sql, Vec::new()).await? {
        let (definition, version) = (name(&row, 0)?, column::<i32>(&row, 1)?.unsigned_abs());
        let has = live.iter().any(|coordinator| {
            let state = &coordinator.state;
            state.omitted > 0 || state.definitions.contains(&(definition.clone(), version))
        });
        if has {
            continue;
        }
        found.push(finding(
            CHECK,
            Severity::Critical,
            format!("sagas `{definition}` version {version} are due for over a minute, and no running coordinator has that definition"),
            "start the service that registers it, in that version",
            seen_by,
        ));
    }
    or_fine(CHECK, found, "every saga that is due has a coordinator", seen_by)
}

/// No dead letter is overlooked.
pub(super) async fn dead_letters(outbox: &Outbox) -> Checked {
    const CHECK: &str = "dead-letters";
    let seen_by = "SELECT letter_id, dead_at FROM outbox_dead_letters WHERE resolution IS NULL";
    let oldest = oldest_open(outbox).await?;
    let now = now(outbox).await?;
    let age = oldest.map(|at| now.since(at)).filter(|age| *age >= OVERLOOKED);
    let Some(age) = age else {
        return Ok(fine(CHECK, "no open dead letter is older than a day", seen_by));
    };
    let open = counted(outbox, "{letters} WHERE resolution IS NULL", Vec::new()).await?;
    Ok(vec![finding(
        CHECK,
        Severity::Warning,
        format!("{open} dead letters are open, the oldest for {} days", age.as_secs() / 86_400),
        "look at their groups, mend the cause, then redrive or discard them: outbox dead-letters groups",
        seen_by,
    )])
}

/// The inbox remembers a message for as long as one may be deferred.
pub(super) async fn inbox_retention(outbox: &Outbox) -> Checked {
    const CHECK: &str = "inbox-retention";
    let seen_by = "SELECT min(stored_at) FROM outbox_deferred, beside the retention that this program is set to";
    let oldest: Result<_, StoreError> = oldest_deferred(outbox).await;
    let waited = match oldest? {
        Some(at) => now(outbox).await?.since(at),
        None => Duration::ZERO,
    };
    let retention = outbox.inbox_retention();
    if waited < retention {
        return Ok(fine(CHECK, "no deferred delivery is older than the inbox remembers", seen_by));
    }
    Ok(vec![finding(
        CHECK,
        Severity::Warning,
        format!(
            "a delivery is deferred for {} days, and the inbox remembers messages for {} days: a repeat of it would run again",
            waited.as_secs() / 86_400,
            retention.as_secs() / 86_400
        ),
        "set a longer inbox_retention, and look at what the delivery waits for: outbox deferred",
        seen_by,
    )])
}
