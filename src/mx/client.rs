//! [`MxClient`]: its settings, and the connections and failures that its calls share.

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use futures_util::future::{BoxFuture, join_all};
use futures_util::stream::{self, StreamExt as _};
use tokio::time::Instant;

use super::filter::AddressFilter;
use super::mta_sts::{PolicyCache, PolicyFetcher};
use super::receipt::MxReceipt;
use super::route::Failures;
use super::tls_report::TlsEvent;
#[cfg(feature = "rate-limit")]
use crate::RateLimiter;
use crate::connection::clock::Clock;
use crate::connection::prepare_by;
use crate::dns::{DomainName, Resolver};
use crate::error::{Error, Result};
use crate::mailer::{Mailer, SendFuture};
use crate::message::{Message, PreparedMessage};
use crate::pool::was_closed;
use crate::tls::dane::Dane;
use crate::tls::{Security, Trust};
use crate::{Address, Client, Endpoint, Pool, PoolConfig, RetryPolicy, Timeouts};

/// The number of servers whose connections are kept. Those of further servers are closed after each
/// message.
const MAX_POOLS: usize = 1000;
/// How often the connections to all servers are looked at, to close those that have expired.
const SWEEP: Duration = Duration::from_secs(5);

/// Sends messages to the servers of each recipient's domain, without a relay.
///
/// Cheap to clone; clones share the connections, which are kept open for a while, and remember
/// which servers failed. A clone with other settings starts anew.
///
/// # Which servers
///
/// The hosts of a domain are those of its MX records (RFC 5321, 5.1), in the order of their
/// preference, those of equal preference in a random one. A domain without MX records is its own
/// host. All IPv6 and IPv4 addresses of a host are tried, up to a
/// [bound](Self::max_addresses) for the domain. A server that failed within the last minute
/// ([`avoid_failed`](Self::avoid_failed)) is tried after all others. A recipient with an address
/// literal (`user@[192.0.2.1]`) has that one server.
///
/// All recipients of a domain get the message in one transaction; the domains are served side by
/// side.
///
/// # When a message goes to the next server
///
/// | What happened | The next server |
/// |---|---|
/// | no connection, it was lost, a time-out, a protocol violation | yes |
/// | TLS is required and failed | yes |
/// | the server refused the session, with 4xx or 5xx, or sent 421 | yes |
/// | the sender, all recipients or the message were refused with 4xx | yes |
/// | some recipients were refused with 4xx, others accepted | for those refused |
/// | the server lacks an extension that the message needs, or it is too large | yes |
/// | the sender, a recipient or the message was refused with 5xx | no |
/// | the outcome is [unknown](Error::outcome_unknown) | no |
///
/// A message is never sent to a server after another one may have accepted it for the same
/// recipient. If no server is left, the failure is transient if that of any server was.
///
/// A message that contains a stream can be read only once: it can go to the recipients of one
/// domain, and to no further server once its transaction has started.
///
/// # Protection
///
/// - DANE (RFC 7672): where DNSSEC proves the MX records of the domain, the addresses of a host and
///   its TLSA records, TLS is required, and the certificate must match the records. With records
///   that are all unusable, TLS is required, and not verified by them. A host whose TLSA records
///   cannot be had, or that does not meet them, is left out; if no other is left, the failure is
///   transient.
/// - MTA-STS (RFC 8461): where no TLSA record is usable, and the domain has a policy that is
///   enforced, hosts that it does not list are left out, and of others TLS with a trusted
///   certificate is required. If no host is left, the failure is transient. Policies are fetched by
///   HTTPS and [kept](Self::policy_cache) for the time that they name. A policy in testing changes
///   nothing, but is [reported](Self::on_tls_event).
/// - Otherwise TLS is used where a server offers it, and is not verified: its name is not proven,
///   either. Where it fails, the message goes in plaintext, by one more connection to the same
///   address.
///
/// [`Via`](super::Via) says what was used, and why.
///
/// ```no_run
/// use envoi::mail_builder::MessageBuilder;
/// use envoi::mx::{MxClient, Resolver};
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// // The name should be that of this machine's address in the DNS, in both directions.
/// let client = MxClient::new(Resolver::system()?)
///     .client_name("mail.example.org")
///     .public_only(true);
/// let mail = MessageBuilder::new()
///     .from("alice@example.org")
///     .to(vec!["bob@example.com", "carol@example.net"])
///     .subject("Hello")
///     .text_body("Hello, both of you.");
/// let receipt = client.send(mail).await?;
/// for to in receipt.recipients() {
///     println!("{}: {:?}", to.recipient.address, to.recipient.outcome);
///     if let Some(via) = to.via {
///         println!("  by {via}");
///     }
/// }
/// client.close().await;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
#[must_use = "a method returns the changed value"]
pub struct MxClient {
    pub(super) config: Arc<Config>,
    state: Arc<State>,
}

