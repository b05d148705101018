//! What a domain publishes for those who send it mail, and whether its servers meet it.

use std::error::Error as _;
use std::fmt;
use std::io;
use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use futures_util::future::{join_all, join5};

use crate::mx::mta_sts::{FetchError, Mode, Policy, PolicyFetcher, StsRecord};
use crate::mx::tls_report::TlsRptRecord;
use crate::mx::{
    Absence, Addresses, Answer, Dane, DomainName, LookupError, Mx, MxRecords, Resolver, TlsaRecord,
    base_domains,
};
use crate::text::printable_bytes;
use crate::tls::{Certificate, Security, TlsInfo, TlsSettings};
use crate::{Endpoint, Error, Timeouts};

/// The maximum number of addresses that are connected to.
const MAX_ADDRESSES: usize = 10;

/// Examines what a domain publishes, without sending a message: MX, DANE, MTA-STS, TLS-RPT, SPF,
/// DMARC and DKIM, and whether its servers meet it.
///
/// ```no_run
/// use envoi::mx::{DomainName, Resolver};
/// use envoi::probe::Inspector;
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let inspector = Inspector::new(Resolver::system()?);
/// let report = inspector.inspect(&DomainName::new("example.org")?).await;
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
    timeout: Duration,
}

impl Inspector {
    /// Creates an inspector that looks up with this resolver, and trusts the system's store.
    pub fn new(resolver: Resolver) -> Self {
        Inspector {
            resolver,
            selector: None,
            tls: TlsSettings::default(),
            timeout: Duration::from_secs(10),
        }
    }

    /// Looks at the DKIM key of this selector, too (RFC 6376, 3.6.2.1).
    pub fn selector(mut self, selector: impl Into<String>) -> Self {
        self.selector = Some(selector.into());
        self
    }

    /// Sets what is trusted for MTA-STS: the certificates of the servers and of the policy's host.
    pub fn tls(mut self, tls: TlsSettings) -> Self {
        self.tls = tls;
        self
    }

    /// Bounds each step with a server, and the fetch of the policy. 10 s by default.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Examines a domain. What fails is part of the report.
    pub async fn inspect(&self, domain: &DomainName) -> DomainReport {
        let mx = self.resolver.mx(domain).await;
        let selector = self.selector.as_ref();
        let dkim = async {
            match selector {
                Some(selector) => {
                    let name = format!("{selector}._domainkey.{domain}");
                    Some(self.text(&name, dkim_record).await)
                }
                None => None,
            }
        };
        let (dmarc, tls_rpt) = (format!("_dmarc.{domain}"), format!("_smtp._tls.{domain}"));
        let (servers, mta_sts, spf, (dmarc, tls_rpt), dkim) = join5(
            self.servers(domain, &mx),
            self.mta_sts(domain),
            self.text(domain.as_str(), |texts| of_version(texts, "v=spf1", ' ')),
            futures_util::future::join(
                self.text(&dmarc, |texts| of_version(texts, "v=DMARC1", ';')),
                self.text(&tls_rpt, tls_rpt_record),
            ),
            dkim,
        )
        .await;
        let mut report = DomainReport {
            domain: domain.clone(),
            mx,
            servers,
            mta_sts: mta_sts.0,
            policy: mta_sts.1,
            tls_rpt,
            spf,
            dmarc,
            dkim,
            changes: Vec::new(),
            suggestions: Vec::new(),
            failures: Vec::new(),
        };
        report.judge();
        report
    }

    async fn servers(&self, domain: &DomainName, mx: &Answer<MxRecords>) -> Vec<ServerReport> {
        let mut hosts: Vec<Mx> = match mx {
            Answer::Failed(_) => Vec::new(),
            answer => match answer.records() {
                Some(records) => records.exchanges.clone(),
                None if answer.absence() == Some(Absence::NoSuchName) => Vec::new(),
                // RFC 5321, 5.1: the domain's own address.
                None => vec![Mx {
                    preference: 0,
                    host: Some(domain.clone()),
                }],
            },
        };
        hosts.sort_by_key(|mx| mx.preference);
        let hosts = hosts
            .into_iter()
            .filter_map(|mx| Some((mx.preference, mx.host?)));
        let looking_up = hosts.take(MAX_ADDRESSES).map(async |(preference, host)| {
            let addresses = self.resolver.addresses(&host).await;
            let dane = self.dane(mx.is_secure(), &host, &addresses).await;
            ServerReport {
                host,
                preference,
                addresses,
                dane,
                sessions: Vec::new(),
            }
        });
        let mut servers = join_all(looking_up).await;
        let mut left = MAX_ADDRESSES;
        for server in &mut servers {
            let addresses = server
                .addresses
                .records()
                .map(|found| found.addresses.clone());
            let addresses: Vec<_> = addresses
                .unwrap_or_default()
                .into_iter()
                .take(left)
                .collect();
            left -= addresses.len();
            let sessions = addresses
                .into_iter()
                .map(|address| self.session(domain, server, address));
            let sessions = join_all(sessions).await;
            server.sessions = sessions;
        }
        servers
    }

