//! Whose events an outbox has. Receivers tell messages apart by source and id, and two services that share an outbox by mistake
//! take each other's events: so an outbox belongs to one source, which the first that says one writes down.

use crate::{error::OutboxError, pool::store_error, schema::Schema};
use sea_orm::DatabaseConnection;

/// The source of an outbox of which nobody has said one.
const UNNAMED: &str = "outbox";

/// What a builder says.
#[derive(Debug, Clone, Default)]
pub(super) struct SaidSource {
    /// `None`: a tool, which takes the one that is written down.
    pub(super) own: Option<String>,
    /// Whether others write into this outbox too.
    pub(super) is_shared: bool,
    /// The one that is to be replaced.
    pub(super) former: Option<String>,
}

/// What is to be done about it.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Claim<'a> {
    /// It is this one.
    Is(&'a str),
    /// It is to be written down.
    Write(&'a str),
    /// It is to be written down in place of the other one.
    Replace(&'a str, &'a str),
    /// The outbox belongs to the other one.
    Refused(&'a str, &'a str),
}

impl SaidSource {
    fn claim<'a>(&'a self, stored: Option<&'a str>) -> Claim<'a> {
        match (self.own.as_deref(), stored) {
            (None, stored) => Claim::Is(stored.unwrap_or(UNNAMED)),
            (Some(own), None) => Claim::Write(own),
            (Some(own), Some(stored)) if own == stored || self.is_shared => Claim::Is(own),
            (Some(own), Some(stored)) if self.former.as_deref() == Some(stored) => {
                Claim::Replace(stored, own)
            }
            (Some(own), Some(stored)) => Claim::Refused(stored, own),
        }
    }

    /// Makes sure that the outbox belongs to the source, and gives it.
    pub(super) async fn settle(
        &self,
        db: &DatabaseConnection,
        schema: &Schema,
    ) -> Result<String, OutboxError> {
        let stored = schema.source(db).await.map_err(store_error)?;
        let now = match self.claim(stored.as_deref()) {
            Claim::Is(source) => return Ok(source.to_owned()),
            Claim::Write(own) => schema.claim_source(db, own).await.map_err(store_error)?,
            Claim::Replace(former, own) => {
                let now = schema.rename_source(db, former, own).await.map_err(store_error)?;
                tracing::warn!(
                    former,
                    source = own,
                    "the source of the outbox was renamed: its events carry the new one"
                );
                now
            }
            Claim::Refused(stored, own) => return Err(refused(stored, own)),
        };
        // Another service may have been faster.
        match self.claim(Some(&now)) {
            Claim::Is(source) => Ok(source.to_owned()),
            Claim::Write(own) | Claim::Replace(_, own) | Claim::Refused(_, own) => {
                Err(refused(&now, own))
            }
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
    fn an_outbox_belongs_to_the_source_that_was_written_down_first() {
        let said = |own: Option<&str>, is_shared, former: Option<&str>| SaidSource {
            own: own.map(str::to_owned),
            is_shared,
            former: former.map(str::to_owned),
        };
        for (said, stored, expected) in [
            (said(None, false, None), None, Claim::Is("outbox")),
            (said(None, false, None), Some("shop"), Claim::Is("shop")),
            (said(Some("shop"), false, None), None, Claim::Write("shop")),
            (said(Some("shop"), false, None), Some("shop"), Claim::Is("shop")),
            (said(Some("bank"), false, None), Some("shop"), Claim::Refused("shop", "bank")),
            (said(Some("bank"), true, None), Some("shop"), Claim::Is("bank")),
            (said(Some("bank"), true, None), None, Claim::Write("bank")),
            (said(Some("bank"), false, Some("shop")), Some("shop"), Claim::Replace("shop", "bank")),
            (said(Some("bank"), false, Some("shop")), Some("bank"), Claim::Is("bank")),
            (said(Some("bank"), false, Some("shop")), None, Claim::Write("bank")),
            (
                said(Some("bank"), false, Some("store")),
                Some("shop"),
                Claim::Refused("shop", "bank"),
            ),
        ] {
            assert_eq!(said.claim(stored), expected, "{said:?} where {stored:?} is written down");
        }
    }
}
