//! Single events as they are admitted, with their records.

use super::*;
use crate::failure::{DeadReason, REPORT_EVERY};

const NO: PartitionNo = PartitionNo(0);

/// A board with one route.
struct One {
    board: Board,
    now: Instant,
}

impl One {
    fn new(crashed: bool) -> Self {
        let routes = Arc::new([Route::new("a", everything(), Nowhere)]);
        let mut board = Board::new(RelaySettings::default(), routes, no_jitter);
        board.gain(NO, Epoch(1), crashed);
        Self { board, now: Instant::now() }
    }

    fn read(&mut self, body: Result<Message, String>, rows: Vec<RouteRow>) {
        let Some(ReadJob::Main { .. }) = self.board.next_read(self.now) else { panic!("it reads") };
        let event = StoredEvent {
            partition: NO,
            id: EventId(1),
            body,
            left_out: None,
            expires_in: None,
            rows,
        };
        self.is_read(vec![event], false);
    }

    fn is_read(&mut self, past: Vec<StoredEvent>, full: bool) {
        let read = PartitionRows { past, full, window: Vec::new() };
        self.board.read_done(ReadAnswer::Main(vec![read]), self.now);
    }

    fn recorded(&mut self) -> Vec<RouteUpdate> {
        self.board.take_writes().record.into_iter().map(|(_, update)| update).collect()
    }
}

fn message() -> Message {
    Message::new(MessageParts {
        id: MessageId::from_uuid(uuid::Uuid::from_u128(1)),
        sequence: Some(EventId(1)),
        source: "model".into(),
        event_type: "thing.happened".into(),
        event_version: 1,
        topic: "a".into(),
        aggregate_type: None,
        key: Some("k".into()),
        content_type: "application/json".into(),
        payload: vec![b' '].into(),
        headers: Headers::new(),
        created_at: Timestamp::from_micros(0),
        expires_at: None,
        retry: None,
    })
}

fn waiting(route: &str) -> RouteRow {
    RouteRow { due_in: Some(Duration::ZERO), ..RouteRow::waiting(route.into()) }
}

/// Found by reading the code: the record of a missing route's letter was taken for the record of
/// the event's start.
#[test]
fn a_start_is_written_down_before_the_event_goes_whatever_else_is_written_of_it() {
    let mut one = One::new(true);
    // A relay first saw it ten minutes ago, and the wait for its other route is over.
    let wait_row = RouteRow { failing_for: Duration::from_mins(10), ..waiting("") };
    one.read(Ok(message()), vec![wait_row, waiting("a"), waiting("gone")]);
    assert!(one.board.next_batches(one.now).is_empty(), "its start is written down first");
    let recorded = one.recorded();
    let [letter, start] = recorded.as_slice() else { panic!("{recorded:?}") };
    assert_eq!((letter.letters.len(), start.rows[0].attempts_started), (1, 1), "{recorded:?}");
    let event = (NO, Epoch(1), EventId(1));
    one.board.recorded(&[event], one.now);
    assert!(one.board.next_batches(one.now).is_empty(), "its start is not written down yet");
    one.board.recorded(&[event], one.now);
    assert_eq!(one.board.next_batches(one.now).len(), 1);
}

/// Found by reading the code: the event's rows of these routes stayed waiting, so that it was read
/// at each renewal, and the listeners were notified of its letter each time.
#[test]
fn of_an_event_that_does_not_decode_nothing_waits_any_more() {
    for (rows, letters) in [
        (vec![], vec![""]),
        (vec![waiting("a")], vec!["a"]),
        (
            vec![waiting("a"), waiting("b"), RouteRow { state: RouteState::Done, ..waiting("c") }],
            vec!["a", "b"],
        ),
        (vec![waiting("a"), waiting("")], vec!["a"]),
        (vec![waiting("")], vec![""]),
        (vec![RouteRow { state: RouteState::Done, ..waiting("a") }], vec![]),
    ] {
        let open: BTreeSet<Arc<str>> = rows
            .iter()
            .filter(|row| row.state == RouteState::Waiting)
            .map(|row| row.route.clone())
            .collect();
        let mut one = One::new(false);
        one.read(Err("headers: no JSON".into()), rows);
        let recorded = one.recorded();
        let [update] = recorded.as_slice() else { panic!("{recorded:?}") };
        let ended: BTreeSet<Arc<str>> = update.rows.iter().map(|row| row.route.clone()).collect();
        assert!(open.is_subset(&ended), "{open:?} waits for ever: {update:?}");
        assert!(update.rows.iter().all(|row| row.state == RouteState::Dead), "{update:?}");
        let written: Vec<&str> = update.letters.iter().map(|letter| &*letter.route).collect();
        assert_eq!(written, letters, "{update:?}");
        assert!(update.letters.iter().all(|letter| letter.reason == DeadReason::Undecodable));
    }
}

