//! Writes encoded events into the tables.

use super::{EnqueueOptions, OnDuplicate, Outbox, options::DeliverWhen};
use crate::{DedupReservation, DeliverAt, error::OutboxError, transaction::note_events};
use outbox_core::event::{EncodeError, MessageId, NewEvent, OutboxEvent, TextRule};
use outbox_core::telemetry::{create_span, keep_context};
use sea_orm::ConnectionTrait;
use xxhash_rust::xxh3::xxh3_64;

/// The rule for a dedup key: every database's column takes so many bytes.
pub(super) const DEDUP_KEY: TextRule = TextRule::up_to(255);

/// An event that is encoded and checked, but not written yet.
pub(crate) struct Pending {
    event: NewEvent,
    options: EnqueueOptions,
    /// Hash of the clear content, where the event has a dedup key: a codec encodes the same content
    /// otherwise each time.
    content_hash: i64,
}

impl Pending {
    /// Encodes an event and checks it against the limit of waiting events, the rules of the
    /// envelope, of the outbox and of the routes that take it.
    pub(crate) fn new<E: OutboxEvent + ?Sized>(
        event: &E,
        options: EnqueueOptions,
        outbox: &Outbox,
    ) -> Result<Self, OutboxError> {
        outbox.check_waiting(false)?;
        Self::checked(NewEvent::encode(&event)?, options, outbox)
    }

    /// Checks an event that was made elsewhere, and encodes its payload: each event that this outbox
    /// saves passes here.
    pub(crate) fn checked(
        mut event: NewEvent,
        mut options: EnqueueOptions,
        outbox: &Outbox,
    ) -> Result<Self, OutboxError> {
        if let Some(key) = &options.dedup_key
            && !DEDUP_KEY.allows(key)
        {
            return Err(OutboxError::Encode(EncodeError::Envelope {
                event_type: event.event_type,
                field: "dedup key",
                reason: format!("it must have {DEDUP_KEY}"),
            }));
        }
        for (name, value) in std::mem::take(&mut options.headers) {
            if let Err(fault) = event.headers.insert(&name, &value) {
                let (event_type, reason) = (event.event_type, fault.to_string());
                return Err(OutboxError::Encode(EncodeError::Envelope {
                    event_type,
                    field: "header",
                    reason,
                }));
            }
        }
        let span = create_span(&event.topic, &event.event_type);
        keep_context(&span, &mut event.headers);
        let content_hash = match options.dedup_key {
            Some(_) => xxh3_64(&event.payload).cast_signed(),
            None => 0,
        };
        // Before the limits, which are those of what travels.
        outbox.codecs().encode(outbox.source(), &mut event)?;
        span.in_scope(|| outbox.check(&event))?;
        Ok(Self { event, options, content_hash })
    }

    pub(crate) const fn message_id(&self) -> MessageId {
        self.event.message_id
    }
}

impl Outbox {
    /// Writes events: first their dedup keys, then the immediate ones in one INSERT, then the
    /// scheduled ones.
    pub(crate) async fn write<C: ConnectionTrait>(
        &self,
        connection: &C,
        mut events: Vec<Pending>,
    ) -> Result<(), OutboxError> {
        self.reserve(connection, &mut events).await?;
        note_events(self, events.iter().map(|pending| &pending.event));
        let (mut now, mut later) = (Vec::with_capacity(events.len()), Vec::new());
        for Pending { event, options, .. } in events {
            match options.deliver_when {
                DeliverWhen::Now => now.push(event),
                DeliverWhen::At(at) => later.push((event, DeliverAt::At(at))),
                DeliverWhen::In(delay) => later.push((event, DeliverAt::In(delay))),
            }
        }
        if !now.is_empty() {
            self.schema().append(connection, self.source(), &now).await?;
        }
        if !later.is_empty() {
            self.schema().schedule(connection, self.source(), &later).await?;
        }
        Ok(())
    }

    /// Reserves the dedup keys. An event whose key is taken is left out where its options say so,
    /// else it is an error.
    async fn reserve<C: ConnectionTrait>(
        &self,
        connection: &C,
        events: &mut Vec<Pending>,
    ) -> Result<(), OutboxError> {
        loop {
            let (at, reservations): (Vec<usize>, Vec<DedupReservation>) = events
                .iter()
                .enumerate()
                .filter_map(|(at, pending)| Some((at, self.dedup_reservation(pending)?)))
                .unzip();
            if reservations.is_empty() {
                return Ok(());
            }
            let Some(conflict) =
                self.schema().reserve_dedup_keys(connection, &reservations).await?
            else {
                return Ok(());
            };
            let Pending { options, .. } = &events[at[conflict.index]];
            if options.on_duplicate == OnDuplicate::Fail {
                return Err(OutboxError::Duplicate {
                    dedup_key: reservations[conflict.index].key.clone(),
                    message_id: conflict.message_id,
                    same_bytes: conflict.same_bytes,
                });
            }
            events.remove(at[conflict.index]);
        }
    }

    fn dedup_reservation(&self, pending: &Pending) -> Option<DedupReservation> {
        Some(DedupReservation {
            key: pending.options.dedup_key.clone()?,
            message_id: pending.event.message_id,
            payload_hash: pending.content_hash,
            keep: self.0.dedup_retention,
        })
    }
}
