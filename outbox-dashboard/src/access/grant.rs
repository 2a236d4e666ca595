//! What somebody may do.

use serde::Serialize;
use std::{collections::BTreeSet, fmt, str::FromStr};

/// Something that changes a database or shows what is hidden, and that an operator may be allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[non_exhaustive]
#[serde(rename_all = "kebab-case")]
pub enum Permission {
    /// Redrive dead letters.
    Redrive,
    /// Discard dead letters.
    Discard,
    /// Discard dead letters and delete their content.
    Purge,
    /// Send a dead letter again with other content.
    Resend,
    /// Run a handler on a dead letter in a transaction that is rolled back.
    Try,
    /// See the content of a dead letter that is hidden, as its type is sensitive; the audit says who
    /// saw it and why.
    ShowContent,
    /// Pause, resume, and limit the rate.
    Control,
    /// Resume a stuck saga.
    SagaResume,
    /// Go on with a saga from a step.
    SagaRetryFrom,
    /// Skip a step of a saga.
    SagaSkip,
    /// Compensate a saga.
    SagaCancel,
}

impl Permission {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::Redrive,
        Self::Discard,
        Self::Purge,
        Self::Resend,
        Self::Try,
        Self::ShowContent,
        Self::Control,
        Self::SagaResume,
        Self::SagaRetryFrom,
        Self::SagaSkip,
        Self::SagaCancel,
    ];

    /// Gives its name, as configuration files write it: `redrive`, `saga-skip`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Redrive => "redrive",
            Self::Discard => "discard",
            Self::Purge => "purge",
            Self::Resend => "resend",
            Self::Try => "try",
            Self::ShowContent => "show-content",
            Self::Control => "control",
            Self::SagaResume => "saga-resume",
            Self::SagaRetryFrom => "saga-retry-from",
            Self::SagaSkip => "saga-skip",
            Self::SagaCancel => "saga-cancel",
        }
    }
}

impl fmt::Display for Permission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Permission {
    type Err = ();
    fn from_str(s: &str) -> Result<Self, ()> {
        Self::ALL.into_iter().find(|permission| permission.as_str() == s).ok_or(())
    }
}

/// What a login may do. Each role reads everything, payloads too, but what is sensitive: that needs
/// [`Permission::ShowContent`].
///
/// ```
/// use outbox_dashboard::{Permission, Role};
/// let on_call = Role::acts([Permission::Redrive, Permission::Control]);
/// assert!(on_call.allows(Permission::Redrive) && !on_call.allows(Permission::Purge));
/// assert!(Role::Operator.allows(Permission::Purge) && !Role::Reader.allows(Permission::Redrive));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Role {
    /// Reads, and changes nothing.
    Reader,
    /// Reads, and does everything, [`Permission::ShowContent`] too.
    Operator,
    /// Reads, and does these.
    Acts(BTreeSet<Permission>),
}

impl Role {
    /// Makes a role that reads, and does these.
    #[must_use]
    pub fn acts(acts: impl IntoIterator<Item = Permission>) -> Self {
        Self::Acts(acts.into_iter().collect())
    }

    /// Tells whether the role may do this.
    #[must_use]
    pub fn allows(&self, permission: Permission) -> bool {
        match self {
            Self::Reader => false,
            Self::Operator => true,
            Self::Acts(acts) => acts.contains(&permission),
        }
    }
}

/// Who asks, and what this one may do.
///
/// ```
/// use outbox_dashboard::{Grant, Role};
/// let grant = Grant::new("ann", Role::Operator);
/// assert_eq!(grant.who, "ann");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// The name that the audit keeps, such as a login name; the first 255 characters of it.
    pub who: String,
    /// The role.
    pub may: Role,
}

impl Grant {
    /// Makes a grant.
    #[must_use]
    pub fn new(who: impl Into<String>, may: Role) -> Self {
        Self { who: who.into(), may }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_permission_is_read_as_it_is_written() {
        for permission in Permission::ALL {
            assert_eq!(permission.to_string().parse(), Ok(permission));
            assert_eq!(serde_json::to_value(permission).unwrap(), permission.as_str());
        }
        assert_eq!("REDRIVE".parse::<Permission>(), Err(()));
    }
}
