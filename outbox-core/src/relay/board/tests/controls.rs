//! Operators who pause and slow down: in the model, and with single events.

use super::*;
use crate::outbox::{Control, ControlAction, ControlScope, Controls};

/// What the operator of a model has set, each with the instant at which it ends by itself.
#[derive(Default)]
pub(super) struct Operator(Vec<(Control, Option<Instant>)>);

impl Model {
    /// Makes a model whose operator pauses routes, topics and keys, and slows routes down.
    fn with_operator(seed: u64, routes: usize) -> Self {
        let mut model = Self::new(seed, routes);
        (model.operator, model.has_third) = (Some(Operator::default()), true);
        model
    }

    /// The operator sets a control, or ends one.
    pub(super) fn operate(&mut self) {
        let Some(Operator(controls)) = &mut self.operator else { return };
        let rng = &mut self.rng;
        if rng.u8(0..5) < 2 {
            if !controls.is_empty() {
                controls.swap_remove(rng.usize(0..controls.len()));
            }
            return self.pass_controls_on();
        }
        let lasts = rng.bool().then(|| Duration::from_millis(rng.u64(1..2_000)));
        let (scope, name) = match rng.u8(0..4) {
            0 | 1 => {
                let route = rng.usize(0..self.routes.len());
                (ControlScope::Route, self.routes[route].name.to_string())
            }
            2 => (ControlScope::Topic, ["a", "b", "c"][rng.usize(0..3)].to_owned()),
            _ => (ControlScope::Key, format!("k{}", rng.u8(1..10))),
        };
        let action = match scope {
            ControlScope::Route if rng.bool() => {
                ControlAction::Rate([0.5, 7.0, 100.0, 3_000.0][rng.usize(0..4)])
            }
            _ => ControlAction::Pause,
        };
        controls.retain(|(other, _)| {
            (other.scope, &other.name, other.action.as_str()) != (scope, &name, action.as_str())
        });
        controls.push((control(scope, &name, action), lasts.map(|lasts| self.now + lasts)));
        self.pass_controls_on();
    }

    /// Gives the board the controls that are in force.
    pub(super) fn pass_controls_on(&mut self) {
        let (now, Some(Operator(controls))) = (self.now, &mut self.operator) else { return };
        controls.retain(|(_, until)| until.is_none_or(|until| now < until));
        let in_force = controls.iter().map(|(control, until)| Control {
            ends_in: until.map(|until| until.saturating_duration_since(now)),
            ..control.clone()
        });
        self.board.set_controls(&Controls(in_force.collect()), now);
    }

    pub(super) fn end_controls(&mut self) {
        if let Some(Operator(controls)) = &mut self.operator {
            controls.clear();
        }
        self.pass_controls_on();
    }

    /// Nothing starts that is paused, unless the database knows its start already.
    pub(super) fn check_controls(&self, route: RouteNo, id: EventId, message: &Message) {
        if self.board.entries.leg(id, route).is_some_and(entries::RouteLeg::has_begun) {
            return;
        }
        for (control, until) in self.operator.iter().flat_map(|operator| &operator.0) {
            let names = match control.scope {
                ControlScope::Route => *control.name == *self.routes[route].name,
                ControlScope::Topic => control.name == message.topic,
                ControlScope::Key => Some(&control.name) == message.key.as_ref(),
                _ => false,
            };
            let is_over = until.is_some_and(|until| until <= self.now);
            assert!(
                !names || is_over || control.action != ControlAction::Pause,
                "{id} starts on route {route} in spite of {control:?}"
            );
        }
    }
}

fn control(scope: ControlScope, name: &str, action: ControlAction) -> Control {
    Control {
        scope,
        name: name.to_owned(),
        action,
        by: "ann".to_owned(),
        reason: "the bank is down".to_owned(),
        set_at: Timestamp::from_micros(0),
        until: None,
        ends_in: None,
    }
}

