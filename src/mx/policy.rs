//! How the connections to a host are protected, and why: by DANE (RFC 7672) where DNSSEC proves the
//! way to the host and its TLSA records, and one of them is usable, else by the domain's policy of
//! MTA-STS (RFC 8461), otherwise as well as the host can.

use std::error::Error as _;
use std::fmt;
use std::sync::Arc;

use super::lookup::Hosts;
use super::mta_sts::{Discovery, Mode, MxPattern, StoredPolicy};
use super::problem::lookup_failed;
use super::receipt::MxPolicy;
use super::tls_report::AppliedPolicy;
use crate::Endpoint;
use crate::dns::{Addresses, Answer, DomainName, LookupError, Resolver};
use crate::error::{Error, ErrorKind, Phase, Result};
use crate::receipt::CertificateFailure;
use crate::tls::Security;
use crate::tls::dane::{Dane, TlsaRecord};

/// The maximum number of hosts of a policy that a text names.
const MAX_LISTED: usize = 10;

/// How the connections to a host are protected.
#[derive(Clone, Debug)]
pub(crate) enum Protection {
    Dane(Dane),
    /// TLS with a trusted certificate for the host, which the policy lists.
    MtaSts(Arc<StoredPolicy>),
    /// As without a policy; what does not meet this one is reported.
    Testing {
        policy: Arc<StoredPolicy>,
        /// What to report of a host that the policy does not list.
        unlisted: Option<String>,
    },
    Opportunistic,
}

/// A protection, and why it is this one.
#[derive(Clone, Debug)]
pub(crate) struct HostPolicy {
    pub(super) protection: Protection,
    pub(super) reason: String,
}

impl HostPolicy {
    pub(super) fn opportunistic(reason: impl Into<String>) -> Self {
        HostPolicy {
            protection: Protection::Opportunistic,
            reason: reason.into(),
        }
    }

    /// By the TLSA records of the host.
    pub(crate) fn dane(dane: Dane) -> Self {
        let base = dane.base_domain();
        let reason = match dane.is_usable() {
            true => format!("{base} has TLSA records"),
            false => format!("{base} has TLSA records, none of which is usable"),
        };
        HostPolicy {
            protection: Protection::Dane(dane),
            reason,
        }
    }

    /// Whether TLSA records authenticate the host. If all of them are unusable, they only require
    /// TLS, and a policy of MTA-STS still applies (RFC 7672, 2.2; RFC 8461, 2).
    pub(super) fn is_authenticated(&self) -> bool {
        matches!(&self.protection, Protection::Dane(dane) if dane.is_usable())
    }

    /// By what was found out about the MTA-STS policy of a domain, for a host that TLSA records do
    /// not authenticate. If the policy does not decide, this one remains.
    ///
    /// # Errors
    ///
    /// The policy is enforced, and does not list the host.
    pub(super) fn or_mta_sts(
        self,
        domain: &DomainName,
        host: &DomainName,
        found: &Discovery,
    ) -> Result<Self> {
        let HostPolicy { protection, reason } = self;
        let policy = found.policy.as_ref();
        let Some(stored) = policy.filter(|stored| stored.policy.mode != Mode::None) else {
            let reason = match &found.problem {
                Some(problem) => format!("{reason}; {problem}"),
                None => format!("{reason}; {domain} has no MTA-STS policy"),
            };
            return Ok(HostPolicy { protection, reason });
        };
        // An older policy applies where the one of now cannot be had.
        let problem = found.problem.as_ref();
        let problem = problem.map_or_else(String::new, |problem| format!("; {problem}"));
        let unlisted = (!stored.policy.allows(host)).then(|| {
            let listed = list_patterns(&stored.policy.mx);
            format!("the MTA-STS policy of {domain} does not list {host}, but {listed}")
        });
        if found.is_enforced() {
            if let Some(unlisted) = unlisted {
                let mut error = Error::new(ErrorKind::Tls, Phase::Tls, unlisted).with_hint(
                    "The mail waits until the domain's administrator has corrected the policy or \
                        the MX records. If another host was put into the DNS by an attacker, this \
                        is what the policy is for.",
                );
                error.set_transient(true);
                return Err(error);
            }
            return Ok(HostPolicy {
                protection: Protection::MtaSts(stored.clone()),
                reason: format!("{reason}; the MTA-STS policy of {domain} is enforced{problem}"),
            });
        }
        Ok(HostPolicy {
            protection: match protection {
                Protection::Opportunistic => Protection::Testing {
                    policy: stored.clone(),
                    unlisted,
                },
                // Unusable records require TLS all the same.
                protection => protection,
            },
            reason: format!("{reason}; the MTA-STS policy of {domain} is in testing{problem}"),
        })
    }

