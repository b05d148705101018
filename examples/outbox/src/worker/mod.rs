//! The worker: claims jobs as connections are free, sends them, pauses where no session can be had,
//! and takes over the jobs of workers that have stopped.

mod attempt;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::future::pending;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use envoi::tls::Trust;
use envoi::{Client, Endpoint, Error, ErrorKind, PoolConfig, Secret, Timeouts};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};

use crate::failure::Failure;
use crate::job::State;
use crate::listen;
use crate::options::{Run, Settings};
use crate::report;
use crate::store::{Owner, Store, StoreError};
use attempt::{AttemptResult, Sender, SharedJob};

/// How often the store is asked for due jobs while connections are free.
const POLL: Duration = Duration::from_millis(200);
/// How often it is asked while it is lost.
const STORE_LOST: Duration = Duration::from_secs(1);
/// How long a store that is lost is waited for at the end.
const STORE_LOST_AT_END: Duration = Duration::from_secs(2);
/// How often expired leases are looked for, at least.
const EXPIRY: Duration = Duration::from_secs(2);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// A login that is refused as often as this, with pauses between, stays refused.
const REFUSED_LOGINS: u32 = 3;

/// How the jobs ended in this process.
#[derive(Debug, Default)]
pub struct Totals {
    pub sent: AtomicU64,
    pub failed: AtomicU64,
    pub unknown: AtomicU64,
}

impl Totals {
    fn count(&self, state: State) {
        let count = match state {
            State::Sent => &self.sent,
            State::Failed => &self.failed,
            State::Unknown => &self.unknown,
            _ => return,
        };
        count.fetch_add(1, Ordering::Relaxed);
    }

    fn exit_code(&self) -> u8 {
        if self.unknown.load(Ordering::Relaxed) > 0 {
            79
        } else if self.failed.load(Ordering::Relaxed) > 0 {
            69
        } else {
            0
        }
    }
}

/// Sends jobs until a signal, or until none is left. Returns the exit code.
pub async fn run(options: &Run) -> Result<u8, Failure> {
    let settings = options.settings()?;
    let endpoint = endpoint(options, &settings)?;
    let mut stop = Stop::new()
        .map_err(|error| Failure::new(71, format!("signals cannot be received: {error}")))?;
    let owner = Owner {
        name: format!("outbox-{}", ulid::Ulid::generate()),
        lease: settings.lease,
    };
    let url = options.store.url()?;
    let store = tokio::select! {
        store = open(&url, owner) => store?,
        () = stop.wait() => return Ok(0),
    };
    let limits = PoolConfig::new(settings.connections);
    let pool = Client::new(endpoint).pool(limits);
    let totals = Arc::new(Totals::default());
    let maintenance = Maintenance {
        store: store.clone(),
        settings: settings.clone(),
        totals: totals.clone(),
        pause_reason: PauseReason::default(),
        counting_lock: Arc::default(),
    };
    let (pause_reason, counting_lock) = (
        maintenance.pause_reason.clone(),
        maintenance.counting_lock.clone(),
    );
    let mut tasks = JoinSet::new();
    if let Some(address) = &options.listen {
        let listening = listen::start(address, store.clone(), totals.clone(), pause_reason.clone());
        let listening = listening.await?;
        tasks.spawn(async move {
            listening.await;
            pending().await
        });
    }
    tasks.spawn(maintenance.run());
    let sender = Sender {
        store: store.clone(),
        pool: pool.clone(),
        settings,
    };
    let worker = Worker {
        sender,
        totals: totals.clone(),
        counting_lock,
        running: JoinSet::new(),
        jobs: HashMap::new(),
        pause: Pause {
            reason: pause_reason,
            ..Pause::default()
        },
    };
    let result = worker.run(&mut stop, &mut tasks).await;
    tasks.abort_all();
    // QUIT is sent, and not waited for longer than this.
    let _ = timeout(Duration::from_secs(1), pool.close()).await;
    // With the last connection, SQLite's log and what it has of deleted messages go.
    let _ = timeout(STORE_LOST_AT_END, store.close()).await;
    result
}

