//! Acts of operators that are planned first: chunks, canaries, those that share a plan, and the
//! audit.

use crate::outbox::{LEASE, owner_of_all, read_all};
use bytes::Bytes;
use outbox_core::{
    admin::{
        Act, ActStore, AdminStore, Applied, AuditEntry, AuditOutcome, Bounded, Canary,
        DeadLetterFilter, OperatorNote, Plan, PlanId, PlanStore, apply,
    },
    event::{LetterId, Message, MessageParts, NewEvent, Timestamp},
    failure::DeadReason,
    outbox::{
        ConsumerStore, Fence, History, NewLetter, ReceivedLetter, RelayStore, RouteRow, RouteState,
        RouteUpdate, Store, StoreError, StoredEvent,
    },
    runtime::Shutdown,
    testing::store::{PARTITIONS, event},
};
use outbox_sea_orm::Outbox;
use sea_orm::{ConnectionTrait, Statement};
use std::time::Duration;
use tests::{databases::TempDatabase, in_time, on_every_database};
use tokio::sync::{mpsc, oneshot};

/// Long enough for a busy machine; nothing waits that long when all is well.
const SOON: Duration = Duration::from_secs(60);
/// Letters that one transaction buries.
const BURIED: usize = 200;

/// An outbox whose relay is the test.
pub(crate) struct World {
    pub(crate) outbox: Outbox,
    pub(crate) store: RelayStore,
    pub(crate) fence: Fence,
}

impl World {
    pub(crate) async fn open(temp: &TempDatabase) -> Self {
        let builder = Outbox::builder(temp.connect().await).source("/shop").partitions(PARTITIONS);
        let outbox = builder.install().await.unwrap();
        let (store, fence) = owner_of_all(outbox.connection(), outbox.schema(), LEASE).await;
        Self { outbox, store, fence }
    }

    /// Appends events and gives all up that wait, on the route `billing`; gives the new letters.
    pub(crate) async fn bury(&self, events: &[NewEvent]) -> Vec<LetterId> {
        for chunk in events.chunks(BURIED) {
            let db = self.outbox.connection();
            self.outbox.schema().append(db, "/shop", chunk).await.unwrap();
        }
        let update = |event: &StoredEvent| RouteUpdate {
            partition: event.partition,
            id: event.id,
            rows: vec![RouteRow {
                state: RouteState::Dead,
                // As a relay knows of a redrive that it has read.
                redriven: event.rows.iter().any(|row| row.redriven),
                ..RouteRow::waiting("billing".into())
            }],
            letters: vec![NewLetter {
                route: "billing".into(),
                reason: DeadReason::Rejected,
                parks: true,
            }],
        };
        let updates: Vec<RouteUpdate> =
            read_all(&*self.store.reader).await.iter().map(update).collect();
        let mut letters = Vec::new();
        for chunk in updates.chunks(BURIED) {
            let settled = self.store.settler.record(&self.fence, chunk).await.unwrap();
            letters.extend(settled.letters.into_iter().map(|(_, _, letter)| letter));
        }
        letters.sort_unstable();
        letters
    }

    /// Buries so many events, each of a key of its own.
    pub(crate) async fn bury_many(&self, count: usize) -> Vec<LetterId> {
        let events: Vec<NewEvent> = (0..count).map(|n| event(&format!("key-{n}"))).collect();
        let letters = self.bury(&events).await;
        assert_eq!(letters.len(), count);
        letters
    }

    pub(crate) async fn plan(&self, act: Act) -> Plan {
        self.outbox.plan(act, &on_orders(), false).await.unwrap()
    }

    pub(crate) async fn apply(&self, plan: PlanId) -> Result<AuditOutcome, StoreError> {
        apply(&self.outbox, plan, &ann(), None, &Shutdown::default(), |_| {}).await
    }

    pub(crate) async fn open_letters(&self) -> i64 {
        self.number("SELECT count(*) FROM outbox_dead_letters WHERE resolution IS NULL").await
    }

    pub(crate) async fn waiting(&self) -> i64 {
        self.number("SELECT count(*) FROM outbox_events").await
    }

    pub(crate) async fn number(&self, sql: &str) -> i64 {
        let db = self.outbox.connection();
        let query = Statement::from_string(db.get_database_backend(), sql);
        let row = db.query_one_raw(query).await.unwrap().unwrap();
        row.try_get_by_index(0).unwrap()
    }