#[test]
fn pauses_and_rates_that_come_and_go_lose_nothing_and_keep_the_order() {
    let seeds = if std::env::var_os("OUTBOX_LONG").is_some() { 5_000 } else { 60 };
    let one = std::env::var("OUTBOX_SEED").ok().map(|seed| seed.parse().expect("a number"));
    for seed in one.map_or(0..seeds, |seed: u64| seed..seed + 1) {
        let mut model = Model::with_operator(seed, 1 + usize::try_from(seed % 3).expect("small"));
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            model.run(400);
            model.check();
        }));
        if let Err(panic) = outcome {
            eprintln!("seed {seed}, config {:?}", model.config);
            std::panic::resume_unwind(panic);
        }
    }
}

#[test]
fn relays_that_leave_while_an_operator_pauses_repeat_nothing_and_lose_nothing() {
    for seed in 0..60 {
        let mut model = Model::with_operator(seed, 2 + usize::try_from(seed % 2).expect("small"));
        (model.relays_leave, model.failing) = (true, false);
        model.run(300);
        for delivered in &model.delivered {
            let distinct: HashSet<_> = delivered.iter().collect();
            assert_eq!(distinct.len(), delivered.len(), "seed {seed}");
        }
        model.check();
    }
}

const NO: PartitionNo = PartitionNo(0);
pub(super) const SECOND: Duration = Duration::from_secs(1);

/// A board with one partition.
pub(super) struct Paused {
    pub(super) board: Board,
    pub(super) now: Instant,
    last: i64,
}

impl Paused {
    pub(super) fn new(config: RelaySettings, routes: Vec<Route>) -> Self {
        let mut board = Board::new(config, routes.into(), no_jitter);
        board.gain(NO, Epoch(1), false);
        Self { board, now: Instant::now(), last: 0 }
    }

    pub(super) fn one_route() -> Self {
        Self::new(RelaySettings::default(), vec![Route::new("billing", everything(), Nowhere)])
    }

    fn set(&mut self, controls: &[Control]) {
        self.board.set_controls(&Controls(controls.to_vec()), self.now);
    }

    /// Reads events, each with a topic and a key.
    pub(super) fn read(&mut self, events: &[(&str, Option<&str>)]) {
        self.board.wake();
        let Some(ReadJob::Main { plan, .. }) = self.board.next_read(self.now) else {
            panic!("it reads")
        };
        let event = |(topic, key): &(&str, Option<&str>)| {
            self.last += 1;
            stored(self.last, topic, *key)
        };
        let limit = plan.partitions[0].limit as usize;
        assert!(events.len() <= limit, "the read takes {limit}");
        let past = events.iter().map(event).collect();
        let read = PartitionRows { past, full: true, window: Vec::new() };
        self.board.read_done(ReadAnswer::Main(vec![read]), self.now);
    }

    /// Gives the events that start now.
    pub(super) fn starts(&mut self) -> Vec<i64> {
        let batches = self.board.next_batches(self.now);
        let turn = self.board.next_instant();
        assert!(turn.is_none_or(|at| at > self.now), "it asks for a turn at once, for ever");
        batches.iter().flat_map(|batch| batch.events.iter().map(|(id, _)| id.0)).collect()
    }

    fn confirm(&mut self, route: RouteNo, ids: &[i64]) {
        let results = ids.iter().map(|id| (EventId(*id), Attempt::Confirmed)).collect();
        self.board.published(route, results, true, self.now);
        let writes = self.board.take_writes();
        self.board.finished(&writes.finish);
        let recorded: Vec<_> =
            writes.record.iter().map(|(epoch, update)| (NO, *epoch, update.id)).collect();
        self.board.recorded(&recorded, self.now);
    }
}

