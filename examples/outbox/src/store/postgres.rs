//! PostgreSQL, for workers on any number of machines.

use std::str::FromStr;

use apalis_core::task::Task;
use apalis_core::worker::context::WorkerContext;
use apalis_postgres::{Config, PostgresStorage, queries};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions, PgQueryResult};
use sqlx::{ConnectOptions, Connection, Executor, PgConnection, Postgres, Row};

use super::sql::{Engine, Transaction, failure, migration};
use super::{Answer, Owner, QUEUE, Request, Result, StoreError, VERSION};

/// The key of the advisory lock for migrations: "envoi" in ASCII.
const LOCK: i64 = 0x65_6e_76_6f_69;

const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS outbox_version (version BIGINT NOT NULL);
    CREATE TABLE IF NOT EXISTS outbox_jobs (
        id TEXT PRIMARY KEY, revision BIGINT NOT NULL, state TEXT NOT NULL, owner TEXT NOT NULL,
        lease BIGINT NOT NULL, due BIGINT NOT NULL, scheduled BIGINT NOT NULL,
        since BIGINT NOT NULL, ended BIGINT NOT NULL, document TEXT NOT NULL
    );
    CREATE INDEX IF NOT EXISTS outbox_jobs_by_state ON outbox_jobs (state, id);
    CREATE INDEX IF NOT EXISTS outbox_jobs_since ON outbox_jobs (since) WHERE state = 'waiting';
    CREATE TABLE IF NOT EXISTS outbox_pieces (
        job TEXT NOT NULL, number BIGINT NOT NULL, added BIGINT NOT NULL, bytes BYTEA NOT NULL,
        PRIMARY KEY (job, number)
    );
    CREATE TABLE IF NOT EXISTS outbox_keys (
        text TEXT PRIMARY KEY, job TEXT NOT NULL, digest TEXT NOT NULL,
        expires BIGINT NOT NULL DEFAULT 0
    );
";

impl Engine for Postgres {
    const BEGIN: &'static str = "BEGIN";
    const NOW: &'static str = "SELECT (extract(epoch from clock_timestamp()) * 1000)::bigint";
    const REGISTER: &'static str = "INSERT INTO apalis.workers \
        (id, worker_type, storage_name, layers, last_seen) \
        VALUES ($1, 'outbox', 'outbox', '', to_timestamp($2)) \
        ON CONFLICT (id) DO UPDATE SET last_seen = excluded.last_seen";
    const FORGET_WORKERS: &'static str = "DELETE FROM apalis.workers WHERE worker_type = 'outbox' \
        AND last_seen < to_timestamp($1) \
        AND id NOT IN (SELECT lock_by FROM apalis.jobs WHERE lock_by IS NOT NULL)";
    const FORGET_TASK: &'static str = "DELETE FROM apalis.jobs WHERE id = $1";

    async fn open(url: &str) -> Result<PgConnection> {
        // The error would repeat the URL, which may have a password.
        let options = PgConnectOptions::from_str(url)
            .map_err(|_| StoreError::Config("the URL of the store is not valid".to_owned()))?
            .application_name("outbox")
            .disable_statement_logging();
        let failed = |error: sqlx::Error| failure::<Postgres>(&error);
        let mut connection = options.connect().await.map_err(failed)?;
        if version(&mut connection).await? != Some(VERSION) {
            migrate(&mut connection, options).await?;
        }
        Ok(connection)
    }

    async fn push(connection: &mut PgConnection, tasks: Vec<Task<Vec<u8>>>) -> Result<()> {
        queries::push_tasks(connection, QUEUE, tasks)
            .await
            .map_err(engine)
    }

    async fn fetch(
        connection: &mut PgConnection,
        worker: &WorkerContext,
        limit: usize,
    ) -> Result<Vec<Task<Vec<u8>>>> {
        let config = Config::default().queue(QUEUE).batch_size(limit);
        queries::fetch_next(connection, &config, worker)
            .await
            .map_err(engine)
    }

    async fn run(
        connection: &mut PgConnection,
        worker: &WorkerContext,
        owner: &Owner,
        requests: &[&Request],
    ) -> Result<Vec<Answer>> {
        Transaction::<Postgres>::run(connection, worker, owner, requests).await
    }

    fn affected(result: &PgQueryResult) -> u64 {
        result.rows_affected()
    }

    fn classify(code: &str, message: String) -> StoreError {
        // https://www.postgresql.org/docs/current/errcodes-appendix.html
        let advice = match code {
            "40001" | "40P01" | "55P03" => return StoreError::Conflict(message),
            "3D000" | "28P01" | "28000" => {
                let message = format!("{message}: check the URL of the store");
                return StoreError::Config(message);
            }
            "0A000" if message.contains("extension") => "install it on the database server",
            "25006" => "give the URL of the primary",
            "42501" => "give the URL of the owner of the database, or grant this user its rights",
            "53100" => "make room on its disk",
            // Connection failures, too many connections, shutdown and recovery.
            _ if code.starts_with("08") || code.starts_with("53") || code.starts_with("57") => {
                return StoreError::Lost(message);
            }
            _ => return StoreError::Unusable(message),
        };
        StoreError::Unusable(format!("{message}: {advice}"))
    }
}

fn engine(error: apalis_postgres::Error) -> StoreError {
    match error {
        apalis_postgres::Error::Database(error) => failure::<Postgres>(&error),
        other => StoreError::Unusable(other.to_string()),
    }
}

/// The version of the tables, `None` if there are none.
async fn version(connection: &mut PgConnection) -> Result<Option<i64>> {
    let failed = |error: sqlx::Error| failure::<Postgres>(&error);
    let statement = "SELECT to_regclass('outbox_version') IS NOT NULL";
    let row = connection.fetch_one(statement).await.map_err(failed)?;
    if !row.try_get::<bool, _>(0).map_err(failed)? {
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

/// Creates the tables of apalis and ours, one process at a time.
async fn migrate(connection: &mut PgConnection, options: PgConnectOptions) -> Result<()> {
    let failed = |error: sqlx::Error| failure::<Postgres>(&error);
    let mut transaction = connection.begin().await.map_err(failed)?;
    // Until the end of the transaction.
    let locking = sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(LOCK);
    transaction.execute(locking).await.map_err(failed)?;
    if version(&mut transaction).await? == Some(VERSION) {
        // Dropped, it would hold the lock until the connection is used again.
        return transaction.commit().await.map_err(failed);
    }
    let pool = PgPoolOptions::new().max_connections(1);
    let pool = pool.connect_with(options).await.map_err(failed)?;
    let migrated = PostgresStorage::migrations().run(&pool).await;
    pool.close().await;
    migrated.map_err(|error| migration::<Postgres>(&error))?;
    transaction.execute(SCHEMA).await.map_err(failed)?;
    let insert = sqlx::query("INSERT INTO outbox_version (version) VALUES ($1)").bind(VERSION);
    transaction.execute(insert).await.map_err(failed)?;
    transaction.commit().await.map_err(failed)
}
