//! Checks of an outbox and of its database, each a small function.

mod database;
mod relays;
mod handlers;

use crate::outbox::Outbox;
use async_trait::async_trait;
use futures_util::future::BoxFuture;
use outbox_core::{
    admin::{DoctorStore, Finding, Severity, safe_text},
    failure::full_text,
    outbox::StoreError,
};

/// The findings of one check.
type Checked = Result<Vec<Finding>, StoreError>;

#[async_trait]
impl DoctorStore for Outbox {
    async fn findings(&self) -> Result<Vec<Finding>, StoreError> {
        let checks: [(&'static str, BoxFuture<'_, Checked>); 16] = [
            ("schema-version", Box::pin(database::schema_version(self))),
            ("role-rights", Box::pin(database::role_rights(self))),
            ("durability", Box::pin(database::durability(self))),
            ("open-transaction", Box::pin(database::open_transaction(self))),
            ("default-isolation", Box::pin(database::default_isolation(self))),
            ("dead-rows", Box::pin(database::dead_rows(self))),
            ("clock-skew", Box::pin(database::clock_skew(self))),
            ("partitions-owned", Box::pin(relays::partitions_owned(self))),
            ("partition-balance", Box::pin(relays::partition_balance(self))),
            ("relay-routes", Box::pin(relays::relay_routes(self))),
            ("missing-routes", Box::pin(relays::missing_routes(self))),
            ("one-service", Box::pin(relays::one_service(self))),
            ("deferred-handlers", Box::pin(handlers::deferred_handlers(self))),
            ("saga-definitions", Box::pin(handlers::saga_definitions(self))),
            ("dead-letters", Box::pin(handlers::dead_letters(self))),
            ("inbox-retention", Box::pin(handlers::inbox_retention(self))),
        ];
        let mut findings = Vec::new();
        for (name, check) in checks {
            findings.extend(check.await.unwrap_or_else(|error| vec![not_checked(name, &error)]));
        }
        findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
        Ok(findings)
    }
}

/// The finding for a check that failed.
fn not_checked(check: &'static str, error: &StoreError) -> Finding {
    let error = safe_text(&full_text(error), 300);
    Finding {
        check,
        severity: Severity::Warning,
        what: format!("this could not be checked: {error}"),
        to_do: "repeat it with a role that may read what the check reads".to_owned(),
        seen_by: "the query of the check itself".to_owned(),
    }
}

fn finding(
    check: &'static str,
    severity: Severity,
    what: impl Into<String>,
    to_do: impl Into<String>,
    seen_by: impl Into<String>,
) -> Finding {
    Finding { check, severity, what: what.into(), to_do: to_do.into(), seen_by: seen_by.into() }
}

/// The finding of a check that found nothing wrong.
fn fine(check: &'static str, what: impl Into<String>, seen_by: impl Into<String>) -> Vec<Finding> {
    vec![finding(check, Severity::Ok, what, "", seen_by)]
}

/// Gives the worse findings, or that nothing is wrong.
fn or_fine(
    check: &'static str,
    found: Vec<Finding>,
    what: &str,
    seen_by: impl Into<String>,
) -> Checked {
    Ok(if found.is_empty() { fine(check, what, seen_by) } else { found })
}