    /// The TLSA records that count, and their base domain (RFC 7672, 2.2.2 and 2.2.3).
    async fn dane(
        &self,
        hosts_are_secure: bool,
        host: &DomainName,
        addresses: &Answer<Addresses>,
    ) -> Option<(DomainName, Answer<Vec<TlsaRecord>>)> {
        let bases = base_domains(hosts_are_secure, host, addresses);
        for base in bases.unwrap_or_default() {
            let answer = self.resolver.tlsa(&base, 25).await;
            if matches!(answer, Answer::Secure(_) | Answer::Failed(_)) {
                return Some((base, answer));
            }
        }
        None
    }

    async fn session(
        &self,
        domain: &DomainName,
        server: &ServerReport,
        address: IpAddr,
    ) -> SessionReport {
        let endpoint = Endpoint::new(address.to_string())
            .port(25)
            .security(Security::Opportunistic)
            .tls(self.tls.clone().server_name(server.host.as_str()))
            .timeouts(Timeouts::uniform(self.timeout));
        let (tls, failure) = match super::probe(&endpoint).await {
            Ok(mut report) => match report.ports.pop() {
                Some(port) => (port.tls, port.failure),
                None => (None, None),
            },
            Err(error) => (None, Some(error)),
        };
        let chain = tls
            .as_ref()
            .map(|tls| tls.chain.iter().map(Certificate::der));
        let dane = match (&server.dane, chain) {
            (Some((base, Answer::Secure(records))), Some(chain)) => {
                let dane = Dane::new(base.as_str(), records.iter().cloned())
                    .name(server.host.as_str())
                    .name(domain.as_str());
                let chain: Vec<_> = chain.collect();
                dane.is_usable()
                    .then(|| dane.verify(&chain, SystemTime::now()))
            }
            _ => None,
        };
        SessionReport {
            address,
            tls,
            failure,
            dane,
        }
    }

    async fn mta_sts(
        &self,
        domain: &DomainName,
    ) -> (Published, Option<Result<Policy, FetchError>>) {
        let record = self.text(&format!("_mta-sts.{domain}"), sts_record).await;
        if !matches!(record, Published::Found(_)) {
            return (record, None);
        }
        let addresses = match DomainName::new(&format!("mta-sts.{domain}")) {
            Ok(host) => match self.resolver.addresses(&host).await {
                Answer::Failed(error) => return (Published::Failed(error), None),
                answer => answer.records().map(|found| found.addresses.clone()),
            },
            Err(_) => None,
        };
        let fetcher = PolicyFetcher::new(self.tls.clone()).timeout(self.timeout);
        let policy = fetcher.fetch(domain, &addresses.unwrap_or_default()).await;
        (record, Some(policy))
    }

