//! Acts of operators that die at a fault point, that are done twice at once, that fail in the middle,
//! and whose plan has grown stale: done once, audited once.

use crate::acts::{World, ann, counts, on_orders, refusal};
use bytes::Bytes;
use futures_util::FutureExt;
use outbox_core::{
    admin::{
        Act, ActStore, AdminStore, AuditOutcome, ControlAction, ControlScope, ControlStore,
        DeadLetterFilter, EraseStore, PlanId, apply,
    },
    event::LetterId,
    outbox::StoreError,
    runtime::{
        Shutdown,
        fault::{FaultPoint, install_hook},
    },
    testing::store::event,
};
use std::{cell::Cell, panic::AssertUnwindSafe, time::Duration};
use tests::{
    databases::{Database, TempDatabase},
    in_time, on_every_database,
};

const SOON: Duration = Duration::from_secs(60);
/// Letters of each act.
const LETTERS: usize = 3;
/// The fault points that an act comes to.
const POINTS: [FaultPoint; 2] = [FaultPoint::BeforeCommit, FaultPoint::AfterCommit];

thread_local! {
    /// The point at which this thread's work panics, and how often it passes that before.
    static ARMED: Cell<Option<(FaultPoint, u32)>> = const { Cell::new(None) };
}

fn strike(point: FaultPoint) {
    match ARMED.get() {
        Some((armed, 0)) if armed == point => {
            ARMED.set(None);
            panic!("the process dies here");
        }
        Some((armed, passes)) if armed == point => ARMED.set(Some((armed, passes - 1))),
        _ => {}
    }
}

/// An act of an operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Deed {
    Planned(Act),
    Direct(Act),
    /// One letter is edited and sent again.
    Resend,
    /// A pause ends.
    Resume,
}

impl Deed {
    const ALL: [Self; 8] = [
        Self::Planned(Act::Redrive),
        Self::Planned(Act::Discard),
        Self::Planned(Act::Purge),
        Self::Direct(Act::Redrive),
        Self::Direct(Act::Discard),
        Self::Direct(Act::Purge),
        Self::Resend,
        Self::Resume,
    ];

    /// Prepares what the act is about.
    async fn prepare(self, world: &World) -> Prepared {
        world.run("DELETE FROM outbox_events").await;
        world.run("DELETE FROM outbox_retries").await;
        let letters = match self {
            Self::Resend => world.bury(&[event("a")]).await,
            Self::Planned(_) | Self::Direct(_) => world.bury_many(LETTERS).await,
            Self::Resume => {
                let (scope, pause) = (ControlScope::Route, ControlAction::Pause);
                world.outbox.set_control(scope, "billing", pause, None, &ann()).await.unwrap();
                Vec::new()
            }
        };
        let plan = match self {
            Self::Planned(act) => Some(world.plan(act).await.id),
            Self::Direct(_) | Self::Resend | Self::Resume => None,
        };
        let audited = world.audit().await.first().map_or(0, |entry| entry.id);
        Prepared { deed: self, letters, plan, audited }
    }
}

/// An act, and what it is about.
struct Prepared {
    deed: Deed,
    letters: Vec<LetterId>,
    plan: Option<PlanId>,
    /// The last row of the audit before it.
    audited: i64,
}

impl Prepared {
    async fn act(&self, world: &World) -> Result<(), StoreError> {
        let (outbox, letters) = (&world.outbox, &self.letters);
        match (self.deed, self.plan) {
            (Deed::Planned(_), Some(plan)) => world.apply(plan).await.map(drop),
            (Deed::Direct(Act::Redrive), _) => outbox.redrive(letters, &ann()).await.map(drop),
            (Deed::Direct(Act::Discard), _) => outbox.discard(letters, &ann()).await.map(drop),
            (Deed::Direct(_), _) => outbox.purge(letters, &ann()).await.map(drop),
            (Deed::Resend, _) => {
                outbox.resend(letters[0], Bytes::from_static(b"{}"), &ann()).await.map(drop)
            }
            _ => outbox.end_controls(ControlScope::Route, "billing", &ann()).await.map(drop),
        }
    }

