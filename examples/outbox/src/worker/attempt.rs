//! One attempt to send a job: one transaction, and what its outcome means for the job.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use envoi::proto::ServerLimits;
use envoi::{Error, ErrorKind, Handover, Message, Outcome, Phase, Pool, Receipt};
use futures::stream;
use tokio::time::sleep;
use tokio_util::io::StreamReader;

use crate::job::{Answer, Job, State};
use crate::options::Settings;
use crate::store::{Change, Store, StoreError};

/// What an attempt means for the worker.
#[derive(Debug)]
pub enum AttemptResult {
    /// The attempt reached the reply to MAIL. The state is that of the job now.
    Attempted(State),
    /// No session could be had: the worker pauses. The job waits, and no retry was used up.
    NoSession(Box<Error>),
    /// The settings cannot be used.
    Unusable(Box<Error>),
    /// The store cannot be used. The job keeps its lease until that expires.
    StoreFailed(StoreError),
    /// Another worker has the job, or it was changed.
    Lost,
}

/// A job that is being sent, as it is in the store.
#[derive(Clone)]
pub struct SharedJob(Arc<Mutex<Job>>);

impl SharedJob {
    pub fn new(job: Job) -> Self {
        SharedJob(Arc::new(Mutex::new(job)))
    }

    pub fn get(&self) -> Job {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn set(&self, job: Job) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = job;
    }
}

/// Why a message is not handed over, as the outbox itself found.
#[derive(Clone, Debug)]
enum Refusal {
    /// The lease has expired, or the job was changed.
    LeaseLost,
    /// The outcomes of the first transaction are stored before a second one.
    NextTransaction,
    StoreFailed(StoreError),
    /// The message is not in the store.
    MessageMissing,
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Refusal::LeaseLost => f.write_str("the lease of the job has expired"),
            Refusal::NextTransaction => f.write_str("the outcomes so far are to be stored first"),
            Refusal::StoreFailed(error) => error.fmt(f),
            Refusal::MessageMissing => f.write_str("the message is not in the store"),
        }
    }
}

impl std::error::Error for Refusal {}

/// What the callbacks of an attempt reported.
#[derive(Clone, Debug, Default)]
struct Callbacks(Arc<Mutex<Reports>>);

#[derive(Debug, Default)]
struct Reports {
    /// The hand-over has begun: what it stores may be stored even if the session ends meanwhile.
    has_handover: bool,
    /// The first one.
    refusal: Option<Refusal>,
}

impl Callbacks {
    fn lock(&self) -> MutexGuard<'_, Reports> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn handover(&self) {
        self.lock().has_handover = true;
    }

    fn has_handover(&self) -> bool {
        self.lock().has_handover
    }

    fn refuse(&self, refusal: Refusal) -> Refusal {
        self.lock().refusal.get_or_insert(refusal).clone()
    }

    fn refusal(&self) -> Option<Refusal> {
        self.lock().refusal.take()
    }
}

/// Sends jobs over the connections of a pool.
#[derive(Clone)]
pub struct Sender {
    pub store: Store,
    pub pool: Pool,
    pub settings: Settings,
}

impl Sender {
    /// Makes an attempt, stores its outcome, and renews the lease of the job meanwhile.
    pub async fn send(self, shared: SharedJob) -> AttemptResult {
        let id = shared.get().id;
        let renewing = async {
            loop {
                sleep(self.settings.lease / 4).await;
                // `Maintenance` reports a store that is lost.
                let _ = self.store.renew(&id).await;
            }
        };
        tokio::select! {
            ended = self.attempt(shared) => ended,
            () = renewing => unreachable!("it does not end"),
        }
    }

