//! Several servers, of which others take the messages where one fails.
//!
//! `circuit.rs` decides which server comes next. This module tries them, and decides from each
//! result whether the message may go to another server.

mod circuit;

use std::fmt;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::Instant;

#[cfg(feature = "pool")]
use crate::Pool;
use crate::connection::clock::Clock;
use crate::connection::prepare_by;
use crate::error::{Error, ErrorKind, Phase, Result};
use crate::mailer::{Mailer, SendFuture};
use crate::message::{Message, PreparedMessage};
use crate::receipt::{Attempts, Outcome, Receipt, Recipient};
use crate::telemetry::Host;
use crate::{CheckReport, Client, Endpoint, RetryPolicy, Timeouts, retry, telemetry};
use circuit::{Attempt, Circuit, Circuits};

/// When a server is paused, and for how long.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FailoverPolicy {
    /// The number of failures in a row after which a server is paused; at least 1, by default 3.
    pub max_failures: u32,
    /// The first pause; 30 seconds by default. It doubles each time that the server still fails
    /// after it.
    pub pause: Duration,
    /// The maximum pause; 10 minutes by default.
    pub max_pause: Duration,
}

impl Default for FailoverPolicy {
    fn default() -> Self {
        FailoverPolicy {
            max_failures: 3,
            pause: Duration::from_secs(30),
            max_pause: Duration::from_secs(10 * 60),
        }
    }
}

/// A server of a [`Failover`]: a [`Client`] or a `Pool`, with a weight or without.
#[derive(Clone, Debug)]
#[must_use = "a method returns the changed value"]
pub struct FailoverServer {
    route: Route,
    weight: Option<u32>,
}

#[derive(Clone, Debug)]
enum Route {
    Client(Box<Client>),
    #[cfg(feature = "pool")]
    Pool(Pool),
}

impl FailoverServer {
    /// Sets the share of the messages that the server takes first. A server without a weight, or
    /// with 0, is used only where those with a weight fail.
    pub fn weight(mut self, weight: u32) -> Self {
        self.weight = (weight > 0).then_some(weight);
        self
    }

    /// The share of the messages; `None` for a server that is used only where others fail.
    pub fn get_weight(&self) -> Option<u32> {
        self.weight
    }

    fn client(&self) -> &Client {
        match &self.route {
            Route::Client(client) => client,
            #[cfg(feature = "pool")]
            Route::Pool(pool) => pool.client(),
        }
    }

    fn endpoint(&self) -> &Endpoint {
        self.client().endpoint()
    }

    /// Makes one attempt. The message is taken when the transaction starts.
    async fn attempt(
        &self,
        message: &mut Option<PreparedMessage>,
        clock: Clock,
        started: Instant,
    ) -> Result<Receipt> {
        match &self.route {
            Route::Client(client) => client.attempt(message, clock, started).await,
            #[cfg(feature = "pool")]
            Route::Pool(pool) => pool.attempt(message, clock, started).await,
        }
    }

    async fn check(&self) -> Result<CheckReport> {
        match &self.route {
            Route::Client(client) => client.check().await,
            #[cfg(feature = "pool")]
            Route::Pool(pool) => pool.check().await,
        }
    }
}

impl From<Client> for FailoverServer {
    fn from(client: Client) -> Self {
        FailoverServer {
            route: Route::Client(Box::new(client)),
            weight: None,
        }
    }
}

impl From<Endpoint> for FailoverServer {
    fn from(endpoint: Endpoint) -> Self {
        Client::new(endpoint).into()
    }
}

#[cfg(feature = "pool")]
impl From<Pool> for FailoverServer {
    fn from(pool: Pool) -> Self {
        FailoverServer {
            route: Route::Pool(pool),
            weight: None,
        }
    }
}

