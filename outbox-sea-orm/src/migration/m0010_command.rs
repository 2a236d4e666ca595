//! Version 10: of which command a row of the barrier is.

use crate::dialect::AddedColumn;

// Empty in rows of programs of before, and where an undoing came first whose saga does not say: any command may be meant then. A
// row of another message with the same headers stands under a saga id that is made of both.
pub(super) const COLUMNS: &[AddedColumn] =
    &[AddedColumn { table: "outbox_saga_barrier", name: "command_hash", kind: "{uuid}" }];