type TlsEventCallback = Arc<dyn Fn(&TlsEvent) + Send + Sync>;

/// The settings.
#[derive(Clone)]
pub(super) struct Config {
    pub(super) resolver: Resolver,
    /// The settings of each connection, without a host.
    pub(super) endpoint: Endpoint,
    pub(super) own_names: Vec<DomainName>,
    pub(super) filter: AddressFilter,
    pub(super) max_hosts: usize,
    pub(super) max_addresses: usize,
    pub(super) avoid_failed: Duration,
    pub(super) dane: bool,
    pub(super) mta_sts: bool,
    pub(super) policies: PolicyCache,
    pub(super) policy_timeout: Duration,
    pub(super) on_tls_event: Option<TlsEventCallback>,
    concurrency: usize,
    pool: PoolConfig,
    pub(super) retries: Option<RetryPolicy>,
    #[cfg(feature = "rate-limit")]
    rate_limiter: Option<RateLimiter>,
}

#[derive(Default)]
struct State {
    pools: Mutex<Pools>,
    failures: Mutex<Failures<(String, IpAddr)>>,
    policy_fetcher: OnceLock<PolicyFetcher>,
}

/// The pools of connections, one for each server and way to protect it.
#[derive(Default)]
struct Pools {
    by_server: HashMap<PoolKey, Pool>,
    swept: Option<Instant>,
    is_closed: bool,
}

#[derive(PartialEq, Eq, Hash)]
struct PoolKey {
    host: String,
    address: Option<SocketAddr>,
    security: Security,
    dane: Option<Dane>,
}

impl MxClient {
    /// Creates a client that asks this resolver.
    pub fn new(resolver: Resolver) -> Self {
        let mut pool = PoolConfig::new(4);
        pool.idle_timeout = Duration::from_secs(10);
        MxClient {
            config: Arc::new(Config {
                resolver,
                endpoint: Endpoint::new(""),
                own_names: Vec::new(),
                filter: AddressFilter::default(),
                max_hosts: 20,
                max_addresses: 10,
                avoid_failed: Duration::from_secs(60),
                dane: true,
                mta_sts: true,
                policies: PolicyCache::new(),
                policy_timeout: Duration::from_secs(60),
                on_tls_event: None,
                concurrency: 20,
                pool,
                retries: None,
                #[cfg(feature = "rate-limit")]
                rate_limiter: None,
            }),
            state: Arc::default(),
        }
    }

    /// Changes a setting. What other clones share was made with the old settings.
    fn set(mut self, change: impl FnOnce(&mut Config)) -> Self {
        change(Arc::make_mut(&mut self.config));
        self.state = Arc::default();
        self
    }

    /// Sets the client name for EHLO. Servers expect the name of this machine's public address, in
    /// the DNS in both directions; the default is the local address, in brackets, which many
    /// refuse.
    pub fn client_name(self, name: impl Into<String>) -> Self {
        self.endpoint(|endpoint| endpoint.client_name(name))
    }

    /// Sets the names of this machine in MX records. Such a host, and all that are not preferred to
    /// it, are left out, so that a backup server does not send to itself; if none is left, the
    /// failure is permanent.
    pub fn own_names(self, names: impl IntoIterator<Item = DomainName>) -> Self {
        self.set(|config| config.own_names = names.into_iter().collect())
    }

