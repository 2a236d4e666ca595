//! Columns, and values of one, that the statements of several rooms write.

/// Columns of an event, in the order in which an INSERT binds them.
pub(crate) const EVENT_COLUMNS: &str = "message_id, source, topic, event_type, event_version, aggregate_type, \
                                        message_key, content_type, payload, headers";

/// Origin of a letter that a relay wrote, as a literal of SQL.
pub(crate) const ORIGIN_RELAY: &str = "'relay'";
/// Origin of a letter that a consumer wrote, as a literal of SQL: its route is `consumer/handler`,
/// its event the sender's, and it has no partition.
pub(crate) const ORIGIN_CONSUMER: &str = "'consumer'";
