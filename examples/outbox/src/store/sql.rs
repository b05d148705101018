//! The tables in an SQL database, beside those of apalis, which schedules: every change of a job
//! and of the schedule is one transaction.

use apalis_core::task::Task;
use apalis_core::task::builder::TaskBuilder;
use apalis_core::worker::context::WorkerContext;
use bytes::Bytes;
use sqlx::migrate::MigrateError;
use sqlx::{
    ColumnIndex, Connection, Database, Decode, Encode, Executor, IntoArguments, Row, SqlSafeStr,
    SqlStr, Type, query,
};

use super::{
    ABANDONED_MILLIS, Added, Answer, Backend, Change, Counts, KEY_MILLIS, Key, Owner, Request,
    Result, StoreError,
};
use crate::job::{Job, State};

/// A database, and the part of apalis that is made for it.
pub(super) trait Engine: Database {
    /// Begins a transaction that may write.
    const BEGIN: &'static str;
    /// The clock, in milliseconds since 1970.
    const NOW: &'static str;
    /// Adds a worker to apalis's tables, so that it can fetch.
    const REGISTER: &'static str;
    /// Removes a worker that has no task.
    const FORGET_WORKERS: &'static str;
    /// Removes a task from apalis's tables.
    const FORGET_TASK: &'static str;

    /// Connects, and creates or migrates the tables.
    fn open(url: &str) -> impl Future<Output = Result<Self::Connection>> + Send;

    /// Adds tasks to apalis's schedule.
    fn push(
        connection: &mut Self::Connection,
        tasks: Vec<Task<Vec<u8>>>,
    ) -> impl Future<Output = Result<()>> + Send;

    /// Takes tasks that are due from apalis's schedule, at most `limit`.
    fn fetch(
        connection: &mut Self::Connection,
        worker: &WorkerContext,
        limit: usize,
    ) -> impl Future<Output = Result<Vec<Task<Vec<u8>>>>> + Send;

    /// Carries out requests in one transaction, as [`Transaction::run`] does: what that requires of
    /// a database need not be repeated where it is called.
    fn run(
        connection: &mut Self::Connection,
        worker: &WorkerContext,
        owner: &Owner,
        requests: &[&Request],
    ) -> impl Future<Output = Result<Vec<Answer>>> + Send;

    /// The number of rows that a statement changed.
    fn affected(result: &Self::QueryResult) -> u64;

    /// Whether the store is full or read-only, or has a conflict of transactions.
    fn classify(code: &str, message: String) -> StoreError;
}

/// The error of a statement.
pub(super) fn failure<DB: Engine>(error: &sqlx::Error) -> StoreError {
    match error {
        sqlx::Error::Database(error) => DB::classify(
            &error.code().unwrap_or_default(),
            error.message().to_owned(),
        ),
        sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::Protocol(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed => StoreError::Lost(error.to_string()),
        _ => StoreError::Unusable(error.to_string()),
    }
}

/// The error of a migration of apalis's tables.
pub(super) fn migration<DB: Engine>(error: &MigrateError) -> StoreError {
    match error {
        MigrateError::VersionMissing(_) | MigrateError::VersionMismatch(_) => StoreError::Config(
            format!("the store was made by a newer version of this program: {error}"),
        ),
        MigrateError::Execute(cause) | MigrateError::ExecuteMigration(cause, _) => {
            match failure::<DB>(cause) {
                StoreError::Unusable(cause) => {
                    StoreError::Unusable(format!("its tables cannot be made: {cause}"))
                }
                other => other,
            }
        }
        error => StoreError::Unusable(error.to_string()),
    }
}

/// A connection, opened anew after it was lost.
pub(super) struct Sql<DB: Engine> {
    url: String,
    owner: Owner,
    worker: WorkerContext,
    connection: Option<DB::Connection>,
}

/// The columns of a job.
const COLUMNS: &str = "SELECT id, revision, state, due, scheduled, document FROM outbox_jobs ";

impl<DB: Engine> Sql<DB> {
    pub async fn open(url: &str, owner: Owner) -> Result<Self> {
        Ok(Sql {
            connection: Some(DB::open(url).await?),
            url: url.to_owned(),
            worker: WorkerContext::new(&owner.name),
            owner,
        })
    }
}

impl<DB: Engine> Backend for Sql<DB> {
    async fn run(&mut self, requests: &[&Request]) -> Result<Vec<Answer>> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => DB::open(&self.url).await?,
        };
        let result = DB::run(&mut connection, &self.worker, &self.owner, requests).await;
        if !matches!(&result, Err(StoreError::Lost(_))) {
            self.connection = Some(connection);
        }
        result
    }

    async fn close(self) {
        if let Some(connection) = self.connection {
            // Its transactions have ended.
            let _ = connection.close().await;
        }
    }
}