    pub(crate) async fn run(&self, sql: &str) {
        self.outbox.connection().execute_unprepared(sql).await.unwrap();
    }

    pub(crate) async fn audit(&self) -> Vec<AuditEntry> {
        self.outbox.audit(None, 100).await.unwrap()
    }

    /// Writes the letter of a message that a consumer has given up.
    async fn give_up_received(&self, message: Result<&Message, Option<&Bytes>>) -> LetterId {
        let tx = Store::begin(&self.outbox).await.unwrap();
        let history = History::default();
        let letter = ReceivedLetter {
            consumer: "mail",
            handler: "on_order",
            message,
            reason: DeadReason::Exhausted,
            history: &history,
        };
        let letter = self.outbox.write_dead_letter(&tx, &letter).await.unwrap();
        self.outbox.commit(tx).await.unwrap();
        letter.id
    }
}

pub(crate) fn ann() -> OperatorNote {
    OperatorNote::new("ann", "the bank is back")
}

pub(crate) fn on_orders() -> DeadLetterFilter {
    DeadLetterFilter::all().topic("orders")
}

/// Makes a message as a broker delivers it.
pub(crate) fn received(key: &str) -> Message {
    let NewEvent { message_id, event_type, topic, content_type, payload, key, headers, .. } =
        event(key);
    Message::new(MessageParts {
        id: message_id,
        source: "/other".into(),
        topic,
        event_type,
        event_version: 1,
        aggregate_type: None,
        key,
        content_type,
        payload,
        headers,
        created_at: Timestamp::from_micros(1),
        expires_at: None,
        sequence: None,
        retry: None,
    })
}

/// Gives the text of a refusal.
pub(crate) fn refusal<T: std::fmt::Debug>(result: Result<T, StoreError>) -> String {
    match result.unwrap_err() {
        StoreError::Refused(why) => why.to_string(),
        other => panic!("{other:?}"),
    }
}

/// Gives what an entry of the audit counts: done, skipped, refused.
pub(crate) fn counts(entry: &AuditEntry) -> (u64, u64, u64) {
    (entry.done, entry.skipped, entry.refused)
}

