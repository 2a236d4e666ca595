//! Temporary databases on the shared servers, gone when the test ends, however it ends.

mod every;
mod sessions;
mod url;

use sea_orm::{ConnectOptions, ConnectionTrait, DatabaseConnection, DbErr};
use std::{env, thread, time::Duration};
use tempfile::TempDir;

#[doc(hidden)]
pub use every::run_on;
pub use sessions::{open_transactions, waiting_for_locks};

/// How long a database may take to go away when its test has ended.
const DROPPED_WITHIN: Duration = Duration::from_secs(20);

/// How long to wait for a connection: a test that has used up its pool should say so soon.
const CONNECTED_WITHIN: Duration = Duration::from_secs(10);

/// The databases that the outbox runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Database {
    /// SQLite, in a file.
    Sqlite,
    /// PostgreSQL, at `OUTBOX_TEST_POSTGRES_URL` or the usual loopback port.
    Postgres,
    /// MariaDB (or MySQL), at `OUTBOX_TEST_MARIADB_URL` or the usual loopback port.
    MariaDb,
}

impl Database {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Sqlite, Self::Postgres, Self::MariaDb];

    /// Gives the URL of the shared server, with a database of it that always exists; `None` for SQLite.
    ///
    /// # Panics
    /// When the URL of the environment is not on loopback and `OUTBOX_TEST_ALLOW_REMOTE=1` is not set: the tests create
    /// and drop databases, freely.
    #[must_use]
    pub fn server_url(self) -> Option<String> {
        let (variable, usual) = match self {
            Self::Sqlite => return None,
            Self::Postgres => {
                ("OUTBOX_TEST_POSTGRES_URL", "postgres://postgres@127.0.0.1:5432/postgres")
            }
            Self::MariaDb => ("OUTBOX_TEST_MARIADB_URL", "mysql://root@127.0.0.1:3306/test"),
        };
        Some(server_url(variable, usual))
    }
}

/// Gives the URL of a shared server: that of a variable of the environment, or the usual one.
pub(crate) fn server_url(variable: &str, usual: &str) -> String {
    let server =
        env::var(variable).ok().filter(|url| !url.is_empty()).unwrap_or_else(|| usual.to_owned());
    let allowed = env::var("OUTBOX_TEST_ALLOW_REMOTE").is_ok_and(|value| value == "1");
    assert!(
        allowed || url::is_loopback(&server),
        "{variable} is not on loopback (OUTBOX_TEST_ALLOW_REMOTE=1 allows it)"
    );
    server
}

/// A database with a random name, empty at first. Dropped, it is dropped on its server too, and its
/// sessions are ended.
#[derive(Debug)]
pub struct TempDatabase {
    database: Database,
    name: String,
    url: String,
    /// The folder of the SQLite file.
    folder: Option<TempDir>,
}

impl TempDatabase {
    /// Creates one.
    ///
    /// # Panics
    /// When the shared server does not answer; the message has its address.
    pub async fn create(database: Database) -> Self {
        let name = format!("outbox_test_{:016x}", fastrand::u64(..));
        let Some(server) = database.server_url() else {
            let folder = tempfile::Builder::new().prefix("outbox-sqlite-").tempdir();
            let folder = folder.expect("a folder can be made where temporary files go");
            let url = format!(
                "sqlite://{}?mode=rwc",
                folder.path().join(&name).with_extension("db").display()
            );
            return Self { database, name, url, folder: Some(folder) };
        };
        let statement = match database {
            Database::MariaDb => format!("CREATE DATABASE {name} CHARACTER SET utf8mb4"),
            Database::Postgres | Database::Sqlite => format!("CREATE DATABASE {name}"),
        };
        if let Err(error) = administer(&server, &[statement]).await {
            panic!(
                "no database could be made on the {database:?} server ({error}); tests/run brings it up"
            );
        }
        Self { database, url: url::with_database(&server, &name), name, folder: None }
    }

    /// Tells which database it is of.
    #[must_use]
    pub fn database(&self) -> Database {
        self.database
    }

    /// Gives its name on the server.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Gives its URL, as SeaORM takes it.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Connects with a pool of at most ten connections (SQLite: one, SeaORM's own choice).
    ///
    /// # Panics
    /// When it cannot connect.
    pub async fn connect(&self) -> DatabaseConnection {
        self.connect_with(|_| ()).await
    }

