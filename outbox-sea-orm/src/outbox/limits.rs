//! The limits of the routes of this process, so that the outbox refuses an event that they would
//! refuse when it is saved.

use outbox_core::{
    event::NewEvent,
    transport::{LimitError, Limits, Route},
};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

type Accepts = Arc<dyn Fn(&NewEvent) -> bool + Send + Sync>;

/// Limits of the routes that are known in this process, shared by all clones. A relay fills it with
/// [all](Self::set_all) of its routes when it starts; a service without a relay of its own may fill
/// it by hand.
///
/// ```
/// # use outbox_core::transport::Limits;
/// # use outbox_sea_orm::RouteLimits;
/// let limits = RouteLimits::default();
/// limits.set("billing", Limits::default().max_payload(262_144), |event| event.topic == "orders");
/// ```
#[derive(Clone, Default)]
pub struct RouteLimits(Arc<RwLock<Routes>>);

#[derive(Default)]
struct Routes {
    known: Vec<KnownRoute>,
    /// Whether these are all routes: then an event that none of them takes is refused.
    all: bool,
}

struct KnownRoute {
    route: String,
    limits: Limits,
    takes: Accepts,
    /// The topics that it takes, where its selector names them.
    topics: Vec<String>,
}

impl RouteLimits {
    /// Sets the limits of a route, in place of former ones, and which events it takes.
    pub fn set(
        &self,
        route: impl Into<String>,
        limits: Limits,
        takes: impl Fn(&NewEvent) -> bool + Send + Sync + 'static,
    ) {
        self.put(KnownRoute {
            route: route.into(),
            limits,
            takes: Arc::new(takes),
            topics: Vec::new(),
        });
    }

    /// Adds all routes of a relay. From now on the outbox refuses an event that no known route
    /// takes by its topic and type when it is saved; predicates do not count.
    ///
    /// ```
    /// # use outbox_sea_orm::{RouteLimits, prelude::*};
    /// # #[derive(Clone, serde::Serialize, serde::Deserialize, OutboxEvent)]
    /// # #[outbox(type = "order.placed", topic = "orders")]
    /// # struct OrderPlaced { #[outbox(key)] order_id: i64 }
    /// let limits = RouteLimits::default();
    /// let (publisher, _subscriber) = Memory::channel();
    /// limits.set_all(&[Route::new("billing", topic("orders"), publisher)]);
    /// # let encode = |event: &OrderPlaced| outbox_core::event::NewEvent::encode(event);
    /// let event = encode(&OrderPlaced { order_id: 7 })?;
    /// assert!(limits.check(&event).is_ok());
    /// # Ok::<(), outbox_core::event::EncodeError>(())
    /// ```
    pub fn set_all(&self, routes: &[Route]) {
        for route in routes {
            let selector = route.selector().clone();
            let topics = selector.topics().to_vec();
            let takes =
                move |event: &NewEvent| selector.takes_envelope(&event.topic, &event.event_type);
            let (name, limits) = (route.name().to_owned(), route.limits_of());
            self.put(KnownRoute { route: name, limits, takes: Arc::new(takes), topics });
        }
        self.write().all = true;
    }

    /// Removes a route.
    pub fn remove(&self, route: &str) {
        self.write().known.retain(|known| known.route != route);
    }

    /// Checks an event against every route that takes it.
    ///
    /// # Errors
    /// [`LimitError`] of the first route that would refuse it, or [`LimitError::NoRoute`] where all
    /// routes are known and none takes it.
    pub fn check(&self, event: &NewEvent) -> Result<(), LimitError> {
        let routes = self.read();
        let mut is_taken = !routes.all;
        for known in routes.known.iter().filter(|known| (known.takes)(event)) {
            is_taken = true;
            known.limits.check(&known.route, event)?;
        }
        if is_taken {
            return Ok(());
        }
        Err(LimitError::no_route(
            event,
            routes.known.iter().flat_map(|known| &known.topics).map(String::as_str),
        ))
    }

    fn put(&self, known: KnownRoute) {
        let mut routes = self.write();
        routes.known.retain(|former| former.route != known.route);
        routes.known.push(known);
    }

    fn read(&self) -> RwLockReadGuard<'_, Routes> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Routes> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for RouteLimits {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_map().entries(self.read().known.iter().map(|k| (&k.route, &k.limits))).finish()
    }
}
