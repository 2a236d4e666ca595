//! Sagas over two services, each with a database of its own: processes of both are killed, and the
//! network between them loses, delays, repeats and reorders commands and replies.

mod ledger;
mod campaign;
mod trip;
