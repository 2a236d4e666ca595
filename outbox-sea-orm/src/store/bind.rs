//! Lists as parameters: one list where the database takes it, else each value.

use crate::{dialect::Dialect, pool::Arg, schema::stored};
use outbox_core::{
    event::EventId,
    outbox::{Epoch, Fence, PartitionNo},
};

/// Numbers of partitions, or ids, as they are stored.
pub(super) fn numbers(partitions: impl IntoIterator<Item = PartitionNo>) -> Vec<i16> {
    partitions.into_iter().map(stored).collect()
}

/// Partitions and epochs of a fence.
pub(super) fn fence_lists(fence: &Fence) -> (Vec<i16>, Vec<i64>) {
    fence.partitions.iter().map(|(p, Epoch(epoch))| (stored(*p), *epoch)).unzip()
}

/// Partitions and ids of events.
pub(super) fn place_lists(places: &[(PartitionNo, EventId)]) -> (Vec<i16>, Vec<i64>) {
    places.iter().map(|(p, EventId(id))| (stored(*p), *id)).unzip()
}

/// Binds a list of ids for [`Dialect::any`].
pub(super) fn bind_ids<'a>(dialect: Dialect, args: &mut Vec<Arg<'a>>, ids: &'a [i64]) {
    if dialect.binds_lists() {
        args.push(Arg::Ints(ids));
    } else {
        let last = ids.last().copied().unwrap_or_default();
        args.extend(ids.iter().copied().map(Arg::int));
        args.extend(std::iter::repeat_n(Arg::int(last), dialect.padded(ids.len()) - ids.len()));
    }
}

/// Binds a list of partitions for [`Dialect::any`].
pub(super) fn bind_partitions<'a>(
    dialect: Dialect,
    args: &mut Vec<Arg<'a>>,
    partitions: &'a [i16],
) {
    if dialect.binds_lists() {
        args.push(Arg::Smalls(partitions));
    } else {
        let last = partitions.last().copied().unwrap_or_default();
        args.extend(partitions.iter().copied().map(Arg::Small));
        args.extend(std::iter::repeat_n(
            Arg::Small(last),
            dialect.padded(partitions.len()) - partitions.len(),
        ));
    }
}
