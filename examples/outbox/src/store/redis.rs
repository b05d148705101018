//! Redis: requests are scripts, each of which is atomic.

use apalis_core::worker::context::WorkerContext;
use apalis_redis::{Config, queries};
use bytes::Bytes;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, ErrorKind, RedisError, Script, Value};
use redis::{FromRedisValue, from_redis_value};
use std::time::Duration;

use super::{
    ABANDONED_MILLIS, Added, Answer, Backend, Counts, KEY_MILLIS, Owner, QUEUE, Request, Result,
    StoreError, VERSION,
};
use crate::job::{Job, State};

/// How long Redis may take to answer.
const ANSWER: Duration = Duration::from_secs(20);

/// A connection, opened anew after it was lost.
pub struct Redis {
    client: Client,
    owner: Owner,
    worker: WorkerContext,
    script: Script,
    connection: Option<MultiplexedConnection>,
}

impl Redis {
    pub async fn open(url: &str, owner: Owner) -> Result<Self> {
        // The packages here bring two; it is an error if one was chosen before.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        // The error would repeat the URL, which may have a password.
        let client = Client::open(url)
            .map_err(|_| StoreError::Config("the URL of the store is not valid".to_owned()))?;
        let mut redis = Redis {
            client,
            worker: WorkerContext::new(&owner.name),
            owner,
            script: Script::new(include_str!("outbox.lua")),
            connection: None,
        };
        redis.connection = Some(redis.connect().await?);
        Ok(redis)
    }

