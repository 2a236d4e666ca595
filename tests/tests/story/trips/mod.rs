//! Sagas over two services, each with a database of its own: processes of both sides are killed, and the wire between them
//! loses, delays, repeats and reorders commands and answers.

mod books;
mod campaign;
mod trip;
