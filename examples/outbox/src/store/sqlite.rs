//! SQLite: a file, for workers on one machine.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::time::Duration;

use apalis_core::task::Task;
use apalis_core::worker::context::WorkerContext;
use apalis_sqlite::{Config, SqliteStorage, queries};
use rustix::fs::{FlockOperation, flock};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{ConnectOptions, Connection, Executor, Row, Sqlite, SqliteConnection};
use tokio::time::sleep;

use super::sql::{Engine, Transaction, failure, migration};
use super::{Answer, Owner, QUEUE, Request, Result, StoreError, VERSION};

/// The time to wait for the transactions of other processes.
const BUSY: Duration = Duration::from_secs(30);
/// How often a lock that another process holds is tried.
const LOCKED: Duration = Duration::from_millis(10);

const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS outbox_version (version BIGINT NOT NULL);
    CREATE TABLE IF NOT EXISTS outbox_jobs (
        id TEXT PRIMARY KEY, revision BIGINT NOT NULL, state TEXT NOT NULL, owner TEXT NOT NULL,
        lease BIGINT NOT NULL, due BIGINT NOT NULL, scheduled BIGINT NOT NULL,
        since BIGINT NOT NULL, ended BIGINT NOT NULL, document TEXT NOT NULL
    ) WITHOUT ROWID;
    CREATE INDEX IF NOT EXISTS outbox_jobs_by_state ON outbox_jobs (state, id);
    CREATE INDEX IF NOT EXISTS outbox_jobs_since ON outbox_jobs (since) WHERE state = 'waiting';
    CREATE TABLE IF NOT EXISTS outbox_pieces (
        job TEXT NOT NULL, number BIGINT NOT NULL, added BIGINT NOT NULL, bytes BLOB NOT NULL,
        PRIMARY KEY (job, number)
    );
    CREATE TABLE IF NOT EXISTS outbox_keys (
        text TEXT PRIMARY KEY, job TEXT NOT NULL, digest TEXT NOT NULL,
        expires BIGINT NOT NULL DEFAULT 0
    ) WITHOUT ROWID;
";

impl Engine for Sqlite {
    const BEGIN: &'static str = "BEGIN IMMEDIATE";
    const NOW: &'static str = "SELECT CAST(unixepoch('subsec') * 1000 AS INTEGER)";
    const REGISTER: &'static str = "INSERT INTO Workers (id, worker_type, storage_name, last_seen) \
        VALUES ($1, 'outbox', 'outbox', $2) \
        ON CONFLICT (id) DO UPDATE SET last_seen = excluded.last_seen";
    const FORGET_WORKERS: &'static str = "DELETE FROM Workers WHERE worker_type = 'outbox' \
        AND last_seen < $1 AND id NOT IN (SELECT lock_by FROM Jobs WHERE lock_by IS NOT NULL)";
    const FORGET_TASK: &'static str = "DELETE FROM Jobs WHERE id = $1";

    async fn open(url: &str) -> Result<SqliteConnection> {
        let path = url.trim_start_matches("sqlite:");
        let path = Path::new(path.strip_prefix("//").unwrap_or(path));
        if path.as_os_str().is_empty() || path == Path::new(":memory:") {
            let message = "the URL of the store names no file: give sqlite:FILE";
            return Err(StoreError::Config(message.to_owned()));
        }
        let options = SqliteConnectOptions::new()
            .filename(path)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(BUSY)
            // The messages that were sent are overwritten, not only marked as free.
            .pragma("secure_delete", "ON")
            .disable_statement_logging();
        if path.is_dir() {
            return Err(unusable(path, &ErrorKind::IsADirectory.into()));
        }
        if !path.exists() {
            create(path)?;
        }
        let failed = |error: sqlx::Error| failure::<Sqlite>(&error);
        // The journal mode and the tables are made by one process at a time.
        let lock = lock(path).await?;
        let mut connection = options.connect().await.map_err(failed)?;
        if version(&mut connection).await? != Some(VERSION) {
            migrate(&mut connection, options).await?;
        }
        drop(lock);
        Ok(connection)
    }

    async fn push(connection: &mut SqliteConnection, tasks: Vec<Task<Vec<u8>>>) -> Result<()> {
        queries::push_tasks(connection, QUEUE, &tasks)
            .await
            .map_err(engine)
    }

    async fn fetch(
        connection: &mut SqliteConnection,
        worker: &WorkerContext,
        limit: usize,
    ) -> Result<Vec<Task<Vec<u8>>>> {
        let config = Config::default().queue(QUEUE).batch_size(limit);
        queries::fetch_next(connection, &config, worker)
            .await
            .map_err(engine)
    }

    async fn run(
        connection: &mut SqliteConnection,
        worker: &WorkerContext,
        owner: &Owner,
        requests: &[&Request],
    ) -> Result<Vec<Answer>> {
        Transaction::<Sqlite>::run(connection, worker, owner, requests).await
    }

