//! What the routes of this process take, so that what they would refuse is refused when it is saved.

use outbox_core::{
    event::NewEvent,
    transport::{LimitError, Limits},
};
use std::sync::{Arc, PoisonError, RwLock};

type Takes = Arc<dyn Fn(&NewEvent) -> bool + Send + Sync>;

/// Limits of the routes that are known in this process, shared by all clones. A relay fills it when it starts; a service
/// without a relay of its own may fill it by hand.
///
/// ```
/// # use outbox_core::transport::Limits;
/// # use outbox_sea_orm::RouteLimits;
/// let limits = RouteLimits::default();
/// limits.set("billing", Limits::default().max_payload(262_144), |event| event.topic == "orders");
/// ```
#[derive(Clone, Default)]
pub struct RouteLimits(Arc<RwLock<Vec<Known>>>);

struct Known {
    route: String,
    limits: Limits,
    takes: Takes,
}

impl RouteLimits {
    /// Sets the limits of a route, in place of former ones, and which events it takes.
    pub fn set(
        &self,
        route: impl Into<String>,
        limits: Limits,
        takes: impl Fn(&NewEvent) -> bool + Send + Sync + 'static,
    ) {
        let route = route.into();
        self.remove(&route);
        let known = Known { route, limits, takes: Arc::new(takes) };
        self.0.write().unwrap_or_else(PoisonError::into_inner).push(known);
    }

    /// Forgets a route.
    pub fn remove(&self, route: &str) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).retain(|known| known.route != route);
    }

    /// Checks an event against every route that takes it.
    ///
    /// # Errors
    /// [`LimitError`] of the first route that would refuse it.
    pub fn check(&self, event: &NewEvent) -> Result<(), LimitError> {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        known.iter().filter(|k| (k.takes)(event)).try_for_each(|k| k.limits.check(&k.route, event))
    }
}

impl std::fmt::Debug for RouteLimits {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        f.debug_map().entries(known.iter().map(|k| (&k.route, &k.limits))).finish()
    }
}