    async fn attempt(&self, shared: SharedJob) -> AttemptResult {
        // A kept connection may turn out to be dead: then a second one is tried.
        for may_be_dead in [true, false] {
            let job = shared.get();
            let mut connection = match self.pool.get().await {
                Ok(connection) => connection,
                Err(error) => return self.no_session(&shared, error).await,
            };
            let offered = connection.capabilities();
            // A message of several pieces is a stream, whose size the client does not know.
            if let Some(limit) = offered.size_limit().filter(|limit| job.size > *limit) {
                let size = job.size;
                let reason =
                    format!("the message has {size} bytes, and the server takes at most {limit}");
                return self.fail(&shared, reason).await;
            }
            let places = first_transaction(&job, offered.limits());
            let callbacks = Callbacks::default();
            let envelope = match job.envelope(&places) {
                Ok(envelope) => envelope,
                Err(error) => return self.fail(&shared, error.to_string()).await,
            };
            let result = match self.message(&shared, &places, &callbacks).await {
                Ok(message) => connection.send(message.envelope(envelope)).await,
                Err(refusal) => {
                    callbacks.refuse(refusal);
                    Err(Error::new(
                        ErrorKind::Input,
                        Phase::Setup,
                        "the message cannot be read",
                    ))
                }
            };
            drop(connection);
            let has_next = match callbacks.refusal() {
                // It may still be this worker's: only its lease was over.
                Some(Refusal::LeaseLost) => return self.return_job(shared.get()).await,
                Some(Refusal::StoreFailed(error)) if error.is_transient() => {
                    return self.return_job(shared.get()).await;
                }
                Some(Refusal::StoreFailed(error)) => return AttemptResult::StoreFailed(error),
                Some(refusal @ Refusal::MessageMissing) => {
                    return self.fail(&shared, refusal.to_string()).await;
                }
                Some(Refusal::NextTransaction) => true,
                None => false,
            };
            match result {
                Err(error)
                    if may_be_dead && !callbacks.has_handover() && is_before_mail(&error) => {}
                Err(error) if is_before_mail(&error) && error.phase() != Phase::Mail => {
                    return self.no_session(&shared, error).await;
                }
                result => return self.record(&shared, &places, result, has_next).await,
            }
        }
        unreachable!("the second round returns")
    }

