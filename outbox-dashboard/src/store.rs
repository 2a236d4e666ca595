//! What a database must answer.

use outbox_core::admin::{
    ActStore, AdminStore, ControlStore, DoctorStore, InspectStore, ListStore, PlanStore,
    SampleStore,
};
use outbox_core::saga::SagaAdmin;
use std::sync::Arc;

/// All that the page asks of a database. Every outbox of `outbox-saga-sea-orm` has it, and every store
/// that implements the traits.
pub trait DashboardStore:
    InspectStore
    + ListStore
    + AdminStore
    + ActStore
    + PlanStore
    + ControlStore
    + DoctorStore
    + SagaAdmin
    + SampleStore
{
}

impl<T> DashboardStore for T where
    T: InspectStore
        + ListStore
        + AdminStore
        + ActStore
        + PlanStore
        + ControlStore
        + DoctorStore
        + SagaAdmin
        + SampleStore
{
}

/// A database of the page.
#[derive(Clone)]
pub(crate) struct Database {
    /// Its name, as URLs have it in `db=`.
    pub(crate) name: Arc<str>,
    pub(crate) store: Arc<dyn DashboardStore>,
}

impl std::fmt::Debug for Database {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Database").field("name", &self.name).finish_non_exhaustive()
    }
}
