//! Work that is done once a key; a repeat gets the stored response.

use super::{Outbox, write::DEDUP_KEY};
use crate::{
    DedupReservation, OutboxTransaction,
    error::OutboxError,
    schema::micros,
    transaction::{refuse_in_trial, within},
};
use outbox_core::{event::MessageId, saga::Json};
use sea_orm::{ConnectionTrait, TransactionOptions, Value};
use serde::{Serialize, de::DeserializeOwned};

/// Most bytes of a response as JSON: as of a payload.
const MAX_RESPONSE: usize = 960 * 1024;

/// The response to a request that is processed once.
///
/// ```
/// # use outbox_sea_orm::Responded;
/// fn status<A>(response: &Responded<A>) -> u16 {
///     if response.is_first() { 201 } else { 200 }
/// }
/// assert_eq!(status(&Responded::First(7)), 201);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Responded<A> {
    /// The work was done now, and is committed with this response.
    First(A),
    /// The work was done before, with this response.
    Again(A),
}

impl<A> Responded<A> {
    /// Gives the response.
    ///
    /// ```
    /// # use outbox_sea_orm::Responded;
    /// assert_eq!(Responded::Again("receipt 4711").into_inner(), "receipt 4711");
    /// ```
    pub fn into_inner(self) -> A {
        match self {
            Self::First(response) | Self::Again(response) => response,
        }
    }

    /// Tells whether the work was done now.
    #[must_use]
    pub const fn is_first(&self) -> bool {
        matches!(self, Self::First(_))
    }
}

impl Outbox {
    /// Does some work in a transaction once a key, and gives a repeat of the key the first
    /// response: for requests with an idempotency key, which a client sends again when it got no
    /// response.
    ///
    /// The key and the response are saved in the transaction of the work. `Err`, a panic and a
    /// dropped future roll all of it back, and the key is free again. A repeat at the same time
    /// waits for the first one. The key is kept for the outbox's
    /// [`dedup_retention`](crate::OutboxBuilder::dedup_retention), 7 days by default, among those
    /// of [`EnqueueOptions::dedup_key`](crate::EnqueueOptions::dedup_key).
    ///
    /// ```
    /// # use outbox_sea_orm::prelude::*;
    /// # use serde::{Deserialize, Serialize};
    /// # #[derive(Serialize, Deserialize)] struct Receipt { payment: i64 }
    /// # async fn charge(tx: &OutboxTransaction) -> Result<i64, OutboxError> { let _ = tx; Ok(7) }
    /// # async fn example(outbox: &Outbox, idempotency_key: &str) -> Result<(), OutboxError> {
    /// let receipt = outbox
    ///     .respond_once(format!("POST /payments {idempotency_key}"), async |tx| {
    ///         let payment = charge(tx).await?; // any SeaORM call, events, sagas
    ///         Ok::<_, OutboxError>(Receipt { payment })
    ///     })
    ///     .await?
    ///     .into_inner();
    /// # let _ = receipt;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// The work's own; those of [`begin`](Self::begin) and [`commit`](OutboxTransaction::commit);
    /// [`OutboxError::Response`] for a key that does not have 1 to 255 bytes without control
    /// characters, for a response that is longer than 960 KiB or has no form in JSON that reads
    /// back as the same, and for one that was saved as another type; [`OutboxError::Duplicate`]
    /// where the key is an event's.
    ///
    /// # Cancel safety
    /// That of [`commit`](OutboxTransaction::commit).
    pub async fn respond_once<F, A, E>(
        &self,
        key: impl Into<String>,
        work: F,
    ) -> Result<Responded<A>, E>
    where
        F: AsyncFnOnce(&OutboxTransaction) -> Result<A, E>,
        A: Serialize + DeserializeOwned,
        E: From<OutboxError>,
    {
        let key = key.into();
        let fault = |problem: String| OutboxError::Response { dedup_key: key.clone(), problem };
        if !DEDUP_KEY.allows(&key) {
            return Err(fault(format!("a key has {DEDUP_KEY}")).into());
        }
        let reservation = DedupReservation {
            key: key.clone(),
            message_id: MessageId::generate(),
            payload_hash: 0,
            keep: self.0.dedup_retention,
        };
        refuse_in_trial(self, "Outbox::respond_once")?;
        let tx = self.open(TransactionOptions::default()).await?;
        match self.stored_response(&tx, &reservation).await {
            Ok(None) => {}
            Ok(Some(body)) => {
                tx.rollback_quietly().await;
                return Ok(Responded::Again(first_response(&body).map_err(fault)?));
            }
            Err(error) => {
                tx.rollback_quietly().await;
                return Err(error.into());
            }
        }
        let response = match within(&tx, work(&tx)).await {
            Ok(response) => response,
            Err(error) => {
                tx.rollback_quietly().await;
                return Err(error);
            }
        };
        let saved = match Json::of(&response) {
            Ok(json) if json.as_str().len() > MAX_RESPONSE => {
                let bytes = json.as_str().len();
                Err(fault(format!(
                    "the response has {bytes} bytes as JSON; at most {MAX_RESPONSE} are kept"
                )))
            }
            Ok(json) => self.save_response(&tx, &reservation, &json).await,
            Err(error) => Err(fault(format!("the response cannot be written: {error}"))),
        };
        if let Err(error) = saved {
            tx.rollback_quietly().await;
            return Err(error.into());
        }
        tx.commit().await?;
        Ok(Responded::First(response))
    }

    /// Reserves the key in the transaction; gives the stored response of the key, where there is
    /// one.
    async fn stored_response(
        &self,
        tx: &OutboxTransaction,
        reservation: &DedupReservation,
    ) -> Result<Option<String>, OutboxError> {
        let schema = self.schema();
        let Some(held) = schema.reserve_dedup_keys(tx, std::slice::from_ref(reservation)).await?
        else {
            return Ok(None);
        };
        let sql = schema.filled("SELECT body FROM {responses} WHERE message_id = ?{for_share}");
        let query = schema.statement(&sql, vec![Value::from(*held.message_id.as_uuid())]);
        match tx.query_one_raw(query).await? {
            Some(row) => Ok(Some(row.try_get_by_index(0)?)),
            None => Err(OutboxError::Duplicate {
                dedup_key: reservation.key.clone(),
                message_id: held.message_id,
                same_bytes: held.same_bytes,
            }),
        }
    }

    async fn save_response(
        &self,
        tx: &OutboxTransaction,
        reservation: &DedupReservation,
        response: &Json,
    ) -> Result<(), OutboxError> {
        let schema = self.schema();
        let sql = schema
            .filled("INSERT INTO {responses} (message_id, body, until) VALUES (?, ?, {now} + ?)");
        let values = vec![
            Value::from(*reservation.message_id.as_uuid()),
            Value::from(response.as_str()),
            Value::from(micros(reservation.keep)),
        ];
        tx.execute_raw(schema.statement(&sql, values)).await?;
        Ok(())
    }
}

/// Reads the response that was stored first; gives the problem where it is of another type.
fn first_response<A: DeserializeOwned>(body: &str) -> Result<A, String> {
    Json::from_text(body)
        .and_then(|json| json.read())
        .map_err(|error| format!("the first response is of another type: {:?}", error.classify()))
}
