//! The store: one task owns the connection to the database, and makes all requests that wait at one
//! time in one transaction, so that several jobs share a commit.

mod postgres;
mod redis;
mod sql;
mod sqlite;
#[cfg(test)]
pub mod testing;
#[cfg(test)]
mod tests;

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use crate::job::{Job, State};
use sql::Sql;

/// The queue of the engine.
const QUEUE: &str = "outbox";
/// The version of the tables.
const VERSION: i64 = 1;
/// The time for which a key is known after its job was purged.
const KEY_MILLIS: i64 = 30 * DAY_MILLIS;
/// A message that an `add` stored in part and whose job never came is removed after this time.
const ABANDONED_MILLIS: i64 = DAY_MILLIS;
const DAY_MILLIS: i64 = 24 * 60 * 60 * 1000;
/// The size of the pieces that messages are stored in.
pub const PIECE: usize = 512 * 1024;
/// How long the store may take for a transaction.
const ANSWER: Duration = Duration::from_secs(60);
/// How long it may take to open the store.
const OPENING: Duration = Duration::from_secs(30);
/// The maximum number of requests in a transaction.
const BATCH: usize = 64;

/// Why a request was not carried out.
#[derive(Clone, Debug)]
pub enum StoreError {
    /// The store cannot be reached; it may be there again later.
    Lost(String),
    /// The store cannot be written, or what it has cannot be used.
    Unusable(String),
    /// The tables are of a newer version, or the URL cannot be used.
    Config(String),
    /// The transaction conflicted with another one, and can be made again.
    Conflict(String),
}

impl StoreError {
    /// Whether it can pass by itself.
    pub fn is_transient(&self) -> bool {
        matches!(self, StoreError::Lost(_) | StoreError::Conflict(_))
    }

    /// The exit code of a program that ends with it.
    pub fn exit_code(&self) -> u8 {
        match self {
            StoreError::Config(_) => 78,
            _ => 74,
        }
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StoreError::Lost(cause) => write!(f, "the store cannot be reached: {cause}"),
            StoreError::Unusable(cause) => write!(f, "the store cannot be used: {cause}"),
            StoreError::Config(cause) => f.write_str(cause),
            StoreError::Conflict(cause) => write!(f, "the store was busy: {cause}"),
        }
    }
}

impl std::error::Error for StoreError {}

pub type Result<T, E = StoreError> = std::result::Result<T, E>;

/// The worker in whose name jobs are claimed.
#[derive(Clone, Debug)]
pub struct Owner {
    pub name: String,
    pub lease: Duration,
}

impl Owner {
    fn lease_millis(&self) -> i64 {
        i64::try_from(self.lease.as_millis()).unwrap_or(i64::MAX / 2)
    }
}

/// What a change of a job requires and entails.
#[derive(Clone, Debug, Default)]
pub struct Change {
    /// The job is scheduled for this time from now.
    pub delay: Option<Duration>,
    /// The change belongs to the worker's lease, which must not have expired.
    pub needs_lease: bool,
}

/// The key of `--key`, and what is meant by the same message and envelope.
#[derive(Clone, Debug)]
pub struct Key {
    pub text: String,
    pub digest: String,
}

/// The result of adding a job.
#[derive(Clone, Debug)]
pub enum Added {
    New,
    /// The key belongs to this job, whose message and envelope are the same, or not.
    Exists {
        id: String,
        is_same: bool,
    },
}

/// How many jobs are in each state.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Counts {
    pub waiting: u64,
    pub running: u64,
    pub sent: u64,
    pub failed: u64,
    pub unknown: u64,
}

impl Counts {
    fn add(&mut self, state: State, number: u64) {
        let count = match state {
            State::Waiting => &mut self.waiting,
            State::Running | State::HandingOver => &mut self.running,
            State::Sent => &mut self.sent,
            State::Failed => &mut self.failed,
            State::Unknown => &mut self.unknown,
        };
        *count += number;
    }
}