    pub(super) fn name(&self) -> MxPolicy {
        match &self.protection {
            Protection::Dane(_) => MxPolicy::Dane,
            Protection::MtaSts(_) => MxPolicy::MtaSts,
            Protection::Testing { .. } | Protection::Opportunistic => MxPolicy::Opportunistic,
        }
    }

    /// The policy as TLS reports have it, to a host of this domain.
    pub(super) fn as_applied(&self, domain: &DomainName) -> AppliedPolicy {
        match &self.protection {
            Protection::Dane(dane) => match dane.base_domain().parse() {
                Ok(base) => {
                    let records = dane.records().iter().map(ToString::to_string);
                    AppliedPolicy::tlsa(base, records)
                }
                Err(_) => AppliedPolicy::none(domain.clone()),
            },
            Protection::MtaSts(policy) | Protection::Testing { policy, .. } => {
                policy.policy.as_applied(domain)
            }
            Protection::Opportunistic => AppliedPolicy::none(domain.clone()),
        }
    }

    /// The endpoint with this protection.
    pub(crate) fn apply(&self, endpoint: Endpoint) -> Endpoint {
        match &self.protection {
            Protection::Dane(dane) => {
                let tls = endpoint.get_tls().clone().dane(dane.clone());
                endpoint.security(Security::Required).tls(tls)
            }
            Protection::MtaSts(_) => endpoint.security(Security::Required),
            Protection::Testing { .. } | Protection::Opportunistic => {
                endpoint.security(Security::Opportunistic)
            }
        }
    }

    /// What an error of a connection means: mail for a host that does not meet its policy waits
    /// until it does.
    pub(super) fn judged(&self, mut error: Error) -> Error {
        if error.phase() == Phase::Connect && error.kind() != ErrorKind::Config {
            return error.with_hint(
                "The server is down or does not take connections, or this network blocks outgoing \
                    connections to port 25, as many do: try other domains, and ask the network's \
                    operator, or send through a relay.",
            );
        }
        // The usual hints are about a server of one's own choice.
        if error.phase() == Phase::Greeting && error.reply().is_none() {
            return error.with_hint(
                "The server is overloaded, or not a mail server, or refuses this machine's address \
                    before it says a word: try again later, and if other domains take mail from \
                    here, tell this domain's postmaster by other means.",
            );
        }
        if error.kind() == ErrorKind::Tls && error.phase() == Phase::Mail {
            // The message demands it (REQUIRETLS), and not the domain.
            return error.with_hint(
                "Nothing that the domain publishes (usable TLSA records, an enforced MTA-STS \
                    policy) lets its server be verified: send the message without this demand, or \
                    not at all.",
            );
        }
        let disturbance = match error.kind() {
            _ if !matches!(error.phase(), Phase::StartTls | Phase::Tls) => None,
            ErrorKind::Timeout | ErrorKind::Closed => Some(
                "The server is overloaded, or a device in between holds TLS up: try again later.",
            ),
            ErrorKind::Protocol => Some(
                "Something between this machine and the server may be tampering with the \
                    connection, or the server's software is old and faulty (see CVE-2011-0411). \
                    Nothing was sent.",
            ),
            _ => None,
        };
        if let Some(hint) = disturbance {
            error = error.with_hint(hint);
        }
        let policy = match &self.protection {
            Protection::Dane(_) => "DANE",
            Protection::MtaSts(_) => "MTA-STS",
            Protection::Testing { .. } | Protection::Opportunistic => return error,
        };
        if disturbance.is_some() {
            error = error.of_tls();
        }
        if error.kind() != ErrorKind::Tls {
            return error;
        }
        error.set_transient(true);
        if error.phase() == Phase::StartTls && error.reply().is_none() {
            error = error.with_hint(
                "The domain demands TLS for its mail, and this server of it has none: the message \
                    can be sent when that is mended. Tell the domain's postmaster by other means.",
            );
        }
        let source = error.source();
        let is_of_certificate = source.is_some_and(|source| source.is::<CertificateFailure>());
        if is_of_certificate && matches!(self.protection, Protection::MtaSts(_)) {
            error = error.with_hint(
                "The domain demands that its servers have certificates of a trusted authority, for \
                    their names: the message can be sent when this one has. Tell the domain's \
                    postmaster by other means. If many domains fail, check this machine's clock, \
                    and what is trusted (MxClient::trust).",
            );
        }
        error.context(format_args!("{policy} ({})", self.reason))
    }
}

