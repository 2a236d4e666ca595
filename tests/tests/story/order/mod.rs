//! Every committed event arrives, in the order of its key, and no other one.

mod basics;
mod late;
mod retries;