/// Sends messages through several servers: where one fails, the message goes to the next one, in
/// their order or in proportion to their [weights](FailoverServer::weight).
///
/// Cheap to clone; clones share the state of the servers.
///
/// # When a message goes to the next server
///
/// Only where the server has taken nothing of it, for any recipient. The next server gets it for
/// those recipients that were not refused permanently.
///
/// | What happened | The next server | Counts as a failure |
/// |---|---|---|
/// | no connection, it was lost, a time-out, a protocol violation | yes | yes |
/// | TLS failed, the login failed or would be unprotected, a setting is unusable | yes | yes |
/// | the server refused the session, with 4xx or 5xx, or sent 421 or 530 | yes | yes |
/// | MAIL was refused with 4xx | yes | yes |
/// | all recipients or the message were refused with 4xx | yes | no |
/// | the server lacks an extension that the message needs, or it is too large | yes | no |
/// | its pool was closed | yes | yes |
/// | all connections of its pool were in use; its rate limit left no turn in time | yes | no |
/// | MAIL, all recipients or the message were refused with 5xx | no | no |
/// | some recipients were accepted, others refused | no | no |
/// | the outcome is [unknown](Error::outcome_unknown) | no | yes |
/// | the message is invalid, or cannot be read | no | no |
///
/// To end in order, call `close` and wait for the calls: see
/// [what happens when a pool is closed](crate::guide::interruptions#the-pool-is-closed).
///
/// A message that contains a stream goes to the next server unless its transaction had started,
/// since it can be read only once.
///
/// # When a server is paused
///
/// After some [failures in a row](FailoverPolicy), a server is paused. Other messages then try it
/// only after all servers that are not paused. When the pause is over, one message tries it: it is
/// used again if that succeeds, else the next pause is twice as long. A message never fails only
/// because servers are paused.
///
/// ```
/// # #[cfg(not(all(feature = "pool", feature = "testing")))]
/// # fn main() {}
/// # #[cfg(all(feature = "pool", feature = "testing"))]
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use envoi::{Client, Failover, mail_builder::MessageBuilder, testing::Server};
///
/// let second = Server::start().await?;
/// // A pool is used like a client.
/// let failover = Failover::new([
///     Client::from_url("smtp://localhost:1?tls=none")?.into(), // out of order
///     Client::from_url(&second.url())?.pool(4).into(),
/// ]);
/// let mail = MessageBuilder::new()
///     .from("me@example.org")
///     .to("you@example.com")
///     .text_body("Hello.");
/// let receipt = failover.send(mail).await?;
/// assert!(receipt.all_accepted());
/// assert_eq!(second.messages().len(), 1);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Failover {
    servers: Arc<[FailoverServer]>,
    /// The names of all servers.
    all: Host,
    state: Arc<Mutex<State>>,
    policy: FailoverPolicy,
    retries: Option<RetryPolicy>,
    deadline: Option<Duration>,
}

struct State {
    circuits: Circuits,
    /// The last failure of each server, without its receipt.
    failures: Vec<Option<Error>>,
}

impl Failover {
    /// Creates a client of these servers. Without weights, the messages go to the first one that
    /// works.
    pub fn new(servers: impl IntoIterator<Item = FailoverServer>) -> Self {
        let servers: Arc<[FailoverServer]> = servers.into_iter().collect();
        let state = State {
            circuits: Circuits::new(servers.iter().map(|server| server.weight)),
            failures: vec![None; servers.len()],
        };
        let names: Vec<_> = (0..servers.len())
            .map(|index| name(&servers, index))
            .collect();
        Failover {
            all: Host::new(&names.join(", ")),
            servers,
            state: Arc::new(Mutex::new(state)),
            policy: FailoverPolicy::default(),
            retries: None,
            deadline: None,
        }
    }

    /// Sets when a server is paused, and for how long.
    #[must_use]
    pub fn policy(mut self, policy: FailoverPolicy) -> Self {
        self.policy = policy;
        self
    }

    /// Sets when and how often a message is retried after it failed transiently at all servers; by
    /// default, it is not. The retry policies of the clients do not apply.
    #[must_use]
    pub fn retries(mut self, retries: RetryPolicy) -> Self {
        self.retries = Some(retries);
        self
    }