/// The first of these patterns, as text. A policy may have thousands.
pub(crate) fn list_patterns(patterns: &[MxPattern]) -> String {
    let shown: Vec<_> = patterns
        .iter()
        .take(MAX_LISTED)
        .map(MxPattern::to_string)
        .collect();
    let more = patterns.len() - shown.len();
    let shown = shown.join(", ");
    match more {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

/// The names that may have the TLSA records of a host, in the order in which they are looked up
/// (RFC 7672, 2.2.2): where its CNAMEs lead, if all of them are secure, and its own. `hosts` says
/// whether DNSSEC proves that it is a host of the domain.
///
/// # Errors
///
/// The reason why DANE does not apply.
pub(crate) fn base_domains(
    hosts_are_secure: bool,
    host: &DomainName,
    answer: &Answer<Addresses>,
) -> Result<Vec<DomainName>, String> {
    if !hosts_are_secure {
        return Err("the MX records are not signed".to_owned());
    }
    match answer {
        Answer::Secure(addresses) if addresses.name != *host => {
            Ok(vec![addresses.name.clone(), host.clone()])
        }
        Answer::Secure(_) => Ok(vec![host.clone()]),
        // A secure CNAME that leads out of the signed zones.
        Answer::Insecure(Ok(addresses)) if addresses.is_name_secure => Ok(vec![host.clone()]),
        Answer::Insecure(Ok(_)) => Err(format!("the addresses of {host} are not signed")),
        Answer::SecureAbsence(_) | Answer::Insecure(Err(_)) => {
            Err(format!("{host} has no address"))
        }
        Answer::Failed(_) => Err(format!("the addresses of {host} are not known")),
    }
}

/// Why a host is not verified by DANE.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum NoDane {
    /// DANE does not apply to the host, for this reason: it has no TLSA records, or DNSSEC does not
    /// prove that it is a host of the domain, its addresses or its records.
    NotApplicable(String),
    /// The records could not be had. Without them it is not known how the host is to be protected,
    /// so no connection is made to it (RFC 7672, 2.1.2).
    #[non_exhaustive]
    LookupFailed {
        /// The base domain, whose records were looked up.
        base: DomainName,
        /// What failed.
        error: LookupError,
    },
}

impl fmt::Display for NoDane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NoDane::NotApplicable(reason) => f.write_str(reason),
            NoDane::LookupFailed { error, .. } => error.fmt(f),
        }
    }
}