/// Opens the store, and waits for it while it cannot be reached.
async fn open(url: &str, owner: Owner) -> Result<Store, Failure> {
    let mut outage = Outage::default();
    loop {
        let opened = async {
            let store = Store::open(url, owner.clone()).await?;
            store.register().await?;
            store.sweep().await?;
            Ok::<_, StoreError>(store)
        };
        match opened.await {
            Ok(store) => return Ok(store),
            Err(error) if error.is_transient() => outage.wait(&error).await,
            Err(error) => return Err(error.into()),
        }
    }
}

/// A time in which the store cannot be reached: reported once, and waited for.
#[derive(Debug, Default)]
struct Outage {
    pause: Duration,
}

impl Outage {
    async fn wait(&mut self, error: &StoreError) {
        if self.pause.is_zero() {
            report(
                &error.to_string(),
                Some("The worker waits for it; no job is lost."),
            );
            self.pause = Duration::from_millis(250);
        }
        sleep(self.pause).await;
        self.pause = (2 * self.pause).min(Duration::from_secs(5));
    }

    fn is_over(&mut self) {
        self.pause = Duration::ZERO;
    }
}

/// The server, from the URL and the options.
fn endpoint(options: &Run, settings: &Settings) -> Result<Endpoint, Failure> {
    let mut endpoint = Endpoint::from_url(&options.url)?;
    if !options.trust.is_empty() {
        let trust = options.trust.iter().fold(Trust::empty(), Trust::path);
        // The connections load it, too, but the first may come much later.
        trust.load()?;
        endpoint = endpoint.trust(trust);
    }
    if let Some(password) = password(options)? {
        endpoint = endpoint.password(password);
    }
    if let Some(limit) = settings.timeout {
        endpoint = endpoint.timeouts(Timeouts::uniform(limit));
    }
    Ok(endpoint)
}

fn password(options: &Run) -> Result<Option<Secret>, Failure> {
    if let Some(variable) = &options.password_env {
        // The name may be the password itself by mistake.
        let message = "the environment variable of --password-env is not set, or not UTF-8";
        let password = std::env::var(variable).map_err(|_| Failure::request(message))?;
        return Ok(Some(password.into()));
    }
    let Some(path) = &options.password_file else {
        return Ok(None);
    };
    let read = match path.as_os_str() == "-" {
        true => Secret::from_reader(std::io::stdin()),
        false => Secret::from_file_within(path, Duration::from_secs(5)),
    };
    let failure = |_| {
        Failure::new(66, "--password-file cannot be read as text").with_hint(
            "Give the path of a file in UTF-8 that holds the password alone, and that this user \
             may read.",
        )
    };
    read.map(Some).map_err(failure)
}

/// SIGTERM and SIGINT.
struct Stop {
    terminate: Signal,
    interrupt: Signal,
}

