use super::*;
use crate::failure::{ConsumerOrigin, DeadReason};

fn tail(newest: i64) -> Tail {
    Tail {
        start: EventId(0),
        newest: EventId(newest),
        start_letter: None,
        letter: None,
        seen_letters: BTreeSet::new(),
        seen: BTreeSet::new(),
        followed: BTreeMap::new(),
        shown: BTreeMap::new(),
    }
}

fn event(id: i64, finished: Option<i64>) -> TailEvent {
    TailEvent {
        partition: PartitionNo(0),
        id: EventId(id),
        message: MessageId::generate(),
        topic: "orders".to_owned(),
        event_type: "order.placed".to_owned(),
        key: Some(id.to_string()),
        created_at: Timestamp::from_micros(id),
        finished_at: finished.map(Timestamp::from_micros),
    }
}

fn letter(id: i64, event: i64, consumer: bool) -> DeadLetter {
    let origin = ConsumerOrigin { consumer: "mails".to_owned(), handler: "send".to_owned() };
    DeadLetter::new(
        LetterId(id),
        EventId(event),
        None,
        "billing".to_owned(),
        DeadReason::Exhausted,
        1,
        Vec::new(),
        false,
        Timestamp::from_micros(9),
        None,
        None,
    )
    .with_consumer_origin(consumer.then_some(origin))
}

/// Notes a look: events by id and end, ids that wait, letters. Gives kinds with ids.
fn look(
    tail: &mut Tail,
    events: &[(i64, Option<i64>)],
    waiting: &[i64],
    letters: &[DeadLetter],
) -> Vec<(TailKind, String)> {
    let events = events.iter().map(|(id, finished)| event(*id, *finished)).collect();
    let read = TailRead { events, complete_to: None };
    let waiting: BTreeSet<EventId> = waiting.iter().copied().map(EventId).collect();
    let ended = tail.ended(&read, &waiting);
    let by_routes = letters.iter().filter(|letter| letter.consumer_origin.is_none());
    let of_ended = by_routes.filter(|letter| ended.contains(&letter.event_id));
    let given_up = of_ended.map(|it| of_letter(it.event_id.0, it.id.0, false)).collect();
    let letters = letters.to_vec();
    shown(tail.note(Look { read, waiting, given_up, letters, missed: Vec::new() }))
}

fn shown(entries: Vec<TailEntry>) -> Vec<(TailKind, String)> {
    entries.into_iter().map(|it| (it.kind, it.key.or(it.detail).unwrap_or_default())).collect()
}

fn of_letter(event: i64, letter: i64, redriven: bool) -> TailLetter {
    TailLetter { event: EventId(event), letter: LetterId(letter), redriven }
}

fn is(kind: TailKind, ids: &[&str]) -> Vec<(TailKind, String)> {
    ids.iter().map(|id| (kind, (*id).to_owned())).collect()
}

#[test]
fn an_event_is_created_once_and_confirmed_when_it_waits_no_more() {
    use TailKind::{Confirmed, Created};
    let mut tail = tail(0);
    assert_eq!(look(&mut tail, &[(1, None), (3, None)], &[], &[]), is(Created, &["1", "3"]));
    // 2 becomes visible after 3, and 1 has ended.
    let seen = look(&mut tail, &[(2, None), (3, None)], &[3], &[]);
    assert_eq!(seen, [is(Created, &["2"]), is(Confirmed, &["1"])].concat());
    assert_eq!(look(&mut tail, &[(2, None), (3, None)], &[2, 3], &[]), []);
    // 4 came and went: the archive has it. 3 is there too, with its time.
    let events = vec![event(3, Some(30)), event(4, Some(40))];
    let entries = tail.note(Look {
        read: TailRead { events, complete_to: None },
        waiting: BTreeSet::from([EventId(2)]),
        ..Look::default()
    });
    let ended: Vec<_> = entries.iter().map(|it| (it.kind, it.key.as_deref(), it.at)).collect();
    let at = |micros| Some(Timestamp::from_micros(micros));
    assert_eq!(
        ended,
        [
            (Created, Some("4"), at(4)),
            (Confirmed, Some("3"), at(30)),
            (Confirmed, Some("4"), at(40)),
        ]
    );
}

#[test]
fn an_event_that_a_route_gave_up_is_dead_and_not_confirmed() {
    use TailKind::{Confirmed, Created, Dead};
    let mut tail = tail(0);
    assert_eq!(look(&mut tail, &[(1, None), (2, None)], &[], &[]), is(Created, &["1", "2"]));
    // 1 is given up by one route while another goes on; 2 is given up by a consumer, and confirmed.
    let letters = [letter(1, 1, false), letter(2, 2, true)];
    let seen = look(&mut tail, &[], &[1], &letters);
    let dead = ["letter 1 by billing: exhausted", "letter 2 by mails/send: exhausted"];
    assert_eq!(seen, [is(Confirmed, &["2"]), is(Dead, &dead)].concat());
    assert_eq!(tail.letter, Some(LetterId(2)));
    let given_up = vec![of_letter(1, 1, false)];
    let end = Look { given_up, ..Look::default() };
    assert_eq!(tail.note(end), [], "its end is no confirmation, and its letter was shown");
    assert!(tail.followed.is_empty());
}

