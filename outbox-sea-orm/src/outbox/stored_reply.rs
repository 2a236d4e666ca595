//! The reply to a command of a saga as the barrier keeps it: encoded, where the outbox has a codec.
//!
//! A reply is sent again under another message id, so it is not kept as one of the events that it is
//! sent in: its envelope here is the command's place in the barrier.

use super::Outbox;
use crate::error::OutboxError;
use outbox_core::{
    event::{CodecContext, MessageId, PayloadFault},
    outbox::{Awaited, CommandKey, RecordedCommand, StoreError, StoredReply},
};
use std::borrow::Cow;

fn context<'a>(key: CommandKey<'a>, event_type: &'a str) -> CodecContext<'a> {
    CodecContext {
        source: key.consumer,
        message_id: MessageId::from_uuid(*key.saga.as_uuid()),
        event_type,
        topic: key.step,
        key: Some(key.phase.as_str()),
    }
}

impl Outbox {
    /// Gives a reply as it is stored.
    pub(super) fn encoded_reply<'r>(
        &self,
        key: CommandKey<'_>,
        reply: &'r StoredReply,
    ) -> Result<Cow<'r, StoredReply>, StoreError> {
        let encoded = self
            .codecs()
            .encode_content(context(key, &reply.event_type), &reply.payload, &reply.headers)
            .map_err(OutboxError::Encode)?;
        Ok(match encoded {
            None => Cow::Borrowed(reply),
            Some((payload, headers)) => {
                Cow::Owned(StoredReply { payload, headers, ..reply.clone() })
            }
        })
    }

    /// Gives a recorded command with its clear reply.
    pub(super) fn with_clear_reply(
        &self,
        key: CommandKey<'_>,
        mut recorded: RecordedCommand,
    ) -> Result<RecordedCommand, StoreError> {
        let Some(reply) = &mut recorded.reply else { return Ok(recorded) };
        let decoded = self.codecs().decode_content(
            context(key, &reply.event_type),
            &reply.payload,
            &reply.headers,
        );
        match decoded {
            Ok(None) => {}
            Ok(Some(clear)) => (reply.payload, reply.headers) = clear,
            Err(PayloadFault::Unknown { codec, key_id }) => {
                return Err(StoreError::Unknown(Awaited::key(&codec, &key_id)));
            }
            Err(PayloadFault::Broken(reason)) => {
                return Err(StoreError::Refused(
                    format!("the reply in the barrier: {reason}").into(),
                ));
            }
        }
        Ok(recorded)
    }
}