    /// Sets whether only addresses [of the public Internet](super::is_public) may be connected to;
    /// by default, all may. Recipients are often user input, and MX records may name any address:
    /// `10.0.0.5`, or one of this machine. A refused address is among the
    /// [failures](super::DomainResult::failures); of one host, as many as may be
    /// [tried](Self::max_addresses).
    pub fn public_only(self, yes: bool) -> Self {
        self.set(|config| config.filter.public_only = yes)
    }

    /// Sets which addresses may be connected to, in addition to
    /// [`public_only`](Self::public_only).
    ///
    /// ```
    /// # use envoi::mx::{MxClient, Resolver};
    /// # fn example(resolver: Resolver) {
    /// // Of a machine without IPv6:
    /// let client = MxClient::new(resolver).address_filter(|address| address.is_ipv4());
    /// # }
    /// ```
    pub fn address_filter(self, allow: impl Fn(IpAddr) -> bool + Send + Sync + 'static) -> Self {
        self.set(|config| config.filter.allow = Some(Arc::new(allow)))
    }

    /// Sets how many hosts of a domain are looked up at most; 20 by default.
    pub fn max_hosts(self, number: usize) -> Self {
        self.set(|config| config.max_hosts = number)
    }

    /// Sets how many addresses are tried at most for a domain; 10 by default.
    pub fn max_addresses(self, number: usize) -> Self {
        self.set(|config| config.max_addresses = number)
    }

    /// Sets how many domains of a message are served at once; 20 by default, at least 1.
    pub fn concurrency(self, domains: usize) -> Self {
        self.set(|config| config.concurrency = domains.max(1))
    }

    /// Sets for how long a server that failed is tried only after all others; 1 minute by default.
    pub fn avoid_failed(self, time: Duration) -> Self {
        self.set(|config| config.avoid_failed = time)
    }

    /// Sets whether servers are verified by their TLSA records (DANE, RFC 7672), as they are by
    /// default.
    pub fn dane(self, yes: bool) -> Self {
        self.set(|config| config.dane = yes)
    }

    /// Sets whether the policies of MTA-STS (RFC 8461) are looked up and applied to servers without
    /// usable TLSA records, as they are by default.
    pub fn mta_sts(self, yes: bool) -> Self {
        self.set(|config| config.mta_sts = yes)
    }

    /// Sets where policies of MTA-STS are kept. By default, they are kept in memory, by this client
    /// and its clones; keep them in a [folder](PolicyCache::in_folder), so that they protect the
    /// next process as well.
    pub fn policy_cache(self, policies: PolicyCache) -> Self {
        self.set(|config| config.policies = policies)
    }

    /// Sets the maximum time to fetch a policy of MTA-STS; 60 seconds by default, which is also the
    /// maximum. With a [deadline](Timeouts::deadline), at most a quarter of the time that is left,
    /// and as much for each of the two lookups before.
    pub fn policy_timeout(self, time: Duration) -> Self {
        self.set(|config| config.policy_timeout = time)
    }

    /// Sets a function that is called with the result of each session, for
    /// [TLS reports](super::tls_report): after each message, also where several use one
    /// connection, and where a policy cannot be had. Sessions that did not come to TLS are left
    /// out. It is called while a message is sent, and must not block.
    ///
    /// ```
    /// use std::sync::{Arc, Mutex};
    /// use envoi::mx::{MxClient, Resolver, tls_report::TlsReports};
    ///
    /// # fn example(resolver: Resolver) {
    /// let reports = TlsReports::new("Example Inc.", "postmaster@example.org");
    /// let reports = Arc::new(Mutex::new(reports));
    /// let sum = reports.clone();
    /// let client = MxClient::new(resolver)
    ///     .on_tls_event(move |event| sum.lock().unwrap().add(event));
    /// # }
    /// ```
    pub fn on_tls_event(self, callback: impl Fn(&TlsEvent) + Send + Sync + 'static) -> Self {
        self.set(|config| config.on_tls_event = Some(Arc::new(callback)))
    }

    /// Sets the limits of the connections to each server, see [`PoolConfig`]. By default, 4 at a
    /// time, each of which is kept for 10 seconds after a message.
    pub fn pool(self, limits: impl Into<PoolConfig>) -> Self {
        self.set(|config| config.pool = limits.into())
    }

