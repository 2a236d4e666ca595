//! Wakes between processes through PostgreSQL: LISTEN and NOTIFY on connections of their own.
//!
//! Never a NOTIFY in a business transaction: at commit it takes a lock that the whole cluster
//! shares, which cost six sevenths of the throughput when measured. A lost wake costs one poll.

use crate::schema::Schema;
use async_trait::async_trait;
use outbox_core::{
    outbox::{StoreError, WakeListener},
    runtime::{Task, Wake},
};
use sea_orm::DatabaseConnection;
use std::{convert::Infallible, sync::Arc};
use tokio::sync::Notify;

/// Wakes the relays of other processes, where the database has notifications (PostgreSQL).
///
/// Cloning is cheap. On a database without notifications it does nothing.
#[derive(Debug, Clone)]
pub struct Notifier(Option<Arc<NotifyTask>>);

#[derive(Debug)]
struct NotifyTask {
    requested: Arc<Notify>,
    task: Task<()>,
}

impl Notifier {
    /// Makes a notifier for an outbox. It opens its connection at the first notification.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    #[must_use]
    pub fn new(db: &DatabaseConnection, schema: &Schema) -> Self {
        #[cfg(feature = "sqlx-postgres")]
        if schema.dialect().has_notifications() {
            let requested = Arc::new(Notify::new());
            let options = db.get_postgres_connection_pool().connect_options();
            let channel = schema.namespace().channel();
            let notifying = postgres::notify_on_request(options, channel, Arc::clone(&requested));
            let task = outbox_core::runtime::spawn(notifying);
            return Self(Some(Arc::new(NotifyTask { requested, task })));
        }
        let _ = (db, schema);
        Self(None)
    }

    /// Makes a notifier that does nothing.
    #[must_use]
    pub const fn disabled() -> Self {
        Self(None)
    }

    /// Requests a notification. Never blocks; requests within 5 ms of one another are sent as one.
    pub fn notify(&self) {
        if let Some(task) = &self.0 {
            task.requested.notify_one();
        }
    }
}

impl Drop for NotifyTask {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Listens to the notifications of all processes, this one included.
pub(crate) struct PgWakeListener {
    #[cfg(feature = "sqlx-postgres")]
    options: Arc<sea_orm::sqlx::postgres::PgConnectOptions>,
    #[cfg_attr(
        not(feature = "sqlx-postgres"),
        expect(dead_code, reason = "there is no listener then")
    )]
    channel: String,
}

impl PgWakeListener {
    /// Makes a listener, where the database has notifications.
    pub(crate) fn new(db: &DatabaseConnection, schema: &Schema) -> Option<Self> {
        #[cfg(feature = "sqlx-postgres")]
        if schema.dialect().has_notifications() {
            let options = db.get_postgres_connection_pool().connect_options();
            return Some(Self { options, channel: schema.namespace().channel() });
        }
        let _ = (db, schema);
        None
    }
}

#[async_trait]
impl WakeListener for PgWakeListener {
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

    /// Least time between two notifications: wakes are not worth more than 200 statements a second.
    const PAUSE: Duration = Duration::from_millis(5);
    /// Least time between two tries to reach a server that is away.
    const RETRY: Duration = Duration::from_secs(1);
    /// How long a server may take to respond before the task opens another connection.
    const RESPONSE_TIMEOUT: Duration = Duration::from_secs(5);

    /// Sends a notification after every request, until the task is aborted.
    pub(super) async fn notify_on_request(
        options: Arc<PgConnectOptions>,
        channel: String,
        requested: Arc<Notify>,
    ) {
        let mut connection: Option<PgConnection> = None;
        loop {
            requested.notified().await;
            let sending = notify(&mut connection, &options, &channel);
            let sent = tokio::time::timeout(RESPONSE_TIMEOUT, sending).await;
            match sent {
                Ok(Ok(())) => tokio::time::sleep(PAUSE).await,
                failed => {
                    // The wake is lost: the other relays poll. The connection may be broken, and is
                    // not used again.
                    connection = None;
                    tracing::debug!(?failed, "no notification could be sent");
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }

    async fn notify(
        connection: &mut Option<PgConnection>,
        options: &PgConnectOptions,
        channel: &str,
    ) -> Result<(), sqlx::Error> {
        let open = match connection.as_mut() {
            Some(open) => open,
            None => connection.insert(options.connect().await?),
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
            .acquire_timeout(RESPONSE_TIMEOUT)
            .connect_with(options.clone())
            .await
            .map_err(driver_error)?;
        let mut listener = PgListener::connect_with(&pool).await.map_err(driver_error)?;
        listener.eager_reconnect(false);
        listener.listen(channel).await.map_err(driver_error)?;
        // A notification may have come before this listener did.
        wake.wake();
        while listener.try_recv().await.map_err(driver_error)?.is_some() {
            wake.wake();
        }
        Err(StoreError::Unavailable("the listener's connection is gone".into()))
    }
}