/// What is asked of a backend.
#[derive(Debug)]
enum Request {
    PutPiece {
        job: String,
        number: i64,
        bytes: Bytes,
    },
    Piece {
        job: String,
        number: i64,
    },
    DropPieces {
        job: String,
    },
    Add {
        job: Box<Job>,
        key: Option<Key>,
        at: Option<i64>,
        message: Option<Bytes>,
    },
    Claim {
        limit: usize,
    },
    Save {
        job: Box<Job>,
        change: Change,
    },
    /// Makes the worker known to apalis.
    Register,
    Renew {
        id: String,
    },
    Expire,
    Release,
    Overdue {
        max_age: Duration,
        /// The number of them to leave out.
        skip: usize,
    },
    IsBusy,
    Load {
        id: String,
    },
    List {
        state: State,
        after: String,
        limit: usize,
    },
    Counts,
    Purge {
        older_than: Duration,
    },
    Sweep,
    /// Ends the connection.
    Close,
}

impl Request {
    /// It changes nothing.
    fn is_read(&self) -> bool {
        matches!(
            self,
            Request::Piece { .. }
                | Request::Overdue { .. }
                | Request::IsBusy
                | Request::Load { .. }
                | Request::List { .. }
                | Request::Counts
        )
    }
}

/// The answer to a request.
#[derive(Debug)]
enum Answer {
    Done,
    Yes(bool),
    Count(u64),
    Piece(Option<Bytes>),
    Added(Added),
    Jobs(Vec<Job>),
    Counts(Counts),
}

/// A database that requests are made of.
trait Backend: Send + 'static {
    /// Carries out all requests, in one transaction where the database has them. If it fails, none
    /// was carried out, or it is not known.
    fn run(&mut self, requests: &[&Request]) -> impl Future<Output = Result<Vec<Answer>>> + Send;

    /// Ends the connection.
    fn close(self) -> impl Future<Output = ()> + Send;
}

struct Call {
    request: Request,
    answer: oneshot::Sender<Result<Answer>>,
}

/// A handle to the store. Clones share the connection.
#[derive(Clone)]
pub struct Store {
    calls: mpsc::UnboundedSender<Call>,
}

impl Store {
    /// Opens the store, and creates or migrates its tables.
    ///
    /// # Errors
    ///
    /// [`StoreError::Lost`] if it cannot be reached, [`StoreError::Config`] if the URL is not that
    /// of a store, or the tables are of a newer version.
    pub async fn open(url: &str, owner: Owner) -> Result<Store> {
        let scheme = url.split_once(':').map_or("", |(scheme, _)| scheme);
        let opening = async {
            match scheme {
                "sqlite" => Ok(Store::start(Sql::<sqlx::Sqlite>::open(url, owner).await?)),
                "postgres" | "postgresql" => {
                    Ok(Store::start(Sql::<sqlx::Postgres>::open(url, owner).await?))
                }
                "redis" | "rediss" => Ok(Store::start(redis::Redis::open(url, owner).await?)),
                _ => Err(StoreError::Config(
                    "the URL of the store must begin with sqlite:, postgres://, redis:// or \
                     rediss:// (with TLS)"
                        .to_owned(),
                )),
            }
        };
        let opened = timeout(OPENING, opening).await;
        opened.unwrap_or_else(|_| Err(no_answer(OPENING)))
    }

    fn start(backend: impl Backend) -> Store {
        let (calls, waiting) = mpsc::unbounded_channel();
        tokio::spawn(serve(backend, waiting));
        Store { calls }
    }

    /// Sends a request. It is carried out even if the returned future is dropped.
    fn call(&self, request: Request) -> impl Future<Output = Result<Answer>> + use<> {
        let (answer, answered) = oneshot::channel();
        let sent = self.calls.send(Call { request, answer });
        async move {
            let ended = || StoreError::Lost("the task of the store has ended".to_owned());
            sent.map_err(|_| ended())?;
            answered.await.map_err(|_| ended())?
        }
    }