/// A transaction in progress.
pub(super) struct Transaction<'t, DB: Engine> {
    connection: &'t mut DB::Connection,
    worker: &'t WorkerContext,
    owner: &'t Owner,
    /// The store's clock at the beginning.
    now: i64,
}

impl<DB> Transaction<'_, DB>
where
    DB: Engine,
    for<'c> &'c mut DB::Connection: Executor<'c, Database = DB>,
    DB::Arguments: IntoArguments<DB>,
    for<'q> &'q str: Encode<'q, DB> + Type<DB>,
    for<'q> String: Encode<'q, DB> + Decode<'q, DB> + Type<DB>,
    for<'q> i64: Encode<'q, DB> + Decode<'q, DB> + Type<DB>,
    for<'q> &'q [u8]: Encode<'q, DB> + Type<DB>,
    for<'q> Vec<u8>: Decode<'q, DB> + Type<DB>,
    usize: ColumnIndex<DB::Row>,
{
    /// Carries out requests in one transaction.
    pub(super) async fn run(
        connection: &mut DB::Connection,
        worker: &WorkerContext,
        owner: &Owner,
        requests: &[&Request],
    ) -> Result<Vec<Answer>> {
        // A transaction that only reads waits for no other one.
        let begin = match requests.iter().all(|request| request.is_read()) {
            true => "BEGIN",
            false => DB::BEGIN,
        };
        let begun = connection.begin_with(begin.into_sql_str()).await;
        let mut begun = begun.map_err(failed::<DB>)?;
        let now = query(DB::NOW).fetch_one(&mut *begun).await;
        let mut transaction = Transaction::<DB> {
            now: column(&now.map_err(failed::<DB>)?, 0)?,
            connection: &mut begun,
            worker,
            owner,
        };
        let mut answers = Vec::with_capacity(requests.len());
        for request in requests {
            answers.push(transaction.answer(request).await?);
        }
        begun.commit().await.map_err(failed::<DB>)?;
        Ok(answers)
    }

    async fn answer(&mut self, request: &Request) -> Result<Answer> {
        Ok(match request {
            Request::PutPiece { job, number, bytes } => {
                self.put_piece(job, *number, bytes).await?;
                Answer::Done
            }
            Request::Piece { job, number } => Answer::Piece(self.piece(job, *number).await?),
            Request::DropPieces { job } => {
                self.drop_pieces(job).await?;
                Answer::Done
            }
            Request::Add {
                job,
                key,
                at,
                message,
            } => Answer::Added(self.add(job, key.as_ref(), *at, message.as_ref()).await?),
            Request::Claim { limit } => Answer::Jobs(self.claim(*limit).await?),
            Request::Save { job, change } => Answer::Yes(self.save(job, change).await?),
            Request::Register => {
                let (name, seen) = (self.owner.name.clone(), self.now / 1000);
                self.execute(DB::REGISTER, |query| query.bind(name).bind(seen))
                    .await?;
                Answer::Done
            }
            Request::Renew { id } => {
                self.renew(id).await?;
                Answer::Done
            }
            Request::Expire => {
                let now = self.now;
                let wanted = "WHERE state IN ('running', 'handing-over') AND lease < $1 \
                    ORDER BY id LIMIT 100";
                let expired = self.jobs(wanted, |query| query.bind(now)).await?;
                Answer::Jobs(self.end_leases(expired).await?)
            }
            Request::Release => {
                let name = self.owner.name.clone();
                let wanted = "WHERE state = 'running' AND owner = $1";
                let claimed = self.jobs(wanted, |query| query.bind(name)).await?;
                Answer::Jobs(self.end_leases(claimed).await?)
            }
            Request::Overdue { max_age, skip } => {
                let before = self.now - max_age.as_millis() as i64;
                let skip = *skip as i64;
                let wanted = "WHERE state = 'waiting' AND since < $1 \
                    ORDER BY id LIMIT 100 OFFSET $2";
                let jobs = self.jobs(wanted, |query| query.bind(before).bind(skip));
                Answer::Jobs(jobs.await?)
            }
            Request::IsBusy => Answer::Yes(self.is_busy().await?),
            Request::Load { id } => {
                let id = id.clone();
                Answer::Jobs(self.jobs("WHERE id = $1", |query| query.bind(id)).await?)
            }
            Request::List {
                state,
                after,
                limit,
            } => {
                let wanted = match state {
                    State::Running => {
                        "WHERE state IN ($1, 'handing-over') AND id > $2 ORDER BY id LIMIT $3"
                    }
                    _ => "WHERE state = $1 AND id > $2 ORDER BY id LIMIT $3",
                };
                let (state, after, limit) = (state.as_str(), after.clone(), *limit as i64);
                let jobs = self
                    .jobs(wanted, |query| query.bind(state).bind(after).bind(limit))
                    .await?;
                Answer::Jobs(jobs)
            }
            Request::Counts => Answer::Counts(self.counts().await?),
            Request::Purge { older_than } => {
                let before = self.now - older_than.as_millis() as i64;
                Answer::Count(self.purge(before).await?)
            }
            Request::Sweep => {
                self.sweep().await?;
                Answer::Done
            }
            Request::Close => Answer::Done,
        })
    }

    /// Executes a statement, and returns the number of rows that it changed.
    async fn execute(
        &mut self,
        statement: &'static str,
        bind: impl FnOnce(Query<DB>) -> Query<DB>,
    ) -> Result<u64> {
        let executing = bind(query(statement)).execute(&mut *self.connection);
        Ok(DB::affected(&executing.await.map_err(failed::<DB>)?))
    }

    async fn rows(
        &mut self,
        statement: SqlStr,
        bind: impl FnOnce(Query<DB>) -> Query<DB>,
    ) -> Result<Vec<DB::Row>> {
        let fetching = bind(query(statement)).fetch_all(&mut *self.connection);
        fetching.await.map_err(failed::<DB>)
    }

    async fn jobs(
        &mut self,
        wanted: &'static str,
        bind: impl FnOnce(Query<DB>) -> Query<DB>,
    ) -> Result<Vec<Job>> {
        // Both parts are constants.
        let statement = sqlx::AssertSqlSafe(format!("{COLUMNS}{wanted}"));
        let rows = self.rows(statement.into_sql_str(), bind).await?;
        rows.iter().map(job::<DB>).collect()
    }

    async fn put_piece(&mut self, job: &str, number: i64, bytes: &Bytes) -> Result<()> {
        let now = self.now;
        let statement = "INSERT INTO outbox_pieces (job, number, added, bytes) \
            VALUES ($1, $2, $3, $4)";
        let bytes: &[u8] = bytes;
        let inserting = query(statement)
            .bind(job)
            .bind(number)
            .bind(now)
            .bind(bytes);
        let inserting = inserting.execute(&mut *self.connection);
        inserting.await.map(drop).map_err(failed::<DB>)
    }

    async fn piece(&mut self, job: &str, number: i64) -> Result<Option<Bytes>> {
        let job = job.to_owned();
        let statement = "SELECT bytes FROM outbox_pieces WHERE job = $1 AND number = $2";
        let rows = self
            .rows(statement.into_sql_str(), |query| {
                query.bind(job).bind(number)
            })
            .await?;
        let Some(row) = rows.first() else {
            return Ok(None);
        };
        Ok(Some(column::<DB, Vec<u8>>(row, 0)?.into()))
    }

    async fn drop_pieces(&mut self, job: &str) -> Result<()> {
        let job = job.to_owned();
        let statement = "DELETE FROM outbox_pieces WHERE job = $1";
        self.execute(statement, |query| query.bind(job)).await?;
        Ok(())
    }

    async fn add(
        &mut self,
        job: &Job,
        key: Option<&Key>,
        at: Option<i64>,
        message: Option<&Bytes>,
    ) -> Result<Added> {
        if let Some(key) = key {
            let (text, digest, id) = (key.text.clone(), key.digest.clone(), job.id.clone());
            let statement = "INSERT INTO outbox_keys (text, job, digest) VALUES ($1, $2, $3) \
                ON CONFLICT (text) DO NOTHING";
            let binding = |query: Query<DB>| query.bind(text).bind(id).bind(digest);
            if self.execute(statement, binding).await? == 0 {
                let text = key.text.clone();
                let statement = "SELECT job, digest FROM outbox_keys WHERE text = $1";
                let rows = self
                    .rows(statement.into_sql_str(), |query| query.bind(text))
                    .await?;
                let Some(row) = rows.first() else {
                    return Err(StoreError::Conflict("a key was removed".to_owned()));
                };
                return Ok(Added::Exists {
                    id: column(row, 0)?,
                    is_same: column::<DB, String>(row, 1)? == key.digest,
                });
            }
        }
        if let Some(bytes) = message {
            self.put_piece(&job.id, 0, bytes).await?;
        }
        let at = at.filter(|at| *at > self.now);
        let mut job = job.clone();
        job.added = self.now;
        let due = at.unwrap_or(self.now);
        let (id, document) = (job.id.clone(), document(&job)?);
        let statement = "INSERT INTO outbox_jobs \
            (id, revision, state, owner, lease, due, scheduled, since, ended, document) \
            VALUES ($1, 0, 'waiting', '', 0, $2, $3, $4, 0, $5)";
        let scheduled = i64::from(at.is_some());
        self.execute(statement, |query| {
            let query = query.bind(id).bind(due).bind(scheduled);
            query.bind(due).bind(document)
        })
        .await?;
        self.schedule(&job.id, due).await?;
        Ok(Added::New)
    }

    /// Adds a task to the schedule. Its times are in whole seconds: a later one is rounded up, so
    /// that no job is early.
    async fn schedule(&mut self, id: &str, due: i64) -> Result<()> {
        let seconds = match due <= self.now {
            true => due / 1000,
            false => (due + 999) / 1000,
        };
        let task = TaskBuilder::new(id.as_bytes().to_vec())
            .run_at_timestamp(seconds.max(0) as u64)
            .build();
        DB::push(self.connection, vec![task]).await
    }

    /// Takes due tasks from the schedule, and makes their jobs running. The task ends here: from
    /// now on the lease in our table counts, which tells what was handed over.
    async fn claim(&mut self, limit: usize) -> Result<Vec<Job>> {
        let tasks = DB::fetch(self.connection, self.worker, limit).await?;
        let mut claimed = Vec::new();
        for task in tasks {
            if let Some(id) = task.task_id() {
                let id = id.to_string();
                self.execute(DB::FORGET_TASK, |query| query.bind(id))
                    .await?;
            }
            let id = String::from_utf8_lossy(&task.args).into_owned();
            let found = self.jobs("WHERE id = $1", |query| query.bind(id)).await?;
            // It was resolved, purged or failed for its age meanwhile.
            let Some(mut job) = found.into_iter().find(|job| job.state == State::Waiting) else {
                continue;
            };
            // The task is of an earlier schedule, before the job failed or was unknown.
            if job.due > self.now {
                self.schedule(&job.id, job.due).await?;
                continue;
            }
            job.state = State::Running;
            job.is_scheduled = false;
            if self.save(&job, &Change::default()).await? {
                job.revision += 1;
                claimed.push(job);
            }
        }
        Ok(claimed)
    }

    async fn save(&mut self, job: &Job, change: &Change) -> Result<bool> {
        let due = match change.delay {
            Some(delay) => self.now + delay.as_millis() as i64,
            None => job.due,
        };
        let (owner, lease) = match job.state.is_leased() {
            true => (
                self.owner.name.clone(),
                self.now.saturating_add(self.owner.lease_millis()),
            ),
            false => (String::new(), 0),
        };
        let ended = if job.state.is_final() { self.now } else { 0 };
        let least = if change.needs_lease { self.now } else { -1 };
        let now = self.now;
        // A job that failed or was unknown waits anew.
        let statement = "UPDATE outbox_jobs SET revision = revision + 1, state = $1, owner = $2, \
            lease = $3, due = $4, scheduled = $5, ended = $6, document = $7, \
            since = CASE WHEN state IN ('failed', 'unknown') THEN $8 ELSE since END \
            WHERE id = $9 AND revision = $10 AND lease > $11";
        let (state, scheduled) = (job.state.as_str(), i64::from(job.is_scheduled));
        let (id, revision, document) = (job.id.clone(), job.revision, document(job)?);
        let saved = self
            .execute(statement, |query| {
                let query = query.bind(state).bind(owner).bind(lease).bind(due);
                let query = query.bind(scheduled).bind(ended).bind(document);
                query.bind(now).bind(id).bind(revision).bind(least)
            })
            .await?;
        if saved == 0 {
            return Ok(false);
        }
        if change.delay.is_some() {
            self.schedule(&job.id, due).await?;
        }
        if job.state == State::Sent {
            self.drop_pieces(&job.id).await?;
        }
        Ok(true)
    }

    async fn renew(&mut self, id: &str) -> Result<()> {
        let until = self.now.saturating_add(self.owner.lease_millis());
        let (id, name) = (id.to_owned(), self.owner.name.clone());
        let statement = "UPDATE outbox_jobs SET lease = $1 WHERE id = $2 AND owner = $3 \
            AND state IN ('running', 'handing-over')";
        self.execute(statement, |query| query.bind(until).bind(id).bind(name))
            .await?;
        Ok(())
    }

    /// Ends the leases of jobs. Returns those that are unknown now.
    async fn end_leases(&mut self, jobs: Vec<Job>) -> Result<Vec<Job>> {
        let mut unknown = Vec::new();
        for mut job in jobs {
            let waits = job.expire();
            let change = Change {
                delay: waits.then_some(std::time::Duration::ZERO),
                needs_lease: false,
            };
            if self.save(&job, &change).await? && !waits {
                unknown.push(job);
            }
        }
        Ok(unknown)
    }

    async fn is_busy(&mut self) -> Result<bool> {
        let now = self.now;
        let statement = "SELECT id FROM outbox_jobs WHERE state IN ('running', 'handing-over') \
            OR (state = 'waiting' AND (scheduled = 0 OR due <= $1)) LIMIT 1";
        let rows = self
            .rows(statement.into_sql_str(), |query| query.bind(now))
            .await?;
        Ok(!rows.is_empty())
    }

    async fn counts(&mut self) -> Result<Counts> {
        let statement = "SELECT state, count(*) FROM outbox_jobs GROUP BY state";
        let rows = self.rows(statement.into_sql_str(), |query| query).await?;
        let mut counts = Counts::default();
        for row in rows {
            let state: String = column::<DB, _>(&row, 0)?;
            let number: i64 = column::<DB, _>(&row, 1)?;
            let state = state.parse().map_err(StoreError::Unusable)?;
            counts.add(state, number.max(0) as u64);
        }
        Ok(counts)
    }

    async fn purge(&mut self, before: i64) -> Result<u64> {
        let expires = self.now + KEY_MILLIS;
        let statements = [
            "DELETE FROM outbox_pieces WHERE job IN (SELECT id FROM outbox_jobs WHERE \
                state IN ('sent', 'failed') AND ended < $1)",
            "UPDATE outbox_keys SET expires = $2 WHERE job IN (SELECT id FROM outbox_jobs WHERE \
                state IN ('sent', 'failed') AND ended < $1)",
            "DELETE FROM outbox_jobs WHERE state IN ('sent', 'failed') AND ended < $1",
        ];
        self.execute(statements[0], |query| query.bind(before))
            .await?;
        self.execute(statements[1], |query| query.bind(before).bind(expires))
            .await?;
        let purged = self
            .execute(statements[2], |query| query.bind(before))
            .await?;
        self.sweep().await?;
        Ok(purged)
    }

    async fn sweep(&mut self) -> Result<()> {
        let now = self.now;
        let statement = "DELETE FROM outbox_keys WHERE expires > 0 AND expires < $1";
        self.execute(statement, |query| query.bind(now)).await?;
        let abandoned = now - ABANDONED_MILLIS;
        let statement = "DELETE FROM outbox_pieces WHERE added < $1 \
            AND job NOT IN (SELECT id FROM outbox_jobs)";
        self.execute(statement, |query| query.bind(abandoned))
            .await?;
        self.execute(DB::FORGET_WORKERS, |query| query.bind(abandoned / 1000))
            .await?;
        Ok(())
    }
}

