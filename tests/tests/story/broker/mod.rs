//! The consumer before RabbitMQ: what is delivered again by a real broker has its effect once.

mod deaths;
mod once;