#[test]
fn an_event_that_was_redriven_is_confirmed_in_the_end() {
    use TailKind::{Confirmed, Created, Dead};
    let mut tail = tail(0);
    assert_eq!(look(&mut tail, &[(1, None)], &[], &[]), is(Created, &["1"]));
    let dead = is(Dead, &["letter 1 by billing: exhausted"]);
    assert_eq!(look(&mut tail, &[], &[1], &[letter(1, 1, false)]), dead);
    let end = Look { given_up: vec![of_letter(1, 1, true)], ..Look::default() };
    assert_eq!(shown(tail.note(end)), is(Confirmed, &["1"]));
}

#[test]
fn an_event_that_came_and_was_given_up_between_two_looks_is_not_confirmed() {
    use TailKind::{Created, Dead};
    let mut tail = tail(0);
    let seen = look(&mut tail, &[(1, Some(9))], &[], &[letter(1, 1, false)]);
    let dead = is(Dead, &["letter 1 by billing: exhausted"]);
    assert_eq!(seen, [is(Created, &["1"]), dead].concat());
}

#[test]
fn a_letter_that_no_read_of_letters_has_is_shown_once_with_the_end_of_its_event() {
    let mut tail = tail(0);
    (tail.start_letter, tail.letter) = (Some(LetterId(5)), Some(LetterId(5)));
    let all = [(1, None), (2, None), (3, None), (4, None)];
    look(&mut tail, &all, &[], &[]);
    look(&mut tail, &[], &[1, 2, 3, 4], &[letter(7, 9, false)]);
    for (given_up, page, missed) in [
        // This read of letters has it, or one before, or the next one.
        (of_letter(1, 8, false), &[letter(8, 1, false)][..], &[][..]),
        (of_letter(1, 7, false), &[], &[]),
        (of_letter(1, 8, false), &[], &[]),
        // 6 became visible after 7.
        (of_letter(1, 6, false), &[], &[6]),
        (of_letter(1, 6, true), &[], &[6]),
        // It was there at the start, and the event waited for other routes.
        (of_letter(1, 4, false), &[], &[4]),
        // From it the event was redriven before the start.
        (of_letter(1, 4, true), &[], &[]),
    ] {
        let missed: Vec<i64> = missed.to_vec();
        let found: Vec<i64> = tail.missed(&[given_up], page).iter().map(|id| id.0).collect();
        assert_eq!(found, missed, "{given_up:?}");
    }
    let given_up = vec![of_letter(1, 6, false)];
    let entry = dead_entry(&letter(6, 1, false));
    let missed = vec![(LetterId(6), EventId(1), entry)];
    let waiting = [2, 3, 4].map(EventId).into();
    let end = Look { given_up: given_up.clone(), missed, waiting, ..Look::default() };
    let dead = is(TailKind::Dead, &["letter 6 by billing: exhausted"]);
    assert_eq!(shown(tail.note(end)), dead);
    assert_eq!(tail.letter, Some(LetterId(7)), "the next read goes on behind the last letter");
    assert!(tail.missed(&given_up, &[]).is_empty());
}

#[test]
fn a_letter_that_becomes_visible_after_later_ones_is_shown_once() {
    let mut tail = tail(0);
    (tail.start_letter, tail.letter) = (Some(LetterId(5)), Some(LetterId(5)));
    tail.seen_letters = [1, 3, 5].map(LetterId).into();
    look(&mut tail, &[], &[], &[letter(9, 0, true)]);
    // The transaction of 4 was open at the start, that of 7 when 9 was read.
    let visible = [1, 3, 4, 5, 7, 9].map(LetterId);
    assert_eq!(tail.late(&visible), [4, 7].map(LetterId));
    let missed = [4, 7].map(|id| (LetterId(id), EventId(0), dead_entry(&letter(id, 0, true))));
    let entries = tail.note(Look { missed: missed.into(), ..Look::default() });
    let dead = ["letter 4 by mails/send: exhausted", "letter 7 by mails/send: exhausted"];
    assert_eq!(shown(entries), is(TailKind::Dead, &dead));
    assert_eq!(tail.late(&visible), []);
    assert_eq!(tail.letter, Some(LetterId(9)), "the next read goes on behind the last letter");
}

#[test]
fn a_read_that_is_not_complete_is_continued_from_where_it_was() {
    let mut tail = tail(0);
    let read = TailRead {
        events: vec![event(5, None), event(9_000, None)],
        complete_to: Some(EventId(5)),
    };
    assert_eq!(tail.note(Look { read, ..Look::default() }).len(), 2);
    assert_eq!(tail.newest, EventId(5), "events between 5 and 9,000 may be missing");
    let entries = look(&mut tail, &[(6, None), (9_000, None)], &[5, 9_000], &[]);
    assert_eq!(entries, is(TailKind::Created, &["6"]));
    assert_eq!(tail.newest, EventId(6));
}

#[test]
fn what_is_kept_is_bounded() {
    let mut tail = tail(0);
    for start in (0..30_000).step_by(500) {
        let events: Vec<(i64, Option<i64>)> = (start..start + 500).map(|id| (id, None)).collect();
        let waiting: Vec<i64> = (0..start).collect();
        let letters: Vec<DeadLetter> =
            (start..start + 500).map(|id| letter(id, 100_000 + id, false)).collect();
        look(&mut tail, &events, &waiting, &letters);
    }
    assert_eq!(tail.followed.len(), MOST_FOLLOWED);
    assert_eq!(tail.shown.len(), MOST_SHOWN);
    assert_eq!(tail.seen_letters.len(), 1_000);
    let late: Vec<LetterId> = (0..1_000).map(LetterId).collect();
    assert_eq!(tail.late(&late), late[..500], "the others are for the next look");
    assert!(tail.seen.len() <= 1_001, "{}", tail.seen.len());
}
