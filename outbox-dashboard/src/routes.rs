//! The one list of routes: method, path, needs, handler. The router is built from it, so that
//! no handler is without a rule.

use crate::{
    access::{self, Needs},
    act, api,
    builder::Shared,
    live, page,
};
use axum::{
    Router,
    handler::Handler,
    middleware::from_fn_with_state,
    routing::{self, MethodRouter},
};
use http::Method;

/// A route.
pub(crate) struct Entry {
    pub(crate) method: Method,
    pub(crate) path: &'static str,
    /// What the visitor needs.
    pub(crate) needs: Needs,
    handler: MethodRouter<Shared>,
}

impl Entry {
    /// A route that reads.
    pub(crate) fn get<H, T>(path: &'static str, needs: Needs, handler: H) -> Self
    where
        H: Handler<T, Shared>,
        T: 'static,
    {
        Self { method: Method::GET, path, needs, handler: routing::get(handler) }
    }

    /// A route that changes something.
    pub(crate) fn post<H, T>(path: &'static str, needs: Needs, handler: H) -> Self
    where
        H: Handler<T, Shared>,
        T: 'static,
    {
        Self { method: Method::POST, path, needs, handler: routing::post(handler) }
    }
}

/// All routes. The page at the root is also `/follow`: under a prefix, a relative link cannot name
/// the prefix without a slash behind it.
pub(crate) fn entries() -> Vec<Entry> {
    use Needs::{Public, Read};
    let mut entries = vec![
        Entry::get("/", Read, page::follow::page),
        Entry::get("/follow", Read, page::follow::page),
        Entry::get("/overview", Read, page::overview::page),
        Entry::get("/routes", Read, page::routes::page),
        Entry::get("/letters", Read, page::letters::page),
        Entry::get("/letters/{id}", Read, page::letter::page),
        Entry::get("/sagas", Read, page::sagas::page),
        Entry::get("/sagas/{id}", Read, page::saga::page),
        Entry::get("/waiting", Read, page::waiting::page),
        Entry::get("/audit", Read, page::audit::page),
        Entry::get("/doctor", Read, page::doctor::page),
        Entry::get("/live/{page}", Read, live::stream),
        Entry::get("/assets/{name}", Public, page::assets::asset),
    ];
    entries.extend(act::entries());
    entries.extend(api::entries());
    entries
}

/// Builds the router: each route with its rule around its handler.
pub(crate) fn router(app: Shared) -> Router {
    let mut router = Router::new();
    for Entry { path, needs, handler, .. } in entries() {
        let rule = from_fn_with_state((app.clone(), needs), access::check);
        router = router.route(path, handler.route_layer(rule));
    }
    let router = router.fallback(page::not_found).with_state(app.clone());
    access::protect(router, app)
}
