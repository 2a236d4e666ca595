//! The source that an outbox belongs to. Receivers distinguish messages by source and id, and two
//! services that share an outbox by mistake take each other's events: so an outbox belongs to one
//! source, which the first service with one stores.

use crate::{error::OutboxError, pool::store_error, schema::Schema};
use sea_orm::DatabaseConnection;

/// The source of an outbox without a stored one.
const UNNAMED: &str = "outbox";

/// The settings of a builder.
#[derive(Debug, Clone, Default)]
pub(super) struct SourceSettings {
    /// `None`: a tool, which takes the stored one.
    pub(super) own: Option<String>,
    /// Whether other services write into this outbox too.
    pub(super) is_shared: bool,
    /// The stored source that this one replaces.
    pub(super) former: Option<String>,
}

/// The source of this program, and what to write.
#[derive(Debug, Clone, PartialEq, Eq)]
enum SourceDecision<'a> {
    /// Use this one.
    Is(&'a str),
    /// Store this one.
    Write(&'a str),
    /// Replace the first one by the second.
    Replace(&'a str, &'a str),
    /// The outbox belongs to the first one, so refuse the second.
    Refused(&'a str, &'a str),
}

impl SourceSettings {
    fn decide<'a>(&'a self, stored: Option<&'a str>) -> SourceDecision<'a> {
        match (self.own.as_deref(), stored) {
            (None, stored) => SourceDecision::Is(stored.unwrap_or(UNNAMED)),
            (Some(own), None) => SourceDecision::Write(own),
            (Some(own), Some(stored)) if own == stored || self.is_shared => SourceDecision::Is(own),
            (Some(own), Some(stored)) if self.former.as_deref() == Some(stored) => {
                SourceDecision::Replace(stored, own)
            }
            (Some(own), Some(stored)) => SourceDecision::Refused(stored, own),
        }
    }

    /// Checks that the outbox belongs to the source, and gives it.
    pub(super) async fn settle(
        &self,
        db: &DatabaseConnection,
        schema: &Schema,
    ) -> Result<String, OutboxError> {
        let stored = schema.source(db).await.map_err(store_error)?;
        let now = match self.decide(stored.as_deref()) {
            SourceDecision::Is(source) => return Ok(source.to_owned()),
            SourceDecision::Write(own) => {
                schema.write_source(db, own).await.map_err(store_error)?
            }
            SourceDecision::Replace(former, own) => {
                let now = schema.rename_source(db, former, own).await.map_err(store_error)?;
                tracing::warn!(
                    former,
                    source = own,
                    "the source of the outbox was renamed: its events carry the new one"
                );
                now
            }
            SourceDecision::Refused(stored, own) => return Err(refused(stored, own)),
        };
        // Another service may have stored its source first.
        match self.decide(Some(&now)) {
            SourceDecision::Is(source) => Ok(source.to_owned()),
            SourceDecision::Write(own)
            | SourceDecision::Replace(_, own)
            | SourceDecision::Refused(_, own) => Err(refused(&now, own)),
        }
    }
}

fn refused(stored: &str, own: &str) -> OutboxError {
    OutboxError::Configuration(vec![format!(
        "the outbox belongs to the source `{stored}`, and this service says `{own}`: give it tables of its own with \
         `.namespace(..)`; or, where both are meant to write into one outbox, say `.shared()` in each; or, where the service \
         was renamed, `.rename_source(\"{stored}\")`"
    )])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outbox_belongs_to_the_source_that_was_stored_first() {
        let settings = |own: Option<&str>, is_shared, former: Option<&str>| SourceSettings {
            own: own.map(str::to_owned),
            is_shared,
            former: former.map(str::to_owned),
        };
        for (settings, stored, expected) in [
            (settings(None, false, None), None, SourceDecision::Is("outbox")),
            (settings(None, false, None), Some("shop"), SourceDecision::Is("shop")),
            (settings(Some("shop"), false, None), None, SourceDecision::Write("shop")),
            (settings(Some("shop"), false, None), Some("shop"), SourceDecision::Is("shop")),
            (
                settings(Some("bank"), false, None),
                Some("shop"),
                SourceDecision::Refused("shop", "bank"),
            ),
            (settings(Some("bank"), true, None), Some("shop"), SourceDecision::Is("bank")),
            (settings(Some("bank"), true, None), None, SourceDecision::Write("bank")),
            (
                settings(Some("bank"), false, Some("shop")),
                Some("shop"),
                SourceDecision::Replace("shop", "bank"),
            ),
            (settings(Some("bank"), false, Some("shop")), Some("bank"), SourceDecision::Is("bank")),
            (settings(Some("bank"), false, Some("shop")), None, SourceDecision::Write("bank")),
            (
                settings(Some("bank"), false, Some("store")),
                Some("shop"),
                SourceDecision::Refused("shop", "bank"),
            ),
        ] {
            assert_eq!(
                settings.decide(stored),
                expected,
                "{settings:?} where {stored:?} is stored"
            );
        }
    }
}