    /// The message, with the hand-over to the recipients at `places` as a change of the job.
    async fn message(
        &self,
        shared: &SharedJob,
        places: &[usize],
        callbacks: &Callbacks,
    ) -> Result<Message<'static>, Refusal> {
        let job = shared.get();
        let message = match job.pieces {
            1 => Message::raw(piece(&self.store, &job.id, 0).await?),
            _ => Message::raw_stream(self.pieces(&job, callbacks.clone())),
        };
        let (store, shared, callbacks) = (self.store.clone(), shared.clone(), callbacks.clone());
        let places = places.to_vec();
        Ok(message.on_handover(move |handover| {
            let (store, shared) = (store.clone(), shared.clone());
            let (callbacks, places) = (callbacks.clone(), places.clone());
            callbacks.handover();
            async move {
                let permission = hand_over(&store, &shared, &places, &handover).await;
                permission.map_err(|refusal| callbacks.refuse(refusal))
            }
        }))
    }

    /// Reads a message piece by piece. A piece that cannot be read is an error, never an early end.
    fn pieces(
        &self,
        job: &Job,
        callbacks: Callbacks,
    ) -> impl tokio::io::AsyncRead + Send + Unpin + 'static {
        let (store, id, pieces) = (self.store.clone(), job.id.clone(), job.pieces);
        let pieces = stream::try_unfold(0, move |number| {
            let (store, id, callbacks) = (store.clone(), id.clone(), callbacks.clone());
            async move {
                if number == pieces {
                    return Ok(None);
                }
                let piece = piece(&store, &id, number).await;
                let piece = piece.map_err(|refusal| io::Error::other(callbacks.refuse(refusal)))?;
                Ok::<_, io::Error>(Some((piece, number + 1)))
            }
        });
        StreamReader::new(Box::pin(pieces))
    }

    /// Records the outcome of a transaction. With `has_next`, the recipients that were too many for
    /// it are next.
    async fn record(
        &self,
        shared: &SharedJob,
        places: &[usize],
        result: envoi::Result<Receipt>,
        has_next: bool,
    ) -> AttemptResult {
        let mut job = shared.get();
        // The hand-over counted it.
        if job.state != State::HandingOver {
            job.attempts += 1;
        }
        let receipt = match &result {
            Ok(receipt) => Some(receipt),
            Err(error) => error.receipt(),
        };
        let mut has_answer = has_next;
        if let Some(receipt) = receipt {
            job.record(places, &receipt.recipients);
            if receipt.reply.is_some() {
                job.reply = receipt.reply.as_ref().map(Into::into);
            }
            let recipients = &receipt.recipients;
            has_answer |= recipients.iter().any(|to| to.outcome != Outcome::NotTried);
            // The server takes fewer recipients at once: the others are next.
            if has_next || recipients.iter().any(|to| to.outcome.is_accepted()) {
                job.clear_excess(places, recipients);
            }
        }
        match &result {
            Ok(receipt) => {
                let incomplete = receipt.incomplete_reason.clone().filter(|_| !has_next);
                job.reason = incomplete.or_else(|| reason_of_recipients(&job));
            }
            Err(error) => {
                job.reason = Some(error.to_string());
                if !error.outcome_unknown() {
                    job.withdraw();
                    fail_untried(&mut job, places, error);
                }
            }
        }
        job.settle();
        let delay = match job.state {
            // Without an answer for any, the next group would fail in the same way.
            State::Waiting if has_answer && !job.due().is_empty() => Some(Duration::ZERO),
            State::Waiting => self.back_off(&mut job),
            _ => None,
        };
        self.store_outcome(job, delay).await
    }

    /// Uses up a retry, and returns the delay before it; `None` if none is left.
    fn back_off(&self, job: &mut Job) -> Option<Duration> {
        const MAX: Duration = Duration::from_secs(3600);
        job.used += 1;
        if job.used > self.settings.retries {
            let reason = job.reason.take().unwrap_or_default();
            job.give_up(format!("after {} attempts: {reason}", job.attempts));
            return None;
        }
        let factor = 2f64.powi(i32::try_from(job.used - 1).unwrap_or(i32::MAX).min(30));
        let delay = self.settings.backoff.mul_f64(factor).min(MAX);
        let random = f64::from(getrandom::u32().unwrap_or(u32::MAX / 2)) / f64::from(u32::MAX);
        Some(delay.mul_f64(0.8 + 0.4 * random))
    }

    /// Fails a job that was certainly not sent, for a reason that will not pass.
    async fn fail(&self, shared: &SharedJob, reason: String) -> AttemptResult {
        let mut job = shared.get();
        job.withdraw();
        job.give_up(reason);
        self.store_outcome(job, None).await
    }

    /// Returns the job, as no session could be had.
    async fn no_session(&self, shared: &SharedJob, error: Error) -> AttemptResult {
        let mut job = shared.get();
        job.reason = Some(error.to_string());
        let is_unusable = matches!(error.kind(), ErrorKind::Config | ErrorKind::Request);
        match self.return_job(job).await {
            ended @ AttemptResult::StoreFailed(_) => ended,
            _ if is_unusable => AttemptResult::Unusable(Box::new(error)),
            _ => AttemptResult::NoSession(Box::new(error)),
        }
    }

    /// Ends an attempt whose task has ended early: the job waits again, or is unknown.
    pub async fn abandon(self, shared: SharedJob) -> AttemptResult {
        let mut job = shared.get();
        let delay = job.expire().then_some(Duration::ZERO);
        self.store_outcome(job, delay).await
    }

    /// Makes a job wait again whose message was certainly not sent.
    pub async fn return_job(&self, mut job: Job) -> AttemptResult {
        job.withdraw();
        job.state = State::Waiting;
        self.store_outcome(job, Some(Duration::ZERO)).await
    }

    /// Stores the outcome of an attempt. It waits for a store that is lost.
    pub async fn store_outcome(&self, mut job: Job, delay: Option<Duration>) -> AttemptResult {
        let revision = job.revision;
        let mut pause = Duration::from_millis(100);
        loop {
            let change = Change {
                delay,
                needs_lease: false,
            };
            let result = match self.store.save(&job, change).await {
                Ok(true) => return AttemptResult::Attempted(job.state),
                // It was changed: this may be the hand-over of this attempt, whose answer was lost,
                // or a worker that found the lease expired after it. Nothing else can come before a
                // late answer.
                Ok(false) => self.store.load(&job.id).await,
                Err(error) => Err(error),
            };
            match result {
                Ok(Some(stored)) => {
                    // It was stored, and the answer was lost.
                    if stored.state.is_final()
                        && stored.state == job.state
                        && stored.revision == job.revision + 1
                    {
                        return AttemptResult::Attempted(job.state);
                    }
                    let is_ours = match stored.state {
                        State::HandingOver => stored.revision == revision + 1,
                        State::Unknown => stored.revision <= revision + 2,
                        _ => false,
                    };
                    if !is_ours || stored.revision == job.revision {
                        return AttemptResult::Lost;
                    }
                    job.revision = stored.revision;
                }
                Ok(None) => return AttemptResult::Lost,
                Err(error) if error.is_transient() => {
                    sleep(pause).await;
                    pause = (2 * pause).min(Duration::from_secs(5));
                }
                Err(error) => return AttemptResult::StoreFailed(error),
            }
        }
    }
}