    /// Stores a piece of a message before its job.
    pub async fn put_piece(&self, job: &str, number: i64, bytes: Bytes) -> Result<()> {
        let job = job.to_owned();
        self.call(Request::PutPiece { job, number, bytes }).await?;
        Ok(())
    }

    /// Removes the pieces of a message.
    pub async fn drop_pieces(&self, job: &str) -> Result<()> {
        let job = job.to_owned();
        self.call(Request::DropPieces { job }).await?;
        Ok(())
    }

    /// Returns a piece of a message, `None` if it is not there.
    pub async fn piece(&self, job: &str, number: i64) -> Result<Option<Bytes>> {
        let job = job.to_owned();
        match self.call(Request::Piece { job, number }).await? {
            Answer::Piece(piece) => Ok(piece),
            other => Err(unexpected(&other)),
        }
    }

    /// Adds a job, for now or the time `at`, with its only piece unless that is stored already.
    pub async fn add(
        &self,
        job: Job,
        key: Option<Key>,
        at: Option<i64>,
        message: Option<Bytes>,
    ) -> Result<Added> {
        let job = Box::new(job);
        let request = Request::Add {
            job,
            key,
            at,
            message,
        };
        match self.call(request).await? {
            Answer::Added(added) => Ok(added),
            other => Err(unexpected(&other)),
        }
    }

    /// Claims jobs that are due, at most `limit`.
    pub async fn claim(&self, limit: usize) -> Result<Vec<Job>> {
        self.jobs(Request::Claim { limit }).await
    }

    /// Stores a changed job. Returns whether it was stored: not if it was changed since it was
    /// loaded, or the lease it needs has expired.
    pub fn save(
        &self,
        job: &Job,
        change: Change,
    ) -> impl Future<Output = Result<bool>> + Send + use<> {
        let job = Box::new(job.clone());
        let called = self.call(Request::Save { job, change });
        async move {
            match called.await? {
                Answer::Yes(was_saved) => Ok(was_saved),
                other => Err(unexpected(&other)),
            }
        }
    }

    /// Makes this worker known to the engine, of which it claims.
    pub async fn register(&self) -> Result<()> {
        self.call(Request::Register).await.map(drop)
    }

    /// Renews the lease of a job, if this worker has one.
    pub async fn renew(&self, id: &str) -> Result<()> {
        let id = id.to_owned();
        self.call(Request::Renew { id }).await.map(drop)
    }

    /// Takes the jobs whose lease has expired from their workers: those that were not handed over
    /// wait again, the others are unknown and returned.
    pub async fn expire(&self) -> Result<Vec<Job>> {
        self.jobs(Request::Expire).await
    }

    /// Makes the jobs wait again that this worker claimed and did not hand over.
    pub async fn release(&self) -> Result<()> {
        self.jobs(Request::Release).await.map(drop)
    }

    /// Jobs that have waited for longer than this, at most 100, after the first `skip` of them.
    pub async fn overdue(&self, max_age: Duration, skip: usize) -> Result<Vec<Job>> {
        self.jobs(Request::Overdue { max_age, skip }).await
    }

    /// Whether any job is running, due or being retried.
    pub async fn is_busy(&self) -> Result<bool> {
        match self.call(Request::IsBusy).await? {
            Answer::Yes(is_busy) => Ok(is_busy),
            other => Err(unexpected(&other)),
        }
    }

    /// Returns a job.
    pub async fn load(&self, id: &str) -> Result<Option<Job>> {
        let id = id.to_owned();
        Ok(self.jobs(Request::Load { id }).await?.pop())
    }

    /// Returns jobs of a state, sorted by id, of which all are greater than `after`.
    pub async fn list(&self, state: State, after: &str, limit: usize) -> Result<Vec<Job>> {
        let after = after.to_owned();
        self.jobs(Request::List {
            state,
            after,
            limit,
        })
        .await
    }

