//! One message to the servers of one domain.

use std::collections::HashMap;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use futures_util::future::BoxFuture;
use tokio::sync::OnceCell;
use tokio::time::{Instant, timeout_at};

use super::client::MxClient;
use super::events;
use super::lookup::{self, HostName, Hosts, NextHop};
use super::mta_sts::Discovery;
use super::policy::{self, HostPolicy, NoDane, Protection};
use super::problem::{MxProblem, problem, problem_of};
use super::receipt::{self, DomainResult, MxFailure, MxPolicy, Via, place, receipt_of};
use super::route::{self, Route, Server, Step};
use super::tls_report::{AppliedPolicy, ResultType, TlsEvent};
use crate::client::with_recipients;
use crate::connection::clock::Clock;
use crate::dns::DomainName;
use crate::error::{Error, ErrorKind, Phase, Result};
use crate::message::PreparedMessage;
use crate::receipt::{Attempts, Outcome, Receipt, Recipient};
use crate::telemetry::{self, Host};
use crate::{Address, Envelope, retry};

/// What was found about a host.
struct Found {
    addresses: Vec<IpAddr>,
    is_secure: bool,
    policy: HostPolicy,
}

/// What is noted on the way, beside the result.
#[derive(Default)]
struct Notes {
    vias: HashMap<Address, Via>,
    failures: Vec<MxFailure>,
}

/// What is known of the session that an event is about.
#[derive(Default)]
struct Session<'h> {
    host: Option<&'h DomainName>,
    address: Option<IpAddr>,
    local_address: Option<IpAddr>,
}

impl<'h> Session<'h> {
    fn with(host: &'h DomainName) -> Self {
        Session {
            host: Some(host),
            ..Session::default()
        }
    }
}

impl MxClient {
    /// Sends the message to the servers of its recipients' domain, and again after a transient
    /// failure if there are retries.
    pub(super) fn deliver<'a>(
        &'a self,
        domain: String,
        message: PreparedMessage,
        clock: &'a Clock,
        started: Instant,
    ) -> BoxFuture<'a, DomainResult> {
        Box::pin(async move {
            let host = Host::new(&domain);
            let recipients = message.envelope.recipients().to_vec();
            let notes = Mutex::new(Notes::default());
            let result = {
                let attempt = |message| self.attempt(&domain, message, clock, started, &notes);
                let sending = async {
                    match &self.config.retries {
                        None => attempt(message).await,
                        Some(retries) => {
                            let all_or_nothing = self.config.endpoint.get_all_or_nothing();
                            retry::send(retries, clock, all_or_nothing, message, attempt).await
                        }
                    }
                };
                telemetry::in_send(&host, pin!(sending)).await
            };
            let mut notes = notes.into_inner().unwrap_or_else(PoisonError::into_inner);
            DomainResult {
                domain,
                result: receipt::with_elapsed(result, started.elapsed()),
                failures: notes.failures,
                vias: recipients.iter().map(|to| notes.vias.remove(to)).collect(),
            }
        })
    }

    /// Tries the servers of the domain, each once, until the outcome for each recipient is decided.
    async fn attempt(
        &self,
        domain: &str,
        message: PreparedMessage,
        clock: &Clock,
        started: Instant,
        notes: &Mutex<Notes>,
    ) -> Result<Receipt> {
        let envelope = message.envelope.clone();
        let mut delivery = Delivery {
            client: self,
            domain,
            clock,
            started,
            notes,
            total: Attempts::new(envelope.recipients()),
            decided: vec![false; envelope.recipients().len()],
            failures: Vec::new(),
            accepted: None,
            discovery: OnceCell::new(),
            envelope,
        };
        if let Err(error) = delivery.walk(message).await {
            delivery.failed(None, None, error);
        }
        delivery.end()
    }
}

/// One round over the servers of a domain.
struct Delivery<'a> {
    client: &'a MxClient,
    domain: &'a str,
    clock: &'a Clock,
    started: Instant,
    notes: &'a Mutex<Notes>,
    envelope: Envelope,
    total: Attempts,
    /// For each recipient, whether an attempt has decided that it gets the message from no other
    /// server.
    decided: Vec<bool>,
    failures: Vec<Error>,
    /// The receipt of the last server that accepted the message for a recipient.
    accepted: Option<Receipt>,
    /// What was found out about the domain's policy of MTA-STS, once a host needs it.
    discovery: OnceCell<Discovery>,
}