    fn affected(result: &sqlx::sqlite::SqliteQueryResult) -> u64 {
        result.rows_affected()
    }

    fn classify(code: &str, message: String) -> StoreError {
        // The primary result code is the lowest byte: https://sqlite.org/rescode.html
        let code: u32 = code.parse().unwrap_or_default();
        let advice = match (code & 0xff, code) {
            // The last one: too many processes opened the log at the same time.
            (5 | 6 | 15, _) => return StoreError::Conflict(message),
            (8, _) => "this user may not write it: run this as the user that owns it",
            // SQLITE_IOERR_SHMSIZE: no room for the index of its log.
            (10, 4874) => "the disk is full: make room on it",
            // Of these errors, SQLite keeps the system's to itself.
            (10, _) => {
                let advice = "its disk may be full, over a quota, read-only or faulty";
                return StoreError::Unusable(format!(
                    "{message} (code {code} of SQLite): {advice}"
                ));
            }
            (11, _) => "restore it from a backup",
            (13, _) => "make room on its disk",
            (14, _) => {
                "look at the permissions of this file and those beside it, and whether its disk \
                 has room for another file"
            }
            (26, _) => "give the file of an outbox, or a name that is not used yet",
            _ => return StoreError::Unusable(message),
        };
        StoreError::Unusable(format!("{message}: {advice}"))
    }
}

fn engine(error: apalis_sqlite::Error) -> StoreError {
    match error {
        apalis_sqlite::Error::Database(error) => failure::<Sqlite>(&error),
        other => StoreError::Unusable(other.to_string()),
    }
}

/// The error of a file or folder, with what to do.
fn unusable(path: &Path, error: &io::Error) -> StoreError {
    let advice = match error.kind() {
        ErrorKind::PermissionDenied => ": run this as the user that owns it, or give another file",
        ErrorKind::StorageFull => ": its disk has no room for another file",
        ErrorKind::QuotaExceeded => ": the quota of this user is used up",
        ErrorKind::ReadOnlyFilesystem => ": give a file on a disk that can be written",
        ErrorKind::IsADirectory => ": give a file in it",
        _ => "",
    };
    StoreError::Unusable(format!("{}: {error}{advice}", path.display()))
}

/// Creates the file, and its folder where there is none, for this user alone.
fn create(path: &Path) -> Result<()> {
    if let Some(folder) = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty())
    {
        let creating = DirBuilder::new().recursive(true).mode(0o700).create(folder);
        creating.map_err(|error| unusable(folder, &error))?;
    }
    private(path).map(drop)
}

fn private(path: &Path) -> Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false).mode(0o600);
    options.open(path).map_err(|error| unusable(path, &error))
}

/// Holds a lock, beside the database, until it is dropped.
async fn lock(path: &Path) -> Result<File> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let file = private(Path::new(&name))?;
    // A process that is stopped may hold it: waiting for it must end with the caller's
    // time-out.
    loop {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Err(rustix::io::Errno::WOULDBLOCK) => sleep(LOCKED).await,
            locked => {
                locked.map_err(|error| unusable(Path::new(&name), &error.into()))?;
                return Ok(file);
            }
        }
    }
}

/// The version of the tables, `None` if there are none.
async fn version(connection: &mut SqliteConnection) -> Result<Option<i64>> {
    let failed = |error: sqlx::Error| failure::<Sqlite>(&error);
    let statement = "SELECT 1 FROM sqlite_schema WHERE name = 'outbox_version'";
    let exists = connection.fetch_optional(statement).await.map_err(failed)?;
    if exists.is_none() {
        return Ok(None);
    }
    let statement = "SELECT max(version) FROM outbox_version";
    let row = connection.fetch_one(statement).await.map_err(failed)?;
    let version: Option<i64> = row.try_get(0).map_err(failed)?;
    match version {
        Some(newer) if newer > VERSION => Err(super::newer(newer)),
        version => Ok(version),
    }
}

/// Creates the tables of apalis and ours.
async fn migrate(connection: &mut SqliteConnection, options: SqliteConnectOptions) -> Result<()> {
    let failed = |error: sqlx::Error| failure::<Sqlite>(&error);
    let pool = SqlitePoolOptions::new().max_connections(1);
    let pool = pool.connect_with(options).await.map_err(failed)?;
    let migrated = SqliteStorage::migrations().run(&pool).await;
    pool.close().await;
    migrated.map_err(|error| migration::<Sqlite>(&error))?;
    let mut transaction = connection
        .begin_with("BEGIN IMMEDIATE")
        .await
        .map_err(failed)?;
    transaction.execute(SCHEMA).await.map_err(failed)?;
    let insert = sqlx::query("INSERT INTO outbox_version (version) VALUES ($1)").bind(VERSION);
    transaction.execute(insert).await.map_err(failed)?;
    transaction.commit().await.map_err(failed)
}
