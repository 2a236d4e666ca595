//! Rechecks the ids of a read, for databases whose snapshot may show an effect without its cause.
//!
//! MariaDB walks over the transactions that are active when it takes a snapshot, and they go on
//! meanwhile. One that it has met counts as open in this snapshot, also if it commits during the
//! walk; a second, that waited for a lock of the first, may commit too before the walk meets it,
//! and counts as committed. Their events have one key, and only those of the second are seen. A
//! later read sees the first, because it had committed before the second.

use outbox_core::{
    event::EventId,
    outbox::{PartitionRead, PartitionRows, StoredEvent},
};

/// Most rechecks of a read: under constant commits each finds new ids, and each is one more chance
/// of a consistent snapshot.
pub(super) const MAX_RECHECKS: usize = 4;

/// The last id that a read saw of a partition.
pub(super) fn last_id_read(asked: &PartitionRead, read: &PartitionRows) -> EventId {
    read.past.last().map_or(asked.after, |event| event.id)
}

/// Tells whether a read saw anything of a partition.
pub(super) const fn found_any(read: &PartitionRows) -> bool {
    !read.past.is_empty() || !read.window.is_empty()
}

/// Tells whether events that are in order lack one of the ids of a recheck.
pub(super) fn missed_any(events: &[StoredEvent], ids: &[EventId]) -> bool {
    ids.iter().any(|id| events.binary_search_by_key(id, |event| event.id).is_err())
}

/// Merges the ids of a recheck, which are in order and reach to the last id of the read. Past the
/// position, events from the first missed one on are cut off, for the next read. Tells whether the
/// window got new ids.
pub(super) fn merge_recheck(
    asked: &PartitionRead,
    read: &mut PartitionRows,
    ids: &[EventId],
) -> bool {
    let (window, past) = ids.split_at(ids.partition_point(|id| *id <= asked.after));
    let missed = past.iter().find(|id| missed_any(&read.past, &[**id]));
    if let Some(missed) = missed {
        read.past.truncate(read.past.partition_point(|event| event.id < *missed));
        read.full = true;
    }
    let grew = window.iter().any(|id| read.window.binary_search(id).is_err());
    if grew {
        read.window = window.to_vec();
    }
    grew
}

#[cfg(test)]
mod tests {
    use super::*;
    use outbox_core::outbox::PartitionNo;

    const POSITION: EventId = EventId(10);

    fn asked() -> PartitionRead {
        PartitionRead { partition: PartitionNo(3), after: POSITION, limit: 100, look_back: false }
    }

    fn event(id: i64) -> StoredEvent {
        let body = Err("not read".to_owned());
        StoredEvent {
            partition: PartitionNo(3),
            id: EventId(id),
            body,
            left_out: None,
            expires_in: None,
            rows: vec![],
        }
    }

    /// The ids of a read, those of the recheck, and the result.
    struct Row {
        window: &'static [i64],
        past: &'static [i64],
        recheck: &'static [i64],
        then: (&'static [i64], &'static [i64], bool, bool),
    }

    #[test]
    fn a_recheck_adds_to_the_window_and_cuts_where_an_event_was_missed() {
        #[rustfmt::skip]
        let table = [
            // The same again.
            Row { window: &[7, 9], past: &[11, 12], recheck: &[7, 9, 11, 12], then: (&[7, 9], &[11, 12], false, false) },
            // One more in the window: it comes before those past the position, and the window is
            // rechecked.
            Row { window: &[7, 9], past: &[11], recheck: &[7, 8, 9, 11], then: (&[7, 8, 9], &[11], false, true) },
            // One more past the position: in the middle, first, and one of each kind.
            Row { window: &[9], past: &[11, 13], recheck: &[9, 11, 12, 13], then: (&[9], &[11], true, false) },
            Row { window: &[], past: &[12, 13], recheck: &[11, 12, 13], then: (&[], &[], true, false) },
            Row { window: &[], past: &[12, 14], recheck: &[8, 12, 13, 14], then: (&[8], &[12], true, true) },
            // An id that was deleted meanwhile makes nothing new.
            Row { window: &[7, 9], past: &[11, 12], recheck: &[9, 12], then: (&[7, 9], &[11, 12], false, false) },
            // Nothing past the position.
            Row { window: &[9], past: &[], recheck: &[8, 9], then: (&[8, 9], &[], false, true) },
        ];
        let ids = |ids: &[i64]| ids.iter().copied().map(EventId).collect::<Vec<_>>();
        for Row { window, past, recheck, then: (window_then, past_then, full, again) } in table {
            let past: Vec<StoredEvent> = past.iter().copied().map(event).collect();
            let mut read = PartitionRows { past, full: false, window: ids(window) };
            let grew = merge_recheck(&asked(), &mut read, &ids(recheck));
            let left: Vec<EventId> = read.past.iter().map(|event| event.id).collect();
            let given = (read.window, left, read.full, grew);
            assert_eq!(given, (ids(window_then), ids(past_then), full, again), "{recheck:?}");
        }
    }

    #[test]
    fn a_page_lacks_an_id_that_a_recheck_finds_and_it_does_not_have() {
        let events = [event(11), event(13)];
        let lacks = |ids: &[i64]| {
            let ids: Vec<EventId> = ids.iter().copied().map(EventId).collect();
            missed_any(&events, &ids)
        };
        assert!(!lacks(&[11, 13]) && !lacks(&[13]) && !lacks(&[]), "an event that is removed");
        assert!(lacks(&[11, 12, 13]) && lacks(&[10, 11, 13]));
    }

    #[test]
    fn a_recheck_reaches_to_the_last_id_of_the_read() {
        let nothing = PartitionRows::default();
        let window = PartitionRows { window: vec![EventId(9)], ..PartitionRows::default() };
        let past = PartitionRows { past: vec![event(11), event(15)], ..PartitionRows::default() };
        let of = |read: &PartitionRows| (found_any(read), last_id_read(&asked(), read));
        assert_eq!(of(&nothing), (false, POSITION));
        assert_eq!(of(&window), (true, POSITION));
        assert_eq!(of(&past), (true, EventId(15)));
    }
}
