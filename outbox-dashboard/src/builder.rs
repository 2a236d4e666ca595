//! Builds the page: its databases, its environment, and who may see and do what.

use crate::{
    access::{Access, ServedByItself},
    act::Running,
    live::LiveReaders,
    page::overview::Days,
    routes,
    sensitive::Sensitive,
    store::{DashboardStore, Database},
};
use axum::{Extension, Router};
use outbox_core::{consumer::HandlerTrials, saga::Shape};
use std::{
    fmt, io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};
use tokio::net::TcpListener;

/// Longest name of a database or an environment, in bytes: it stands in every page's head.
const LONGEST_NAME: usize = 60;
/// Most databases of one page: each is asked for every page.
const MOST_DATABASES: usize = 32;

/// The colour of an environment's name, on every page.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Colour {
    /// Production, by habit.
    Red,
    /// Staging, by habit.
    Amber,
    /// Development, by habit.
    Green,
    /// Blue.
    Blue,
    /// Violet.
    Violet,
    /// Grey.
    #[default]
    Grey,
}

impl Colour {
    /// Gives the class of the style sheet.
    pub(crate) const fn class(self) -> &'static str {
        match self {
            Self::Red => "env-red",
            Self::Amber => "env-amber",
            Self::Green => "env-green",
            Self::Blue => "env-blue",
            Self::Violet => "env-violet",
            Self::Grey => "env-grey",
        }
    }
}

/// The environment that the page shows.
#[derive(Debug, Clone)]
pub(crate) struct Environment {
    pub(crate) name: String,
    pub(crate) colour: Colour,
}

/// Why a page cannot be built or served.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DashboardError {
    /// Something of the configuration is wrong; all of it is told.
    #[error("the dashboard's configuration is wrong: {}", .0.join("; "))]
    Config(Vec<String>),
    /// The address is not loopback, and there is no login.
    #[error(
        "{0} can be reached from other machines and the dashboard has no login: listen on 127.0.0.1, or give it `Access::basic`, `Access::bearer` or `Access::custom`"
    )]
    NoLogin(SocketAddr),
    /// The server ended.
    #[error("the dashboard cannot serve")]
    Serve(#[from] io::Error),
}

/// Builds a [`Dashboard`].
#[derive(Debug, Default)]
pub struct DashboardBuilder {
    databases: Vec<Database>,
    environment: Option<Environment>,
    access: Option<Access>,
    shapes: Vec<Shape>,
    sensitive: Sensitive,
    tries: Vec<(String, HandlerTrials)>,
}

impl DashboardBuilder {
    /// Adds a service's database under a name that URLs have: letters, digits, `-`, `_`, `.`.
    #[must_use]
    pub fn database(mut self, name: impl Into<String>, store: impl DashboardStore) -> Self {
        let name = name.into().into();
        self.databases.push(Database { name, store: Arc::new(store) });
        self
    }

    /// Shows the environment's name and colour on every page.
    #[must_use]
    pub fn environment(mut self, name: impl Into<String>, colour: Colour) -> Self {
        self.environment = Some(Environment { name: name.into(), colour });
        self
    }

    /// Draws sagas of a definition with all of its steps: only the service that has the definition
    /// knows those that are still ahead.
    ///
    /// ```
    /// # use outbox_dashboard::DashboardBuilder;
    /// # fn example<D, Tx>(builder: DashboardBuilder, place_order: &outbox_core::saga::Saga<D, Tx>) -> DashboardBuilder {
    /// builder.saga(place_order.shape())
    /// # }
    /// ```
    #[must_use]
    pub fn saga(mut self, shape: &Shape) -> Self {
        self.shapes.push(shape.clone());
        self
    }

    /// Does not show the content of events of a type: payload, headers, and the errors of attempts,
    /// which may quote them.
    ///
    /// Shown are keys and ids, and what is known without a type: the last failure that a relay or a
    /// consumer tells of itself, the causes of groups of letters of several types, letters whose
    /// message does not decode, and what sagas record of their steps.
    #[must_use]
    pub fn sensitive(mut self, event_type: impl Into<String>) -> Self {
        self.sensitive.add(event_type.into());
        self
    }

    /// Says who may see and do what. Unless it is said, whoever comes from this machine may read, and
    /// may do all where the page is [served by itself](Dashboard::serve).
    #[must_use]
    pub fn access(mut self, access: Access) -> Self {
        self.access = Some(access);
        self
    }

    /// Lets operators try letters of a consumer of this process before they redrive them: its
    /// handler runs in a transaction that is rolled back. `database` is the consumer's, by its name
    /// here.
    ///
    /// ```
    /// # use outbox_core::consumer::Consumer;
    /// # fn example(
    /// #     orders: impl outbox_dashboard::DashboardStore,
    /// #     consumer: &Consumer,
    /// # ) -> Result<(), outbox_dashboard::DashboardError> {
    /// let dashboard = outbox_dashboard::Dashboard::builder()
    ///     .database("orders", orders)
    ///     .tries("orders", consumer.trials())
    ///     .build()?;
    /// # drop(dashboard);
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn tries(mut self, database: impl Into<String>, trials: HandlerTrials) -> Self {
        self.tries.push((database.into(), trials));
        self
    }

