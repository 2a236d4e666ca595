//! What a plan of an erasure says beside its numbers. Pure.

use super::keys::Keys;
use outbox_core::{admin::TableErasure, event::SagaId};

/// Ids of sagas that a note has.
const MOST_IDS: usize = 10;

/// Says what is left and until when, and what a key does not find.
pub(super) fn notes(tables: &[TableErasure], keys: &Keys) -> Vec<String> {
    let mut notes = Vec::new();
    for (suffix, text) in [
        (
            "outbox_events",
            "events still wait to be delivered, and are left: erase again after that.",
        ),
        (
            "outbox_deferred",
            "deferred deliveries are being run by an instance, and are left: erase again after that.",
        ),
        ("outbox_sagas", "sagas have not ended, and are left: erase again after that."),
    ] {
        let left =
            tables.iter().find(|table| table.table.ends_with(suffix)).map(|table| table.left);
        if let Some(left) = left.filter(|left| left.count > 0) {
            notes.push(format!("{left} {text}"));
        }
    }
    notes.extend(of_sagas(keys));
    notes.extend(
        [
            "Open dead letters of the key are discarded, and the later events of the key, which wait, are delivered.",
            "The archive, scheduled events, dead letters, deferred deliveries and sagas are scanned in the order of \
             their ids: no index has the key.",
            "The key itself stays in dead letters, in the correlation ids of sagas, as a dedup key and in the audit \
             until their retention has passed.",
            "Replies in outbox_saga_barrier have no key: their retention deletes them.",
            "What was delivered is not here any more: the receivers erase it.",
        ]
        .map(str::to_owned),
    );
    notes
}

/// Names the sagas whose replies are in other databases too.
fn of_sagas(keys: &Keys) -> Option<String> {
    let ids: Vec<String> = keys.ended.iter().take(MOST_IDS).map(SagaId::to_string).collect();
    let more = match keys.ended.len().saturating_sub(MOST_IDS) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    (!ids.is_empty()).then(|| {
        format!(
            "In the databases of other services, erase the ids of these sagas too: their replies have them as keys: \
             {}{more}.",
            ids.join(", ")
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use outbox_core::admin::Bounded;

    fn table(name: &str, count: u64) -> TableErasure {
        let left = Bounded { count: count.min(10_000), or_more: count > 10_000 };
        TableErasure { table: name.into(), erased: 1, left }
    }

    #[test]
    fn a_plan_says_what_is_left() {
        let keys = Keys::for_test("7", []);
        let quiet = notes(&[table("shop_outbox_events", 0), table("shop_outbox_sagas", 0)], &keys);
        assert_eq!(quiet.len(), 5, "{quiet:?}");
        let busy = [
            table("shop_outbox_deferred", 2),
            table("shop_outbox_sagas", 1),
            table("shop_outbox_events", 10_001),
        ];
        let said = notes(&busy, &keys);
        assert!(said[0].starts_with("10000+ events still wait"), "{said:?}");
        assert!(said[1].starts_with("2 deferred deliveries"), "{said:?}");
        assert!(said[2].starts_with("1 sagas have"), "{said:?}");
        assert_eq!(said[3..], quiet);
    }

    #[test]
    fn a_plan_names_the_sagas_whose_replies_are_elsewhere_too() {
        let ids: Vec<SagaId> = (0..12).map(|_| SagaId::generate()).collect();
        let said = notes(&[], &Keys::for_test("7", ids[..2].iter().copied()));
        assert!(said[0].ends_with(&format!("keys: {}, {}.", ids[0], ids[1])), "{said:?}");
        let said = notes(&[], &Keys::for_test("7", ids.iter().copied()));
        assert!(said[0].ends_with(&format!("{} and 2 more.", ids[9])), "{said:?}");
        assert_eq!(said.len(), 6);
    }
}