    /// Connects with other options.
    ///
    /// # Panics
    /// When it cannot connect.
    pub async fn connect_with(
        &self,
        choose: impl FnOnce(&mut ConnectOptions),
    ) -> DatabaseConnection {
        let mut options = ConnectOptions::new(&self.url);
        options
            .sqlx_logging(false)
            .acquire_timeout(CONNECTED_WITHIN)
            .connect_timeout(CONNECTED_WITHIN);
        if self.database != Database::Sqlite {
            options.max_connections(10);
        }
        choose(&mut options);
        let connected = sea_orm::Database::connect(options).await;
        connected.unwrap_or_else(|error| panic!("{} cannot be connected to: {error}", self.name))
    }

    /// Gives its URL through something that listens on another port of this machine, such as a pooler.
    #[must_use]
    pub fn url_through(&self, port: u16) -> String {
        url::with_database(&format!("postgres://postgres@127.0.0.1:{port}"), &self.name)
    }

    /// Makes the role of an application that may read and write every table that is there by now, and make none. Gives the URL
    /// with which it connects; for SQLite, which has no roles, one that only reads.
    ///
    /// # Panics
    /// When the server refuses.
    pub async fn restricted_url(&self) -> String {
        let role = role_of(&self.name);
        let statements = match self.database {
            Database::Sqlite => return self.url.replace("mode=rwc", "mode=ro"),
            Database::Postgres => vec![
                format!(
                    "DO $$ BEGIN CREATE ROLE {role} LOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$"
                ),
                "REVOKE CREATE ON SCHEMA public FROM PUBLIC".to_owned(),
                format!(
                    "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {role}"
                ),
            ],
            Database::MariaDb => vec![
                format!("CREATE USER IF NOT EXISTS {role}@'%'"),
                format!("GRANT SELECT, INSERT, UPDATE, DELETE ON {}.* TO {role}@'%'", self.name),
            ],
        };
        let made = administer(&self.url, &statements).await;
        made.unwrap_or_else(|error| panic!("no role could be made for {}: {error}", self.name));
        url::with_user(&self.url, &role)
    }

    /// Drops it on the server.
    async fn remove(database: Database, name: String) -> Result<(), DbErr> {
        let Some(server) = database.server_url() else { return Ok(()) };
        match database {
            Database::MariaDb => {
                end_sessions(&server, &name).await?;
                let user = role_of(&name);
                let drop = [
                    format!("DROP DATABASE IF EXISTS {name}"),
                    format!("DROP USER IF EXISTS {user}@'%'"),
                ];
                administer(&server, &drop).await
            }
            _ => {
                let role = role_of(&name);
                let drop = [
                    format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)"),
                    format!("DROP ROLE IF EXISTS {role}"),
                ];
                administer(&server, &drop).await
            }
        }
    }
}

impl Drop for TempDatabase {
    fn drop(&mut self) {
        if self.folder.is_some() {
            return;
        }
        let (database, name) = (self.database, self.name.clone());
        // On a thread and runtime of its own: the test's may be ending, or is the very thread that would have to wait.
        let removal = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime
                .block_on(async {
                    tokio::time::timeout(DROPPED_WITHIN, Self::remove(database, name)).await
                })?
                .map_err(std::io::Error::other)
        });
        let removed =
            removal.join().unwrap_or_else(|_| Err(std::io::Error::other("the removal panicked")));
        if let Err(error) = removed
            && !thread::panicking()
        {
            panic!("{} is left on the server: {error}", self.name);
        }
    }
}

/// Names the role of a database's application; MySQL takes 32 bytes.
fn role_of(database: &str) -> String {
    format!("{database}_app")
}

/// Runs statements on the server, one connection.
async fn administer(server: &str, statements: &[String]) -> Result<(), DbErr> {
    let connection = connect_once(server).await?;
    for statement in statements {
        connection.execute_unprepared(statement).await?;
    }
    connection.close().await
}

/// Ends the sessions of a MariaDB database: an open transaction in one of them would keep it from being dropped.
async fn end_sessions(server: &str, name: &str) -> Result<(), DbErr> {
    let connection = connect_once(server).await?;
    let sessions = format!(
        "SELECT CAST(id AS SIGNED) AS id FROM information_schema.processlist WHERE db = '{name}'"
    );
    let statement = sea_orm::Statement::from_string(sea_orm::DbBackend::MySql, sessions);
    for row in connection.query_all_raw(statement).await? {
        let id: i64 = row.try_get("", "id")?;
        // It may have ended by itself meanwhile.
        let _ = connection.execute_unprepared(&format!("KILL {id}")).await;
    }
    connection.close().await
}

async fn connect_once(server: &str) -> Result<DatabaseConnection, DbErr> {
    let mut options = ConnectOptions::new(server);
    options
        .max_connections(1)
        .sqlx_logging(false)
        .acquire_timeout(CONNECTED_WITHIN)
        .connect_timeout(CONNECTED_WITHIN);
    sea_orm::Database::connect(options).await
}