fn stored(id: i64, topic: &str, key: Option<&str>) -> StoredEvent {
    let message = Message::new(MessageParts {
        id: MessageId::from_uuid(uuid::Uuid::from_u128(id.unsigned_abs().into())),
        sequence: Some(EventId(id)),
        source: "model".into(),
        event_type: "thing.happened".into(),
        event_version: 1,
        topic: topic.into(),
        aggregate_type: None,
        key: key.map(Into::into),
        content_type: "application/json".into(),
        payload: vec![b' '].into(),
        headers: Headers::new(),
        created_at: Timestamp::from_micros(0),
        expires_at: None,
        retry: None,
    });
    StoredEvent {
        partition: NO,
        id: EventId(id),
        body: Ok(message),
        left_out: None,
        expires_in: None,
        rows: Vec::new(),
    }
}

fn pause(scope: ControlScope, name: &str) -> Control {
    control(scope, name, ControlAction::Pause)
}

#[test]
fn what_is_paused_does_not_start_and_all_else_does() {
    let events = [
        ("orders", Some("7")),
        ("orders", Some("8")),
        ("stock", Some("7")),
        ("orders", None),
        ("stock", None),
        ("stock", Some("9")),
    ];
    for (paused, started, rest) in [
        (None, vec![1, 2, 4, 5, 6], vec![3]),
        (Some(pause(ControlScope::Route, "billing")), vec![], vec![1, 2, 4, 5, 6, 3]),
        (Some(pause(ControlScope::Route, "ledger")), vec![1, 2, 4, 5, 6], vec![3]),
        // The event of key 7 on the other topic waits behind the one that is paused.
        (Some(pause(ControlScope::Topic, "orders")), vec![5, 6], vec![1, 2, 4, 3]),
        (Some(pause(ControlScope::Topic, "stock")), vec![1, 2, 4], vec![3, 5, 6]),
        (Some(pause(ControlScope::Key, "7")), vec![2, 4, 5, 6], vec![1, 3]),
        (Some(pause(ControlScope::Consumer, "billing")), vec![1, 2, 4, 5, 6], vec![3]),
    ] {
        for paused_before in [true, false] {
            let mut one = Paused::one_route();
            let controls: Vec<Control> = paused.clone().into_iter().collect();
            if paused_before {
                one.set(&controls);
            }
            one.read(&events);
            one.set(&controls);
            let mut seen = one.starts();
            assert_eq!(seen, started, "{paused:?}, before the read: {paused_before}");
            assert!(one.starts().is_empty());
            one.confirm(0, &seen);
            one.set(&[]);
            let mut last = one.starts();
            while !last.is_empty() {
                seen.extend(&last);
                one.confirm(0, &last);
                last = one.starts();
            }
            let mut expected = [started.clone(), rest.clone()].concat();
            let place = |id: i64| seen.iter().position(|seen| *seen == id);
            assert!(place(1) < place(3), "the order of key 7: {seen:?}");
            seen.sort_unstable();
            expected.sort_unstable();
            assert_eq!(seen, expected, "{paused:?}, before the read: {paused_before}");
            let stats = one.board.stats();
            assert_eq!((stats.delivered, stats.retried), (6, 0), "no attempt was counted");
        }
    }
}

#[test]
fn an_event_that_has_begun_goes_in_front_of_its_key_under_a_pause_and_nothing_else_does() {
    for (scope, name) in [
        (ControlScope::Route, "billing"),
        (ControlScope::Topic, "orders"),
        (ControlScope::Key, "7"),
    ] {
        for key in [Some("7"), None].into_iter().filter(|key| key.is_some() || name != "7") {
            let mut one = Paused::one_route();
            // The partition's former owner has crashed: a start is recorded before the publish.
            one.board.lost(NO, Epoch(1));
            one.board.gain(NO, Epoch(2), true);
            one.read(&[("orders", key), ("orders", key)]);
            assert!(one.starts().is_empty(), "{scope} {key:?}: the starts are recorded first");
            let begun: Vec<_> = one.board.take_writes().record;
            let begun: Vec<_> = begun.iter().map(|(epoch, row)| (NO, *epoch, row.id)).collect();
            assert!(!begun.is_empty(), "{scope} {key:?}");
            one.set(&[pause(scope, name)]);
            // A pause of a key is none of events without one.
            let other = if scope == ControlScope::Key { Some("7") } else { None };
            one.read(&[("orders", Some("7")), ("orders", other), ("orders", Some("7"))]);
            assert!(one.starts().is_empty(), "{scope} {key:?}: nothing that is paused starts");
            one.board.recorded(&begun, one.now);
            let expected: Vec<i64> = begun.iter().map(|(_, _, id)| id.0).collect();
            let mut started = one.starts();
            started.sort_unstable();
            assert_eq!(started, expected, "{scope} {key:?}: what has begun goes on");
            one.confirm(0, &started);
            one.board.take_writes();
            assert!(one.starts().is_empty(), "{scope} {key:?}: and nothing else does");
        }
    }
}

