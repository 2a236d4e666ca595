//! Rehearsals of rollouts: the programs `shop` and `shop-next`, two releases of one library, side by side on one database and
//! one broker, under load, forward and back.

mod books;
mod bench;
mod order;
mod rehearsal;