type Query<DB> = sqlx::query::Query<'static, DB, <DB as Database>::Arguments>;

fn failed<DB: Engine>(error: sqlx::Error) -> StoreError {
    failure::<DB>(&error)
}

fn column<'r, DB, T>(row: &'r DB::Row, index: usize) -> Result<T>
where
    DB: Database,
    T: Decode<'r, DB> + Type<DB>,
    usize: ColumnIndex<DB::Row>,
{
    let value = row.try_get(index);
    value.map_err(|error| StoreError::Unusable(error.to_string()))
}

fn job<DB>(row: &DB::Row) -> Result<Job>
where
    DB: Database,
    for<'q> String: Decode<'q, DB> + Type<DB>,
    for<'q> i64: Decode<'q, DB> + Type<DB>,
    usize: ColumnIndex<DB::Row>,
{
    let unusable = |error: serde_json::Error| StoreError::Unusable(error.to_string());
    let text: String = column::<DB, _>(row, 5)?;
    let state: String = column::<DB, _>(row, 2)?;
    let job: Job = serde_json::from_str(&text).map_err(unusable)?;
    Ok(Job {
        revision: column::<DB, _>(row, 1)?,
        state: state.parse().map_err(StoreError::Unusable)?,
        due: column::<DB, _>(row, 3)?,
        is_scheduled: column::<DB, i64>(row, 4)? != 0,
        ..job
    })
}

fn document(job: &Job) -> Result<String> {
    serde_json::to_string(job).map_err(|error| StoreError::Unusable(error.to_string()))
}
