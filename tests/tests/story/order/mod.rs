//! Everything that is committed arrives, in the order of its key, and nothing else does.

mod basics;
mod late;
mod retries;
