//! Wakes that go from process to process through PostgreSQL: LISTEN and NOTIFY on connections of their own.
//!
//! Never a NOTIFY in a business transaction: it takes a lock at commit that the whole cluster shares, and was measured to
//! cost six sevenths of the throughput. A wake that is lost costs one poll.

use crate::schema::Schema;
use async_trait::async_trait;
use outbox_core::{
    outbox::{StoreError, WakeListener},
    runtime::{Task, Wake},
};
use sea_orm::DatabaseConnection;
use std::{convert::Infallible, sync::Arc};
use tokio::sync::Notify;

/// Rings the relays of other processes, where the database can carry it (PostgreSQL).
///
/// Cloning is cheap. Where the database carries no wakes, ringing does nothing.
#[derive(Debug, Clone)]
pub struct Notifier(Option<Arc<Bell>>);

#[derive(Debug)]
struct Bell {
    rung: Arc<Notify>,
    task: Task<()>,
}

impl Notifier {
    /// Makes a notifier for an outbox. Its connection is opened at the first ring.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    #[must_use]
    pub fn new(db: &DatabaseConnection, schema: &Schema) -> Self {
        #[cfg(feature = "sqlx-postgres")]
        if schema.dialect() == crate::Dialect::Postgres {
            let rung = Arc::new(Notify::new());
            let options = db.get_postgres_connection_pool().connect_options();
            let ring = postgres::ring(options, schema.namespace().channel(), Arc::clone(&rung));
            let task = outbox_core::runtime::spawn(ring);
            return Self(Some(Arc::new(Bell { rung, task })));
        }
        let _ = (db, schema);
        Self(None)
    }

    /// Makes one that nobody hears.
    #[must_use]
    pub const fn silent() -> Self {
        Self(None)
    }

    /// Rings. Never blocks; rings that come within 5 ms of one another are one.
    pub fn ring(&self) {
        if let Some(bell) = &self.0 {
            bell.rung.notify_one();
        }
    }
}

impl Drop for Bell {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Hears the rings of other processes, and of this one.
pub(crate) struct Listener {
    #[cfg(feature = "sqlx-postgres")]
    options: Arc<sea_orm::sqlx::postgres::PgConnectOptions>,
    #[cfg_attr(
        not(feature = "sqlx-postgres"),
        expect(dead_code, reason = "nothing is made to listen then")
    )]
    channel: String,
}

impl Listener {
    /// Makes a listener, where the database carries wakes.
    pub(crate) fn new(db: &DatabaseConnection, schema: &Schema) -> Option<Self> {
        #[cfg(feature = "sqlx-postgres")]
        if schema.dialect() == crate::Dialect::Postgres {
            let options = db.get_postgres_connection_pool().connect_options();
            return Some(Self { options, channel: schema.namespace().channel() });
        }
        let _ = (db, schema);
        None
    }
}

#[async_trait]
impl WakeListener for Listener {
    async fn listen(&self, wake: &Wake) -> Result<Infallible, StoreError> {
        #[cfg(feature = "sqlx-postgres")]
        return postgres::listen(&self.options, &self.channel, wake).await;
        #[cfg(not(feature = "sqlx-postgres"))]
        {
            let _ = wake;
            std::future::pending().await
        }
    }
}

#[cfg(feature = "sqlx-postgres")]
mod postgres {
    use crate::{dialect::NOTIFY, pool::driver_error};
    use outbox_core::{outbox::StoreError, runtime::Wake};
    use sea_orm::sqlx::{
        self, ConnectOptions, PgConnection,
        postgres::{PgConnectOptions, PgListener, PgPoolOptions},
    };
    use std::{convert::Infallible, sync::Arc, time::Duration};
    use tokio::sync::Notify;

    /// Least time between two notifications: a wake is not worth more than 200 statements a second.
    const PAUSE: Duration = Duration::from_millis(5);
    /// Least time between two tries to reach a server that is gone.
    const RETRY: Duration = Duration::from_secs(1);
    /// How long a server may take to answer before another connection is tried.
    const PATIENCE: Duration = Duration::from_secs(5);

    /// Sends a notification after every ring, until it is stopped.
    pub(super) async fn ring(options: Arc<PgConnectOptions>, channel: String, rung: Arc<Notify>) {
        let mut link: Option<PgConnection> = None;
        loop {
            rung.notified().await;
            let sent = tokio::time::timeout(PATIENCE, notify(&mut link, &options, &channel)).await;
            match sent {
                Ok(Ok(())) => tokio::time::sleep(PAUSE).await,
                failed => {
                    // Lost: the others poll. The connection may be broken, and is not used again.
                    link = None;
                    tracing::debug!(?failed, "no notification could be sent");
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }

    async fn notify(
        link: &mut Option<PgConnection>,
        options: &PgConnectOptions,
        channel: &str,
    ) -> Result<(), sqlx::Error> {
        let open = match link.as_mut() {
            Some(open) => open,
            None => link.insert(options.connect().await?),
        };
        sqlx::query(NOTIFY).bind(channel).execute(open).await.map(|_| ())
    }

    /// Wakes after every notification, until the connection breaks.
    pub(super) async fn listen(
        options: &PgConnectOptions,
        channel: &str,
        wake: &Wake,
    ) -> Result<Infallible, StoreError> {
        let pool = PgPoolOptions::new()
            .max_connections(1)
            .idle_timeout(None)
            .max_lifetime(None)
            .acquire_timeout(PATIENCE)
            .connect_with(options.clone())
            .await
            .map_err(driver_error)?;
        let mut listener = PgListener::connect_with(&pool).await.map_err(driver_error)?;
        listener.eager_reconnect(false);
        listener.listen(channel).await.map_err(driver_error)?;
        // Whatever was rung while nobody listened.
        wake.wake();
        while listener.try_recv().await.map_err(driver_error)?.is_some() {
            wake.wake();
        }
        Err(StoreError::Unavailable("the connection that listens is gone".into()))
    }
}