    /// It was done once, and the audit says so once.
    async fn is_done_once(&self, world: &World, what: &str) {
        let (deed, most) = (self.deed, LETTERS as u64);
        let (done, events) = match deed {
            Deed::Planned(Act::Redrive) | Deed::Direct(Act::Redrive) => (most, most),
            Deed::Resend => (1, 1),
            Deed::Resume => (1, 0),
            Deed::Planned(_) | Deed::Direct(_) => (most, 0),
        };
        assert_eq!(world.open_letters().await, 0, "{deed:?} {what}");
        assert_eq!(world.waiting().await.unsigned_abs(), events, "{deed:?} {what}");
        assert!(world.outbox.controls().await.unwrap().0.is_empty(), "{deed:?} {what}");
        let audit = world.audit().await;
        let rows: Vec<_> = audit.iter().filter(|entry| entry.id > self.audited).collect();
        let [row] = rows.as_slice() else { panic!("{deed:?} {what}: {rows:?}") };
        assert_eq!(
            (counts(row), row.outcome),
            ((done, 0, 0), AuditOutcome::Done),
            "{deed:?} {what}"
        );
        assert_eq!((row.by.as_str(), row.plan), ("ann", self.plan), "{deed:?} {what}");
    }
}

/// Lets the database refuse each change of a dead letter from now on.
async fn refuse_changes_of(world: &World, database: Database, letter: LetterId) {
    let table = "outbox_dead_letters";
    match database {
        Database::Sqlite => {
            let sql = format!(
                "CREATE TRIGGER refusing BEFORE UPDATE ON {table} WHEN NEW.letter_id = {letter} \
                 BEGIN SELECT RAISE(ABORT, 'this letter stays'); END"
            );
            world.run(&sql).await;
        }
        Database::Postgres => {
            let sql = format!(
                "CREATE FUNCTION refusing() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
                 IF NEW.letter_id = {letter} THEN RAISE EXCEPTION 'this letter stays'; END IF; RETURN NEW; END $$"
            );
            world.run(&sql).await;
            let sql = format!(
                "CREATE TRIGGER refusing BEFORE UPDATE ON {table} FOR EACH ROW EXECUTE FUNCTION refusing()"
            );
            world.run(&sql).await;
        }
        _ => {
            let sql = format!(
                "CREATE TRIGGER refusing BEFORE UPDATE ON {table} FOR EACH ROW IF NEW.letter_id = {letter} THEN \
                 SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'this letter stays'; END IF"
            );
            world.run(&sql).await;
        }
    }
}

async fn refuse_no_changes(world: &World, database: Database) {
    let table = if database == Database::Postgres { " ON outbox_dead_letters" } else { "" };
    world.run(&format!("DROP TRIGGER refusing{table}")).await;
    if database == Database::Postgres {
        world.run("DROP FUNCTION refusing()").await;
    }
}

