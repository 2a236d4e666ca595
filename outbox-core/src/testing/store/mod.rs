//! The suite that every store passes, ours and yours, on its real database.
//!
//! A [`StoreFixture`] makes an empty outbox and does what the traits leave to others: a producer's open transaction, an
//! operator's redrive, and the damage that time and people do. Implement it and call
//! [`store_suite!`](crate::store_suite) with its name.

mod handover;
mod inbox;
mod instances;
mod leases;
mod letters;
mod races;
mod reading;
mod received;
mod recording;
mod settling;

// The cases, for the macro below.
#[doc(hidden)]
pub use handover::{
    a_claimed_delivery_that_is_left_has_waited_since_it_was_left_first,
    deliveries_of_other_handlers_are_counted_left_and_moved,
    what_waits_for_an_instance_that_knows_it_is_claimed_by_that_one_alone,
};
#[doc(hidden)]
pub use inbox::{
    a_cancelled_event_never_enters, a_command_is_noted_once_and_what_is_known_of_it_is_given,
    a_message_is_received_once_however_many_ask_at_once, a_row_of_a_command_says_which_it_is_of,
    a_scheduled_event_that_is_not_due_or_not_owned_stays,
    inbox_keys_that_differ_in_anything_are_others, of_many_that_note_a_command_one_does,
    old_inbox_rows_are_pruned, scheduled_events_enter_in_order_of_their_time_under_new_ids,
};
#[doc(hidden)]
pub use instances::{
    an_instance_is_alive_while_it_renews_and_gone_when_it_signs_off,
    an_instance_that_does_not_renew_is_over_until_it_does,
};
#[doc(hidden)]
pub use leases::{
    a_dead_relay_is_taken_from_under_new_epochs, a_lease_that_ran_out_and_was_not_taken_is_renewed,
    a_live_relay_keeps_its_partitions, a_relay_owns_what_it_takes,
    a_relay_that_leaves_leaves_nothing, a_relay_whose_row_was_removed_begins_with_nothing,
    a_renewal_that_races_a_takeover_never_leaves_two_owners,
    two_relays_never_take_the_same_partition,
    what_is_released_is_free_and_what_was_lost_is_not_released,
};
#[doc(hidden)]
pub use letters::{
    a_letter_after_a_redrive_links_to_the_one_before,
    a_letter_has_the_whole_history_and_outlives_the_event,
    a_parked_key_is_read_in_pages_and_a_decision_is_told_until_it_is_forgotten,
    a_renewal_does_not_grow_with_what_is_parked_or_decided,
    an_event_without_a_route_is_buried_alone,
};
#[doc(hidden)]
pub use races::{
    a_carried_letter_that_is_written_again_does_not_undo_a_redrive,
    a_record_that_is_made_again_does_not_undo_a_redrive,
    a_redrive_that_races_another_routes_last_settle_finds_its_event,
};
#[doc(hidden)]
pub use reading::{
    a_read_looks_back_where_it_is_asked_or_finds_something, a_read_says_where_its_limit_cut_it,
    an_empty_table_does_not_begin_ids_again,
    an_event_of_its_own_policy_and_time_to_live_keeps_both,
    events_are_joined_with_what_is_remembered_however_much_it_is,
    ids_committed_out_of_order_are_both_found, nothing_of_a_rolled_back_transaction_is_read,
    pages_and_ids_go_through_a_partition, rows_that_do_not_decode_are_isolated,
    what_was_saved_is_read_unchanged,
};
#[doc(hidden)]
pub use received::{
    a_claim_that_ran_out_is_anothers, a_delivery_is_stored_whole_and_claimed_when_it_is_due,
    a_delivery_that_is_stored_already_stays_as_it_is,
    a_key_is_handled_from_its_head_and_other_keys_beside_it,
    a_message_is_admitted_unless_known_or_behind_others_of_its_own_key,
    a_postponed_delivery_keeps_its_history, a_received_message_that_is_given_up_is_kept_whole,
    a_stored_delivery_tells_that_its_time_ran_out, a_transaction_inside_another_goes_alone,
    no_two_claim_the_same, of_messages_that_are_admitted_together_each_is_told_whether_it_is_new,
    what_is_put_behind_a_head_that_goes_is_found,
};
#[doc(hidden)]
pub use recording::{
    a_kept_event_was_confirmed_somewhere, an_earlier_owner_records_nothing,
    an_event_goes_when_all_its_routes_are_final, due_routes_are_told_the_redriven_ones_first,
    recording_again_changes_nothing, recording_an_event_that_is_gone_changes_nothing,
    what_is_remembered_is_read_again_as_it_was_written,
};
#[doc(hidden)]
pub use settling::{
    a_fence_of_several_partitions_writes_where_it_holds,
    a_finished_event_is_gone_and_finishing_it_again_changes_nothing,
    an_earlier_owner_finishes_nothing, kept_events_are_moved_and_pruned_when_their_time_has_passed,
    thousands_are_finished_at_once,
};