/// Looks up the TLSA records of a host, at the names that [may have them](base_domains). Besides
/// the base domain, the certificate may have the name of the host and those of the recipient domain
/// (RFC 7672, 3.2.2).
pub(crate) async fn find_dane(
    resolver: &Resolver,
    hosts: &Hosts,
    host: &DomainName,
    bases: Result<Vec<DomainName>, String>,
    port: u16,
) -> Result<Dane, NoDane> {
    for base in bases.map_err(NoDane::NotApplicable)? {
        match tlsa_records(resolver.tlsa(&base, port).await) {
            Ok(Some(records)) => {
                let names = [host].into_iter().chain(&hosts.domain_names);
                let dane = Dane::new(base.as_str(), records);
                return Ok(names.fold(dane, |dane, name| dane.name(name.as_str())));
            }
            Ok(None) => {}
            Err(error) => return Err(NoDane::LookupFailed { base, error }),
        }
    }
    let reason = format!("{host} has no TLSA records");
    Err(NoDane::NotApplicable(reason))
}

/// The TLSA records in an answer, if DNSSEC proves them.
fn tlsa_records(answer: Answer<Vec<TlsaRecord>>) -> Result<Option<Vec<TlsaRecord>>, LookupError> {
    match answer {
        Answer::Secure(records) => Ok(Some(records).filter(|records| !records.is_empty())),
        Answer::SecureAbsence(_) | Answer::Insecure(_) => Ok(None),
        Answer::Failed(failure) => Err(failure),
    }
}