    /// Sets the time-outs, which hold for each server that is tried. The
    /// [deadline](Timeouts::deadline) is that of the whole call, with all lookups and servers.
    pub fn timeouts(self, timeouts: Timeouts) -> Self {
        self.endpoint(|endpoint| endpoint.timeouts(timeouts))
    }

    /// Sets the trust anchors for servers whose certificate must be trusted, those of policies of
    /// MTA-STS among them; the system's by default. Unless [MTA-STS](Self::mta_sts) is switched
    /// off, there must be some, or nothing is sent.
    pub fn trust(self, trust: Trust) -> Self {
        self.endpoint(|endpoint| endpoint.trust(trust))
    }

    /// Sets the port of the servers, for tests; 25 by default.
    pub fn port(self, port: u16) -> Self {
        self.endpoint(|endpoint| endpoint.port(port))
    }

    /// Changes the settings of all connections: local address, proxy, socket options, limits,
    /// versions of TLS … Host, security, server name, TLSA records and login are those of each
    /// server, and have no effect here. Policies of MTA-STS are fetched by connections with the
    /// same local address, proxy and socket options; the DNS is asked without the proxy.
    ///
    /// ```
    /// # use envoi::mx::{MxClient, Resolver};
    /// # fn example(resolver: Resolver) {
    /// let from: std::net::IpAddr = "192.0.2.25".parse().unwrap();
    /// let client = MxClient::new(resolver).endpoint(|endpoint| endpoint.bind(from));
    /// # }
    /// ```
    pub fn endpoint(self, change: impl FnOnce(Endpoint) -> Endpoint) -> Self {
        self.set(|config| {
            let endpoint = change(config.endpoint.clone());
            let mut tls = endpoint.get_tls().clone();
            config.endpoint = match (tls.server_name.take(), tls.dane.take()) {
                (None, None) => endpoint,
                _ => endpoint.tls(tls),
            };
        })
    }

    /// Sets when and how often the message is retried for the recipients of a domain after a
    /// transient failure of all its servers; by default, it is not.
    pub fn retries(self, retries: RetryPolicy) -> Self {
        self.set(|config| config.retries = Some(retries))
    }

    /// Limits how many messages start in a given time, those to all servers together and those to
    /// each domain; see [`Client::rate_limit`].
    #[cfg(feature = "rate-limit")]
    pub fn rate_limit(self, limiter: impl Into<RateLimiter>) -> Self {
        self.set(|config| config.rate_limiter = Some(limiter.into()))
    }

    /// The resolver.
    pub fn get_resolver(&self) -> &Resolver {
        &self.config.resolver
    }

    /// The settings of all connections.
    pub fn get_endpoint(&self) -> &Endpoint {
        &self.config.endpoint
    }

    /// Sends a message to the servers of each recipient's domain.
    ///
    /// # Errors
    ///
    /// Nothing was sent: the message cannot be read or is not valid, or it contains a stream
    /// and has recipients of several domains, or is to go to all recipients or none and has several
    /// domains. With [MTA-STS](Self::mta_sts), no certificate is trusted
    /// ([`ErrorKind::Config`](crate::ErrorKind::Config)). Or the deadline passed before all of that
    /// was known ([`ErrorKind::Timeout`](crate::ErrorKind::Timeout)). All failures of domains and
    /// servers are in the [`MxReceipt`].
    ///
    /// # Cancel safety
    ///
    /// Dropped before its end, it closes the connections in use, and no further server is tried.
    /// The message was not sent to a recipient, unless all of it had been written to a server: then
    /// it may have been delivered. A [hand-over callback](Message::on_handover) tells.
    pub async fn send(&self, message: impl Into<Message<'_>>) -> Result<MxReceipt> {
        self.send_boxed(message.into()).await
    }

    /// Boxed for the reasons of `Client::send_boxed`.
    fn send_boxed<'a>(&'a self, message: Message<'a>) -> BoxFuture<'a, Result<MxReceipt>> {
        Box::pin(self.prepare_and_send(message))
    }