on_every_database! {
    async fn an_act_whose_process_dies_at_a_fault_point_is_done_once_and_audited_once(temp: &TempDatabase) {
        install_hook(strike);
        let world = World::open(temp).await;
        for deed in Deed::ALL {
            for point in POINTS {
                // Of a plan the chunk and the end are committed, of all others the act.
                let commits = if matches!(deed, Deed::Planned(_)) { 2 } else { 1 };
                for passes in 0..commits {
                    let what = format!("dies at {point:?} after {passes}");
                    let prepared = deed.prepare(&world).await;
                    ARMED.set(Some((point, passes)));
                    let died = AssertUnwindSafe(prepared.act(&world)).catch_unwind().await;
                    assert!(died.is_err() && ARMED.get().is_none(), "{deed:?} {what}: {died:?}");
                    // Somebody does it again; a plan that has ended is refused.
                    let again = in_time(SOON, "it is done again", prepared.act(&world)).await;
                    let has_ended = passes == 1 && point == FaultPoint::AfterCommit;
                    assert_eq!(again.is_err(), has_ended, "{deed:?} {what}: {again:?}");
                    prepared.is_done_once(&world, &what).await;
                }
            }
        }
    }

    async fn of_an_act_that_is_done_twice_at_once_one_is_done_and_audited(temp: &TempDatabase) {
        let world = World::open(temp).await;
        for deed in Deed::ALL {
            let prepared = deed.prepare(&world).await;
            let both = async { tokio::join!(prepared.act(&world), prepared.act(&world)) };
            let (one, other) = in_time(SOON, "both end", both).await;
            assert!(one.is_ok() || other.is_ok(), "{deed:?}: {one:?} {other:?}");
            prepared.is_done_once(&world, "twice at once").await;
            // A double click, later.
            let late = prepared.act(&world).await;
            assert_eq!(late.is_err(), prepared.plan.is_some(), "{deed:?}: {late:?}");
            prepared.is_done_once(&world, "and once more").await;
        }
    }

    async fn a_plan_that_has_grown_stale_does_what_is_left_or_is_refused(temp: &TempDatabase) {
        let world = World::open(temp).await;
        for act in [Act::Redrive, Act::Discard, Act::Purge] {
            let letters = world.bury_many(LETTERS).await;
            let (plan, void) = (world.plan(act).await.id, world.plan(act).await.id);
            let one = DeadLetterFilter::all().letter(letters[0]);
            let of_one = world.outbox.plan(act, &one, false).await.unwrap().id;
            assert_eq!(world.outbox.discard(&letters[..1], &ann()).await.unwrap().len(), 1);
            let later = world.bury(&[event("later")]).await;
            let before = world.audit().await.len();

            let why = refusal(world.apply(of_one).await);
            assert!(why.contains("discarded"), "{act}: {why}");
            let expire = format!("UPDATE outbox_plans SET expires_at = 1 WHERE plan_id = {void}");
            world.run(&expire).await;
            let why = refusal(world.apply(void).await);
            assert!(why.contains("expired"), "{act}: {why}");
            assert_eq!(world.audit().await.len(), before, "{act}: what is refused is not audited");

            assert_eq!(world.apply(plan).await.unwrap(), AuditOutcome::Done, "{act}");
            let audit = world.audit().await;
            assert_eq!((audit.len(), counts(&audit[0])), (before + 1, (2, 1, 0)), "{act}");
            let open = world.outbox.dead_letters(&on_orders(), None, 10).await.unwrap();
            assert_eq!(open.iter().map(|letter| letter.id).collect::<Vec<_>>(), later, "{act}");
            world.outbox.discard(&later, &ann()).await.unwrap();
            world.run("DELETE FROM outbox_events").await;
            world.run("DELETE FROM outbox_retries").await;
        }
    }

    async fn the_row_of_an_act_that_ends_by_an_error_is_ended_and_a_plan_goes_on(temp: &TempDatabase) {
        let world = World::open(temp).await;
        for act in [Act::Redrive, Act::Discard, Act::Purge] {
            let letters = world.bury_many(450).await;
            refuse_changes_of(&world, temp.database(), letters[300]).await;
            let failed = match act {
                Act::Redrive => world.outbox.redrive(&letters, &ann()).await,
                Act::Discard => world.outbox.discard(&letters, &ann()).await,
                _ => world.outbox.purge(&letters, &ann()).await,
            };
            assert!(failed.is_err(), "{act}");
            let row = world.audit().await.swap_remove(0);
            let left = world.open_letters().await.unsigned_abs();
            assert!(left > 0 && row.done > 0 && row.done + left == 450, "{act}: {row:?}, {left} left");
            assert_eq!((row.act.as_str(), row.outcome), (act.as_str(), AuditOutcome::Cancelled));

            // A plan stays: applying it again goes on, in the same row.
            let plan = world.plan(act).await.id;
            let before = world.audit().await.len();
            let applied = apply(&world.outbox, plan, &ann(), None, &Shutdown::default(), |_| {}).await;
            assert!(applied.is_err(), "{act}");
            refuse_no_changes(&world, temp.database()).await;
            assert_eq!(world.apply(plan).await.unwrap(), AuditOutcome::Done, "{act}");
            let audit = world.audit().await;
            assert_eq!((audit.len(), counts(&audit[0]).0), (before + 1, left), "{act}");
            assert_eq!((world.open_letters().await, audit[0].outcome), (0, AuditOutcome::Done), "{act}");
            world.run("DELETE FROM outbox_events").await;
            world.run("DELETE FROM outbox_retries").await;
        }
    }

    async fn the_row_of_an_erasure_that_ends_by_an_error_is_ended(temp: &TempDatabase) {
        let world = World::open(temp).await;
        let letters = world.bury(&[event("ada"), event("ada"), event("bob")]).await;
        refuse_changes_of(&world, temp.database(), letters[1]).await;
        assert!(world.outbox.erase("ada", &ann()).await.is_err());
        let row = world.audit().await.swap_remove(0);
        assert_eq!((row.act.as_str(), row.outcome), ("erase", AuditOutcome::Cancelled), "{row:?}");
        refuse_no_changes(&world, temp.database()).await;
        world.outbox.erase("ada", &ann()).await.unwrap();
        let outcomes: Vec<_> = world.audit().await.iter().map(|row| row.outcome).collect();
        assert_eq!(outcomes, [AuditOutcome::Done, AuditOutcome::Cancelled]);
        assert_eq!(world.open_letters().await, 1, "the letter of the other key");
    }
}