#[test]
fn a_pause_with_a_time_ends_by_itself_and_the_board_asks_for_that_turn() {
    for scope in [ControlScope::Route, ControlScope::Topic, ControlScope::Key] {
        let name = match scope {
            ControlScope::Route => "billing",
            ControlScope::Topic => "orders",
            _ => "7",
        };
        let mut one = Paused::one_route();
        one.set(&[Control { ends_in: Some(5 * SECOND), ..pause(scope, name) }]);
        one.read(&[("orders", Some("7"))]);
        assert!(one.starts().is_empty(), "{scope}");
        assert_eq!(one.board.next_instant(), Some(one.now + 5 * SECOND), "{scope}");
        one.now += 5 * SECOND - Duration::from_nanos(1);
        assert!(one.starts().is_empty(), "{scope}");
        one.now += Duration::from_nanos(1);
        assert_eq!(one.starts(), [1], "{scope}");
    }
}

#[test]
fn nothing_starts_before_the_controls_have_come() {
    let mut one = Paused::one_route();
    one.board.wait_for_controls();
    one.read(&[("orders", Some("7"))]);
    assert!(one.starts().is_empty());
    one.set(&[]);
    assert_eq!(one.starts(), [1]);
}

#[test]
fn a_limit_lets_so_many_events_a_second_start_and_asks_for_the_turn_of_the_next() {
    let mut one = Paused::one_route();
    one.set(&[control(ControlScope::Route, "billing", ControlAction::Rate(10.0))]);
    one.read(&[("orders", None); 30]);
    let (begun, mut started) = (one.now, 0);
    while one.now < begun + 2 * SECOND {
        let ids = one.starts();
        started += ids.len();
        one.confirm(0, &ids);
        one.now = one.board.next_instant().expect("the limit lets another one start");
    }
    assert_eq!(started, 20, "one at once, and one in each tenth of a second");
    // The same limit, read again, keeps its bucket.
    one.set(&[control(ControlScope::Route, "billing", ControlAction::Rate(10.0))]);
    assert_eq!(one.starts().len(), 1);
    one.set(&[control(ControlScope::Route, "billing", ControlAction::Rate(10.0))]);
    assert!(one.starts().is_empty());
    one.set(&[]);
    assert_eq!(one.starts().len(), 9, "without a limit all start");
}

#[test]
fn what_is_held_leaves_room_to_the_others_however_much_of_it_there_is() {
    let config = RelaySettings { per_route: 40, per_key: 8, ..RelaySettings::default() };
    for (paused, keys) in [("orders", 1_000), ("orders", 3)] {
        let mut one = Paused::new(config, vec![Route::new("billing", everything(), Nowhere)]);
        one.set(&[pause(ControlScope::Topic, paused)]);
        let (mut stock, mut delivered) = (0, 0);
        for n in 0..200 {
            let (key, keyless) = (format!("key {}", n % keys), n % 5 == 0);
            let held = ("orders", (!keyless).then_some(key.as_str()));
            // Beyond so many keys that are held, the route is evicted from.
            let other = (n < 30).then_some(("stock", None));
            stock += usize::from(other.is_some());
            one.read(&other.into_iter().chain([held]).collect::<Vec<_>>());
            let ids = one.starts();
            delivered += ids.len();
            one.confirm(0, &ids);
            one.now += SECOND;
            assert!(one.board.stats().in_memory <= 11, "{:?}", one.board.stats());
        }
        assert_eq!(delivered, stock, "{keys} keys");
        assert!(one.board.queues[0].keys() <= 41, "{keys} keys take memory");
    }
}

