//! What a domain publishes for those who send it mail, and whether its servers meet it.
//!
//! - [`Inspector`] looks it up, and connects to the servers as a client that delivers mail does.
//! - `records.rs`: which text is the record that is meant, and whether it is valid
//! - `judge.rs`: what must change, and what could be better
//! - `report.rs`: the results, and their text
//!
//! Nothing but the [`Inspector`] does I/O.

mod judge;
mod records;
mod report;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{join_all, join3, join4};

use crate::connection::clock::Clock;
use crate::connection::open;
use crate::mx::mta_sts::{FetchError, Policy, PolicyFetcher};
use crate::mx::{
    AddressFilter, Answer, DomainName, HostName, HostPolicy, Hosts, MxProblem, MxRecords, Resolver,
    base_domains, find_dane, hosts, mta_sts, problem, problem_of,
};
use crate::tls::{Security, SharedConnector, TlsSettings, VerifyMode};
use crate::transport::Connected;
use crate::{Connection, Endpoint, ErrorKind, Result, Timeouts, file};

pub use records::Published;
pub use report::{DomainReport, ServerReport, SessionReport};

/// The maximum number of hosts that are looked up.
const MAX_HOSTS: usize = 20;
/// The maximum number of addresses that are connected to.
const MAX_ADDRESSES: usize = 10;
/// The maximum number of domains that are asked for a record of DMARC.
const MAX_DMARC_DOMAINS: usize = 8;

/// Examines what a domain publishes, without sending a message: MX, DANE, MTA-STS, TLS-RPT, SPF,
/// DMARC and DKIM, and whether its servers meet it.
///
/// ```no_run
/// use envoi::mx::{DomainName, Resolver};
/// use envoi::probe::Inspector;
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let inspector = Inspector::new(Resolver::system()?);
/// let report = inspector.inspect(&DomainName::new("example.org")?).await?;
/// for change in &report.changes {
///     println!("{change}");
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[must_use = "a method returns the changed value"]
pub struct Inspector {
    resolver: Resolver,
    selector: Option<String>,
    tls: TlsSettings,
    filter: AddressFilter,
    timeout: Duration,
}

impl Inspector {
    /// Creates an inspector that looks up with this resolver, and trusts the system's store.
    pub fn new(resolver: Resolver) -> Self {
        Inspector {
            resolver,
            selector: None,
            tls: TlsSettings::default(),
            filter: AddressFilter::default(),
            timeout: Duration::from_secs(10),
        }
    }

    /// Looks at the DKIM key of this selector, too (RFC 6376, 3.6.2.1).
    pub fn selector(mut self, selector: impl Into<String>) -> Self {
        self.selector = Some(selector.into());
        self
    }

    /// Sets what is trusted for MTA-STS: the certificates of the servers and of the policy's host.
    /// Server name and TLSA records of the settings are not used.
    pub fn tls(mut self, tls: TlsSettings) -> Self {
        self.tls = tls;
        self.tls.server_name = None;
        self.tls.dane = None;
        self
    }

    /// Sets whether only addresses [of the public Internet](crate::mx::is_public) may be connected
    /// to, for the servers and for the policy; by default, all may. A domain is often user input,
    /// and its records may name any address. A refused one is the
    /// [failure](SessionReport::failure) of its session, with the source
    /// [`MxProblem::AddressRefused`].
    pub fn public_only(mut self, yes: bool) -> Self {
        self.filter.public_only = yes;
        self
    }

    /// Sets which addresses may be connected to, in addition to
    /// [`public_only`](Self::public_only).
    pub fn address_filter(
        mut self,
        allow: impl Fn(IpAddr) -> bool + Send + Sync + 'static,
    ) -> Self {
        self.filter.allow = Some(Arc::new(allow));
        self
    }