    /// Looks for a record among the texts of a name.
    async fn text(&self, name: &str, find: impl Fn(&[Vec<u8>]) -> Published) -> Published {
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

/// What a domain publishes, whether its servers meet it, and what to change. `Display` formats it
/// for a terminal.
#[derive(Debug)]
#[non_exhaustive]
pub struct DomainReport {
    /// The domain.
    pub domain: DomainName,
    /// Its MX records.
    pub mx: Answer<MxRecords>,
    /// Its servers, by preference; the domain's own host if there are no MX records.
    pub servers: Vec<ServerReport>,
    /// The record of MTA-STS (RFC 8461, 3.1).
    pub mta_sts: Published,
    /// The policy of MTA-STS, if there is a record.
    pub policy: Option<Result<Policy, FetchError>>,
    /// The record that asks for TLS reports (RFC 8460, 3).
    pub tls_rpt: Published,
    /// The SPF record (RFC 7208).
    pub spf: Published,
    /// The DMARC record of this domain (RFC 7489).
    pub dmarc: Published,
    /// The DKIM key of the selector, if one was given.
    pub dkim: Option<Published>,
    /// What must change for mail to arrive as the domain publishes it.
    pub changes: Vec<String>,
    /// What could be better.
    pub suggestions: Vec<String>,
    /// The lookups that failed, which leaves the report incomplete.
    pub failures: Vec<LookupError>,
}

/// A server of a domain.
#[derive(Debug)]
#[non_exhaustive]
pub struct ServerReport {
    /// The host of the MX record.
    pub host: DomainName,
    /// The preference of the MX record.
    pub preference: u16,
    /// The addresses of the host.
    pub addresses: Answer<Addresses>,
    /// The TLSA records that count for senders with DANE, with their base domain: secure ones, or
    /// that they cannot be looked up. `None` if DANE does not apply to the host.
    pub dane: Option<(DomainName, Answer<Vec<TlsaRecord>>)>,
    /// A session with each address, of at most ten in all.
    pub sessions: Vec<SessionReport>,
}

/// A session with an address of a server.
#[derive(Debug)]
#[non_exhaustive]
pub struct SessionReport {
    /// The address.
    pub address: IpAddr,
    /// What was negotiated, and whether the certificate is valid for the host by the trust anchors
    /// of the [inspector](Inspector::tls). `None` without TLS.
    pub tls: Option<TlsInfo>,
    /// Why the server cannot be used.
    pub failure: Option<Error>,
    /// What verified the server by its TLSA records, or why none did. `None` where DANE does not
    /// apply, or no record is usable.
    pub dane: Option<crate::Result<String>>,
}

/// Whether a record is published.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Published {
    /// The record, as text.
    Found(String),
    /// There is none.
    Absent,
    /// There is one that is not valid, or there are several: why.
    Invalid(String),
    /// It is not known, as the lookup failed.
    Failed(LookupError),
}

impl DomainReport {
    /// Whether nothing must change, and everything could be looked up.
    pub fn is_fine(&self) -> bool {
        self.changes.is_empty() && self.failures.is_empty()
    }

    fn judge(&mut self) {
        let mut judgement = Judgement::default();
        self.judge_mx(&mut judgement);
        for server in &self.servers {
            self.judge_server(server, &mut judgement);
        }
        self.judge_texts(&mut judgement);
        self.changes = judgement.changes;
        self.suggestions = judgement.suggestions;
        self.failures = judgement.failures;
    }

    fn judge_mx(&self, found: &mut Judgement) {
        let domain = &self.domain;
        match &self.mx {
            Answer::Failed(error) => found.failures.push(error.clone()),
            answer if answer.absence() == Some(Absence::NoSuchName) => {
                found
                    .changes
                    .push(format!("{domain} does not exist (NXDOMAIN)"));
            }
            answer if answer.absence().is_some() => found.suggestions.push(format!(
                "{domain} has no MX records, so that mail goes to its own address: publish one"
            )),
            answer => {
                let mx = answer
                    .records()
                    .map(|records| &records.exchanges[..])
                    .unwrap_or_default();
                if mx.is_empty() {
                    found.changes.push(format!(
                        "none of the MX records of {domain} has the name of a host: correct them"
                    ));
                }
                let nulls = mx.iter().filter(|mx| mx.host.is_none()).count();
                if nulls > 0 && mx.len() > 1 {
                    found.changes.push(format!(
                        "{domain} has a null MX beside others: remove it, or the others \
                         (RFC 7505, 3)"
                    ));
                }
            }
        }
        if matches!(self.mx, Answer::Insecure(_)) {
            found.suggestions.push(format!(
                "the MX records of {domain} are not signed by DNSSEC, so that DANE does not apply"
            ));
        }
    }

    fn judge_server(&self, server: &ServerReport, found: &mut Judgement) {
        let host = &server.host;
        match &server.addresses {
            Answer::Failed(error) => return found.failures.push(error.clone()),
            answer => match (answer.records(), answer.absence()) {
                (Some(addresses), _) => found.failures.extend(addresses.incomplete.clone()),
                (None, Some(why)) => {
                    found
                        .changes
                        .push(format!("the MX host {host} has no address: {why}"));
                }
                (None, None) => {}
            },
        }
        let records = match &server.dane {
            Some((_, Answer::Failed(error))) => {
                found.failures.push(error.clone());
                None
            }
            Some((base, Answer::Secure(records))) => {
                let unusable = records.iter().filter(|record| !record.is_usable()).count();
                if unusable == records.len() {
                    found.changes.push(format!(
                        "no TLSA record of {base} can be used: publish one of the form 3 1 1"
                    ));
                } else if unusable > 0 {
                    let text = format!("remove the unusable TLSA records of {base}: {unusable}");
                    found.suggestions.push(text);
                }
                Some(records)
            }
            _ => None,
        };
        let policy = match &self.policy {
            Some(Ok(policy)) if policy.mode != Mode::None => Some(policy),
            _ => None,
        };
        if let Some(policy) = policy
            && !policy.allows(host)
        {
            found.changes.push(format!(
                "the policy of MTA-STS does not name the MX host {host}: add it to the policy"
            ));
        }
        for session in &server.sessions {
            session.judge(host, records.is_some(), policy.is_some(), found);
        }
    }