use crate::{
    event::{EventId, Headers, LetterId, MessageId, NewEvent, RelayId},
    outbox::{
        ConsumerStore, Fence, InboxKey, PartitionNo, PartitionRead, PartitionRows, ReadPlan,
        RelayStore, Renewal, RouteRow, RouteState, StoredEvent, partition_of,
    },
};
use async_trait::async_trait;
use std::time::Duration;

/// Partitions of every outbox of the suite.
pub const PARTITIONS: u16 = 4;
/// A lease that no test outlives.
const LONG: Duration = Duration::from_secs(600);
/// Hash of the one route set of the suite.
const ROUTES: u64 = 0xfeed_beef_dead_beef;
/// The order window of the suite.
const WINDOW: u32 = 1_000;

/// How the suite gets at a store. Each fixture is an outbox of its own, as tests run at the same time.
#[async_trait]
pub trait StoreFixture: Sized + Send + Sync + 'static {
    /// An open transaction of a producer. Dropped, it rolls back.
    type Tx: Send;

    /// What consumers work on.
    type Consumer: ConsumerStore;

    /// Makes an empty outbox of [`PARTITIONS`] partitions; finished events are kept for an hour where `keep` is set, else
    /// deleted. Dropped, it is gone.
    async fn create(keep: bool) -> Self;

    /// Opens what one relay needs, with connections of its own.
    async fn relay(&self) -> RelayStore;

    /// Opens what consumers work on.
    async fn consumer(&self) -> Self::Consumer;

    /// Opens a producer's transaction.
    async fn begin(&self) -> Self::Tx;

    /// Writes events in a transaction at once, so that they have their places.
    async fn append(&self, tx: &mut Self::Tx, events: &[NewEvent]);

    /// Commits.
    async fn commit(&self, tx: Self::Tx);

    /// Notes in a transaction of its own that a message was received, and commits.
    async fn receive(&self, key: InboxKey<'_>) -> bool;

    /// Saves an event for later, and commits.
    async fn schedule(&self, event: NewEvent, wait: Duration);

    /// Takes a scheduled event back, and commits.
    async fn cancel(&self, message: MessageId) -> bool;

    /// Does what an operator's redrive does, in one transaction: locks the partition's row, puts the event back under its
    /// old id unless it is there, makes its route wait, due now and marked as redriven, and marks the letter.
    async fn redrive(&self, letter: LetterId);

    /// Discards a letter.
    async fn discard(&self, letter: LetterId);

    /// Discards many letters.
    async fn discard_all(&self, letters: &[LetterId]);

    /// Damages the row of an event so that it does not decode.
    async fn spoil(&self, event: EventId);

    /// Lets a relay's lease run out.
    async fn expire(&self, relay: &RelayId);

    /// Removes a relay's row, as somebody might by hand.
    async fn remove(&self, relay: &RelayId);

    /// Makes everything that is kept for a time two hours older, or a year for the inbox.
    async fn age(&self);

    /// Gives the messages of finished events that are kept, with their ids, in the order of these.
    async fn kept(&self) -> Vec<(EventId, MessageId)>;

    /// Counts events, and rows of what is remembered of them.
    async fn counts(&self) -> (u64, u64);
}