/// The error of a host whose TLSA records could not be had.
pub(super) fn unknown_dane(host: &DomainName, failure: LookupError) -> Error {
    let cause = lookup_failed(failure);
    let message = format!("DANE of {host} cannot be checked: {}", cause.message());
    let mut error = Error::new(ErrorKind::Tls, Phase::Tls, message)
        .with_hint(cause.hint().unwrap_or_default())
        .with_source(cause);
    error.set_transient(true);
    error
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dns::{Absence, LookupErrorKind};
    use crate::receipt::CertificateProblem;

    fn name(text: &str) -> DomainName {
        text.parse().unwrap()
    }

    fn addresses(aliases: &[&str], to: &str, is_name_secure: bool) -> Addresses {
        Addresses {
            name: name(to),
            aliases: aliases.iter().map(|alias| name(alias)).collect(),
            is_name_secure,
            addresses: vec![[192, 0, 2, 1].into()],
            incomplete: None,
        }
    }

    #[test]
    fn tlsa_records_are_looked_up_below_what_is_secure() {
        let host = name("mx.example.org");
        let direct = |secure| addresses(&[], "mx.example.org", secure);
        let aliased = |secure| addresses(&["mx.example.org"], "mx.example.net", secure);
        for (hosts_are_secure, answer, expected) in [
            (true, Answer::Secure(direct(true)), &["mx.example.org"][..]),
            (
                true,
                Answer::Secure(aliased(true)),
                &["mx.example.net", "mx.example.org"],
            ),
            (
                true,
                Answer::Insecure(Ok(aliased(true))),
                &["mx.example.org"],
            ),
            (true, Answer::Insecure(Ok(aliased(false))), &[]),
            (true, Answer::Insecure(Ok(direct(false))), &[]),
            (false, Answer::Secure(direct(true)), &[]),
            (false, Answer::Secure(aliased(true)), &[]),
        ] {
            let found = base_domains(hosts_are_secure, &host, &answer).unwrap_or_default();
            let expected: Vec<_> = expected.iter().map(|text| name(text)).collect();
            assert_eq!(found, expected, "{hosts_are_secure}, {answer:?}");
        }
    }

    fn discovery(mode: &str) -> Discovery {
        let text = format!("version: STSv1\nmode: {mode}\nmx: *.example.org\nmax_age: 86400");
        let now = std::time::SystemTime::now();
        Discovery {
            policy: Some(Arc::new(StoredPolicy::new("1", text.parse().unwrap(), now))),
            problem: None,
        }
    }

    #[test]
    fn a_policy_of_mta_sts_applies_by_mode_and_host() {
        let domain = name("example.org");
        let policy = |found: &Discovery, host: &str| {
            HostPolicy::opportunistic("no DANE").or_mta_sts(&domain, &name(host), found)
        };
        let (listed, unlisted) = ("mx.example.org", "mx.example.com");
        let enforce = policy(&discovery("enforce"), listed).unwrap();
        assert_eq!(enforce.name(), MxPolicy::MtaSts);
        assert!(enforce.reason.contains("is enforced"), "{}", enforce.reason);
        let endpoint = enforce.apply(Endpoint::new("mx.example.org").security(Security::None));
        assert_eq!(endpoint.get_security(), Security::Required);
        let error = policy(&discovery("enforce"), unlisted).unwrap_err();
        assert!(error.is_transient() && error.kind() == ErrorKind::Tls);
        assert_eq!(
            error.message(),
            "the MTA-STS policy of example.org does not list mx.example.com, but *.example.org"
        );
        for (host, is_listed) in [(listed, true), (unlisted, false)] {
            let testing = policy(&discovery("testing"), host).unwrap();
            assert_eq!(testing.name(), MxPolicy::Opportunistic);
            let Protection::Testing { unlisted, .. } = &testing.protection else {
                panic!("{testing:?}");
            };
            assert_eq!(unlisted.is_none(), is_listed);
            let none = policy(&discovery("none"), host).unwrap();
            assert!(matches!(none.protection, Protection::Opportunistic));
            assert!(none.reason.contains("has no MTA-STS policy"));
        }
    }

    #[test]
    fn an_error_names_some_of_many_hosts() {
        let patterns: Vec<MxPattern> = (0..8000)
            .map(|number| format!("mx{number}.example.org").parse().unwrap())
            .collect();
        let text = list_patterns(&patterns);
        assert!(
            text.starts_with("mx0.example.org, mx1.example.org, "),
            "{text}"
        );
        assert!(text.ends_with(", mx9.example.org and 7990 more"), "{text}");
        assert_eq!(
            list_patterns(&patterns[..2]),
            "mx0.example.org, mx1.example.org"
        );
    }

    /// RFC 7672, 2.2: unusable records require TLS, and authenticate the host no more than none.
    #[test]
    fn unusable_records_leave_the_rest_to_mta_sts() {
        let (domain, host) = (name("example.org"), name("mx.example.org"));
        let by_dane = |usage| {
            let record = TlsaRecord::new(usage, 1, 1, [7; 32]);
            HostPolicy::dane(Dane::new(host.as_str(), [record]))
        };
        assert!(by_dane(3).is_authenticated() && !by_dane(1).is_authenticated());
        assert!(!HostPolicy::opportunistic("").is_authenticated());
        let policy =
            |found: &Discovery, host: &DomainName| by_dane(1).or_mta_sts(&domain, host, found);
        let enforce = policy(&discovery("enforce"), &host).unwrap();
        assert_eq!(enforce.name(), MxPolicy::MtaSts);
        assert_eq!(
            enforce.reason,
            "mx.example.org has TLSA records, none of which is usable; the MTA-STS policy of \
             example.org is enforced"
        );
        assert!(policy(&discovery("enforce"), &name("mx.example.com")).is_err());
        let none = Discovery {
            policy: None,
            problem: None,
        };
        for found in [discovery("testing"), discovery("none"), none] {
            let policy = policy(&found, &host).unwrap();
            assert_eq!(policy.name(), MxPolicy::Dane, "{policy:?}");
            let endpoint = policy.apply(Endpoint::new("mx.example.org"));
            assert_eq!(endpoint.get_security(), Security::Required);
        }
    }

    #[test]
    fn a_policy_that_cannot_be_had_is_the_reason() {
        let host = name("mx.example.org");
        let failure = LookupError::new(
            name("_mta-sts.example.org"),
            "TXT",
            LookupErrorKind::TimedOut,
            "",
        );
        let found = Discovery {
            policy: None,
            problem: Some(crate::mx::mta_sts::DiscoveryError::Lookup(failure)),
        };
        let policy = HostPolicy::opportunistic("no DANE");
        let policy = policy.or_mta_sts(&name("example.org"), &host, &found);
        let policy = policy.unwrap();
        assert!(
            policy.reason.contains("_mta-sts.example.org"),
            "{}",
            policy.reason
        );
        assert_eq!(policy.name(), MxPolicy::Opportunistic);
    }

    #[test]
    fn a_failure_of_tls_under_a_policy_is_transient() {
        let listed = name("mx.example.org");
        let policy = HostPolicy::opportunistic("no DANE");
        let policy = policy.or_mta_sts(&name("example.org"), &listed, &discovery("enforce"));
        let error = Error::new(ErrorKind::Tls, Phase::Tls, "the certificate has expired");
        let policy = policy.unwrap();
        let judged = policy.judged(error);
        assert!(judged.is_transient());
        assert!(judged.message().starts_with("MTA-STS ("), "{judged}");
        // A certificate of a server of one's own choice may be trusted, another's not.
        let failure = CertificateFailure {
            problem: CertificateProblem::SelfSigned,
            chain: Vec::new(),
            index: None,
            message: "it is self-signed".into(),
            hint: "Trust it.".into(),
        };
        let judged = policy.judged(failure.into_error());
        assert!(judged.is_transient());
        let hint = judged.hint().unwrap();
        assert!(
            hint.starts_with("The domain demands that its servers"),
            "{hint}"
        );
    }

    #[test]
    fn what_disturbs_starttls_fails_the_policy() {
        let record = TlsaRecord::new(3, 1, 1, [7; 32]);
        let policy = HostPolicy::dane(Dane::new("mx.example.org", [record]));
        for (kind, phase) in [
            (ErrorKind::Protocol, Phase::StartTls),
            (ErrorKind::Closed, Phase::StartTls),
            (ErrorKind::Closed, Phase::Tls),
            (ErrorKind::Timeout, Phase::Tls),
        ] {
            let disturbed = || Error::new(kind, phase, "it failed");
            let judged = policy.judged(disturbed());
            assert_eq!(judged.kind(), ErrorKind::Tls);
            assert_eq!(judged.exit_code(), 75);
            assert!(judged.message().starts_with("DANE ("), "{judged}");
            let without = HostPolicy::opportunistic("no policy").judged(disturbed());
            assert_eq!(without.kind(), kind);
            for hint in [judged.hint(), without.hint()] {
                assert!(hint.is_some_and(|hint| !hint.contains("smtps://")));
            }
        }
        // The server keeps its promise, and the message asks for more.
        let demand = Error::new(ErrorKind::Tls, Phase::Mail, "REQUIRETLS");
        assert!(policy.judged(demand).is_permanent());
    }

    #[test]
    fn only_a_failure_keeps_mail_from_a_host() {
        let record = || vec![TlsaRecord::new(3, 1, 1, [7; 32])];
        let host = name("mx.example.org");
        assert_eq!(tlsa_records(Answer::Secure(record())), Ok(Some(record())));
        for answer in [
            Answer::Secure(Vec::new()),
            Answer::SecureAbsence(Absence::NoSuchName),
            Answer::SecureAbsence(Absence::NoRecords),
            Answer::Insecure(Ok(record())),
            Answer::Insecure(Err(Absence::NoSuchName)),
        ] {
            assert_eq!(tlsa_records(answer), Ok(None));
        }
        for kind in [LookupErrorKind::Bogus, LookupErrorKind::ServerFailure] {
            let failure = LookupError::new(name("_25._tcp.mx.example.org"), "TLSA", kind, "");
            let failure = tlsa_records(Answer::Failed(failure)).unwrap_err();
            let error = unknown_dane(&host, failure);
            assert!(error.is_transient() && error.kind() == ErrorKind::Tls);
            assert!(
                error.message().starts_with("DANE of mx.example.org"),
                "{error}"
            );
            assert_eq!(error.exit_code(), 75);
        }
    }
}