    /// Sets a deadline for the whole call, with all servers and retries; none by default. The
    /// [time-outs](Endpoint::timeouts) of each endpoint, its deadline included, apply to each
    /// attempt.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = Some(deadline);
        self
    }

    /// The policy that decides when a server is paused.
    pub fn get_policy(&self) -> &FailoverPolicy {
        &self.policy
    }

    /// The policy that decides whether a message is retried, if one was set.
    pub fn get_retries(&self) -> Option<&RetryPolicy> {
        self.retries.as_ref()
    }

    /// The deadline for the whole call, if one was set.
    pub fn get_deadline(&self) -> Option<Duration> {
        self.deadline
    }

    /// The state of each server, in their order: for a log or a health check.
    pub fn servers(&self) -> Vec<ServerState> {
        let now = Instant::now();
        let state = self.state();
        let server_state = |index| ServerState {
            server: name(&self.servers, index),
            circuit: match state.circuits.state(index) {
                Circuit::Closed { failures } => CircuitState::Closed { failures },
                Circuit::Open { until, .. } => CircuitState::Open {
                    remaining: until.saturating_duration_since(now),
                },
                Circuit::HalfOpen { .. } => CircuitState::HalfOpen,
            },
            last_failure: state.failures[index].clone(),
        };
        (0..self.servers.len()).map(server_state).collect()
    }

    /// [Checks](Client::check) all servers at the same time. Returns the result of each, in their
    /// order. The results do not change the state of the servers.
    ///
    /// # Cancel safety
    ///
    /// As for [`Client::check`].
    pub async fn check(&self) -> Vec<Result<CheckReport>> {
        join_all(self.servers.iter().map(FailoverServer::check)).await
    }

    /// Closes the pools of all servers at the same time, as [`Pool::close`] does. Later calls get
    /// an error ([`ErrorKind::PoolClosed`]), also retries, unless a server is a [`Client`], which
    /// keeps no connection and is not closed.
    ///
    /// Returns the number of calls of the pools that had not finished in time.
    ///
    /// # Cancel safety
    ///
    /// As for [`Pool::close`].
    #[cfg(feature = "pool")]
    pub async fn close(&self) -> usize {
        let pools = self
            .servers
            .iter()
            .filter_map(|server| match &server.route {
                Route::Pool(pool) => Some(pool.close()),
                Route::Client(_) => None,
            });
        join_all(pools).await.into_iter().sum()
    }

    /// Sends a message through the first server that takes it.
    ///
    /// # Errors
    ///
    /// As for [`Client::send`]. Where several servers failed, the error is that of the first one
    /// that failed transiently, else of the last one, and its message contains the others.
    ///
    /// # Cancel safety
    ///
    /// As for [`Client::send`]. A message that was to show whether a paused server works leaves
    /// that to the next one.
    pub async fn send(&self, message: impl Into<Message<'_>>) -> Result<Receipt> {
        let sending = pin!(self.prepare_and_send(message.into()));
        telemetry::in_send(&self.all, sending).await
    }

    async fn prepare_and_send(&self, message: Message<'_>) -> Result<Receipt> {
        let started = Instant::now();
        let limits = Timeouts {
            total_wait: None,
            deadline: self.deadline,
            ..Timeouts::default()
        };
        let clock = Clock::start(&limits);
        if self.servers.is_empty() {
            return Err(Error::request("there is no server to send to")
                .with_hint("Give Failover::new at least one."));
        }
        for server in &*self.servers {
            server.endpoint().check()?;
        }
        let message = prepare_by(&clock, message).await?;
        let attempt = |message| Box::pin(self.attempt(message, &clock, started));
        let result = match &self.retries {
            Some(retries) => {
                let all_or_nothing = self.all_or_nothing();
                retry::send(retries, &clock, all_or_nothing, message, attempt).await
            }
            None => attempt(message).await,
        };
        result.map(|receipt| receipt.with_elapsed(started.elapsed()))
    }

    fn all_or_nothing(&self) -> bool {
        let mut endpoints = self.servers.iter().map(FailoverServer::endpoint);
        endpoints.any(Endpoint::get_all_or_nothing)
    }

    /// Tries the servers, each once, until one takes the message or it cannot go to another one.
    async fn attempt(
        &self,
        message: PreparedMessage,
        clock: &Clock,
        started: Instant,
    ) -> Result<Receipt> {
        let envelope = message.envelope.clone();
        let order = self.state().circuits.order(Instant::now());
        let mut total = Attempts::new(envelope.recipients());
        let mut current: Vec<usize> = (0..envelope.recipients().len()).collect();
        let mut failures: Vec<(String, Error)> = Vec::new();
        let mut message = Some(message);
        for index in order {
            let server = &self.servers[index];
            let Some(mut own) = message.take() else { break };
            message = own.try_clone();
            own.envelope = envelope.only(&current);
            let mut own = Some(own);
            let result = self.try_server(index, &mut own, clock, started).await;
            // The attempt may not have come to the message.
            message = message.or(own);
            let mut error = match result {
                Ok(receipt) => {
                    total.add(&current, &receipt);
                    let reason = receipt.incomplete_reason.clone();
                    return Ok(total.into_receipt(receipt, reason));
                }
                Err(error) => error,
            };
            let receipt = error.take_receipt();
            if let Some(receipt) = &receipt {
                total.add(&current, receipt);
            }
            let goes_on = may_go_on(&error, receipt.as_ref());
            current.retain(|&index| may_succeed(&total.recipients[index]));
            if let Some(receipt) = receipt {
                error = error.with_receipt(receipt);
            }
            // To all or none, and not to one of them.
            let is_refused =
                server.endpoint().get_all_or_nothing() && current.len() < total.recipients.len();
            let is_final = !goes_on || is_refused || current.is_empty();
            failures.push((name(&self.servers, index), error));
            if is_final || !clock.has_time_for(Duration::ZERO) {
                return Err(combined(failures, is_final, total));
            }
        }
        Err(combined(failures, false, total))
    }

    async fn try_server(
        &self,
        index: usize,
        message: &mut Option<PreparedMessage>,
        whole: &Clock,
        started: Instant,
    ) -> Result<Receipt> {
        let server = &self.servers[index];
        let timeouts = server.endpoint().get_timeouts();
        let mut clock = Clock::start(timeouts).within(whole);
        let recipients = message
            .as_ref()
            .map_or(0, |message| message.envelope.recipients().len());
        clock.allow_for(recipients, timeouts);
        let trial = Trial::start(self, index);
        let result = server.attempt(message, clock, started).await;
        trial.end(&result);
        result
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while the lock is held.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Mailer for Failover {
    fn send<'a>(&'a self, message: Message<'a>) -> SendFuture<'a> {
        Box::pin(Failover::send(self, message))
    }
}

impl fmt::Debug for Failover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Failover")
            .field("servers", &self.servers())
            .field("policy", &self.policy)
            .field("retries", &self.retries)
            .field("deadline", &self.deadline)
            .finish_non_exhaustive()
    }
}