    async fn prepare_and_send(&self, message: Message<'_>) -> Result<MxReceipt> {
        let started = Instant::now();
        let config = &self.config;
        let limits = Timeouts {
            total_wait: None,
            deadline: config.endpoint.get_timeouts().deadline,
            ..Timeouts::default()
        };
        let clock = &Clock::start(&limits);
        config
            .endpoint
            .of_host("localhost", Ipv4Addr::LOCALHOST.into())
            .check()?;
        if config.mta_sts {
            // Without trust anchors, a policy would be as good as none, and not protect.
            let loading = self.policy_fetcher().load_trust(clock).await;
            loading.map_err(|error| error.context("MTA-STS cannot be applied"))?;
        }
        let message = prepare_by(clock, message).await?;
        let groups = groups(message.envelope.recipients());
        if groups.len() > 1 {
            config.check_several(&message)?;
        }
        let mut places = vec![(0, 0); message.envelope.recipients().len()];
        for (domain, group) in groups.iter().enumerate() {
            for (place, index) in group.recipients.iter().enumerate() {
                places[*index] = (domain, place);
            }
        }
        let envelope = message.envelope.clone();
        let (last, mut message) = (groups.len() - 1, Some(message));
        // Each copy is made when its turn comes.
        let sending = groups.into_iter().enumerate().map(|(place, group)| {
            let own = match place == last {
                true => message.take(),
                false => message.as_ref().and_then(PreparedMessage::try_clone),
            };
            let mut own = own.expect("it was checked that the message can be cloned");
            own.envelope = envelope.only(&group.recipients);
            let delivering = self.deliver(group.domain, own, clock, started);
            async move { (place, delivering.await) }
        });
        let mut domains: Vec<_> = stream::iter(sending)
            .buffer_unordered(config.concurrency)
            .collect()
            .await;
        domains.sort_by_key(|(place, _)| *place);
        Ok(MxReceipt {
            domains: domains.into_iter().map(|(_, result)| result).collect(),
            elapsed: started.elapsed(),
            places,
        })
    }

    /// The pool of connections with these settings.
    pub(super) fn pool_of(&self, endpoint: Endpoint) -> Result<Pool> {
        let key = PoolKey {
            host: endpoint.host().to_owned(),
            address: endpoint.destination().address(),
            security: endpoint.get_security(),
            dane: endpoint.get_tls().get_dane().cloned(),
        };
        let mut pools = self.pools();
        if pools.is_closed {
            return Err(was_closed());
        }
        pools.sweep(Instant::now());
        if let Some(pool) = pools.by_server.get(&key) {
            return Ok(pool.clone());
        }
        let client = Client::new(endpoint);
        #[cfg(feature = "rate-limit")]
        let client = match &self.config.rate_limiter {
            Some(limiter) => client.rate_limit(limiter.clone()),
            None => client,
        };
        let pool = client.pool(self.config.pool.clone());
        if pools.by_server.len() < MAX_POOLS {
            pools.by_server.insert(key, pool.clone());
        }
        Ok(pool)
    }

    fn pools(&self) -> MutexGuard<'_, Pools> {
        // Nothing panics while the lock is held.
        self.state
            .pools
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Gets policies with the settings of this client.
    pub(super) fn policy_fetcher(&self) -> &PolicyFetcher {
        self.state.policy_fetcher.get_or_init(|| {
            let filter = self.config.filter.clone();
            PolicyFetcher::of_endpoint(&self.config.endpoint)
                .timeout(self.config.policy_timeout)
                .address_filter(move |address| filter.refusal(address).is_none())
        })
    }

    /// The servers that failed lately, by host and address.
    pub(super) fn failures(&self) -> MutexGuard<'_, Failures<(String, IpAddr)>> {
        self.state
            .failures
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Closes the connections, as [`Pool::close`] does, and refuses further messages
    /// ([`ErrorKind::PoolClosed`](crate::ErrorKind::PoolClosed)), for all clones. Returns the
    /// number of calls that had not finished in time.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the client stays closed.
    pub async fn close(&self) -> usize {
        let pools = {
            let mut pools = self.pools();
            pools.is_closed = true;
            std::mem::take(&mut pools.by_server)
        };
        let left = join_all(pools.values().map(Pool::close)).await;
        left.into_iter().sum()
    }
}

