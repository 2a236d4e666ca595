//! What a second look at the ids makes of a read, for databases whose snapshot may hold an effect without its cause.
//!
//! MariaDB walks over the transactions that are active when it takes a snapshot, and they go on meanwhile. One that it has met
//! counts as open in this snapshot, also if it commits during the walk; a second, that waited for a lock of the first, may
//! commit too before the walk meets it, and counts as committed. Their events have one key, and only those of the second
//! are seen. Whoever looks again sees the first, because it had committed before the second.

use outbox_core::{
    event::EventId,
    outbox::{PartitionRead, PartitionRows, StoredEvent},
};

/// Looks that a read takes at most: under a load of commits without end each finds something new, and each is one more
/// chance of a snapshot that is as it should be.
pub(super) const LOOKS: usize = 4;

/// The last id that a read saw of a partition.
pub(super) fn seen_to(asked: &PartitionRead, read: &PartitionRows) -> EventId {
    read.past.last().map_or(asked.after, |event| event.id)
}

/// Tells whether a read saw anything of a partition.
pub(super) const fn has_seen(read: &PartitionRows) -> bool {
    !read.past.is_empty() || !read.window.is_empty()
}

/// Tells whether events that are in order lack one of the ids that a later look has shown.
pub(super) fn has_overlooked(events: &[StoredEvent], ids: &[EventId]) -> bool {
    ids.iter().any(|id| events.binary_search_by_key(id, |event| event.id).is_err())
}

/// Takes in the ids of a later look, which are in order and reach to the last that the read saw. Events from the first on
/// that the read overlooked past the position are cut off, for the next read. Tells whether the window got new ids.
pub(super) fn take_in(asked: &PartitionRead, read: &mut PartitionRows, ids: &[EventId]) -> bool {
    let (window, past) = ids.split_at(ids.partition_point(|id| *id <= asked.after));
    let overlooked = past.iter().find(|id| has_overlooked(&read.past, &[**id]));
    if let Some(overlooked) = overlooked {
        read.past.truncate(read.past.partition_point(|event| event.id < *overlooked));
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
        let body = Err("not looked at".to_owned());
        StoredEvent { partition: PartitionNo(3), id: EventId(id), body, left_out: None, expires_in: None, rows: vec![] }
    }

    /// What a read saw, the ids of the next look, and what comes of them.
    struct Row {
        window: &'static [i64],
        past: &'static [i64],
        look: &'static [i64],
        then: (&'static [i64], &'static [i64], bool, bool),
    }

    #[test]
    fn a_look_adds_to_the_window_and_cuts_where_an_event_was_overlooked() {
        #[rustfmt::skip]
        let table = [
            // The same again.
            Row { window: &[7, 9], past: &[11, 12], look: &[7, 9, 11, 12], then: (&[7, 9], &[11, 12], false, false) },
            // One more in the window: it comes before those past the position, and the window is looked at again.
            Row { window: &[7, 9], past: &[11], look: &[7, 8, 9, 11], then: (&[7, 8, 9], &[11], false, true) },
            // One more past the position, in the midst, first, and one of each kind.
            Row { window: &[9], past: &[11, 13], look: &[9, 11, 12, 13], then: (&[9], &[11], true, false) },
            Row { window: &[], past: &[12, 13], look: &[11, 12, 13], then: (&[], &[], true, false) },
            Row { window: &[], past: &[12, 14], look: &[8, 12, 13, 14], then: (&[8], &[12], true, true) },
            // What was removed meanwhile makes nothing new.
            Row { window: &[7, 9], past: &[11, 12], look: &[9, 12], then: (&[7, 9], &[11, 12], false, false) },
            // Nothing past the position.
            Row { window: &[9], past: &[], look: &[8, 9], then: (&[8, 9], &[], false, true) },
        ];
        let ids = |ids: &[i64]| ids.iter().copied().map(EventId).collect::<Vec<_>>();
        for Row { window, past, look, then: (window_then, past_then, full, again) } in table {
            let past: Vec<StoredEvent> = past.iter().copied().map(event).collect();
            let mut read = PartitionRows { past, full: false, window: ids(window) };
            let told = take_in(&asked(), &mut read, &ids(look));
            let left: Vec<EventId> = read.past.iter().map(|event| event.id).collect();
            let given = (read.window, left, read.full, told);
            assert_eq!(given, (ids(window_then), ids(past_then), full, again), "{look:?}");
        }
    }

    #[test]
    fn a_page_has_overlooked_what_a_later_look_shows_and_it_has_not() {
        let events = [event(11), event(13)];
        let after = |ids: &[i64]| {
            let ids: Vec<EventId> = ids.iter().copied().map(EventId).collect();
            has_overlooked(&events, &ids)
        };
        assert!(!after(&[11, 13]) && !after(&[13]) && !after(&[]), "what was removed meanwhile is not overlooked");
        assert!(after(&[11, 12, 13]) && after(&[10, 11, 13]));
    }

    #[test]
    fn a_look_reaches_to_the_last_that_was_seen() {
        let nothing = PartitionRows::default();
        let window = PartitionRows { window: vec![EventId(9)], ..PartitionRows::default() };
        let past = PartitionRows { past: vec![event(11), event(15)], ..PartitionRows::default() };
        let of = |read: &PartitionRows| (has_seen(read), seen_to(&asked(), read));
        assert_eq!(of(&nothing), (false, POSITION));
        assert_eq!(of(&window), (true, POSITION));
        assert_eq!(of(&past), (true, EventId(15)));
    }
}