/// The state of a server of a [`Failover`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ServerState {
    /// The host, as it was given, with the port where several servers have this host.
    pub server: String,
    /// Whether it is used.
    pub circuit: CircuitState,
    /// Its last failure, which may be long ago, without the receipt.
    pub last_failure: Option<Error>,
}

/// Whether a server of a [`Failover`] is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CircuitState {
    /// It is used.
    Closed {
        /// The number of failures since the last success.
        failures: u32,
    },
    /// It is paused.
    Open {
        /// The time until a message tries it again; zero if the next one does.
        remaining: Duration,
    },
    /// The pause is over, and a message is trying it.
    HalfOpen,
}

/// An attempt that has started and not ended. Dropped, it says nothing about the server.
struct Trial<'f> {
    failover: &'f Failover,
    index: usize,
    attempt: Attempt,
    has_ended: bool,
}

impl<'f> Trial<'f> {
    fn start(failover: &'f Failover, index: usize) -> Self {
        let attempt = failover.state().circuits.start(index, Instant::now());
        Trial {
            failover,
            index,
            attempt,
            has_ended: false,
        }
    }

    fn end(mut self, result: &Result<Receipt>) {
        let health = match result {
            Ok(_) => Health::Works,
            Err(error) => health(error),
        };
        let (failover, index) = (self.failover, self.index);
        let server = || name(&failover.servers, index);
        let mut state = failover.state();
        match health {
            Health::Works => {
                self.has_ended = true;
                if state.circuits.succeeded(index) {
                    telemetry::server_works(&server());
                }
            }
            Health::Fails => {
                self.has_ended = true;
                let (policy, now) = (&failover.policy, Instant::now());
                if let Some(pause) = state.circuits.failed(index, self.attempt, policy, now) {
                    telemetry::server_paused(&server(), pause);
                }
                state.failures[index] = result.as_ref().err().cloned().map(|mut error| {
                    error.take_receipt();
                    error
                });
            }
            Health::Unclear => {}
        }
    }
}

