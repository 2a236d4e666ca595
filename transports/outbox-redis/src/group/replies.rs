//! The server's replies about streams, read without a panic whatever they are. Pure.

use crate::{classify::Failure, headers::Field};
use bytes::Bytes;
use outbox_core::event::Timestamp;
use redis::Value;
use std::{fmt, str::FromStr};

/// The id of an entry: milliseconds since 1970 by the server's clock, and a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct EntryId {
    millis: u64,
    number: u64,
}

impl EntryId {
    /// The last id that there can be.
    pub(crate) const LAST: Self = Self { millis: u64::MAX, number: u64::MAX };

    #[cfg(test)]
    pub(crate) const fn new(millis: u64, number: u64) -> Self {
        Self { millis, number }
    }

    /// Gives the milliseconds.
    pub(crate) const fn millis(self) -> u64 {
        self.millis
    }

    /// Gives when the entry was added, by the server's clock.
    pub(crate) fn added_at(self) -> Option<Timestamp> {
        let micros = i64::try_from(self.millis).ok()?.checked_mul(1_000)?;
        Some(Timestamp::from_micros(micros))
    }

    /// Gives the id behind this one.
    pub(crate) const fn next(self) -> Self {
        match self.number.checked_add(1) {
            Some(number) => Self { number, ..self },
            None => Self { millis: self.millis.saturating_add(1), number: 0 },
        }
    }
}

impl fmt::Display for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.millis, self.number)
    }
}

impl FromStr for EntryId {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (millis, number) = text.split_once('-').ok_or(())?;
        let number_of = |text: &str| text.parse().map_err(|_| ());
        Ok(Self { millis: number_of(millis)?, number: number_of(number)? })
    }
}

/// An entry of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StreamEntry {
    pub(crate) id: EntryId,
    /// `None` for an entry that is pending and no longer in the stream.
    pub(crate) fields: Option<Vec<Field>>,
}

impl StreamEntry {
    /// Bytes of names and values.
    pub(crate) fn bytes(&self) -> usize {
        self.fields.iter().flatten().map(|(name, value)| name.len() + value.len()).sum()
    }
}

/// A pending entry, without its fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PendingEntry {
    pub(crate) id: EntryId,
    /// How often it was delivered.
    pub(crate) deliveries: u32,
}

fn unexpected(command: &str) -> Failure {
    Failure::transient(format!("the server's reply to {command} is not what it should be"))
}

fn id(value: Value) -> Option<EntryId> {
    std::str::from_utf8(&bytes(value)?).ok()?.parse().ok()
}

fn bytes(value: Value) -> Option<Bytes> {
    match value {
        Value::BulkString(bytes) => Some(Bytes::from(bytes)),
        Value::SimpleString(text) => Some(Bytes::from(text.into_bytes())),
        _ => None,
    }
}

fn list(value: Value) -> Option<Vec<Value>> {
    match value {
        Value::Array(list) => Some(list),
        _ => None,
    }
}

fn number(value: &Value) -> Option<u64> {
    match value {
        Value::Int(number) => u64::try_from(*number).ok(),
        _ => None,
    }
}

/// Reads the id that XADD gave to an entry.
pub(crate) fn added(value: Value) -> Result<EntryId, Failure> {
    id(value).ok_or_else(|| unexpected("XADD"))
}

/// Reads how many entries XACK removed.
pub(crate) fn acknowledged(value: &Value) -> Result<u64, Failure> {
    number(value).ok_or_else(|| unexpected("XACK"))
}

/// Reads one entry; one that is no longer in the stream may be nil, without its id.
fn entry(value: Value) -> Option<Option<StreamEntry>> {
    if value == Value::Nil {
        return Some(None);
    }
    let mut parts = list(value)?.into_iter();
    let id = id(parts.next()?)?;
    let fields = match parts.next()? {
        Value::Nil => None,
        fields => {
            let mut fields = list(fields)?.into_iter();
            let mut pairs = Vec::with_capacity(fields.len() / 2);
            while let Some(name) = fields.next() {
                pairs.push((bytes(name)?, bytes(fields.next()?)?));
            }
            Some(pairs)
        }
    };
    Some(Some(StreamEntry { id, fields }))
}