/// Writes one test for each case of the store suite, for a type that is a
/// [`StoreFixture`](crate::testing::store::StoreFixture).
///
/// The crate that calls it needs `tokio` with `macros` and `rt-multi-thread`.
#[macro_export]
macro_rules! store_suite {
    ($fixture:ty) => {
        $crate::store_suite! { @cases $fixture:
            what_was_saved_is_read_unchanged
            an_event_of_its_own_policy_and_time_to_live_keeps_both
            nothing_of_a_rolled_back_transaction_is_read
            ids_committed_out_of_order_are_both_found
            a_read_looks_back_where_it_is_asked_or_finds_something
            a_read_says_where_its_limit_cut_it
            an_empty_table_does_not_begin_ids_again
            pages_and_ids_go_through_a_partition
            events_are_joined_with_what_is_remembered_however_much_it_is
            rows_that_do_not_decode_are_isolated
            a_finished_event_is_gone_and_finishing_it_again_changes_nothing
            thousands_are_finished_at_once
            an_earlier_owner_finishes_nothing
            a_fence_of_several_partitions_writes_where_it_holds
            kept_events_are_moved_and_pruned_when_their_time_has_passed
            an_event_goes_when_all_its_routes_are_final
            what_is_remembered_is_read_again_as_it_was_written
            an_earlier_owner_records_nothing
            recording_an_event_that_is_gone_changes_nothing
            recording_again_changes_nothing
            due_routes_are_told_the_redriven_ones_first
            a_kept_event_was_confirmed_somewhere
            a_letter_has_the_whole_history_and_outlives_the_event
            a_letter_after_a_redrive_links_to_the_one_before
            a_parked_key_is_read_in_pages_and_a_decision_is_told_until_it_is_forgotten
            a_renewal_does_not_grow_with_what_is_parked_or_decided
            an_event_without_a_route_is_buried_alone
            a_redrive_that_races_another_routes_last_settle_finds_its_event
            a_record_that_is_made_again_does_not_undo_a_redrive
            a_carried_letter_that_is_written_again_does_not_undo_a_redrive
            a_relay_owns_what_it_takes
            two_relays_never_take_the_same_partition
            a_live_relay_keeps_its_partitions
            a_dead_relay_is_taken_from_under_new_epochs
            a_lease_that_ran_out_and_was_not_taken_is_renewed
            a_relay_whose_row_was_removed_begins_with_nothing
            what_is_released_is_free_and_what_was_lost_is_not_released
            a_relay_that_leaves_leaves_nothing
            a_renewal_that_races_a_takeover_never_leaves_two_owners
            a_message_is_received_once_however_many_ask_at_once
            inbox_keys_that_differ_in_anything_are_others
            old_inbox_rows_are_pruned
            scheduled_events_enter_in_order_of_their_time_under_new_ids
            a_scheduled_event_that_is_not_due_or_not_owned_stays
            a_cancelled_event_never_enters
            a_delivery_is_stored_whole_and_claimed_when_it_is_due
            a_delivery_that_is_stored_already_stays_as_it_is
            a_key_is_handled_from_its_head_and_other_keys_beside_it
            a_message_is_admitted_unless_known_or_behind_others_of_its_own_key
            of_messages_that_are_admitted_together_each_is_told_whether_it_is_new
            a_claim_that_ran_out_is_anothers
            no_two_claim_the_same
            a_postponed_delivery_keeps_its_history
            a_stored_delivery_tells_that_its_time_ran_out
            what_is_put_behind_a_head_that_goes_is_found
            a_received_message_that_is_given_up_is_kept_whole
            a_transaction_inside_another_goes_alone
            what_waits_for_an_instance_that_knows_it_is_claimed_by_that_one_alone
            a_claimed_delivery_that_is_left_has_waited_since_it_was_left_first
            deliveries_of_other_handlers_are_counted_left_and_moved
            an_instance_is_alive_while_it_renews_and_gone_when_it_signs_off
            an_instance_that_does_not_renew_is_over_until_it_does
            a_command_is_noted_once_and_what_is_known_of_it_is_given
            a_row_of_a_command_says_which_it_is_of
            of_many_that_note_a_command_one_does
        }
    };
    (@cases $fixture:ty: $($case:ident)*) => {
        $(
            #[::tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                $crate::testing::store::$case::<$fixture>().await;
            }
        )*
    };
}