#[test]
fn a_route_that_is_paused_says_so_and_the_others_go_on() {
    let routes = vec![
        Route::new("billing", everything(), Nowhere),
        Route::new("ledger", everything(), Nowhere),
    ];
    let mut one = Paused::new(RelaySettings::default(), routes);
    let limited = control(ControlScope::Route, "ledger", ControlAction::Rate(2.5));
    one.set(&[pause(ControlScope::Route, "billing"), limited]);
    one.read(&[("orders", Some("7"))]);
    assert_eq!(one.starts(), [1], "on the other route");
    let live = one.board.live(one.now);
    let seen: Vec<_> = live
        .routes
        .iter()
        .map(|r| (r.route.as_str(), r.paused, r.limit, r.waiting, r.in_flight))
        .collect();
    let expected = [("billing", true, None, 1, 0), ("ledger", false, Some(2.5), 0, 1)];
    assert_eq!(seen, expected);
    one.confirm(1, &[1]);
    let live = one.board.live(one.now);
    assert_eq!((live.routes[1].delivered, live.in_memory), (1, 1));
}

#[test]
fn a_route_that_is_down_says_since_when_and_why() {
    let mut one = Paused::one_route();
    one.read(&[("orders", Some("7"))]);
    assert_eq!(one.starts(), [1]);
    let down = Attempt::Failed {
        class: FailureClass::Unavailable,
        text: "amqp://ann:pw@mq: connection refused\n".into(),
        retry_after: None,
        responded: false,
    };
    one.board.published(0, vec![(EventId(1), down)], true, one.now);
    one.now += Duration::from_millis(100);
    let live = one.board.live(one.now).routes.swap_remove(0);
    assert_eq!((live.breaker.as_str(), live.open_for_ms), ("open", Some(100)), "{live:?}");
    assert!(live.probe_in_ms.is_some_and(|left| left > 0 && left < 500), "{live:?}");
    let failure = live.last_failure.expect("it has failed");
    assert_eq!(failure.text, "amqp://***@mq: connection refused");
    assert_eq!((failure.class.as_str(), failure.ago_ms), ("unavailable", 100));
    one.now += SECOND;
    assert_eq!(one.starts(), [1], "a probe");
    assert_eq!(one.board.live(one.now).routes[0].breaker, "half_open");
    one.now += SECOND;
    one.confirm(0, &[1]);
    let live = one.board.live(one.now).routes.swap_remove(0);
    assert_eq!(
        (live.breaker.as_str(), live.open_for_ms, live.last_failure),
        ("closed", None, None)
    );
}

#[test]
fn a_destination_that_has_not_begun_costs_no_attempt_for_a_day_and_the_key_keeps_its_order() {
    let mut one = Paused::one_route();
    one.read(&[("orders", Some("7")), ("orders", Some("7")), ("orders", Some("8"))]);
    let (begun, mut busy) = (one.now, 0);
    while one.now < begun + Duration::from_hours(25) {
        let starts = one.starts();
        assert!(!starts.contains(&2), "behind the first of its key");
        busy += starts.len();
        let answer = |id: &i64| (EventId(*id), Attempt::Busy { wait: Duration::from_mins(1) });
        one.board.published(0, starts.iter().map(answer).collect(), true, one.now);
        one.now += Duration::from_mins(1);
        let due = one.board.take_timers();
        one.board.timers_fired(&due, one.now);
    }
    assert!(busy > 2_000, "{busy}");
    let stats = one.board.stats();
    assert_eq!((stats.retried, stats.dead), (0, 0));
    assert_eq!(one.board.live(one.now).routes[0].breaker, "closed");
    let mut first = one.starts();
    first.sort_unstable();
    assert_eq!(first, [1, 3]);
    one.confirm(0, &[1, 3]);
    assert_eq!(one.starts(), [2]);
}