impl Drop for Trial<'_> {
    fn drop(&mut self) {
        if !self.has_ended {
            let mut state = self.failover.state();
            let now = Instant::now();
            state.circuits.undecided(self.index, self.attempt, now);
        }
    }
}

/// The name of a server for people: its host, with the port where several servers have this host.
fn name(servers: &[FailoverServer], index: usize) -> String {
    let endpoint = servers[index].endpoint();
    let has_host = |server: &&FailoverServer| server.endpoint().host() == endpoint.host();
    match servers.iter().filter(has_host).count() {
        1 => endpoint.server_name(),
        _ => endpoint.destination().to_string(),
    }
}

/// What a result says about the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Health {
    Works,
    Fails,
    Unclear,
}

fn health(error: &Error) -> Health {
    match error.kind() {
        ErrorKind::Request | ErrorKind::Input | ErrorKind::Handover => Health::Unclear,
        // Waiting for a connection of a pool, for the message itself, or for its hand-over.
        ErrorKind::Timeout if matches!(error.phase(), Phase::Setup | Phase::Handover) => {
            Health::Unclear
        }
        ErrorKind::Unsupported => Health::Works,
        ErrorKind::Refused => {
            let is_of_sender = error.phase() == Phase::Mail && error.is_transient();
            match error.is_refusal_of_message() && !is_of_sender {
                true => Health::Works,
                false => Health::Fails,
            }
        }
        ErrorKind::Config
        | ErrorKind::Connect
        | ErrorKind::Closed
        | ErrorKind::Timeout
        | ErrorKind::Protocol
        | ErrorKind::Tls
        | ErrorKind::Insecure
        | ErrorKind::Auth
        | ErrorKind::PoolClosed => Health::Fails,
    }
}

/// Whether the server has taken nothing of the message, and another one may.
fn may_go_on(error: &Error, receipt: Option<&Receipt>) -> bool {
    let is_taken = |recipient: &Recipient| {
        matches!(recipient.outcome, Outcome::Accepted(_) | Outcome::Unknown)
    };
    let recipients = receipt.map_or(&[][..], |receipt| &receipt.recipients);
    if error.outcome_unknown() || recipients.iter().any(is_taken) {
        return false;
    }
    match error.kind() {
        ErrorKind::Request | ErrorKind::Input | ErrorKind::Handover => false,
        ErrorKind::Refused if error.is_refusal_of_message() => {
            error.is_transient() || recipients.iter().any(Recipient::is_transient)
        }
        _ => true,
    }
}

/// Whether another server may accept the message for a recipient.
fn may_succeed(recipient: &Recipient) -> bool {
    match recipient.outcome {
        Outcome::NotTried => true,
        // The session of a later server may have failed for good, which does not change it.
        Outcome::Refused(ref reply) => reply.is_transient() || recipient.is_transient(),
        Outcome::Accepted(_) | Outcome::Unknown => false,
    }
}

/// The error of all attempts. The last one decides where it is final.
fn combined(mut failures: Vec<(String, Error)>, is_final: bool, mut total: Attempts) -> Error {
    let last = failures.len() - 1;
    let first_transient = failures.iter().position(|(_, error)| error.is_transient());
    let decisive = match is_final {
        true => last,
        false => first_transient.unwrap_or(last),
    };
    let (server, mut error) = failures.remove(decisive);
    for recipient in &mut total.recipients {
        match &recipient.outcome {
            Outcome::NotTried => recipient.transient = error.is_transient(),
            Outcome::Refused(_) if !is_final => recipient.transient = may_succeed(recipient),
            _ => {}
        }
    }
    let receipt = error
        .take_receipt()
        .unwrap_or_else(|| Receipt::new(server.as_str()));
    if !failures.is_empty() {
        let others = failures
            .iter()
            .map(|(server, error)| format!("{server} failed ({})", error.message()))
            .collect::<Vec<_>>()
            .join(", ");
        error = error.context(format_args!("{others}, and {server}"));
    }
    error.with_receipt(total.into_receipt(receipt, None))
}