fn entries(value: Value) -> Option<Vec<StreamEntry>> {
    let entries = list(value)?.into_iter().map(entry).collect::<Option<Vec<_>>>()?;
    Some(entries.into_iter().flatten().collect())
}

/// Reads the entries that XREADGROUP gave, by stream; none when its time was up.
pub(crate) fn read(value: Value) -> Result<Vec<(Bytes, Vec<StreamEntry>)>, Failure> {
    let stream = |value: Value| {
        let mut parts = list(value)?.into_iter();
        Some((bytes(parts.next()?)?, entries(parts.next()?)?))
    };
    if value == Value::Nil {
        return Ok(Vec::new());
    }
    let streams = list(value).and_then(|streams| streams.into_iter().map(stream).collect());
    streams.ok_or_else(|| unexpected("XREADGROUP"))
}

/// Reads the entries that XCLAIM gave.
pub(crate) fn claimed(value: Value) -> Result<Vec<StreamEntry>, Failure> {
    entries(value).ok_or_else(|| unexpected("XCLAIM"))
}

/// Reads the ids that XCLAIM gave with JUSTID.
pub(crate) fn claimed_ids(value: Value) -> Result<Vec<EntryId>, Failure> {
    let ids = list(value).and_then(|ids| ids.into_iter().map(id).collect());
    ids.ok_or_else(|| unexpected("XCLAIM"))
}

/// What XAUTOCLAIM gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Claimed {
    /// Where to go on; the first id of all when everything was looked at.
    pub(crate) cursor: String,
    pub(crate) entries: Vec<StreamEntry>,
    /// How many pending entries were no longer in the stream and are no longer pending; a server
    /// before Redis 7 does not say.
    pub(crate) deleted: usize,
}

/// Reads what XAUTOCLAIM gave.
pub(crate) fn auto_claimed(value: Value) -> Result<Claimed, Failure> {
    let read = |value: Value| {
        let mut parts = list(value)?.into_iter();
        let cursor = String::from_utf8(bytes(parts.next()?)?.to_vec()).ok()?;
        let entries = entries(parts.next()?)?;
        let deleted = parts.next().and_then(list).map_or(0, |deleted| deleted.len());
        Some(Claimed { cursor, entries, deleted })
    };
    read(value).ok_or_else(|| unexpected("XAUTOCLAIM"))
}