impl Config {
    /// Refuses what cannot be done for several domains.
    fn check_several(&self, message: &PreparedMessage) -> Result<()> {
        if self.endpoint.get_all_or_nothing() {
            return Err(Error::request(
                "the message is to go to all recipients or none, and they are of several domains",
            )
            .with_hint("Send a message for each domain, or allow partial delivery."));
        }
        if !message.can_clone() {
            return Err(Error::request(
                "the message contains a stream, which can be read only once, and its recipients \
                    are of several domains",
            )
            .with_hint(
                "Give the content as a file or in memory (Attachment::file, Message::raw_file), or \
                    send a message for each domain.",
            ));
        }
        Ok(())
    }
}

/// The recipients of one domain.
struct Group {
    /// In one spelling.
    domain: String,
    /// Their indices in the envelope.
    recipients: Vec<usize>,
}

/// Groups the recipients by domain, in the order of the first of each.
fn groups(recipients: &[Address]) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    let mut known: HashMap<String, usize> = HashMap::new();
    for (index, recipient) in recipients.iter().enumerate() {
        let domain = recipient.domain_key();
        let place = *known.entry(domain.clone()).or_insert_with(|| {
            groups.push(Group {
                domain,
                recipients: Vec::new(),
            });
            groups.len() - 1
        });
        groups[place].recipients.push(index);
    }
    groups
}

impl Pools {
    /// Forgets the pools without connections, once in a while.
    fn sweep(&mut self, now: Instant) {
        if self
            .swept
            .is_none_or(|swept| now.duration_since(swept) >= SWEEP)
        {
            self.by_server.retain(|_, pool| !pool.is_unused());
            self.swept = Some(now);
        }
    }
}

impl Mailer for MxClient {
    fn send<'a>(&'a self, message: Message<'a>) -> SendFuture<'a> {
        Box::pin(async move { MxClient::send(self, message).await?.into_result() })
    }
}

