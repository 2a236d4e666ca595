//! The rule of a route, and the layer that asks it before the handler runs.

use super::{Grant, Permission, Refusal};
use crate::builder::Shared;
use axum::{
    extract::{Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};

/// What a visitor of a route needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Needs {
    /// Nothing: the style sheet and the script, which say nothing of a database.
    Public,
    /// A login.
    Read,
    /// A login that may do this.
    Act(Permission),
    /// A login that may do one of these; the handler asks again when it knows which one.
    AnyOf(&'static [Permission]),
}

impl Needs {
    /// Checks a grant.
    fn check(self, grant: &Grant) -> Result<(), Refusal> {
        match self {
            Self::Public | Self::Read => Ok(()),
            Self::Act(permission) => grant.check(permission),
            Self::AnyOf(permissions) => match permissions {
                [] => Ok(()),
                [.., last] if !permissions.iter().any(|one| grant.may(*one)) => grant.check(*last),
                _ => Ok(()),
            },
        }
    }
}

impl Grant {
    /// Tells whether the visitor may do this.
    pub(crate) fn may(&self, permission: Permission) -> bool {
        self.may.allows(permission)
    }

    /// Refuses a visitor who may not do this.
    pub(crate) fn check(&self, permission: Permission) -> Result<(), Refusal> {
        if self.may(permission) { Ok(()) } else { Err(Refusal::denied(&self.who, permission)) }
    }
}

/// The layer around each handler: asks the rule of its route, and gives the handler the grant.
pub(crate) async fn check(
    State((app, needs)): State<(Shared, Needs)>,
    request: Request,
    next: Next,
) -> Response {
    if needs == Needs::Public {
        return next.run(request).await;
    }
    let (mut parts, body) = request.into_parts();
    let grant = match app.access.grant(&parts) {
        Ok(grant) => grant,
        Err(refusal) => return refusal.into_response(),
    };
    let mut response = match needs.check(&grant) {
        Ok(()) => {
            parts.extensions.insert(grant.clone());
            next.run(Request::from_parts(parts, body)).await
        }
        Err(refusal) => app.access.explain(refusal).into_response(),
    };
    // For the page of a refusal, which says who is logged in.
    response.extensions_mut().insert(grant);
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::Role;

    #[test]
    fn one_of_several_permissions_is_enough_to_ask_and_none_is_not() {
        const LETTERS: &[Permission] = &[Permission::Redrive, Permission::Discard];
        let grant = |may| Grant::new("ann", may);
        for (needs, may, allowed) in [
            (Needs::Read, Role::Reader, true),
            (Needs::Act(Permission::Redrive), Role::Reader, false),
            (Needs::Act(Permission::Redrive), Role::Operator, true),
            (Needs::Act(Permission::Redrive), Role::acts([Permission::Discard]), false),
            (Needs::AnyOf(LETTERS), Role::acts([Permission::Discard]), true),
            (Needs::AnyOf(LETTERS), Role::acts([Permission::Purge]), false),
            (Needs::AnyOf(LETTERS), Role::Reader, false),
        ] {
            assert_eq!(needs.check(&grant(may.clone())).is_ok(), allowed, "{needs:?} {may:?}");
        }
    }
}