on_every_database! {
    async fn a_plan_of_1000_letters_is_applied_in_chunks_and_later_letters_are_not_touched(temp: &TempDatabase) {
        let world = World::open(temp).await;
        let letters = world.bury_many(1_000).await;
        let plan = world.plan(Act::Redrive).await;
        assert_eq!((plan.count, plan.first.as_slice()), (Bounded { count: 1_000, or_more: false }, &letters[..10]));
        assert!(plan.selection.contains("on topic \"orders\", up to letter"), "{}", plan.selection);
        assert!(plan.notes[0].starts_with("1000 letters with a parked key"), "{:?}", plan.notes);
        let later = world.bury_many(3).await;
        let mut progress = Vec::new();
        let applied =
            apply(&world.outbox, plan.id, &ann(), None, &Shutdown::default(), |applied| progress.push(applied)).await;
        assert_eq!(applied.unwrap(), AuditOutcome::Done);
        let done: Vec<u64> = progress.iter().map(|applied| applied.done).collect();
        assert_eq!(done, [200, 400, 600, 800, 1_000]);
        let last = progress.last().copied().unwrap();
        let expected = Applied { done: 1_000, skipped: 0, refused: 0, after: Some(letters[999].0), complete: true };
        assert_eq!(last, expected);
        assert_eq!((world.open_letters().await, world.waiting().await), (3, 1_000));
        let open = world.outbox.dead_letters(&on_orders(), None, 10).await.unwrap();
        assert_eq!(open.iter().map(|letter| letter.id).collect::<Vec<_>>(), later);
        let audit = world.audit().await;
        let [entry] = audit.as_slice() else { panic!("{audit:?}") };
        assert_eq!((entry.by.as_str(), entry.reason.as_str(), entry.act.as_str()), ("ann", "the bank is back", "redrive"));
        assert_eq!((entry.target.as_str(), counts(entry)), (plan.selection.as_str(), (1_000, 0, 0)));
        assert_eq!((entry.outcome, entry.plan), (AuditOutcome::Done, Some(plan.id)));
        // Once more.
        let ended = refusal(world.apply(plan.id).await);
        assert!(ended.contains("has ended as done: redrove 1000 letters, 0 skipped, 0 refused"), "{ended}");
        assert_eq!(world.waiting().await, 1_000);
        assert_eq!(world.audit().await, audit);
    }

    async fn letters_that_others_resolve_meanwhile_are_skipped_and_counted(temp: &TempDatabase) {
        let world = World::open(temp).await;
        let letters = world.bury_many(30).await;
        let plan = world.plan(Act::Purge).await;
        let bob = OperatorNote::new("bob", "not wanted");
        assert_eq!(world.outbox.discard(&letters[3..6], &bob).await.unwrap(), letters[3..6]);
        let first = world.outbox.apply_chunk(plan.id, 5, &ann()).await.unwrap();
        let expected = Applied { done: 5, skipped: 3, refused: 0, after: Some(letters[7].0), complete: false };
        assert_eq!(first, expected, "three of the first eight are bob's");
        assert_eq!(world.outbox.redrive(&letters[29..], &bob).await.unwrap(), letters[29..]);
        assert_eq!(world.apply(plan.id).await.unwrap(), AuditOutcome::Done);
        let audit = world.audit().await;
        let of_plan = audit.iter().find(|entry| entry.plan == Some(plan.id)).unwrap();
        assert_eq!((counts(of_plan), of_plan.act.as_str()), ((26, 4, 0), "purge"));
        let emptied = "SELECT count(*) FROM outbox_dead_letters WHERE length(payload) = 0 AND resolved_by = 'ann'";
        assert_eq!(world.number(emptied).await, 26);
        let redriven = DeadLetterFilter { include_resolved: true, ..DeadLetterFilter::all().letter(letters[29]) };
        let redriven = world.outbox.dead_letters(&redriven, None, 1).await.unwrap().remove(0);
        assert!(!redriven.message.unwrap().payload.is_empty(), "what bob redrove keeps its content");
        assert_eq!(world.open_letters().await, 0);
    }

    async fn two_that_apply_one_plan_at_once_share_its_letters(temp: &TempDatabase) {
        let world = World::open(temp).await;
        world.bury_many(1_000).await;
        let plan = world.plan(Act::Redrive).await.id;
        let other = Outbox::builder(temp.connect().await).source("/shop").build().await.unwrap();
        let (ann, bob) = (ann(), OperatorNote::new("bob", "me too"));
        let first = tokio::join!(world.outbox.apply_chunk(plan, 100, &ann), other.apply_chunk(plan, 100, &bob));
        let mut done = [first.0.unwrap().done, first.1.unwrap().done];
        done.sort_unstable();
        assert_eq!(done, [100, 200], "one after the other, whoever is first");
        let never = Shutdown::default();
        let both = tokio::join!(
            apply(&world.outbox, plan, &ann, None, &never, |_| {}),
            apply(&other, plan, &bob, None, &never, |_| {}),
        );
        for outcome in [both.0, both.1] {
            match outcome {
                Ok(outcome) => assert_eq!(outcome, AuditOutcome::Done),
                // Its first chunk came after the end.
                Err(error) => assert!(refusal::<()>(Err(error)).contains("has ended as done")),
            }
        }
        let audit = world.audit().await;
        assert_eq!(audit.iter().map(counts).collect::<Vec<_>>(), [(1_000, 0, 0)]);
        assert_eq!((world.open_letters().await, world.waiting().await), (0, 1_000));
        assert_eq!(world.number("SELECT count(*) FROM outbox_retries WHERE state = 'waiting'").await, 1_000);
    }

    async fn after_a_death_in_the_middle_the_plan_goes_on_where_it_was(temp: &TempDatabase) {
        let world = World::open(temp).await;
        world.bury_many(1_000).await;
        let plan = world.plan(Act::Redrive).await.id;
        let (sender, died) = oneshot::channel();
        let (mut sender, mut chunks) = (Some(sender), 0);
        let cancel = Shutdown::default();
        let note = ann();
        let dying = apply(&world.outbox, plan, &note, None, &cancel, |_| {
            chunks += 1;
            if chunks == 2 {
                sender.take().unwrap().send(()).unwrap();
            }
        });
        tokio::select! {
            biased;
            _ = died => {}
            outcome = dying => panic!("it was to die: {outcome:?}"),
        }
        let after = world.audit().await;
        assert_eq!((after.len(), after[0].outcome), (1, AuditOutcome::Running));
        // Only a plan without a chunk expires.
        world.run("UPDATE outbox_plans SET expires_at = 1").await;
        let bob = OperatorNote::new("bob", "goes on");
        let applied = apply(&world.outbox, plan, &bob, None, &cancel, |_| {}).await;
        assert_eq!(applied.unwrap(), AuditOutcome::Done);
        let audit = world.audit().await;
        assert_eq!((audit.len(), counts(&audit[0]), audit[0].by.as_str()), (1, (1_000, 0, 0), "ann"));
        assert_eq!((audit[0].id, audit[0].outcome), (after[0].id, AuditOutcome::Done));
        assert_eq!((world.open_letters().await, world.waiting().await), (0, 1_000));
        let by = |name: &str| format!("SELECT count(*) FROM outbox_dead_letters WHERE resolved_by = '{name}'");
        let (ann, bob) = (world.number(&by("ann")).await, world.number(&by("bob")).await);
        assert!(ann >= 400 && bob >= 200 && ann + bob == 1_000, "{ann} and {bob}");
    }

    async fn a_plan_that_has_expired_is_refused_and_deleted_by_the_next_one(temp: &TempDatabase) {
        let world = World::open(temp).await;
        world.bury_many(3).await;
        let plan = world.plan(Act::Discard).await;
        let left = plan.expires_at.since(Timestamp::from_micros(
            world.number("SELECT planned_at FROM outbox_plans").await,
        ));
        assert_eq!(left, Duration::from_mins(15));
        world.run("UPDATE outbox_plans SET expires_at = 1").await;
        let expired = refusal(world.apply(plan.id).await);
        assert!(expired.contains("has expired at 1970-01-01T00:00:00.000001Z: plan again"), "{expired}");
        assert_eq!((world.open_letters().await, world.audit().await.len()), (3, 0));
        let next = world.plan(Act::Discard).await;
        assert_eq!(world.number("SELECT count(*) FROM outbox_plans").await, 1);
        let gone = refusal(world.apply(plan.id).await);
        assert!(gone.contains("does not exist"), "{gone}");
        assert_eq!(world.apply(next.id).await.unwrap(), AuditOutcome::Done);
        // One that was applied is no expired one.
        world.run("UPDATE outbox_plans SET expires_at = 1").await;
        world.plan(Act::Discard).await;
        assert_eq!(world.number("SELECT count(*) FROM outbox_plans").await, 2);
    }

    async fn a_canary_stops_when_the_first_letter_fails_again(temp: &TempDatabase) {
        let world = World::open(temp).await;
        let letters = world.bury_many(300).await;
        let plan = world.plan(Act::Redrive).await.id;
        let (sender, mut chunks) = mpsc::unbounded_channel();
        let (note, never) = (ann(), Shutdown::default());
        let canary = Some(Canary { watch: SOON });
        let applying = apply(&world.outbox, plan, &note, canary, &never, |applied| sender.send(applied).unwrap());
        let failing = async {
            let applied: Applied = chunks.recv().await.unwrap();
            assert_eq!(applied.done, 1);
            let again = world.bury(&[]).await;
            assert_eq!(again.len(), 1, "the one that was redriven");
        };
        let (outcome, ()) = in_time(SOON, "it stops", async { tokio::join!(applying, failing) }).await;
        assert_eq!(outcome.unwrap(), AuditOutcome::Stopped);
        assert_eq!(world.outbox.failed_again(plan).await.unwrap(), 1);
        assert_eq!(world.open_letters().await, 300, "299, and the one that failed again");
        let audit = world.audit().await;
        assert_eq!((audit.len(), counts(&audit[0]), audit[0].outcome), (1, (1, 0, 0), AuditOutcome::Stopped));
        let ended = refusal(world.apply(plan).await);
        assert!(ended.contains("has ended as stopped: redrove 1 letters"), "{ended}");
        let open = world.outbox.dead_letters(&on_orders(), None, 1_000).await.unwrap();
        assert_eq!(open.last().unwrap().previous, Some(letters[0]));
    }

    async fn a_letter_of_another_event_does_not_stop_a_canary(temp: &TempDatabase) {
        let world = World::open(temp).await;
        let letters = world.bury_many(20).await;
        let plan = world.plan(Act::Redrive).await.id;
        assert_eq!(world.outbox.failed_again(plan).await.unwrap(), 0, "nothing is applied");
        let first = world.outbox.apply_chunk(plan, 1, &ann()).await.unwrap();
        assert_eq!(first.after, Some(letters[0].0));
        // The redriven one and a new one are given up, and a received message.
        world.give_up_received(Ok(&received("key-0"))).await;
        assert_eq!(world.outbox.failed_again(plan).await.unwrap(), 0, "it is no event of the plan");
        assert_eq!(world.bury(&[event("key-0"), event("new")]).await.len(), 3);
        assert_eq!(world.outbox.failed_again(plan).await.unwrap(), 1, "the redriven one alone");
    }

    async fn an_act_is_cancelled_in_the_middle_and_loses_nothing(temp: &TempDatabase) {
        let world = World::open(temp).await;
        world.bury_many(1_000).await;
        let plan = world.plan(Act::Discard).await.id;
        let cancel = Shutdown::default();
        let (note, asked) = (ann(), cancel.clone());
        let applied = apply(&world.outbox, plan, &note, None, &cancel, |applied| {
            if applied.done == 400 {
                asked.request(Duration::ZERO);
            }
        });
        assert_eq!(applied.await.unwrap(), AuditOutcome::Cancelled);
        assert_eq!(world.open_letters().await, 600);
        let audit = world.audit().await;
        assert_eq!((audit.len(), counts(&audit[0]), audit[0].outcome), (1, (400, 0, 0), AuditOutcome::Cancelled));
        let ended = refusal(world.apply(plan).await);
        assert!(ended.contains("has ended as cancelled: discarded 400 letters"), "{ended}");
        world.outbox.end_plan(plan, AuditOutcome::Done).await.unwrap();
        assert_eq!(world.audit().await[0].outcome, AuditOutcome::Cancelled, "it has ended before");
        let rest = world.plan(Act::Discard).await;
        assert_eq!((rest.count.count, world.apply(rest.id).await.unwrap()), (600, AuditOutcome::Done));
    }

    async fn who_cancels_the_plan_of_another_is_in_the_audit(temp: &TempDatabase) {
        let world = World::open(temp).await;
        world.bury_many(5).await;
        let (plan, bob) = (world.plan(Act::Discard).await.id, OperatorNote::new("bob", "too early"));
        assert!(!world.outbox.cancel_plan(plan, &bob).await.unwrap(), "it has not begun");
        world.outbox.apply_chunk(plan, 2, &ann()).await.unwrap();
        assert!(world.outbox.cancel_plan(plan, &bob).await.unwrap());
        assert!(!world.outbox.cancel_plan(plan, &bob).await.unwrap(), "it was cancelled before");
        let ended = refusal(world.apply(plan).await);
        assert!(ended.contains("has ended as cancelled: discarded 2 letters"), "{ended}");
        let audit = world.audit().await;
        let said: Vec<_> = audit.iter().map(|row| (&*row.act, &*row.by, &*row.reason, row.plan)).collect();
        let (applied, cancelled) =
            (("discard", "ann", "the bank is back", Some(plan)), ("cancel plan", "bob", "too early", Some(plan)));
        assert_eq!(said.len(), 2, "{said:?}");
        assert!(said.contains(&applied) && said.contains(&cancelled), "{said:?}");
        let row = audit.iter().find(|row| row.act == "cancel plan").unwrap();
        assert_eq!((counts(row), row.outcome), ((1, 0, 0), AuditOutcome::Done));
        assert!(row.target.starts_with(&format!("plan {plan}: discard open letters on topic ")), "{}", row.target);
        assert_eq!(world.outbox.plan_outcome(plan).await.unwrap(), Some(AuditOutcome::Cancelled));
        let of_plan = world.outbox.plan_audit(plan).await.unwrap().unwrap();
        assert_eq!((&*of_plan.act, &*of_plan.by), ("discard", "ann"), "who applied it");
        let unknown = refusal(world.outbox.cancel_plan(PlanId(99), &bob).await);
        assert!(unknown.contains("plan 99 does not exist"), "{unknown}");
    }

    async fn an_empty_filter_is_refused_unless_all_is_said(temp: &TempDatabase) {
        let world = World::open(temp).await;
        world.bury_many(2).await;
        let bounded = DeadLetterFilter { up_to: Some(LetterId(i64::MAX)), ..DeadLetterFilter::all() };
        for filter in [DeadLetterFilter::all(), bounded] {
            let why = refusal(world.outbox.plan(Act::Redrive, &filter, false).await);
            assert!(why.contains("the filter has no condition"), "{why}");
        }
        assert_eq!(world.number("SELECT count(*) FROM outbox_plans").await, 0);
        let plan = world.outbox.plan(Act::Redrive, &DeadLetterFilter::all(), true).await.unwrap();
        assert_eq!((plan.count.count, plan.selection.starts_with("all open letters up to letter")), (2, true));
        let none = world.outbox.plan(Act::Redrive, &DeadLetterFilter::all().topic("none"), false).await.unwrap();
        assert_eq!((none.count.count, none.first.len(), none.notes.len()), (0, 0, 0));
        assert_eq!(world.apply(none.id).await.unwrap(), AuditOutcome::Done, "nothing is done, and audited");
        assert_eq!(counts(&world.audit().await[0]), (0, 0, 0));
    }

    async fn a_plan_of_one_letter_is_void_when_somebody_has_resolved_it(temp: &TempDatabase) {
        let world = World::open(temp).await;
        let letters = world.bury_many(3).await;
        let one = |letter| DeadLetterFilter::all().letter(letter);
        let plan = world.outbox.plan(Act::Redrive, &one(letters[1]), false).await.unwrap();
        assert_eq!((plan.count.count, plan.first.as_slice()), (1, &letters[1..2]));
        let bob = OperatorNote::new("bob", "not wanted");
        world.outbox.discard(&letters[1..2], &bob).await.unwrap();
        let why = refusal(world.apply(plan.id).await);
        let expected = format!("letter {} was discarded by bob at 20", letters[1]);
        assert!(why.starts_with(&expected), "{why}");
        assert_eq!(refusal(world.outbox.plan(Act::Redrive, &one(letters[1]), false).await), why);
        let missing = refusal(world.outbox.plan(Act::Redrive, &one(LetterId(9_999)), false).await);
        assert_eq!(missing, "letter 9999 does not exist");
        let plan = world.outbox.plan(Act::Redrive, &one(letters[2]), false).await.unwrap();
        let applied = world.outbox.apply_chunk(plan.id, 1, &ann()).await.unwrap();
        assert!(applied.complete && applied.done == 1);
        // The process ended before it wrote the end.
        assert_eq!(world.apply(plan.id).await.unwrap(), AuditOutcome::Done);
        assert_eq!((world.open_letters().await, world.waiting().await), (1, 1));
    }

    async fn consumers_letters_are_refused_one_by_one_and_the_others_of_the_plan_go(temp: &TempDatabase) {
        let world = World::open(temp).await;
        world.bury_many(2).await;
        let fresh = world.give_up_received(Ok(&received("a"))).await;
        let old = world.give_up_received(Ok(&received("b"))).await;
        let unreadable = world.give_up_received(Err(Some(&Bytes::from_static(b"\0raw")))).await;
        world.run(&format!("UPDATE outbox_dead_letters SET dead_at = 1 WHERE letter_id = {old}")).await;
        let plan = world.outbox.plan(Act::Redrive, &DeadLetterFilter::all(), true).await.unwrap();
        let starts: Vec<&str> = plan.notes.iter().map(|note| &note[..note.find([':', ',']).unwrap()]).collect();
        assert_eq!(
            starts,
            [
                "2 letters with a parked key",
                "3 letters of consumers",
                "1 letter older than the 336 h for which the inbox remembers messages",
                "1 letter with a received message that cannot be read",
            ]
        );
        assert_eq!(world.apply(plan.id).await.unwrap(), AuditOutcome::Done);
        assert_eq!(counts(&world.audit().await[0]), (3, 0, 2));
        let open = world.outbox.dead_letters(&DeadLetterFilter::all(), None, 10).await.unwrap();
        assert_eq!(open.iter().map(|letter| letter.id).collect::<Vec<_>>(), [old, unreadable]);
        assert_eq!(world.number("SELECT count(*) FROM outbox_deferred").await, 1, "of {fresh}");
        let forced = world.outbox.plan(Act::Redrive, &DeadLetterFilter::all(), true).await.unwrap();
        let force = ann().force();
        let never = Shutdown::default();
        apply(&world.outbox, forced.id, &force, None, &never, |_| {}).await.unwrap();
        assert_eq!(counts(&world.audit().await[0]), (1, 0, 1), "what cannot be read cannot be forced");
    }

    async fn every_act_has_one_row_of_the_audit(temp: &TempDatabase) {
        let world = World::open(temp).await;
        let letters = world.bury_many(500).await;
        let note = ann();
        let payload = || Bytes::from_static(b"{}");
        assert_eq!(world.outbox.redrive(&letters[..450], &note).await.unwrap().len(), 450);
        assert_eq!(world.outbox.discard(&letters[450..453], &note).await.unwrap().len(), 3);
        assert_eq!(world.outbox.purge(&letters[453..454], &note).await.unwrap().len(), 1);
        assert!(world.outbox.resend(letters[454], payload(), &note).await.unwrap().is_some());
        // Double clicks change nothing, and are no acts.
        assert!(world.outbox.redrive(&letters[..450], &note).await.unwrap().is_empty());
        assert!(world.outbox.discard(&letters[..453], &note).await.unwrap().is_empty());
        assert!(world.outbox.resend(letters[454], payload(), &note).await.unwrap().is_none());
        // The content of resolved letters can be purged too.
        assert!(world.outbox.purge(&letters[450..452], &note).await.unwrap().is_empty());
        let plan = world.plan(Act::Discard).await;
        assert_eq!(world.apply(plan.id).await.unwrap(), AuditOutcome::Done);
        let audit = world.audit().await;
        let ten: Vec<String> = letters[..10].iter().map(LetterId::to_string).collect();
        let [a, b, c, d, e] = [450, 451, 452, 453, 454].map(|at| letters[at]);
        let expected = [
            ("redrive", format!("450 letters: {}, ..", ten.join(", ")), 450),
            ("discard", format!("3 letters: {a}, {b}, {c}"), 3),
            ("purge", format!("letter {d}"), 1),
            ("resend", format!("letter {e}"), 1),
            ("purge", format!("2 letters: {a}, {b}"), 2),
            ("discard", plan.selection, 45),
        ];
        let seen: Vec<_> = audit.iter().rev().map(|row| (row.act.as_str(), row.target.clone(), row.done)).collect();
        assert_eq!(seen, expected);
        assert!(audit.iter().all(|row| row.outcome == AuditOutcome::Done && row.by == "ann" && row.at.as_micros() > 0));
        let page = world.outbox.audit(Some(audit[1].id), 2).await.unwrap();
        assert_eq!(page, audit[2..4]);
    }

    async fn old_rows_for_operators_are_deleted_in_batches(temp: &TempDatabase) {
        let world = World::open(temp).await;
        let letters = world.bury_many(4).await;
        let [ended, running, unapplied] = [0, 1, 2].map(|at| DeadLetterFilter::all().letter(letters[at]));
        let mut plans = Vec::new();
        for filter in [&ended, &running, &unapplied] {
            plans.push(world.outbox.plan(Act::Discard, filter, false).await.unwrap().id);
        }
        world.apply(plans[0]).await.unwrap();
        world.outbox.apply_chunk(plans[1], 1, &ann()).await.unwrap();
        for (table, values) in [
            ("live (id, kind, name, body, written_at)", "'a', 'relay', '', '{}'"),
            ("samples (route, body, at_us)", "'billing', '{}'"),
        ] {
            for at in ["1", "4000000000000000"] {
                let id = values.replace("'a'", &format!("'{at}'"));
                world.run(&format!("INSERT INTO outbox_{table} VALUES ({id}, {at})")).await;
            }
        }
        let rows = async |table: &str| world.number(&format!("SELECT count(*) FROM outbox_{table}")).await;
        let pruned = async |limit| world.store.janitor.prune(limit).await.unwrap();
        assert_eq!(pruned(500).await, 1, "a sample; the row of a part that has crashed is not counted");
        assert_eq!((rows("live").await, rows("samples").await), (1, 1));
        assert_eq!((rows("plans").await, rows("audit").await), (3, 2), "they are younger");
        world.run("UPDATE outbox_plans SET expires_at = 1").await;
        assert_eq!(pruned(1).await, 1);
        assert_eq!(pruned(500).await, 1, "that which is running can be applied again");
        assert_eq!(world.apply(plans[1]).await.unwrap(), AuditOutcome::Done);
        world.run("UPDATE outbox_audit SET began_at = began_at - 31539600000000").await;
        assert_eq!(pruned(500).await, 3, "two rows of the audit, and the plan that has ended");
        assert_eq!((rows("plans").await, rows("audit").await), (0, 0));
    }
}