impl fmt::Debug for MxClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MxClient")
            .field("own_names", &self.config.own_names)
            .field("filter", &self.config.filter)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;
    use crate::{Credentials, Envelope, ErrorKind};

    #[test]
    fn each_server_has_its_own_name_and_no_login() {
        let resolver = Resolver::new(([127, 0, 0, 1], 53).into());
        let tls = crate::tls::TlsSettings::default().server_name("other.example");
        let client = MxClient::new(resolver).endpoint(|endpoint| {
            let credentials = Credentials::new("user", "password");
            endpoint
                .tls(tls)
                .credentials(credentials)
                .security(Security::Implicit)
        });
        let server = client
            .get_endpoint()
            .of_host("mx.example.org", Ipv4Addr::LOCALHOST.into());
        assert_eq!(server.get_tls().get_server_name(), None);
        assert!(!server.login.is_given());
        assert_eq!((server.host(), server.get_port()), ("mx.example.org", 25));
        let at = SocketAddr::from(([127, 0, 0, 1], 25));
        assert_eq!(server.destination().address(), Some(at));
    }

    /// A policy could not be fetched, and mail for a domain that demands TLS would go without.
    #[tokio::test]
    async fn nothing_is_sent_without_trust_anchors_for_mta_sts() {
        let resolver = Resolver::new(([127, 0, 0, 1], 1).into()).timeout(Duration::from_millis(50));
        let client = MxClient::new(resolver);
        let send = async |client: &MxClient| {
            let message = Message::raw("Subject: Hello\r\n\r\nHello.\r\n");
            let envelope = Envelope::new("me@example.org", ["you@example.org"]).unwrap();
            client.send(message.envelope(envelope)).await
        };
        for (trust, words) in [
            (Trust::empty(), "no trusted certificate"),
            (
                Trust::empty().file("/nonexistent/ca.pem"),
                "/nonexistent/ca.pem",
            ),
        ] {
            let client = client.clone().trust(trust);
            let error = send(&client).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config);
            assert_eq!(error.exit_code(), 78);
            let message = error.message();
            assert!(
                message.starts_with("MTA-STS cannot be applied: "),
                "{error}"
            );
            assert!(message.contains(words) && error.hint().is_some(), "{error}");
            if words.starts_with("no") {
                // Without MTA-STS, no certificate has to be trusted.
                let receipt = send(&client.mta_sts(false)).await.unwrap();
                let error = receipt.into_result().unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Connect, "{error}");
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_not_tried_before_the_deadline_may_be_sent_later() {
        let timeouts = Timeouts::default().with_deadline(Duration::from_secs(1));
        let client = MxClient::new(Resolver::new(([127, 0, 0, 1], 1).into()))
            .mta_sts(false)
            .timeouts(timeouts)
            .address_filter(|_| {
                // The first poll moves the clock.
                _ = tokio::time::advance(Duration::from_secs(2)).now_or_never();
                true
            });
        let message = Message::raw("Subject: Hello\r\n\r\nHello.\r\n");
        let envelope = Envelope::new("me@example.org", ["you@[127.0.0.1]"]).unwrap();
        let receipt = client.send(message.envelope(envelope)).await.unwrap();
        assert!(receipt.recipients().all(|to| to.recipient.is_transient()));
        let error = receipt.domains[0].result.as_ref().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
        assert!(error.is_transient() && error.hint().is_some(), "{error}");
        assert!(error.message().contains("[127.0.0.1]"), "{error}");
        assert_eq!(error.receipt().unwrap().elapsed, Duration::from_secs(2));
    }

    /// Otherwise, other messages would have as many connections again.
    #[tokio::test(start_paused = true)]
    async fn connections_are_shared_with_a_message_that_waits_for_its_turn() {
        let client = MxClient::new(Resolver::new(([127, 0, 0, 1], 1).into()));
        let pool_of = |host: &str| {
            let endpoint = client.get_endpoint();
            let endpoint = endpoint.of_host(host, Ipv4Addr::LOCALHOST.into());
            client.pool_of(endpoint).unwrap()
        };
        let hosts = || {
            let pools = client.pools();
            let mut hosts: Vec<_> = pools.by_server.keys().map(|key| key.host.clone()).collect();
            hosts.sort();
            hosts
        };
        let waiting = pool_of("a.test");
        tokio::time::advance(SWEEP).await;
        drop(pool_of("b.test"));
        assert_eq!(hosts(), ["a.test", "b.test"]);
        drop(waiting);
        tokio::time::advance(SWEEP).await;
        drop(pool_of("c.test"));
        assert_eq!(hosts(), ["c.test"]);
    }

    #[cfg(feature = "proxy")]
    #[tokio::test]
    async fn the_advice_about_a_proxy_is_not_about_the_server() {
        let resolver = Resolver::new(([127, 0, 0, 1], 1).into());
        let proxy = crate::Proxy::from_url("socks5://127.0.0.1:1").unwrap();
        let client = MxClient::new(resolver).mta_sts(false);
        let client = client.endpoint(|endpoint| endpoint.proxy(proxy));
        let envelope = Envelope::new("me@example.org", ["you@[127.0.0.1]"]).unwrap();
        let message = Message::raw("Subject: Hello\r\n\r\nHello.\r\n").envelope(envelope);
        let error = client.send(message).await.unwrap().into_result();
        let error = error.unwrap_err();
        assert!(error.is_transient(), "{error}");
        assert!(
            error.hint().unwrap().contains("the proxy's host"),
            "{error}"
        );
    }

    #[test]
    fn recipients_are_grouped_by_domain_in_any_spelling() {
        let addresses = [
            "a@example.org",
            "b@example.net",
            "c@EXAMPLE.org",
            "d@[192.0.2.1]",
        ];
        let groups = groups(&addresses.map(|address| address.parse().unwrap()));
        let found: Vec<_> = groups
            .iter()
            .map(|group| (group.domain.as_str(), group.recipients.as_slice()))
            .collect();
        assert_eq!(
            found,
            [
                ("example.org", &[0, 2][..]),
                ("example.net", &[1]),
                ("[192.0.2.1]", &[3]),
            ]
        );
    }
}
