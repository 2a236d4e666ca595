//! The database of a service.

use anyhow::Context;
use outbox_sea_orm::{OutboxBuilder, prelude::*};
use sea_orm::{ConnectOptions, ConnectionTrait, DatabaseConnection, EntityTrait, Schema};
use std::{fmt, fs, path::PathBuf};
use tempfile::TempDir;

/// The services, each with a database.
const SERVICES: [&str; 4] = ["orders", "payments", "stock", "shipping"];

/// The location of the databases.
pub enum Location {
    /// SQLite files in a temporary folder.
    Temporary(TempDir),
    /// SQLite files in a folder that stays.
    Folder(PathBuf),
    /// A server's database, in which each service has tables of its own.
    Server(String),
}

/// The database of one service.
pub struct Database {
    /// The pool that the service works with.
    pub pool: DatabaseConnection,
    /// A separate connection, which sees only committed rows.
    pub observer: DatabaseConnection,
    /// Prefix of the outbox's tables: needed only where services share a database.
    pub namespace: &'static str,
}

impl Location {
    /// Chooses the place: a server, a folder, else a temporary folder.
    pub fn choose(server: Option<String>, folder: Option<PathBuf>) -> anyhow::Result<Self> {
        Ok(match (server, folder) {
            (Some(url), _) => Self::Server(url),
            (None, Some(folder)) => {
                fs::create_dir_all(&folder)
                    .with_context(|| format!("{} cannot be made", folder.display()))?;
                Self::Folder(folder)
            }
            (None, None) => {
                Self::Temporary(tempfile::Builder::new().prefix("outbox-shop-").tempdir()?)
            }
        })
    }

    /// Gives a name that is unique to this location.
    #[cfg(any(
        feature = "amqp",
        feature = "kafka",
        feature = "mqtt",
        feature = "nats",
        feature = "redis",
        feature = "sqs"
    ))]
    pub fn name(&self) -> String {
        use std::hash::{DefaultHasher, Hash, Hasher};
        let mut hasher = DefaultHasher::new();
        match self {
            Self::Temporary(folder) => folder.path().hash(&mut hasher),
            Self::Folder(folder) => {
                fs::canonicalize(folder).unwrap_or_else(|_| folder.clone()).hash(&mut hasher)
            }
            Self::Server(url) => url.hash(&mut hasher),
        }
        format!("{:016x}", hasher.finish())
    }

    /// Tells whether it is deleted with the run.
    #[cfg(any(feature = "amqp", feature = "kafka", feature = "mqtt", feature = "nats"))]
    pub const fn is_temporary(&self) -> bool {
        matches!(self, Self::Temporary(_))
    }

    /// Writes the contexts of the command line `outbox` into the folder of the databases; nothing
    /// for a server, whose URL may have a password.
    pub fn write_contexts(&self) -> anyhow::Result<Option<PathBuf>> {
        let folder = match self {
            Self::Temporary(folder) => folder.path(),
            Self::Folder(folder) => folder,
            Self::Server(_) => return Ok(None),
        };
        let database = |service: &str| {
            let url = in_folder(folder, service).replace("mode=rwc", "mode=rw");
            format!("    {{ name = \"{service}\", url = \"{url}\" }},\n")
        };
        let databases: String = SERVICES.iter().copied().map(database).collect();
        let path = folder.join("outbox.toml");
        fs::write(&path, format!("[contexts.shop]\ndatabases = [\n{databases}]\n"))?;
        // As it would be with passwords: `outbox` warns of a file that others can read.
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
        }
        Ok(Some(path))
    }

    /// Opens the database of a service.
    pub async fn open(&self, service: &'static str) -> anyhow::Result<Database> {
        let (url, namespace) = match self {
            Self::Temporary(folder) => (in_folder(folder.path(), service), ""),
            Self::Folder(folder) => (in_folder(folder, service), ""),
            Self::Server(url) => (url.clone(), service),
        };
        let pool = connect(&url, None)
            .await
            .with_context(|| format!("the database of {service} cannot be opened"))?;
        let observer = connect(&url, Some(1)).await?;
        Ok(Database { pool, observer, namespace })
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Temporary(_) => {
                write!(f, "a SQLite file each, gone at the end; --data DIR keeps them")
            }
            Self::Folder(folder) => write!(f, "a SQLite file each in {}", folder.display()),
            // Without the URL, which may hold a password.
            Self::Server(_) => write!(f, "tables of their own on the server; they stay there"),
        }
    }
}

fn in_folder(folder: &std::path::Path, service: &str) -> String {
    format!("sqlite://{}?mode=rwc", folder.join(service).with_extension("db").display())
}

async fn connect(url: &str, connections: Option<u32>) -> anyhow::Result<DatabaseConnection> {
    let mut options = ConnectOptions::new(url);
    options.sqlx_logging(false);
    if let Some(connections) = connections {
        options.max_connections(connections);
    }
    Ok(sea_orm::Database::connect(options).await?)
}

impl Database {
    /// Creates a table where it is missing.
    pub async fn create_table(&self, entity: impl EntityTrait) -> anyhow::Result<()> {
        let schema = Schema::new(ConnectionTrait::get_database_backend(&self.pool));
        self.pool.execute(schema.create_table_from_entity(entity).if_not_exists()).await?;
        Ok(())
    }

    /// Configures the outbox of a service.
    pub fn outbox(&self, source: &str) -> OutboxBuilder {
        Outbox::builder(self.pool.clone()).source(source).namespace(self.namespace)
    }

    /// Gives the name of one of the outbox's tables.
    pub fn table(&self, name: &str) -> String {
        match self.namespace {
            "" => name.to_owned(),
            prefix => format!("{prefix}_{name}"),
        }
    }
}