    /// Bounds each step with a server, and the fetch of the policy. 10 s by default. All sessions
    /// with an address together take at most four times as long. The lookups have the
    /// [time-out of the resolver](Resolver::timeout) each.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Examines a domain. What fails is part of the report.
    ///
    /// What the domain publishes is looked up side by side, and so are its hosts; their addresses
    /// are connected to side by side. Each address gets one connection as of a sender without DANE,
    /// and where DANE applies another one as of a sender with it: with the server name and the
    /// verification of [`MxClient`](crate::mx::MxClient). At most 20 hosts are looked up, and 10
    /// addresses connected to, some of each host.
    ///
    /// At most five lookups wait for one another, so that all takes at most five times the time-out
    /// of the resolver and four times that of the [steps](Self::timeout).
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`](crate::ErrorKind::Config): the trust anchors cannot be used.
    ///
    /// # Cancel safety
    ///
    /// Dropped before its end, it closes its connections.
    pub async fn inspect(&self, domain: &DomainName) -> Result<DomainReport> {
        let filter = self.filter.clone();
        let fetcher = PolicyFetcher::new(self.tls.clone())
            .timeout(self.timeout)
            .address_filter(move |address| filter.refusal(address).is_none());
        // Without trust anchors, faults of this side would be reported as those of the domain.
        let clock = Clock::start(&Timeouts::uniform(self.timeout));
        fetcher.load_trust(&clock).await?;
        let tls_rpt = format!("_smtp._tls.{domain}");
        let (servers, (mta_sts, policy), dmarc, texts) = join4(
            self.servers(domain),
            self.mta_sts(domain, &fetcher),
            self.dmarc(domain),
            join3(
                self.text(&tls_rpt, records::tls_rpt),
                self.text(domain.as_str(), records::spf),
                self.dkim(domain),
            ),
        )
        .await;
        let (mx, problem, servers) = servers;
        let (dmarc_domain, dmarc) = dmarc;
        let (tls_rpt, spf, dkim) = texts;
        let mut report = DomainReport {
            domain: domain.clone(),
            mx,
            problem,
            servers,
            mta_sts,
            policy,
            tls_rpt,
            spf,
            dmarc,
            dmarc_domain,
            dkim,
            changes: Vec::new(),
            suggestions: Vec::new(),
            failures: Vec::new(),
        };
        report.judge();
        Ok(report)
    }

    /// Looks the hosts up, and connects to them.
    async fn servers(
        &self,
        domain: &DomainName,
    ) -> (Answer<MxRecords>, Option<MxProblem>, Vec<ServerReport>) {
        let mx = self.resolver.mx(domain).await;
        let hosts = match hosts(domain, mx.clone(), &[], 0) {
            Ok(hosts) => hosts,
            Err(error) => return (mx, problem_of(&error), Vec::new()),
        };
        let looking_up = by_preference(&hosts, mx.records())
            .into_iter()
            .take(MAX_HOSTS)
            .map(|(preference, host)| self.server(&hosts, host, preference));
        let mut servers = join_all(looking_up).await;
        self.connect_to_all(&mut servers).await;
        (mx, None, servers)
    }

    async fn server(&self, hosts: &Hosts, host: DomainName, preference: u16) -> ServerReport {
        let addresses = self.resolver.addresses(&host).await;
        let bases = base_domains(hosts.is_secure, &host, &addresses);
        let dane = find_dane(&self.resolver, hosts, &host, bases, 25).await;
        ServerReport {
            host,
            preference,
            addresses,
            dane,
            sessions: Vec::new(),
        }
    }

    /// Connects to the first address of each server, then to the second of each, and so on, up to
    /// the maximum; all at once.
    async fn connect_to_all(&self, servers: &mut [ServerReport]) {
        let mut places: Vec<_> = servers
            .iter()
            .enumerate()
            .flat_map(|(index, server)| {
                let addresses = server.addresses.records();
                let addresses = addresses.map_or(&[][..], |found| &found.addresses);
                let of_server = move |(turn, address): (usize, &IpAddr)| (turn, index, *address);
                addresses.iter().enumerate().map(of_server)
            })
            .collect();
        places.sort_by_key(|(turn, index, _)| (*turn, *index));
        places.truncate(MAX_ADDRESSES);
        let sessions = places.iter().map(|(_, index, address)| {
            let server = &servers[*index];
            async move { (*index, self.session(server, *address).await) }
        });
        for (index, session) in join_all(sessions).await {
            servers[index].sessions.push(session);
        }
    }

    async fn session(&self, server: &ServerReport, address: IpAddr) -> SessionReport {
        let mut report = SessionReport {
            address,
            tls: None,
            dane: None,
            failure: None,
        };
        report.failure = match self.filter.refusal(address) {
            Some(why) => Some(problem(MxProblem::AddressRefused, address, why)),
            None => self.connect(server, &mut report).await.err(),
        };
        report
    }

    /// Connects as a sender without DANE, and then as one with it.
    async fn connect(&self, server: &ServerReport, report: &mut SessionReport) -> Result<()> {
        let mut timeouts = Timeouts::uniform(self.timeout);
        timeouts.deadline = timeouts.total_wait;
        let clock = Clock::start(&timeouts);
        let endpoint = Endpoint::new("")
            .tls(self.tls.clone())
            .timeouts(timeouts)
            .of_host(server.host.as_str(), report.address)
            .security(Security::Opportunistic);
        let plain = establish(&endpoint, clock.clone()).await;
        let (speaks_tls, failure) = match plain {
            Ok(session) => {
                report.tls = session.tls().cloned();
                session.quit().await;
                (report.tls.is_some(), None)
            }
            // With another server name, it may succeed.
            Err(error) => (error.kind() == ErrorKind::Tls, Some(error)),
        };
        if let (Ok(dane), true) = (&server.dane, speaks_tls) {
            let endpoint = HostPolicy::dane(dane.clone()).apply(endpoint);
            let session = establish(&endpoint, clock).await;
            let session = session.map_err(|error| failure.clone().unwrap_or(error))?;
            report.dane = session.tls().cloned();
            session.quit().await;
        }
        failure.map_or(Ok(()), Err)
    }

    async fn mta_sts(
        &self,
        domain: &DomainName,
        fetcher: &PolicyFetcher,
    ) -> (Published, Option<Result<Policy, FetchError>>) {
        let name = format!("_mta-sts.{domain}");
        let record = self.text(&name, records::mta_sts).await;
        if !matches!(record, Published::Found(_)) {
            return (record, None);
        }
        let policy = mta_sts::fetch(domain, &self.resolver, fetcher).await;
        (record, Some(policy))
    }

    /// The record of this domain, or of the nearest one above that has one: receivers apply that of
    /// the organizational domain to all below it (RFC 7489, 6.6.3).
    async fn dmarc(&self, domain: &DomainName) -> (DomainName, Published) {
        let names = with_parents(domain).into_iter().take(MAX_DMARC_DOMAINS);
        let looking_up = names.map(async |name| {
            let found = self.text(&format!("_dmarc.{name}"), records::dmarc).await;
            (name, found)
        });
        let found = join_all(looking_up).await;
        let is_there = |(_, found): &(_, Published)| !matches!(found, Published::Absent);
        let nearest = found.into_iter().find(is_there);
        nearest.unwrap_or_else(|| (domain.clone(), Published::Absent))
    }

    async fn dkim(&self, domain: &DomainName) -> Option<Published> {
        let name = format!("{}._domainkey.{domain}", self.selector.as_ref()?);
        Some(self.text(&name, records::dkim).await)
    }

    /// Looks for a record among the texts of a name.
    async fn text(&self, name: &str, find: fn(&[Vec<u8>]) -> Published) -> Published {
        let name = match DomainName::new(name) {
            Ok(name) => name,
            Err(error) => return Published::Invalid(error.to_string()),
        };
        match self.resolver.txt(&name).await {
            Answer::Failed(error) => Published::Failed(error),
            answer => answer
                .records()
                .map_or(Published::Absent, |texts| find(texts)),
        }
    }
}

/// Sets up a session in which the certificate is reported, whatever it is.
async fn establish(endpoint: &Endpoint, mut clock: Clock) -> Result<Connection> {
    let shared = SharedConnector::of(endpoint.get_tls(), VerifyMode::Reported);
    let connector = shared.load(file::time_limit()).await?.clone();
    // A resumed session shows the certificate of another address.
    let connector = connector.without_resumption();
    let Connected {
        stream, local_addr, ..
    } = open(&mut clock, endpoint, &endpoint.destination()).await?;
    let security = endpoint.get_security();
    Connection::establish(
        endpoint,
        stream,
        local_addr,
        security,
        Some(&connector),
        clock,
    )
    .await
}

/// The hosts with their preferences, those of equal preference by name.
fn by_preference(hosts: &Hosts, records: Option<&MxRecords>) -> Vec<(u16, DomainName)> {
    let exchanges = records.map_or(&[][..], |records| &records.exchanges);
    let mut preferences: HashMap<&DomainName, u16> = HashMap::new();
    for mx in exchanges {
        if let Some(host) = &mx.host {
            let least = preferences.entry(host).or_insert(mx.preference);
            *least = mx.preference.min(*least);
        }
    }
    let preference = |host: &DomainName| preferences.get(host).copied().unwrap_or_default();
    let names = hosts.names.iter().filter_map(|host| match host {
        HostName::Name(name) => Some(name.clone()),
        HostName::Literal(_) => None,
    });
    let mut names: Vec<_> = names.map(|name| (preference(&name), name)).collect();
    names.sort_unstable();
    names
}

/// The domain, and those above it that have at least two labels.
fn with_parents(domain: &DomainName) -> Vec<DomainName> {
    let mut names = vec![domain.clone()];
    let mut rest = domain.as_str();
    while let Some((_, parent)) = rest.split_once('.').filter(|(_, rest)| rest.contains('.')) {
        names.extend(DomainName::new(parent));
        rest = parent;
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parents_have_two_labels() {
        for (domain, expected) in [
            (
                "a.b.example.org",
                &["a.b.example.org", "b.example.org", "example.org"][..],
            ),
            ("example.org", &["example.org"]),
            ("org", &["org"]),
        ] {
            let names = with_parents(&domain.parse().unwrap());
            let names: Vec<_> = names.iter().map(DomainName::as_str).collect();
            assert_eq!(names, expected);
        }
    }
}