    fn judge_texts(&self, found: &mut Judgement) {
        let texts = [
            ("the record of MTA-STS", Some(&self.mta_sts)),
            ("the record of TLS-RPT", Some(&self.tls_rpt)),
            ("the SPF record", Some(&self.spf)),
            ("the DMARC record", Some(&self.dmarc)),
            ("the DKIM record", self.dkim.as_ref()),
        ];
        for (name, published) in texts {
            match published {
                Some(Published::Failed(error)) => found.failures.push(error.clone()),
                Some(Published::Invalid(why)) => {
                    found.changes.push(format!("{name} is not valid: {why}"));
                }
                Some(Published::Absent) if name == "the DKIM record" => {
                    found
                        .changes
                        .push("there is no DKIM record for this selector".into());
                }
                Some(Published::Absent) => {
                    found.suggestions.push(format!("publish {}", &name[4..]))
                }
                Some(Published::Found(_)) | None => {}
            }
        }
        if let Some(Err(error)) = &self.policy {
            found.changes.push(format!("{error}; {}", error.hint()));
        }
    }
}

#[derive(Default)]
struct Judgement {
    changes: Vec<String>,
    suggestions: Vec<String>,
    failures: Vec<LookupError>,
}

impl SessionReport {
    fn judge(&self, host: &DomainName, has_dane: bool, has_policy: bool, found: &mut Judgement) {
        let place = format!("{host} at {}", self.address);
        if let Some(failure) = &self.failure {
            match lacks_route(failure) {
                true => found.suggestions.push(format!(
                    "{place} was not examined, as this machine has no route to it"
                )),
                false => found
                    .changes
                    .push(format!("{place}: {}", failure.message())),
            }
            return;
        }
        let Some(tls) = &self.tls else {
            return match has_dane || has_policy {
                true => found.changes.push(format!(
                    "{place} offers no STARTTLS, which the domain promises"
                )),
                false => found
                    .suggestions
                    .push(format!("{place} offers no STARTTLS")),
            };
        };
        if let Some(Err(error)) = &self.dane {
            found.changes.push(format!(
                "{place} does not match its TLSA records: {}",
                error.message()
            ));
        }
        if let Some(reason) = &tls.not_verified_reason {
            match has_policy {
                true => found.changes.push(format!(
                    "{place} has a certificate that does not meet the policy of MTA-STS: {reason}"
                )),
                false if self.dane.is_none() => found.suggestions.push(format!(
                    "{place} has a certificate that cannot be verified: {reason}"
                )),
                false => {}
            }
        }
    }
}

/// Whether the machine cannot send to such addresses at all, as without IPv6.
fn lacks_route(error: &Error) -> bool {
    let causes = std::iter::successors(error.source(), |cause| (*cause).source());
    let kinds = [
        io::ErrorKind::NetworkUnreachable,
        io::ErrorKind::AddrNotAvailable,
    ];
    causes
        .filter_map(|cause| cause.downcast_ref::<io::Error>())
        .any(|cause| kinds.contains(&cause.kind()))
}

/// The one text that begins with a version.
fn of_version(texts: &[Vec<u8>], version: &str, delimiter: char) -> Published {
    let is_of = |text: &&Vec<u8>| {
        text.strip_prefix(version.as_bytes()).is_some_and(|rest| {
            rest.first()
                .is_none_or(|byte| *byte == delimiter as u8 || *byte == b' ')
        })
    };
    let found: Vec<_> = texts.iter().filter(is_of).collect();
    match found[..] {
        [] => Published::Absent,
        [text] => Published::Found(printable_bytes(text)),
        _ => Published::Invalid(format!(
            "there are {}, of which one may remain",
            found.len()
        )),
    }
}

fn sts_record(texts: &[Vec<u8>]) -> Published {
    match StsRecord::from_txt(texts.iter().map(Vec::as_slice)) {
        Ok(Some(_)) => of_version(texts, "v=STSv1", ';'),
        Ok(None) => Published::Absent,
        Err(error) => Published::Invalid(error.to_string()),
    }
}

fn tls_rpt_record(texts: &[Vec<u8>]) -> Published {
    match TlsRptRecord::from_txt(texts.iter().map(Vec::as_slice)) {
        Ok(Some(_)) => of_version(texts, "v=TLSRPTv1", ';'),
        Ok(None) => Published::Absent,
        Err(error) => Published::Invalid(error.to_string()),
    }
}

/// RFC 6376, 3.6.1: the tag `p` has the key, and is empty for one that was revoked.
fn dkim_record(texts: &[Vec<u8>]) -> Published {
    let texts: Vec<_> = texts.iter().map(|text| printable_bytes(text)).collect();
    let key_of = |text: &String| {
        let mut tags = text.split(';').filter_map(|tag| tag.split_once('='));
        let key = tags.find(|(name, _)| name.trim() == "p")?.1;
        Some((text.clone(), !key.trim().is_empty()))
    };
    let keys: Vec<_> = texts.iter().filter_map(key_of).collect();
    match &keys[..] {
        [] if texts.is_empty() => Published::Absent,
        [] => Published::Invalid("it has no tag p".into()),
        [(text, true)] => Published::Found(text.clone()),
        [(_, false)] => Published::Invalid("its key was revoked".into()),
        _ => Published::Invalid("there are several".into()),
    }
}

impl fmt::Display for Published {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Published::Found(text) => f.write_str(text),
            Published::Absent => f.write_str("none"),
            Published::Invalid(why) => write!(f, "not valid: {why}"),
            Published::Failed(error) => write!(f, "not known: {error}"),
        }
    }
}