/// Makes a small event of a key.
///
/// ```
/// # use outbox_core::testing::store::event;
/// assert_eq!(event("order-7").event_type, "order.placed");
/// ```
#[must_use]
pub fn event(key: &str) -> NewEvent {
    NewEvent {
        message_id: MessageId::generate(),
        event_type: "order.placed".into(),
        event_version: 1,
        topic: "orders".into(),
        aggregate_type: Some("order".into()),
        key: Some(key.into()),
        content_type: "application/json".into(),
        payload: "{}".into(),
        headers: Headers::new(),
        ttl: None,
        retry: None,
    }
}

/// Gives the partition of a key in the suite's outboxes.
#[must_use]
pub fn partition_of_key(key: &str) -> PartitionNo {
    partition_of(Some(key), MessageId::generate(), PARTITIONS)
}

fn all_partitions() -> Vec<PartitionNo> {
    (0..PARTITIONS).map(PartitionNo).collect()
}

/// Saves events in one transaction.
async fn save<F: StoreFixture>(fixture: &F, events: &[NewEvent]) {
    let mut tx = fixture.begin().await;
    fixture.append(&mut tx, events).await;
    fixture.commit(tx).await;
}

/// Registers a relay.
async fn renew(store: &RelayStore, relay: &RelayId) -> Renewal {
    store.leases.renew(relay, ROUTES, LONG).await.expect("a renewal succeeds")
}

/// Registers a relay and gives it all partitions.
async fn owner_of_all(store: &RelayStore) -> Fence {
    let relay = RelayId::generate();
    renew(store, &relay).await;
    let partitions = store
        .leases
        .take(&relay, None, &all_partitions())
        .await
        .expect("free partitions are taken");
    assert_eq!(partitions.len(), usize::from(PARTITIONS));
    Fence { relay, partitions }
}

/// Reads all partitions from after a position.
async fn read_after(store: &RelayStore, after: EventId, look_back: bool) -> Vec<PartitionRows> {
    let read = |partition| PartitionRead { partition, after, limit: 500, look_back };
    let plan = ReadPlan {
        partitions: all_partitions().into_iter().map(read).collect(),
        window: WINDOW,
        payload_limit: u32::MAX,
    };
    let rows = store.reader.read(&plan).await.expect("a read succeeds");
    assert_eq!(rows.len(), plan.partitions.len(), "one entry a partition");
    rows
}

/// Reads everything that is there, in the order of ids.
async fn read_all(store: &RelayStore) -> Vec<StoredEvent> {
    let mut events: Vec<StoredEvent> =
        read_after(store, EventId(0), false).await.into_iter().flat_map(|rows| rows.past).collect();
    events.sort_by_key(|e| e.id);
    events
}

/// Saves events of one key, one after the other, and gives their places.
async fn saved<F: StoreFixture>(
    fixture: &F,
    store: &RelayStore,
    key: &str,
    n: usize,
) -> Vec<(PartitionNo, EventId)> {
    let before = read_all(store).await.last().map_or(EventId(0), |e| e.id);
    save(fixture, &vec![(); n].iter().map(|()| event(key)).collect::<Vec<_>>()).await;
    let places: Vec<_> = read_all(store)
        .await
        .into_iter()
        .filter(|e| e.id > before)
        .map(|e| (e.partition, e.id))
        .collect();
    assert_eq!(places.len(), n);
    places
}

/// Rounds of a race: some, or, where the long form is asked for by `OUTBOX_LONG=1`, a thousand.
fn rounds() -> usize {
    if std::env::var_os("OUTBOX_LONG").is_some_and(|value| value == "1") { 1_000 } else { 50 }
}

/// Makes a row of a route.
fn row(route: &str, state: RouteState) -> RouteRow {
    RouteRow { state, ..RouteRow::waiting(route.into()) }
}