impl Delivery<'_> {
    /// Finds the hosts, and tries one server after the other.
    ///
    /// # Errors
    ///
    /// The hosts cannot be found.
    async fn walk(&mut self, message: PreparedMessage) -> Result<()> {
        let config = &self.client.config;
        let hosts = self.in_time(self.find_hosts()).await?;
        let recipients = self.envelope.recipients().len();
        let number = hosts.names.len().min(config.max_hosts);
        let mut route = Route::new(number, recipients, config.max_addresses);
        let mut found: Vec<Option<Found>> = hosts.names.iter().map(|_| None).collect();
        let handovers = message.body.handovers().cloned();
        let mut message = Some(message);
        loop {
            let step = route.next();
            if step != Step::End
                && let Some(error) = self.past_deadline()
            {
                // What was not tried may still take the message.
                if !self.failures.iter().any(Error::is_transient) {
                    self.failed(None, None, error);
                }
                return Ok(());
            }
            let server = match step {
                Step::LookUp(host) => {
                    let name = &hosts.names[host];
                    match self.in_time(self.find_host(&hosts, name)).await {
                        Ok(addresses) => {
                            self.allowed(&mut route, host, name, &addresses);
                            found[host] = Some(addresses);
                        }
                        Err(error) => {
                            // The hosts after it may give the message back to this machine.
                            if problem_of(&error) == Some(MxProblem::OwnHost) {
                                route.stop_looking_up();
                            }
                            self.failed(Some(name), None, error);
                        }
                    }
                    continue;
                }
                Step::Try(server) => server,
                Step::End => return Ok(()),
            };
            let (name, Some(found)) = (&hosts.names[server.host], &found[server.host]) else {
                continue;
            };
            let Some(mut own) = message.take() else {
                return Ok(());
            };
            message = own.try_clone();
            own.envelope = self.envelope.only(route.open());
            let dnssec = hosts.is_secure && found.is_secure;
            let mut own = Some(own);
            let result = self.try_server(server, name, found, &mut own).await;
            self.report_session(&hosts, server, name, found, &result);
            // The attempt may not have come to the message.
            message = message.or(own);
            let via = self.via(server, name, found, dnssec, &result);
            self.learn(&mut route, name, server, via, result);
            // The program does not want the message to be sent.
            if handovers
                .as_ref()
                .is_some_and(|handovers| handovers.refusal().is_some())
            {
                route.stop();
            }
        }
    }

    /// The hosts of the domain.
    async fn find_hosts(&self) -> Result<Hosts> {
        let config = &self.client.config;
        let domain = match NextHop::of(&self.envelope.recipients()[0])? {
            NextHop::Domain(domain) => domain,
            NextHop::Literal(address) => {
                return Ok(Hosts {
                    names: vec![HostName::Literal(address)],
                    is_secure: false,
                    domain_names: Vec::new(),
                });
            }
        };
        let answer = config.resolver.mx(&domain).await;
        lookup::hosts(&domain, answer, &config.own_names, fastrand::u64(..))
    }

    /// The addresses of a host, and how the connections to it are protected.
    async fn find_host(&self, hosts: &Hosts, host: &HostName) -> Result<Found> {
        let config = &self.client.config;
        let host = match host {
            HostName::Name(name) => name,
            HostName::Literal(address) => {
                return Ok(Found {
                    addresses: vec![*address],
                    is_secure: false,
                    policy: HostPolicy::opportunistic("an address literal has no policy"),
                });
            }
        };
        let answer = config.resolver.addresses(host).await;
        let is_secure = answer.is_secure();
        let bases = policy::base_domains(hosts.is_secure, host, &answer);
        let addresses = lookup::addresses(host, answer, &config.own_names)?;
        Ok(Found {
            addresses: route::alternate(addresses.addresses, fastrand::u64(..)),
            is_secure,
            policy: self.find_policy(hosts, host, bases).await?,
        })
    }

    /// How the connections to a host are protected, whose TLSA records may be at these names.
    async fn find_policy(
        &self,
        hosts: &Hosts,
        host: &DomainName,
        bases: Result<Vec<DomainName>, String>,
    ) -> Result<HostPolicy> {
        let config = &self.client.config;
        let by_dane = self.find_dane(hosts, host, bases).await?;
        let Some(domain) = hosts.domain_names.first().filter(|_| config.mta_sts) else {
            return Ok(by_dane);
        };
        if by_dane.is_authenticated() {
            return Ok(by_dane);
        }
        let report = |applied, failure| {
            self.report(hosts, Session::with(host), applied, Err(failure));
        };
        let discovering = || self.discover(hosts, domain);
        let found = self.discovery.get_or_init(discovering).await;
        if let (Protection::Dane(_), true) = (&by_dane.protection, found.is_enforced()) {
            // The sessions are reported under the other policy.
            let failure = (ResultType::TlsaInvalid, by_dane.reason.clone());
            report(by_dane.as_applied(domain), failure);
        }
        by_dane
            .or_mta_sts(domain, host, found)
            .inspect_err(|error| {
                let failure = (ResultType::ValidationFailure, error.message().to_owned());
                report(found.as_applied(domain), failure);
            })
    }

    /// How the connections to a host are protected by TLSA records at one of these names, or that
    /// they are not.
    async fn find_dane(
        &self,
        hosts: &Hosts,
        host: &DomainName,
        bases: Result<Vec<DomainName>, String>,
    ) -> Result<HostPolicy> {
        let config = &self.client.config;
        if !config.dane {
            return Ok(HostPolicy::opportunistic("DANE is switched off"));
        }
        let port = config.endpoint.mx_port();
        match policy::find_dane(&config.resolver, hosts, host, bases, port).await {
            Ok(dane) => Ok(HostPolicy::dane(dane)),
            Err(NoDane::NotApplicable(reason)) => Ok(HostPolicy::opportunistic(reason)),
            Err(NoDane::LookupFailed { base, error }) => {
                let result = events::of_lookup(&error);
                let error = policy::unknown_dane(host, error);
                if let Some(result) = result {
                    let applied = AppliedPolicy::tlsa(base, []);
                    let failure = (result, error.message().to_owned());
                    self.report(hosts, Session::with(host), applied, Err(failure));
                }
                Err(error)
            }
        }
    }

    /// Finds the domain's policy of MTA-STS.
    async fn discover(&self, hosts: &Hosts, domain: &DomainName) -> Discovery {
        let config = &self.client.config;
        let mut resolver = config.resolver.clone();
        let mut fetcher = self.client.policy_fetcher().clone();
        if let Some((at, _)) = self.clock.deadline() {
            // Two lookups and a fetch that are not answered leave time for the message.
            let limit = at.saturating_duration_since(Instant::now()) / 4;
            resolver = resolver.within(limit);
            fetcher = fetcher.timeout(config.policy_timeout.min(limit));
        }
        let found = config.policies.find(domain, &resolver, &fetcher);
        let found = found.await;
        if let Some(problem) = &found.problem
            && let Some(result) = problem.result_type()
        {
            let failure = (result, problem.to_string());
            let applied = found.as_applied(domain);
            self.report(hosts, Session::default(), applied, Err(failure));
        }
        found
    }

    /// Reports the result of a session, if it came to TLS.
    fn report_session(
        &self,
        hosts: &Hosts,
        server: Server,
        name: &HostName,
        found: &Found,
        result: &Result<Receipt>,
    ) {
        let (HostName::Name(host), Some(domain)) = (name, hosts.domain_names.first()) else {
            return;
        };
        if self.client.config.on_tls_event.is_none() {
            return;
        }
        if let Some(outcome) = events::of_session(&found.policy, result) {
            let applied = found.policy.as_applied(domain);
            let session = Session {
                address: Some(server.address),
                local_address: receipt_of(result).and_then(|receipt| receipt.local_address),
                ..Session::with(host)
            };
            self.report(hosts, session, applied, outcome);
        }
    }

    /// Gives an event to the callback, if there is one.
    fn report(
        &self,
        hosts: &Hosts,
        session: Session<'_>,
        applied: AppliedPolicy,
        outcome: Result<(), events::Failure>,
    ) {
        let callback = self.client.config.on_tls_event.as_ref();
        let Some((callback, domain)) = callback.zip(hosts.domain_names.first()) else {
            return;
        };
        let mut event = TlsEvent::new(SystemTime::now(), domain.clone(), applied);
        event.mx_host = session.host.cloned();
        event.address = session.address;
        event.local_address = session.local_address;
        callback(&match outcome {
            Ok(()) => event,
            Err((result, reason)) => event.with_failure(result, reason),
        });
    }

    /// Gives the addresses that may be connected to to the route.
    fn allowed(&mut self, route: &mut Route, host: usize, name: &HostName, found: &Found) {
        let config = &self.client.config;
        let mut allowed = Vec::new();
        // A host may have thousands of addresses.
        let mut shown = config.max_addresses;
        for address in &found.addresses {
            match config.filter.refusal(*address) {
                None => allowed.push(*address),
                Some(why) if shown > 0 => {
                    shown -= 1;
                    let error = problem(MxProblem::AddressRefused, address, why);
                    self.failed(Some(name), Some(*address), error);
                }
                Some(_) => {}
            }
        }
        let (now, text) = (Instant::now(), name.to_string());
        let failures = self.client.failures();
        route.found(host, allowed, |address| {
            failures.is_avoided(&(text.clone(), address), now)
        });
    }

    async fn try_server(
        &self,
        server: Server,
        name: &HostName,
        found: &Found,
        message: &mut Option<PreparedMessage>,
    ) -> Result<Receipt> {
        let endpoint = self
            .client
            .config
            .endpoint
            .of_host(&name.of_endpoint(), server.address);
        let endpoint = found.policy.apply(endpoint);
        let timeouts = endpoint.get_timeouts().clone();
        let mut clock = Clock::start(&timeouts).within(self.clock);
        let recipients = message
            .as_ref()
            .map_or(0, |message| message.envelope.recipients().len());
        clock.allow_for(recipients, &timeouts);
        let has_proxy = endpoint.route.has_proxy();
        let pool = self.client.pool_of(endpoint)?;
        let result = pool.attempt(message, clock, self.started).await;
        result.map_err(|error| match error.phase() {
            // It says what is the proxy's fault, and what to do about it.
            Phase::Connect if has_proxy => error,
            _ => found.policy.judged(error),
        })
    }

    /// What the recipients of the attempt learn about the server; `None` if it was not reached.
    fn via(
        &self,
        server: Server,
        name: &HostName,
        found: &Found,
        dnssec: bool,
        result: &Result<Receipt>,
    ) -> Option<Via> {
        if let Err(error) = result
            && matches!(error.phase(), Phase::Setup | Phase::Connect)
        {
            return None;
        }
        let receipt = receipt_of(result);
        let tls = receipt.and_then(|receipt| receipt.tls.clone());
        let plaintext_reason = receipt.and_then(|receipt| receipt.plaintext_reason.clone());
        let policy = match found.policy.name() {
            MxPolicy::Opportunistic if plaintext_reason.is_some() => MxPolicy::None,
            policy => policy,
        };
        Some(Via {
            host: name.to_string(),
            address: server.address,
            policy,
            policy_reason: found.policy.reason.clone(),
            tls,
            plaintext_reason,
            dnssec,
        })
    }

    /// Notes the result of an attempt, and tells the route.
    fn learn(
        &mut self,
        route: &mut Route,
        name: &HostName,
        server: Server,
        via: Option<Via>,
        result: Result<Receipt>,
    ) {
        let open = route.open().to_vec();
        let judgement = route::judge(&result, open.len());
        let key = (name.to_string(), server.address);
        match judgement.has_failed {
            true => {
                let pause = self.client.config.avoid_failed;
                self.client.failures().failed(key, Instant::now(), pause);
            }
            false => self.client.failures().works(&key),
        }
        if let Some(via) = via {
            let mut notes = self.notes();
            for index in &open {
                let address = self.envelope.recipients()[*index].clone();
                notes.vias.insert(address, via.clone());
            }
        }
        for (index, remains) in open.iter().zip(&judgement.remaining) {
            self.decided[*index] |= !remains;
        }
        let was_decided = judgement.remaining.iter().any(|remains| !remains);
        route.tried(judgement.remaining);
        match result {
            Ok(receipt) => {
                self.total.add(&open, &receipt);
                self.accepted = Some(receipt);
            }
            Err(error) => {
                // To all or none, and not to one of them.
                if was_decided && self.client.config.endpoint.get_all_or_nothing() {
                    route.stop();
                }
                if let Some(receipt) = error.receipt() {
                    self.total.add(&open, receipt);
                }
                self.failed(Some(name), Some(server.address), error);
            }
        }
    }

    /// The error of the servers that are not tried, as the deadline has passed.
    fn past_deadline(&self) -> Option<Error> {
        let (_, length) = self.clock.deadline()?;
        let message = format!(
            "not all servers of {} were tried before the deadline of {length:?}",
            self.domain
        );
        let error = || {
            Error::new(ErrorKind::Timeout, Phase::Connect, message)
                .with_hint("Try again later, or allow more time (Timeouts::deadline).")
        };
        (!self.clock.has_time_for(Duration::ZERO)).then(error)
    }

    /// Notes a failure.
    fn failed(&mut self, host: Option<&HostName>, address: Option<IpAddr>, error: Error) {
        let mut plain = error.clone();
        plain.take_receipt();
        let host = host.map(ToString::to_string);
        self.notes().failures.push(MxFailure {
            host: host.clone(),
            address,
            error: plain,
        });
        self.failures.push(match (host, address) {
            (Some(host), Some(address)) => error.context(place(&host, address)),
            // A lookup, which names the host.
            (Some(host), None) if host != self.domain => error.context(self.domain),
            _ => error,
        });
    }

    /// The result: an unknown outcome, else a receipt if a recipient was accepted, else the failure
    /// that decides.
    fn end(mut self) -> Result<Receipt> {
        let any_transient = self.failures.iter().any(Error::is_transient);
        let decides = |error: &&Error| error.is_transient() == any_transient;
        let of_all = self.failures.iter().find(decides);
        let last = self.failures.last();
        for (recipient, was_decided) in self.total.recipients.iter_mut().zip(&self.decided) {
            match &recipient.outcome {
                Outcome::NotTried => {
                    let reason = if *was_decided { last } else { of_all };
                    let hint = reason.and_then(Error::hint);
                    recipient.transient = reason.is_some_and(Error::is_transient);
                    recipient.hint = hint.map(|hint| hint.to_owned().into());
                }
                // By a server before the last one, whose session failed for good.
                Outcome::Refused(_) if !was_decided => recipient.transient = true,
                _ => {}
            }
        }
        let unknown = self.failures.iter().position(Error::outcome_unknown);
        if let (None, Some(receipt)) = (unknown, self.accepted.take()) {
            let untried = |recipient: &Recipient| recipient.outcome == Outcome::NotTried;
            let reason = match self.total.recipients.iter().any(untried) {
                true if !self.failures.is_empty() => Some(receipt::events(&self.failures)),
                true => receipt.incomplete_reason.clone(),
                false => None,
            };
            return Ok(self.total.into_receipt(receipt, reason));
        }
        Err(self.combined(unknown))
    }

    /// The error of all servers: the one whose outcome is unknown, else a refusal of the message,
    /// else a policy that was not met, else the first transient failure, else the last one.
    fn combined(mut self, unknown: Option<usize>) -> Error {
        let last = self.failures.len().saturating_sub(1);
        let is_refusal = |error: &Error| {
            error.phase().is_of_message() && error.is_permanent() && error.reply().is_some()
        };
        let is_of_policy = |error: &Error| error.kind() == ErrorKind::Tls && error.is_transient();
        let position = |is: &dyn Fn(&Error) -> bool| self.failures.iter().position(is);
        let final_refusal = self.failures.last().filter(|last| is_refusal(last));
        let decisive = unknown
            .or(final_refusal.map(|_| last))
            .or_else(|| position(&is_of_policy))
            .or_else(|| position(&Error::is_transient))
            .unwrap_or(last);
        if self.failures.is_empty() {
            // All bounds may be 0.
            let error = Error::request(format!("no server of {} may be tried", self.domain))
                .with_hint("Allow hosts and addresses (MxClient::max_hosts, max_addresses).");
            return with_recipients(
                error,
                &self.client.config.endpoint,
                &self.envelope,
                self.started,
            );
        }
        let message = match &self.failures[..] {
            [only] => only.message().to_owned(),
            all => receipt::events(all),
        };
        let mut error = self.failures.swap_remove(decisive).with_message(message);
        let receipt = error
            .take_receipt()
            .unwrap_or_else(|| Receipt::new(self.domain));
        error.with_receipt(self.total.into_receipt(receipt, None))
    }

    /// Waits for lookups until the deadline of the call.
    async fn in_time<T>(&self, looking: impl Future<Output = Result<T>>) -> Result<T> {
        let Some((at, length)) = self.clock.deadline() else {
            return looking.await;
        };
        timeout_at(at, looking).await.unwrap_or_else(|_| {
            let servers = self.client.config.resolver.get_servers();
            let servers: Vec<String> = servers.iter().map(ToString::to_string).collect();
            let message = format!(
                "the lookups for {} did not end before the deadline of {length:?}, by the \
                    resolver {}",
                self.domain,
                servers.join(", ")
            );
            Err(Error::new(ErrorKind::Timeout, Phase::Connect, message)
                .with_hint("Check the resolver, or allow more time (Timeouts::deadline)."))
        })
    }

    fn notes(&self) -> MutexGuard<'_, Notes> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
