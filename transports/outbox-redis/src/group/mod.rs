//! A consumer of a consumer group: the commands, what it has in memory, and the task that reads.

mod commands;
mod handoff;
mod member;
mod membership;
mod pending;
mod replies;
mod ack_handle;

pub(crate) use ack_handle::{AckHandle, AckRules};
pub(crate) use commands::Group;
pub(crate) use handoff::Received;
pub(crate) use member::{Member, NOTICED_WITHIN};
pub(crate) use membership::{MemberOptions, Membership};
pub(crate) use pending::DeliveryTag;
pub(crate) use replies::added;
