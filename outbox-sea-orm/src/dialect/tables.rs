//! The names of the tables, as statements quote them.

use super::Dialect;
use crate::namespace::Namespace;

/// Quoted names of all tables of an outbox.
#[derive(Debug, Clone)]
pub(crate) struct Tables {
    pub(crate) meta: String,
    pub(crate) events: String,
    pub(crate) archive: String,
    pub(crate) relays: String,
    pub(crate) partitions: String,
    pub(crate) retries: String,
    pub(crate) letters: String,
    pub(crate) unparked: String,
    pub(crate) scheduled: String,
    pub(crate) dedup: String,
    pub(crate) responses: String,
    pub(crate) inbox: String,
    pub(crate) deferred: String,
    pub(crate) instances: String,
    pub(crate) source: String,
    pub(crate) view: String,
    pub(crate) sagas: String,
    pub(crate) saga_log: String,
    pub(crate) saga_locks: String,
    pub(crate) saga_waits: String,
    pub(crate) barrier: String,
    pub(crate) live: String,
    pub(crate) controls: String,
    pub(crate) plans: String,
    pub(crate) audit: String,
    pub(crate) samples: String,
    /// SQLite's index of events by place.
    pub(crate) place: String,
}

impl Tables {
    pub(crate) fn new(dialect: Dialect, namespace: &Namespace) -> Self {
        let quoted = |base: &str| dialect.quote(&namespace.name(base));
        Self {
            meta: quoted("outbox_meta"),
            events: quoted("outbox_events"),
            archive: quoted("outbox_archive"),
            relays: quoted("outbox_relays"),
            partitions: quoted("outbox_partitions"),
            retries: quoted("outbox_retries"),
            letters: quoted("outbox_dead_letters"),
            unparked: quoted("outbox_unparked"),
            scheduled: quoted("outbox_scheduled"),
            dedup: quoted("outbox_dedup"),
            responses: quoted("outbox_responses"),
            inbox: quoted("outbox_inbox"),
            deferred: quoted("outbox_deferred"),
            instances: quoted("outbox_instances"),
            source: quoted("outbox_source"),
            view: quoted("outbox_view"),
            sagas: quoted("outbox_sagas"),
            saga_log: quoted("outbox_saga_log"),
            saga_locks: quoted("outbox_saga_locks"),
            saga_waits: quoted("outbox_saga_waits"),
            barrier: quoted("outbox_saga_barrier"),
            live: quoted("outbox_live"),
            controls: quoted("outbox_controls"),
            plans: quoted("outbox_plans"),
            audit: quoted("outbox_audit"),
            samples: quoted("outbox_samples"),
            place: quoted("outbox_events_place"),
        }
    }

    /// Puts the table names in place of their marks: `{events}`, `{archive}` and so on.
    pub(crate) fn fill(&self, sql: &str) -> String {
        fill_marks(sql, |mark| self.named(mark))
    }

    /// Gives the quoted name of the table that a mark stands for.
    pub(super) fn named(&self, mark: &str) -> Option<&str> {
        Some(match mark {
            "meta" => &self.meta,
            "events" => &self.events,
            "archive" => &self.archive,
            "relays" => &self.relays,
            "partitions" => &self.partitions,
            "retries" => &self.retries,
            "letters" => &self.letters,
            "unparked" => &self.unparked,
            "scheduled" => &self.scheduled,
            "dedup" => &self.dedup,
            "responses" => &self.responses,
            "inbox" => &self.inbox,
            "deferred" => &self.deferred,
            "instances" => &self.instances,
            "source" => &self.source,
            "view" => &self.view,
            "sagas" => &self.sagas,
            "saga_log" => &self.saga_log,
            "saga_locks" => &self.saga_locks,
            "saga_waits" => &self.saga_waits,
            "barrier" => &self.barrier,
            "live" => &self.live,
            "controls" => &self.controls,
            "plans" => &self.plans,
            "audit" => &self.audit,
            "samples" => &self.samples,
            "place" => &self.place,
            _ => return None,
        })
    }
}

/// Puts values in place of marks, names in braces, in one pass: many statements are written for each
/// number of rows. Braces around anything else stay.
pub(super) fn fill_marks<'v>(sql: &str, value: impl Fn(&str) -> Option<&'v str>) -> String {
    let mut filled = String::with_capacity(sql.len() + sql.len() / 2);
    let mut rest = sql;
    while let Some((before, behind)) = rest.split_once('{') {
        filled.push_str(before);
        let mark = behind.split_once('}').and_then(|(mark, behind)| Some((value(mark)?, behind)));
        let (text, behind) = mark.unwrap_or(("{", behind));
        filled.push_str(text);
        rest = behind;
    }
    filled.push_str(rest);
    filled
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_carry_the_prefix_and_are_quoted() {
        let shop = Namespace::new("shop").unwrap();
        assert_eq!(Tables::new(Dialect::Postgres, &shop).events, "\"shop_outbox_events\"");
        assert_eq!(
            Tables::new(Dialect::MariaDb, &Namespace::default()).letters,
            "`outbox_dead_letters`"
        );
    }
    #[test]
    fn marks_become_names_and_other_braces_stay() {
        let tables = Tables::new(Dialect::Postgres, &Namespace::default());
        for (sql, expected) in [
            ("{events}", "\"outbox_events\""),
            ("SELECT 1", "SELECT 1"),
            ("", ""),
            (
                "DELETE FROM {saga_log} WHERE x = '{}' OR y = '{no mark}' OR z = '{'",
                "DELETE FROM \"outbox_saga_log\" WHERE x = '{}' OR y = '{no mark}' OR z = '{'",
            ),
            ("{{live}}{audit}{", "{\"outbox_live\"}\"outbox_audit\"{"),
        ] {
            assert_eq!(tables.fill(sql), expected);
        }
    }
}