/// Reads the pending entries that XPENDING lists.
pub(crate) fn pending(value: Value) -> Result<Vec<PendingEntry>, Failure> {
    // Id, consumer, milliseconds since the last delivery, deliveries.
    let entry = |value: Value| {
        let mut parts = list(value)?.into_iter();
        let id = id(parts.next()?)?;
        let deliveries = number(&parts.nth(2)?)?;
        Some(PendingEntry { id, deliveries: u32::try_from(deliveries).unwrap_or(u32::MAX) })
    };
    let all = list(value).and_then(|entries| entries.into_iter().map(entry).collect());
    all.ok_or_else(|| unexpected("XPENDING"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text(text: &str) -> Value {
        Value::BulkString(text.as_bytes().to_vec())
    }

    fn entry_of(id: &str, fields: &[&str]) -> Value {
        Value::Array(vec![text(id), Value::Array(fields.iter().map(|field| text(field)).collect())])
    }

    fn expected(millis: u64, fields: &[(&'static str, &'static str)]) -> StreamEntry {
        let field = |(name, value): &(&'static str, &'static str)| {
            (Bytes::from_static(name.as_bytes()), Bytes::from_static(value.as_bytes()))
        };
        StreamEntry {
            id: EntryId::new(millis, 0),
            fields: Some(fields.iter().map(field).collect()),
        }
    }

    #[test]
    fn ids_are_read_and_ordered_as_numbers() {
        let id = |text: &str| text.parse::<EntryId>();
        assert!(id("9-10").expect("an id") < id("10-9").expect("an id"));
        assert_eq!(id("5-1").expect("an id").to_string(), "5-1");
        assert_eq!(id("5-1").expect("an id").next(), EntryId::new(5, 2));
        assert_eq!(EntryId::new(5, u64::MAX).next(), EntryId::new(6, 0));
        for wrong in ["", "5", "5-", "-5", "a-1", "5-1-1"] {
            assert_eq!(id(wrong), Err(()), "{wrong}");
        }
    }

    #[test]
    fn entries_are_read_by_stream_and_deleted_ones_have_no_fields() {
        let reply = Value::Array(vec![Value::Array(vec![
            text("orders"),
            Value::Array(vec![
                entry_of("1-0", &["ce_id", "7", "data", "{}"]),
                Value::Array(vec![text("2-0"), Value::Nil]),
            ]),
        ])]);
        let deleted = StreamEntry { id: EntryId::new(2, 0), fields: None };
        assert_eq!(
            read(reply).expect("a reply"),
            [(
                Bytes::from_static(b"orders"),
                vec![expected(1, &[("ce_id", "7"), ("data", "{}")]), deleted]
            )]
        );
        assert_eq!(read(Value::Nil).expect("nothing came"), []);
    }

    #[test]
    fn claims_of_both_versions_are_read() {
        let with = |mut parts: Vec<Value>, last: Option<Value>| {
            parts.extend(last);
            auto_claimed(Value::Array(parts)).expect("a reply")
        };
        let entries = Value::Array(vec![entry_of("1-0", &["a", "b"]), Value::Nil]);
        let parts = vec![text("0-0"), entries];
        // Redis 6.2 gives nil for an entry that is no longer in the stream, Redis 7 the ids of
        // such.
        let old = with(parts.clone(), None);
        assert_eq!((old.entries, old.deleted), (vec![expected(1, &[("a", "b")])], 0));
        let new = with(parts, Some(Value::Array(vec![text("3-0")])));
        assert_eq!((new.cursor.as_str(), new.deleted), ("0-0", 1));
    }

    #[test]
    fn pending_entries_are_read_with_their_deliveries() {
        let entry = Value::Array(vec![text("1-0"), text("me"), Value::Int(250), Value::Int(3)]);
        assert_eq!(
            pending(Value::Array(vec![entry])).expect("a reply"),
            [PendingEntry { id: EntryId::new(1, 0), deliveries: 3 }]
        );
    }

    #[test]
    fn a_reply_that_is_none_is_a_failure_that_names_the_command() {
        for failure in [
            added(Value::Int(1)).expect_err("no id"),
            read(Value::Int(1)).expect_err("no streams"),
            auto_claimed(Value::Okay).expect_err("no claims"),
            pending(Value::Array(vec![Value::Int(1)])).expect_err("no entry"),
        ] {
            assert!(failure.text.contains("reply to X"), "{failure:?}");
        }
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Nil),
            any::<i64>().prop_map(Value::Int),
            "[0-9]{1,3}-[0-9]|.{0,4}".prop_map(|text| Value::BulkString(text.into_bytes())),
        ];
        leaf.prop_recursive(4, 32, 4, |inner| {
            proptest::collection::vec(inner, 0..4).prop_map(Value::Array)
        })
    }

    proptest! {
        #[test]
        fn arbitrary_replies_are_read_or_refused(value in value()) {
            let _ = (read(value.clone()).is_ok(), claimed(value.clone()).is_ok());
            let _ = (auto_claimed(value.clone()).is_ok(), pending(value.clone()).is_ok());
            let _ = (claimed_ids(value.clone()).is_ok(), added(value).is_ok());
        }
    }
}