impl Stop {
    fn new() -> io::Result<Self> {
        Ok(Stop {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Waits for the next of them.
    async fn wait(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Ends the leases that have expired, and the jobs that have waited for too long.
struct Maintenance {
    store: Store,
    settings: Settings,
    totals: Arc<Totals>,
    pause_reason: PauseReason,
    counting_lock: CountingLock,
}

/// Held while jobs are ended, until they are counted.
type CountingLock = Arc<tokio::sync::Mutex<()>>;

impl Maintenance {
    /// Runs until the store cannot be used.
    async fn run(self) -> StoreError {
        let interval = (self.settings.lease / 4).min(EXPIRY);
        let mut outage = Outage::default();
        loop {
            match self.maintain().await {
                Err(error) if error.is_transient() => outage.wait(&error).await,
                Err(error) => return error,
                Ok(()) => {
                    outage.is_over();
                    sleep(interval).await;
                }
            }
        }
    }

    async fn maintain(&self) -> Result<(), StoreError> {
        let _counting = self.counting_lock.lock().await;
        self.store.register().await?;
        for job in self.store.expire().await? {
            self.totals.count(job.state);
        }
        let mut skipped = 0;
        loop {
            let jobs = self.store.overdue(self.settings.max_age, skipped).await?;
            if jobs.is_empty() {
                return Ok(());
            }
            for mut job in jobs {
                // A job that was not tried, and can be, is tried first.
                let Some(reason) = job.reason.take().or_else(|| self.pause_reason.get()) else {
                    skipped += 1;
                    continue;
                };
                job.give_up(format!("it waited for longer than --max-age: {reason}"));
                match self.store.save(&job, Default::default()).await? {
                    true => self.totals.count(job.state),
                    false => skipped += 1,
                }
            }
        }
    }
}

/// Why the worker pauses, if it does.
#[derive(Clone, Debug, Default)]
pub struct PauseReason(Arc<Mutex<Option<String>>>);

impl PauseReason {
    pub fn get(&self) -> Option<String> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn set(&self, reason: Option<String>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = reason;
    }
}

/// Pauses, each twice as long as the one before, until an attempt reaches the server.
#[derive(Debug, Default)]
struct Pause {
    length: Duration,
    until: Option<Instant>,
    refused_logins: u32,
    reason: PauseReason,
}

impl Pause {
    /// Begins a pause, and reports it, unless one has begun.
    fn begin(&mut self, error: &Error) {
        if self.until.is_some() {
            return;
        }
        self.length = match self.length {
            Duration::ZERO => Duration::from_secs(1),
            length => (2 * length).min(LONGEST_PAUSE),
        };
        self.until = Some(Instant::now() + self.length);
        self.reason.set(Some(error.to_string()));
        match error.kind() {
            ErrorKind::Auth if !error.is_transient() => self.refused_logins += 1,
            _ => self.refused_logins = 0,
        }
        let mut message = format!(
            "no message can be sent, pausing for {} s: {}",
            self.length.as_secs(),
            error.message()
        );
        if let Some(reply) = error.reply() {
            message += &format!(": {reply}");
        }
        report(&message, error.hint());
    }

    /// An attempt reached the server.
    fn reset(&mut self) {
        self.length = Duration::ZERO;
        self.refused_logins = 0;
    }
}

/// The jobs that are being sent.
struct Worker {
    sender: Sender,
    totals: Arc<Totals>,
    counting_lock: CountingLock,
    running: JoinSet<AttemptResult>,
    /// Each running job, to return it if its task ends early.
    jobs: HashMap<Id, SharedJob>,
    pause: Pause,
}

impl Worker {
    /// Runs until a signal, an end of `background`, or the end of `--until-empty`.
    async fn run(
        mut self,
        stop: &mut Stop,
        background: &mut JoinSet<StoreError>,
    ) -> Result<u8, Failure> {
        let mut next_claim = Instant::now();
        loop {
            // What a signal interrupts here takes as long as a server or a store does not answer.
            let step = tokio::select! {
                biased;
                () = stop.wait() => Ok(Some(0)),
                Some(Ok(error)) = background.join_next() => Err(error.into()),
                step = self.step(&mut next_claim) => step,
            };
            let exit_code = match step {
                Ok(None) => continue,
                Ok(Some(exit_code)) => Ok(exit_code),
                Err(failure) => Err(failure),
            };
            let finished = self.finish().await;
            return exit_code.and_then(|exit_code| finished.map(|()| exit_code));
        }
    }

    /// Waits for the next event, and handles it. Returns the exit code where `--until-empty` ends.
    async fn step(&mut self, next_claim: &mut Instant) -> Result<Option<u8>, Failure> {
        let paused_until = self.pause.until;
        tokio::select! {
            biased;
            Some(ended) = self.running.join_next_with_id() => {
                self.handle_end(ended)?;
                // With those that ended at the same time, one claim is enough.
                while let Some(ended) = self.running.try_join_next_with_id() {
                    self.handle_end(ended)?;
                }
                *next_claim = Instant::now();
            }
            () = sleep_until(paused_until.unwrap_or(*next_claim)), if paused_until.is_some() => {
                self.probe().await?;
            }
            () = sleep_until(*next_claim), if self.free() > 0 => {
                *next_claim = Instant::now() + POLL;
                // In a pause, jobs can fail for their age.
                let claimed = match self.pause.until {
                    Some(_) => Ok(0),
                    None => self.claim().await,
                };
                let is_done = match claimed {
                    Ok(0) => self.is_done().await,
                    claimed => claimed.map(|_| false),
                };
                match is_done {
                    Ok(true) => return Ok(Some(self.totals.exit_code())),
                    Ok(false) => {}
                    // `Maintenance` reports it.
                    Err(error) if error.is_transient() => {
                        *next_claim = Instant::now() + STORE_LOST;
                    }
                    Err(error) => return Err(error.into()),
                }
            }
        }
        let stays_refused = self.pause.refused_logins >= REFUSED_LOGINS;
        Ok((self.sender.settings.until_empty && stays_refused).then_some(77))
    }

    fn free(&self) -> usize {
        usize::from(self.sender.settings.connections) - self.running.len()
    }

    /// Claims jobs for the free connections. Returns their number.
    async fn claim(&mut self) -> Result<usize, StoreError> {
        let jobs = self.sender.store.claim(self.free()).await?;
        let number = jobs.len();
        for job in jobs {
            let shared = SharedJob::new(job);
            let task = self.running.spawn(self.sender.clone().send(shared.clone()));
            self.jobs.insert(task.id(), shared);
        }
        Ok(number)
    }

    /// Whether `--until-empty` ends here.
    async fn is_done(&self) -> Result<bool, StoreError> {
        if !self.sender.settings.until_empty || !self.running.is_empty() {
            return Ok(false);
        }
        // What `Maintenance` ended is counted.
        let _counting = self.counting_lock.lock().await;
        Ok(!self.sender.store.is_busy().await?)
    }

    /// Handles the end of an attempt.
    fn handle_end(&mut self, ended: Result<(Id, AttemptResult), JoinError>) -> Result<(), Failure> {
        let (id, ended) = match ended {
            Ok(ended) => ended,
            // A panic. The lease would be renewed as long as this process runs.
            Err(error) => {
                if let Some(job) = self.jobs.remove(&error.id()) {
                    let abandoning = self.sender.clone().abandon(job.clone());
                    let task = self.running.spawn(abandoning);
                    self.jobs.insert(task.id(), job);
                }
                return Ok(());
            }
        };
        self.jobs.remove(&id);
        match ended {
            AttemptResult::Attempted(state) => {
                self.pause.reset();
                self.totals.count(state);
            }
            AttemptResult::NoSession(error) => self.pause.begin(&error),
            AttemptResult::Unusable(error) => return Err((*error).into()),
            AttemptResult::StoreFailed(error) => return Err(error.into()),
            AttemptResult::Lost => {}
        }
        Ok(())
    }

    /// Ends a pause if a session can be had, else begins the next one.
    async fn probe(&mut self) -> Result<(), Failure> {
        self.pause.until = None;
        match self.sender.pool.get().await {
            Ok(_) => {
                self.pause.reason.set(None);
                Ok(())
            }
            Err(error) if matches!(error.kind(), ErrorKind::Config | ErrorKind::Request) => {
                Err(error.into())
            }
            Err(error) => {
                self.pause.begin(&error);
                Ok(())
            }
        }
    }

    /// Lets the running jobs end, for a limited time, and returns the others.
    async fn finish(&mut self) -> Result<(), Failure> {
        let limit = match self.sender.settings.timeout {
            Some(timeout) => 4 * timeout,
            None => Duration::from_secs(60),
        };
        let deadline = Instant::now() + limit;
        let mut result = Ok(());
        loop {
            tokio::select! {
                ended = self.running.join_next_with_id() => match ended {
                    Some(ended) => result = result.and(self.handle_end(ended)),
                    None => break,
                },
                () = sleep_until(deadline) => break,
            }
        }
        self.running.abort_all();
        while self.running.join_next().await.is_some() {}
        let returning = async {
            for (_, shared) in self.jobs.drain() {
                self.sender.clone().abandon(shared).await;
            }
            // A signal may have interrupted a claim.
            let _ = self.sender.store.release().await;
        };
        // A store that is lost now is not waited for: the leases expire. One that is slow is.
        let _ = timeout_at(deadline.max(Instant::now() + STORE_LOST_AT_END), returning).await;
        result
    }
}