    async fn connect(&self) -> Result<MultiplexedConnection> {
        const KEY: &str = "outbox:version";
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(Duration::from_secs(5)))
            .set_response_timeout(Some(ANSWER));
        let connecting = self
            .client
            .get_multiplexed_async_connection_with_config(&config);
        let mut connection = connecting.await.map_err(|error| failure(&error))?;
        let asking = redis::cmd("GET").arg(KEY).take();
        let version: Option<i64> = asking
            .query_async(&mut connection)
            .await
            .map_err(|error| failure(&error))?;
        match version {
            Some(newer) if newer > VERSION => return Err(super::newer(newer)),
            Some(_) => {}
            None => {
                let setting = redis::cmd("SETNX").arg(KEY).arg(VERSION).take();
                let set = setting.query_async::<()>(&mut connection);
                set.await.map_err(|error| failure(&error))?;
            }
        }
        Ok(connection)
    }

    fn config(&self) -> Config {
        Config::default().queue(QUEUE)
    }

    /// Runs the script for a request.
    async fn call<T: FromRedisValue>(
        &self,
        connection: &mut MultiplexedConnection,
        request: &str,
        arguments: &[&[u8]],
    ) -> Result<T> {
        let config = self.config();
        let keys = serde_json::json!({
            "active": config.active_jobs_list(),
            "data": config.job_data_hash(),
            "inflight": config.inflight_jobs_set(),
            "meta": config.job_meta_hash(),
            "scheduled": config.scheduled_jobs_set(),
            "workers": config.workers_set(),
        });
        let mut invocation = self.script.prepare_invoke();
        invocation
            .arg(request)
            .arg(keys.to_string())
            .arg(&self.owner.name)
            .arg(self.owner.lease_millis());
        for argument in arguments {
            invocation.arg(*argument);
        }
        let called = invocation.invoke_async(connection).await;
        called.map_err(|error| failure(&error))
    }

    async fn jobs(
        &self,
        connection: &mut MultiplexedConnection,
        request: &str,
        arguments: &[&[u8]],
    ) -> Result<Vec<Job>> {
        let rows: Vec<Vec<Value>> = self.call(connection, request, arguments).await?;
        rows.iter().map(|row| job(row)).collect()
    }

    async fn answer(
        &self,
        connection: &mut MultiplexedConnection,
        request: &Request,
    ) -> Result<Answer> {
        Ok(match request {
            Request::PutPiece { job, number, bytes } => {
                let number = number.to_string();
                let arguments = [job.as_bytes(), number.as_bytes(), bytes];
                self.call::<i64>(connection, "put_piece", &arguments)
                    .await?;
                Answer::Done
            }
            Request::Piece { job, number } => {
                let piece: Option<Vec<u8>> = redis::cmd("HGET")
                    .arg(format!("outbox:pieces:{job}"))
                    .arg(number)
                    .query_async(connection)
                    .await
                    .map_err(|error| failure(&error))?;
                Answer::Piece(piece.map(Bytes::from))
            }
            Request::DropPieces { job } => {
                let arguments = [job.as_bytes()];
                self.call::<i64>(connection, "drop_pieces", &arguments)
                    .await?;
                Answer::Done
            }
            Request::Add {
                job,
                key,
                at,
                message,
            } => {
                let document = document(job)?;
                let at = at.unwrap_or_default().to_string();
                let (text, digest) = match key {
                    Some(key) => (key.text.as_str(), key.digest.as_str()),
                    None => ("", ""),
                };
                let task = task();
                let arguments = [
                    job.id.as_bytes(),
                    document.as_bytes(),
                    at.as_bytes(),
                    text.as_bytes(),
                    digest.as_bytes(),
                    task.as_bytes(),
                    if message.is_some() { b"1" } else { b"0" },
                    message.as_deref().unwrap_or_default(),
                ];
                let found: Vec<String> = self.call(connection, "add", &arguments).await?;
                Answer::Added(match found.as_slice() {
                    [id, first] => Added::Exists {
                        id: id.clone(),
                        is_same: first == digest,
                    },
                    _ => Added::New,
                })
            }
            Request::Claim { limit } => Answer::Jobs(self.claim(connection, *limit).await?),
            Request::Save { job, change } => {
                let delay = change.delay.map_or(-1, |delay| delay.as_millis() as i64);
                Answer::Yes(
                    self.save(connection, job, delay, change.needs_lease)
                        .await?,
                )
            }
            Request::Register => {
                self.call::<i64>(connection, "register", &[]).await?;
                Answer::Done
            }
            Request::Renew { id } => {
                self.call::<i64>(connection, "renew", &[id.as_bytes()])
                    .await?;
                Answer::Done
            }
            Request::Expire => Answer::Jobs(self.end_leases(connection, "expired").await?),
            Request::Release => Answer::Jobs(self.end_leases(connection, "claimed").await?),
            Request::Overdue { max_age, skip } => {
                let (age, skip) = (max_age.as_millis().to_string(), skip.to_string());
                let arguments = [age.as_bytes(), skip.as_bytes()];
                Answer::Jobs(self.jobs(connection, "overdue", &arguments).await?)
            }
            Request::IsBusy => Answer::Yes(self.call(connection, "is_busy", &[]).await?),
            Request::Load { id } => {
                Answer::Jobs(self.jobs(connection, "load", &[id.as_bytes()]).await?)
            }
            Request::List {
                state,
                after,
                limit,
            } => {
                let limit = limit.to_string();
                let arguments = [
                    state.as_str().as_bytes(),
                    after.as_bytes(),
                    limit.as_bytes(),
                ];
                Answer::Jobs(self.jobs(connection, "list", &arguments).await?)
            }
            Request::Counts => {
                let numbers: Vec<u64> = self.call(connection, "counts", &[]).await?;
                let states = [
                    State::Waiting,
                    State::Running,
                    State::HandingOver,
                    State::Sent,
                    State::Failed,
                    State::Unknown,
                ];
                let mut counts = Counts::default();
                for (state, number) in states.into_iter().zip(numbers) {
                    counts.add(state, number);
                }
                Answer::Counts(counts)
            }
            Request::Purge { older_than } => {
                let age = older_than.as_millis().to_string();
                let keys = (KEY_MILLIS / 1000).to_string();
                let arguments = [age.as_bytes(), keys.as_bytes()];
                let mut purged = 0;
                // A script blocks all clients, so each purges some.
                loop {
                    let some: u64 = self.call(connection, "purge", &arguments).await?;
                    purged += some;
                    if some == 0 {
                        break;
                    }
                }
                Answer::Count(purged)
            }
            Request::Sweep => {
                let age = ABANDONED_MILLIS.to_string();
                self.call::<i64>(connection, "sweep", &[age.as_bytes()])
                    .await?;
                Answer::Done
            }
            Request::Close => Answer::Done,
        })
    }

    /// A worker that is killed, or that loses its connection, between the two calls leaves tasks in
    /// apalis's set of this worker, from which `promote` takes them.
    async fn claim(
        &self,
        connection: &mut MultiplexedConnection,
        limit: usize,
    ) -> Result<Vec<Job>> {
        self.call::<i64>(connection, "promote", &[]).await?;
        let config = self.config().batch_size(limit);
        let fetched = queries::fetch_next(connection, &self.worker, &config).await;
        let tasks = fetched.map_err(|error| match error {
            apalis_redis::Error::Database(error) => failure(&error),
            other => StoreError::Unusable(other.to_string()),
        })?;
        let ids: Vec<String> = tasks
            .iter()
            .map(|task| task.task_id().map(ToString::to_string).unwrap_or_default())
            .collect();
        let mut arguments: Vec<&[u8]> = Vec::with_capacity(2 * ids.len());
        for (id, task) in ids.iter().zip(&tasks) {
            arguments.push(id.as_bytes());
            arguments.push(&task.args);
        }
        if arguments.is_empty() {
            return Ok(Vec::new());
        }
        self.jobs(connection, "claim", &arguments).await
    }

    /// Ends the leases of the jobs that a request names. Returns those that are unknown now.
    async fn end_leases(
        &self,
        connection: &mut MultiplexedConnection,
        request: &str,
    ) -> Result<Vec<Job>> {
        let mut unknown = Vec::new();
        for mut job in self.jobs(connection, request, &[]).await? {
            let waits = job.expire();
            let delay = if waits { 0 } else { -1 };
            if self.save(connection, &job, delay, false).await? && !waits {
                unknown.push(job);
            }
        }
        Ok(unknown)
    }

    async fn save(
        &self,
        connection: &mut MultiplexedConnection,
        job: &Job,
        delay: i64,
        needs_lease: bool,
    ) -> Result<bool> {
        let (revision, delay) = (job.revision.to_string(), delay.to_string());
        let (document, task) = (document(job)?, task());
        let arguments: [&[u8]; 8] = [
            job.id.as_bytes(),
            revision.as_bytes(),
            job.state.as_str().as_bytes(),
            if job.is_scheduled { b"1" } else { b"0" },
            document.as_bytes(),
            delay.as_bytes(),
            if needs_lease { b"1" } else { b"0" },
            task.as_bytes(),
        ];
        self.call(connection, "save", &arguments).await
    }
}