/// The recipients of one transaction: as many of the open ones as the server takes (LIMITS, RFC
/// 9422).
fn first_transaction(job: &Job, limits: ServerLimits) -> Vec<usize> {
    let mut domains: Vec<String> = Vec::new();
    let mut places = job.due();
    places.retain(|place| {
        let address = &job.recipients[*place].address;
        let domain = address
            .rsplit('@')
            .next()
            .unwrap_or_default()
            .to_lowercase();
        let is_known = domains.contains(&domain);
        let may_add = limits
            .rcpt_domain_max
            .is_none_or(|max| domains.len() < max.max(1));
        if !is_known && may_add {
            domains.push(domain);
        }
        is_known || may_add
    });
    places.truncate(limits.rcpt_max.unwrap_or(usize::MAX).max(1));
    places
}

/// The session ended, or was refused, before the server accepted MAIL.
fn is_before_mail(error: &Error) -> bool {
    if error.outcome_unknown() {
        return false;
    }
    let ended = match error.reply() {
        Some(reply) => reply.code() == 421,
        None => matches!(
            error.kind(),
            ErrorKind::Closed | ErrorKind::Timeout | ErrorKind::Protocol
        ),
    };
    let is_setup = matches!(
        error.phase(),
        Phase::Connect
            | Phase::Tls
            | Phase::Greeting
            | Phase::Hello
            | Phase::StartTls
            | Phase::Auth
    );
    is_setup || (ended && matches!(error.phase(), Phase::Reset | Phase::Mail))
}

/// A failure of the message as a whole is final for the recipients that were not tried.
fn fail_untried(job: &mut Job, places: &[usize], error: &Error) {
    let is_final = match error.kind() {
        ErrorKind::Request | ErrorKind::Input | ErrorKind::Unsupported => true,
        ErrorKind::Refused => error.is_permanent() && error.phase() != Phase::Rcpt,
        _ => false,
    };
    if !is_final {
        return;
    }
    for place in places {
        let recipient = &mut job.recipients[*place];
        if recipient.outcome.is_open() {
            recipient.outcome = Answer::Refused;
            recipient.code = error.reply().map(|reply| reply.code());
            recipient.text = Some(match error.reply() {
                Some(reply) => reply.text(),
                None => error.message().to_owned(),
            });
        }
    }
}

/// The text of the last refusal of a recipient.
fn reason_of_recipients(job: &Job) -> Option<String> {
    let refused = job
        .recipients
        .iter()
        .find(|to| matches!(to.outcome, Answer::Refused | Answer::Deferred))?;
    let text = refused.text.as_deref().unwrap_or_default();
    let code = refused
        .code
        .map(|code| format!("{code} "))
        .unwrap_or_default();
    Some(format!("{} was refused: {code}{text}", refused.address))
}

/// Reads a piece of a message.
async fn piece(store: &Store, job: &str, number: i64) -> Result<Bytes, Refusal> {
    let piece = store
        .piece(job, number)
        .await
        .map_err(Refusal::StoreFailed)?;
    piece.ok_or(Refusal::MessageMissing)
}

/// Records that the job is handed over to some recipients: only with a lease that is valid, so that
/// a worker that was stopped meanwhile hands nothing over.
async fn hand_over(
    store: &Store,
    shared: &SharedJob,
    places: &[usize],
    handover: &Handover,
) -> Result<(), Refusal> {
    if handover.number > 1 {
        return Err(Refusal::NextTransaction);
    }
    let mut job = shared.get();
    let to = places.iter().copied().filter(|place| {
        let address = &job.recipients[*place].address;
        handover.recipients.iter().any(|to| to.as_str() == address)
    });
    let to: Vec<usize> = to.collect();
    job.hand_over(&to);
    let change = Change {
        delay: None,
        needs_lease: true,
    };
    match store.save(&job, change).await {
        Ok(true) => {
            job.revision += 1;
            shared.set(job);
            Ok(())
        }
        Ok(false) => Err(Refusal::LeaseLost),
        Err(error) => Err(Refusal::StoreFailed(error)),
    }
}
