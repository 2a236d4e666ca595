use super::*;
use crate::failure::{ConsumerOrigin, DeadReason};

fn tail(newest: i64) -> Tail {
    Tail {
        start: EventId(0),
        newest: EventId(newest),
        letter: None,
        seen: BTreeSet::new(),
        followed: BTreeMap::new(),
        given_up: BTreeSet::new(),
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
    let waiting = waiting.iter().copied().map(EventId).collect();
    let entries = tail.note(TailRead { events, complete_to: None }, &waiting, letters);
    entries.into_iter().map(|it| (it.kind, it.key.or(it.detail).unwrap_or_default())).collect()
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
    let entries = tail.note(
        TailRead { events: vec![event(3, Some(30)), event(4, Some(40))], complete_to: None },
        &BTreeSet::from([EventId(2)]),
        &[],
    );
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
    assert_eq!(look(&mut tail, &[], &[], &[]), [], "its end is no confirmation");
    assert!(tail.followed.is_empty() && tail.given_up.is_empty());
}

#[test]
fn a_read_that_is_not_complete_is_continued_from_where_it_was() {
    let mut tail = tail(0);
    let read = TailRead {
        events: vec![event(5, None), event(9_000, None)],
        complete_to: Some(EventId(5)),
    };
    assert_eq!(tail.note(read, &BTreeSet::new(), &[]).len(), 2);
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
        look(&mut tail, &events, &waiting, &[]);
    }
    assert_eq!(tail.followed.len(), MOST_FOLLOWED);
    assert!(tail.seen.len() <= 1_001, "{}", tail.seen.len());
}