    /// Builds the page.
    ///
    /// # Errors
    /// [`DashboardError::Config`] with all that is wrong: no database, two of one name, a name that
    /// a URL cannot have.
    pub fn build(self) -> Result<Dashboard, DashboardError> {
        let faults = self.faults();
        if !faults.is_empty() {
            return Err(DashboardError::Config(faults));
        }
        let app = App {
            databases: self.databases,
            environment: self.environment,
            access: self.access.unwrap_or_else(Access::unset),
            shapes: self.shapes,
            sensitive: self.sensitive,
            days: Days::default(),
            tries: self.tries,
            live: LiveReaders::default(),
            running: Running::default(),
        };
        Ok(Dashboard { app: Arc::new(app) })
    }

    fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        if self.databases.is_empty() {
            faults.push("it has no database".to_owned());
        }
        if self.databases.len() > MOST_DATABASES {
            faults.push(format!("it has more than {MOST_DATABASES} databases"));
        }
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        for (place, database) in self.databases.iter().enumerate() {
            let name = &*database.name;
            if name.is_empty() || name.len() > LONGEST_NAME || !name.chars().all(is_plain) {
                faults.push(format!(
                    "{name:?} is no database name: 1 to {LONGEST_NAME} letters, digits, `-`, `_`, `.`"
                ));
            }
            if self.databases[..place].iter().any(|before| before.name == database.name) {
                faults.push(format!("two databases are named {name:?}"));
            }
        }
        faults.extend(self.access.iter().flat_map(Access::faults));
        for (name, trials) in &self.tries {
            if !self.databases.iter().any(|database| *database.name == **name) {
                let consumer = trials.consumer();
                faults.push(format!(
                    "consumer {consumer:?} is tried on {name:?}, which is no database"
                ));
            }
        }
        if self.environment.as_ref().is_some_and(|e| e.name.len() > LONGEST_NAME) {
            faults.push(format!("the environment's name has more than {LONGEST_NAME} bytes"));
        }
        faults
    }
}

/// What all handlers share.
pub(crate) struct App {
    pub(crate) databases: Vec<Database>,
    pub(crate) environment: Option<Environment>,
    pub(crate) access: Access,
    /// Definitions of sagas.
    pub(crate) shapes: Vec<Shape>,
    /// Types of events whose content is not shown.
    pub(crate) sensitive: Sensitive,
    /// The last days of the databases, as they were read last.
    pub(crate) days: Days,
    /// What tries the letters of consumers in this process, each with its database.
    pub(crate) tries: Vec<(String, HandlerTrials)>,
    pub(crate) live: LiveReaders,
    /// Plans that this process applies.
    pub(crate) running: Running,
}

/// The state of the router.
pub(crate) type Shared = Arc<App>;

impl App {
    /// Gives the database of this name.
    pub(crate) fn database(&self, name: &str) -> Option<&Database> {
        self.databases.iter().find(|database| &*database.name == name)
    }
}

/// The outbox's web page, to nest in an axum application or to serve by itself.
#[derive(Clone)]
pub struct Dashboard {
    pub(crate) app: Shared,
}

impl fmt::Debug for Dashboard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dashboard").field("databases", &self.app.databases).finish_non_exhaustive()
    }
}

impl Dashboard {
    /// Begins a page.
    #[must_use]
    pub fn builder() -> DashboardBuilder {
        DashboardBuilder::default()
    }

    /// Gives the router, to nest under any path. Without a login the application must be served with
    /// `into_make_service_with_connect_info::<SocketAddr>()`, as the page looks where a request comes
    /// from; unless [`Access::loopback`] is said, this machine reads then, and nobody acts.
    pub fn router(&self) -> Router {
        if self.app.access.is_unset() {
            tracing::info!(
                "a dashboard without a login is part of a service: this machine reads, and nobody acts; \
                 give it `Access::loopback()` or a login"
            );
        }
        routes::router(Arc::clone(&self.app))
    }

    /// Serves the page at the root of an address. At one that is loopback, whoever is on this
    /// machine may do all, unless an [`Access`] is given.
    ///
    /// # Errors
    /// [`DashboardError::NoLogin`] for an address that is not loopback, where the access is by
    /// loopback alone; [`DashboardError::Serve`] where the server ends.
    ///
    /// # Cancel safety
    /// Dropped, it closes the listener.
    pub async fn serve(&self, listener: TcpListener) -> Result<(), DashboardError> {
        let address = listener.local_addr()?;
        if !is_loopback(address.ip()) && !self.app.access.has_login() {
            return Err(DashboardError::NoLogin(address));
        }
        let router = routes::router(Arc::clone(&self.app)).layer(Extension(ServedByItself));
        let service = router.into_make_service_with_connect_info::<SocketAddr>();
        Ok(axum::serve(listener, service).await?)
    }
}

/// Tells whether an address is of this machine alone, also where it is written as IPv6.
pub(crate) fn is_loopback(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}