    /// Counts the jobs in each state.
    pub async fn counts(&self) -> Result<Counts> {
        match self.call(Request::Counts).await? {
            Answer::Counts(counts) => Ok(counts),
            other => Err(unexpected(&other)),
        }
    }

    /// Removes sent and failed jobs that ended before this time. Returns their number.
    pub async fn purge(&self, older_than: Duration) -> Result<u64> {
        match self.call(Request::Purge { older_than }).await? {
            Answer::Count(number) => Ok(number),
            other => Err(unexpected(&other)),
        }
    }

    /// Removes what killed processes left: pieces without a job, and the names of workers.
    pub async fn sweep(&self) -> Result<()> {
        self.call(Request::Sweep).await.map(drop)
    }

    /// Ends the connection, after the requests that were made before. Later ones fail.
    pub async fn close(&self) {
        // A store that is lost has no connection to end.
        let _ = self.call(Request::Close).await;
    }

    async fn jobs(&self, request: Request) -> Result<Vec<Job>> {
        match self.call(request).await? {
            Answer::Jobs(jobs) => Ok(jobs),
            other => Err(unexpected(&other)),
        }
    }
}

fn no_answer(limit: Duration) -> StoreError {
    StoreError::Lost(format!("it did not answer within {} s", limit.as_secs()))
}

fn unexpected(answer: &Answer) -> StoreError {
    StoreError::Unusable(format!("unexpected answer {answer:?}"))
}

/// Carries out the requests, all that wait together, until one of them ends the connection.
async fn serve(mut backend: impl Backend, mut waiting: mpsc::UnboundedReceiver<Call>) {
    while let Some(first) = waiting.recv().await {
        let mut calls = vec![first];
        // Lets those that were woken at the same time send theirs, too.
        tokio::task::yield_now().await;
        while calls.len() < BATCH
            && let Ok(next) = waiting.try_recv()
        {
            calls.push(next);
        }
        let is_close = |call: &Call| matches!(call.request, Request::Close);
        let close = calls.iter().position(is_close);
        let closing = close.map(|place| calls.split_off(place));
        if !calls.is_empty() {
            carry_out(&mut backend, calls).await;
        }
        if let Some(closing) = closing {
            backend.close().await;
            for call in closing.into_iter().take(1) {
                let _ = call.answer.send(Ok(Answer::Done));
            }
            return;
        }
    }
}

async fn carry_out(backend: &mut impl Backend, calls: Vec<Call>) {
    let requests: Vec<&Request> = calls.iter().map(|call| &call.request).collect();
    match run(backend, &requests).await {
        Ok(answers) => {
            for (call, answer) in calls.into_iter().zip(answers) {
                // The caller may no longer wait.
                let _ = call.answer.send(Ok(answer));
            }
        }
        // One of them cannot be carried out: the others must not fail with it.
        Err(error) if calls.len() > 1 && !error.is_transient() => {
            for call in calls {
                let answers = run(backend, &[&call.request]).await;
                let _ = call
                    .answer
                    .send(answers.map(|mut answers| answers.remove(0)));
            }
        }
        Err(error) => {
            for call in calls {
                let _ = call.answer.send(Err(error.clone()));
            }
        }
    }
}

/// Runs requests together, again after a conflict.
async fn run(backend: &mut impl Backend, requests: &[&Request]) -> Result<Vec<Answer>> {
    const ATTEMPTS: u32 = 5;
    let mut attempt = 1;
    loop {
        // A request that is dropped takes its connection with it.
        let result = timeout(ANSWER, backend.run(requests)).await;
        match result.unwrap_or_else(|_| Err(no_answer(ANSWER))) {
            Err(StoreError::Conflict(_)) if attempt < ATTEMPTS => attempt += 1,
            result => return result,
        }
    }
}

/// The error for tables of a newer version.
fn newer(version: i64) -> StoreError {
    StoreError::Config(format!(
        "the store was made by a newer version of this program (tables {version}, here \
         {VERSION}): use that"
    ))
}