impl fmt::Display for DomainReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let secure = |yes| if yes { "secure" } else { "not signed" };
        write!(f, "{}\n\nMX       ", self.domain)?;
        match (&self.mx, self.mx.absence()) {
            (Answer::Failed(error), _) => writeln!(f, "{error}")?,
            (mx, Some(absence)) => writeln!(f, "{absence}, {}", secure(mx.is_secure()))?,
            (mx, None) => writeln!(f, "{}", secure(mx.is_secure()))?,
        }
        for server in &self.servers {
            let addresses = match &server.addresses {
                Answer::Failed(error) => error.to_string(),
                answer => secure(answer.is_secure()).to_owned(),
            };
            writeln!(f, "  {} {}: {addresses}", server.preference, server.host)?;
            match &server.dane {
                Some((base, Answer::Secure(records))) => {
                    for record in records {
                        writeln!(f, "    TLSA of {base}: {record}")?;
                    }
                }
                Some((_, Answer::Failed(error))) => writeln!(f, "    {error}")?,
                _ => {}
            }
            for session in &server.sessions {
                write!(f, "    {}: ", session.address)?;
                match (&session.failure, &session.tls) {
                    (Some(failure), _) => writeln!(f, "{}", failure.message())?,
                    (None, None) => writeln!(f, "no TLS")?,
                    (None, Some(tls)) => {
                        let by = match &session.dane {
                            Some(Ok(_)) => ", verified by DANE",
                            Some(Err(_)) => ", not verified by DANE",
                            None if tls.is_verified() => ", certificate verified",
                            None => ", certificate not verified",
                        };
                        writeln!(f, "{}{by}", tls.version)?;
                        if let Some(peer) = tls.peer() {
                            writeln!(f, "      its key as TLSA: {}", TlsaRecord::of_key(peer))?;
                        }
                    }
                }
            }
        }
        writeln!(f, "MTA-STS  {}", self.mta_sts)?;
        match &self.policy {
            Some(Ok(policy)) => writeln!(f, "  mode {}", policy.mode.as_str())?,
            Some(Err(error)) => writeln!(f, "  {error}")?,
            None => {}
        }
        writeln!(f, "TLS-RPT  {}", self.tls_rpt)?;
        writeln!(f, "SPF      {}", self.spf)?;
        writeln!(f, "DMARC    {}", self.dmarc)?;
        if let Some(dkim) = &self.dkim {
            writeln!(f, "DKIM     {dkim}")?;
        }
        for failure in &self.failures {
            writeln!(f, "\nLookup failed: {failure}\n  {}", failure.hint())?;
        }
        for change in &self.changes {
            writeln!(f, "\nTo change: {change}")?;
        }
        for suggestion in &self.suggestions {
            writeln!(f, "\nSuggestion: {suggestion}")?;
        }
        match self.is_fine() {
            true => writeln!(f, "\nNothing needs to change."),
            false => Ok(()),
        }
    }
}