impl Backend for Redis {
    async fn run(&mut self, requests: &[&Request]) -> Result<Vec<Answer>> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.connect().await?,
        };
        let mut answers = Vec::with_capacity(requests.len());
        for request in requests {
            answers.push(self.answer(&mut connection, request).await?);
        }
        self.connection = Some(connection);
        Ok(answers)
    }

    /// A connection of Redis ends as it is dropped.
    async fn close(self) {}
}

/// The id of a new task in apalis's schedule.
fn task() -> String {
    ulid::Ulid::generate().to_string()
}

fn failure(error: &RedisError) -> StoreError {
    let text = error.to_string();
    // Where in the script it happened says nothing to users.
    let message = text.split(" script: ").next().unwrap_or_default();
    let message = message.trim_end_matches('.');
    if error.is_io_error() || error.is_timeout() || error.is_connection_dropped() {
        return StoreError::Lost(text);
    }
    let is_wrong_password = matches!(error.kind(), ErrorKind::AuthenticationFailed);
    let advice = match error.code() {
        // It starts, its primary or replicas are not there, or a script keeps it busy.
        Some("LOADING" | "TRYAGAIN" | "MASTERDOWN" | "CLUSTERDOWN" | "NOREPLICAS" | "BUSY") => {
            return StoreError::Lost(message.to_owned());
        }
        code if is_wrong_password || code == Some("NOAUTH") => {
            let message = format!("{message}: check the password in the URL of the store");
            return StoreError::Config(message);
        }
        Some("MISCONF") => "its disk may be full",
        Some("NOPERM") => "give this user the right to all commands and keys",
        Some("OOM") => "it is full: raise its maxmemory, or purge jobs",
        Some("READONLY") => "give the URL of the primary",
        _ => return StoreError::Unusable(message.to_owned()),
    };
    StoreError::Unusable(format!("{message}: {advice}"))
}

fn job(row: &[Value]) -> Result<Job> {
    let text = |index: usize| -> Result<String> {
        let value = row.get(index).cloned().unwrap_or(Value::Nil);
        from_redis_value(value).map_err(|error| StoreError::Unusable(error.to_string()))
    };
    let number = |index: usize| -> Result<i64> {
        let text = text(index)?;
        text.parse()
            .map_err(|_| StoreError::Unusable(format!("{text:?} is not a number")))
    };
    let document: Job =
        serde_json::from_str(&text(5)?).map_err(|error| StoreError::Unusable(error.to_string()))?;
    Ok(Job {
        revision: number(1)?,
        state: text(2)?.parse().map_err(StoreError::Unusable)?,
        due: number(3)?,
        is_scheduled: number(4)? != 0,
        ..document
    })
}

fn document(job: &Job) -> Result<String> {
    serde_json::to_string(job).map_err(|error| StoreError::Unusable(error.to_string()))
}