#[test]
fn an_event_that_no_route_takes_is_held_by_its_id_from_a_first_sight_that_is_written_down() {
    let routes = Arc::new([Route::new("a", topic("other"), Nowhere)]);
    let mut one = One::new(false);
    one.board = Board::new(RelaySettings::default(), routes, no_jitter);
    one.board.gain(NO, Epoch(1), false);
    one.read(Ok(message()), Vec::new());
    let recorded = one.recorded();
    let [update] = recorded.as_slice() else { panic!("{recorded:?}") };
    let ten = Duration::from_mins(10);
    assert_eq!(
        (&*update.rows[0].route, update.rows[0].due_in, update.rows[0].failing_for),
        ("", Some(ten), ten)
    );
    assert!(update.letters.is_empty());
    let stats = one.board.stats();
    assert_eq!((stats.in_memory, stats.unrouted, stats.dead), (0, 1, 0));
    let notices = one.board.take_notices();
    assert!(
        matches!(&notices[..], [Notice::Unrouted { text, .. }] if text.contains("topic `a`")),
        "{notices:?}"
    );

    // The event is due while a relay with other routes waits for its turn, and again when that
    // relay is gone.
    let due = DueRetry { partition: NO, id: EventId(1), route: "".into() };
    for (other_routes_wait, letters) in [(true, 0), (false, 1)] {
        one.board.renewed(vec![due.clone()], Vec::new(), other_routes_wait);
        let Some(ReadJob::Fetch { .. }) = one.board.next_read(one.now) else {
            panic!("it is fetched")
        };
        let rows = vec![RouteRow { failing_for: ten, ..waiting("") }];
        let body = Ok(message());
        let event = StoredEvent {
            partition: NO,
            id: EventId(1),
            body,
            left_out: None,
            expires_in: None,
            rows,
        };
        one.board.read_done(ReadAnswer::Events(vec![event]), one.now);
        let recorded = one.recorded();
        assert_eq!(
            recorded[0].letters.len(),
            letters,
            "others wait: {other_routes_wait}, {recorded:?}"
        );
    }
    assert_eq!((one.board.stats().unrouted, one.board.stats().dead), (0, 1));
}

/// Unrouted events are never in memory, so that there is room however many are read.
#[test]
fn a_backlog_that_no_route_takes_is_read_no_faster_than_it_is_written_down() {
    const PAGE: i64 = 1_000;
    let routes = Arc::new([Route::new("a", topic("other"), Nowhere)]);
    let mut one = One::new(false);
    let config = RelaySettings::default();
    one.board = Board::new(config, routes, no_jitter);
    one.board.gain(NO, Epoch(1), false);
    let event = |id| {
        let body = Ok(message());
        StoredEvent {
            partition: NO,
            id: EventId(id),
            body,
            left_out: None,
            expires_in: None,
            rows: Vec::new(),
        }
    };
    let mut last = 0;
    while let Some(ReadJob::Main { .. }) = one.board.next_read(one.now) {
        one.is_read((last + 1..=last + PAGE).map(event).collect(), true);
        last += PAGE;
        assert!(last < 1_000_000, "it reads on, and nothing is written");
    }
    assert_eq!(
        one.board.next_read_at(),
        None,
        "and the dispatcher does not wait for the next read"
    );
    let events: Vec<_> =
        one.recorded().into_iter().map(|update| (NO, Epoch(1), update.id)).collect();
    one.board.recorded(&events, one.now);
    assert!(one.board.next_read(one.now).is_some(), "written down, it goes on");
}

#[test]
fn a_destination_that_stays_down_is_told_at_once_and_its_probes_are_summed_up_once_a_minute() {
    let down = || {
        let text = "connection refused".to_owned();
        Attempt::Failed {
            class: FailureClass::Unavailable,
            text,
            retry_after: None,
            responded: false,
        }
    };
    let mut one = One::new(false);
    one.read(Ok(message()), Vec::new());
    let (begun, mut logged) = (one.now, Vec::new());
    while one.now < begun + Duration::from_secs(150) {
        for batch in one.board.next_batches(one.now) {
            let results = batch.events.iter().map(|(id, _)| (*id, down())).collect();
            one.board.published(batch.route, results, true, one.now);
        }
        one.board.report_due(one.now);
        logged.extend(
            one.board
                .take_notices()
                .into_iter()
                .map(|notice| ((one.now - begun).as_secs(), notice)),
        );
        one.now += Duration::from_millis(500);
    }
    let [(0, Notice::RouteDown { route: 0, class, text }), repeated @ ..] = &logged[..] else {
        panic!("{logged:?}")
    };
    assert_eq!((*class, text.as_str()), (FailureClass::Unavailable, "connection refused"));
    assert_eq!(repeated.len(), 2, "{logged:?}");
    for (at, notice) in repeated {
        let Notice::PublishFailed { report: Report::Repeated { failures, within }, .. } = notice
        else {
            panic!("{logged:?}")
        };
        assert!(*failures > 1 && *within >= REPORT_EVERY && at % 60 < 31, "{logged:?}");
    }
    one.board.published(0, Vec::new(), true, one.now);
    assert!(one.board.take_notices().is_empty(), "nothing was confirmed");
}
