//! What must change for mail to arrive as a domain publishes it, what could be better, and what is
//! not known, as a lookup failed.

use std::collections::HashSet;
use std::error::Error as _;
use std::io;
use std::net::IpAddr;
use std::time::Duration;

use super::{DomainReport, Published, ServerReport, SessionReport};
use crate::error::{Error, Phase};
use crate::mx::mta_sts::{FetchError, Mode, MxPattern, Policy};
use crate::mx::{
    Absence, Answer, LookupError, MxProblem, MxRecords, NoDane, TlsaRecord, is_public,
    list_patterns, problem_of,
};
use crate::tls::TlsInfo;

/// The lifetime of a policy below which RFC 8461, 3.2 sees a risk.
const SHORT_MAX_AGE: Duration = Duration::from_secs(7 * 24 * 60 * 60);

#[derive(Default)]
struct Judgement {
    changes: Vec<String>,
    suggestions: Vec<String>,
    failures: Vec<LookupError>,
}

impl Judgement {
    fn change(&mut self, text: impl Into<String>) {
        self.changes.push(text.into());
    }

    fn suggest(&mut self, text: impl Into<String>) {
        self.suggestions.push(text.into());
    }
}

impl DomainReport {
    /// Fills in the changes, suggestions and failures.
    pub(super) fn judge(&mut self) {
        let mut found = Judgement::default();
        self.judge_mx(&mut found);
        for server in &self.servers {
            self.judge_server(server, &mut found);
        }
        self.judge_reach(&mut found);
        // Below a name that does not exist, nothing does (RFC 8020).
        if self.problem != Some(MxProblem::NoSuchDomain) {
            self.judge_policy(&mut found);
            self.judge_texts(&mut found);
        }
        self.changes = found.changes;
        self.suggestions = found.suggestions;
        self.failures = found.failures;
    }

    fn judge_mx(&self, found: &mut Judgement) {
        let domain = &self.domain;
        if let Answer::Failed(error) = &self.mx {
            found.failures.push(error.clone());
        }
        let exchanges = self
            .mx
            .records()
            .map_or(&[][..], |records| &records.exchanges);
        let null = exchanges.iter().find(|mx| mx.host.is_none());
        let is_plain = || null.is_some_and(|mx| mx.preference == 0) && exchanges.len() == 1;
        match &self.problem {
            Some(MxProblem::NoSuchDomain) => found.change(format!(
                "{domain} does not exist (NXDOMAIN), or is an alias of what does not: check the \
                 spelling and its CNAME record"
            )),
            Some(MxProblem::NoValidHost) => found.change(format!(
                "none of the MX records of {domain} has the name of a host: correct them"
            )),
            Some(MxProblem::NullMx) if is_plain() => {}
            Some(MxProblem::NullMx) => found.suggest(format!(
                "the null MX of {domain} should be one record with the preference 0 (RFC 7505, 3)"
            )),
            _ if null.is_some() => found.change(format!(
                "{domain} has a null MX beside others: remove it, or the others (RFC 7505, 3)"
            )),
            _ => {}
        }
        if !self.may_take_mail() {
            return;
        }
        if self.mx.absence() == Some(Absence::NoRecords) {
            found.suggest(format!(
                "{domain} has no MX records, so that mail goes to its own address: publish one"
            ));
        }
        if matches!(self.mx, Answer::Insecure(_)) {
            found.suggest(format!(
                "{domain} is not signed by DNSSEC, so that DANE does not apply to its servers"
            ));
        }
        let mut hosts: Vec<_> = exchanges.iter().filter_map(|mx| mx.host.as_ref()).collect();
        hosts.sort_unstable();
        hosts.dedup();
        let examined = self.servers.len();
        if examined < hosts.len() {
            let number = hosts.len();
            found.suggest(format!(
                "{examined} of the {number} MX hosts were examined: fewer are enough"
            ));
        }
    }

    /// Whether a server has an address, or may have one.
    fn may_take_mail(&self) -> bool {
        let mut servers = self.servers.iter();
        servers.any(|server| server.addresses.absence().is_none())
    }

    fn judge_server(&self, server: &ServerReport, found: &mut Judgement) {
        let host = &server.host;
        if host.as_str().parse::<IpAddr>().is_ok() {
            return found.change(format!(
                "the MX record names the address {host}, which no sender looks up: give the name \
                 of the host (RFC 5321, 5.1)"
            ));
        }
        // Without MX records, the host is the domain itself.
        let is_implicit = self.mx.absence().is_some();
        match &server.addresses {
            Answer::Failed(error) => return found.failures.push(error.clone()),
            Answer::SecureAbsence(_) | Answer::Insecure(Err(_)) if is_implicit => {
                let domain = &self.domain;
                return found.change(format!(
                    "{domain} has neither MX records nor an address, so that it takes no mail: \
                     publish MX records, or a null MX if it is to take none (RFC 7505)"
                ));
            }
            Answer::SecureAbsence(why) | Answer::Insecure(Err(why)) => {
                return found.change(format!("the MX host {host} has no address: {why}"));
            }
            Answer::Secure(addresses) | Answer::Insecure(Ok(addresses)) => {
                found.failures.extend(addresses.incomplete.clone());
                if addresses.name != *host && !is_implicit {
                    let name = &addresses.name;
                    found.suggest(format!(
                        "the MX host {host} is an alias: give {name} in the MX record, as some \
                         senders do not follow the CNAME (RFC 2181, 10.3)"
                    ));
                }
            }
        }
        self.judge_records(server, found);
        let policy = self.applied_policy();
        if let Some(policy) = policy
            && !policy.allows(host)
        {
            found.change(format!(
                "the policy of MTA-STS does not name the MX host {host}: add it to the policy"
            ));
        }
        for session in &server.sessions {
            session.judge(server, policy, found);
        }
    }

    fn judge_records(&self, server: &ServerReport, found: &mut Judgement) {
        match &server.dane {
            Ok(dane) => {
                let (base, records) = (dane.base_domain(), dane.records());
                let unusable = records.iter().filter(|record| !record.is_usable()).count();
                if unusable == records.len() {
                    found.change(format!(
                        "no TLSA record of {base} can be used: publish one of the form 3 1 1"
                    ));
                } else if unusable > 0 {
                    found.suggest(format!(
                        "remove the unusable TLSA records of {base}: {unusable}"
                    ));
                }
            }
            Err(NoDane::LookupFailed { error, .. }) => found.failures.push(error.clone()),
            Err(NoDane::NotApplicable(_)) => {
                let mut sessions = server.sessions.iter();
                if self.mx.is_secure()
                    && server.addresses.is_secure()
                    && let Some(peer) = sessions.find_map(SessionReport::certificate)
                {
                    let (host, record) = (&server.host, TlsaRecord::of_key(peer));
                    found.suggest(format!(
                        "publish a TLSA record, by which senders recognize {host}: \
                         _25._tcp.{host}. IN TLSA {record}"
                    ));
                }
            }
        }
    }

    /// What is said about the servers together.
    fn judge_reach(&self, found: &mut Judgement) {
        let addresses = self.servers.iter().map(|server| {
            let addresses = server.addresses.records();
            addresses.map_or(0, |found| found.addresses.len())
        });
        let addresses: usize = addresses.sum();
        let sessions: Vec<_> = self
            .servers
            .iter()
            .flat_map(|server| &server.sessions)
            .collect();
        let examined = sessions.len();
        if examined < addresses {
            found.suggest(format!(
                "{examined} of the {addresses} addresses were connected to"
            ));
        }
        let is_unreached = |session: &&SessionReport| {
            let failure = session.failure.as_ref();
            failure.is_some_and(|failure| failure.phase() == Phase::Connect && !is_refused(failure))
        };
        if !sessions.is_empty() && sessions.iter().all(is_unreached) {
            found.suggest(
                "no server could be connected to: this network may block outgoing connections to \
                 port 25, as many do; try another domain",
            );
        }
    }

    /// The policy of MTA-STS, if it is in force or in testing.
    fn applied_policy(&self) -> Option<&Policy> {
        let policy = self.policy.as_ref()?.as_ref().ok()?;
        (policy.mode != Mode::None).then_some(policy)
    }

    fn judge_policy(&self, found: &mut Judgement) {
        let policy = match &self.policy {
            Some(Ok(policy)) => policy,
            Some(Err(error)) => {
                return match lookup_of(error) {
                    Some(lookup) => found.failures.push(lookup.clone()),
                    None => found.change(format!("{error}. {}", error.hint())),
                };
            }
            None => return,
        };
        match policy.mode {
            Mode::Enforce => {}
            Mode::Testing => found.suggest(
                "the policy of MTA-STS is in testing, and protects nothing yet: enforce it once \
                 reports show no failures",
            ),
            Mode::None => {
                return found.suggest(
                    "the policy of MTA-STS is of the mode none, and protects nothing: enforce it, \
                     or remove it with its record once the policy before it has expired",
                );
            }
        }
        if policy.max_age < SHORT_MAX_AGE {
            let seconds = policy.max_age.as_secs();
            found.suggest(format!(
                "the policy of MTA-STS is valid for {seconds} seconds: weeks leave an attacker \
                 less room (RFC 8461, 3.2)"
            ));
        }
        let Some(MxRecords { exchanges, .. }) = self.mx.records() else {
            return;
        };
        // Both may be thousands.
        let hosts = exchanges.iter().filter_map(|mx| mx.host.as_ref());
        let matching: HashSet<MxPattern> = hosts.flat_map(MxPattern::all_of).collect();
        let is_of_none = |pattern: &&MxPattern| !matching.contains(pattern);
        let others: Vec<_> = policy.mx.iter().filter(is_of_none).cloned().collect();
        match &others[..] {
            [] => {}
            [other] => found.suggest(format!(
                "the policy of MTA-STS names {other}, which is not an MX host: remove it, unless \
                 it is about to become one"
            )),
            others => found.suggest(format!(
                "the policy of MTA-STS names {}, which are not MX hosts: remove them, unless they \
                 are about to become some",
                list_patterns(others)
            )),
        }
    }

    fn judge_texts(&self, found: &mut Judgement) {
        let of_servers = self.may_take_mail();
        let (spf, dmarc) = match self.problem {
            Some(MxProblem::NullMx) => (
                "publish an SPF record (RFC 7208): v=spf1 -all, if the domain sends no mail, \
                 either",
                "publish a DMARC record (RFC 7489): v=DMARC1; p=reject, if the domain sends no \
                 mail, either",
            ),
            _ => (
                "publish an SPF record (RFC 7208), which says who may send in the domain's name",
                "publish a DMARC record (RFC 7489): v=DMARC1; p=none to begin with",
            ),
        };
        for (name, published, suggestion) in [
            (
                "the record of MTA-STS",
                &self.mta_sts,
                of_servers.then_some("publish a record and a policy of MTA-STS (RFC 8461)"),
            ),
            (
                "the record of TLS-RPT",
                &self.tls_rpt,
                of_servers
                    .then_some("publish a record of TLS-RPT (RFC 8460), to learn of TLS failures"),
            ),
            ("the SPF record", &self.spf, Some(spf)),
            ("the DMARC record", &self.dmarc, Some(dmarc)),
        ] {
            match (published, suggestion) {
                (Published::Absent, Some(suggestion)) => found.suggest(suggestion),
                _ => judge_published(name, published, found),
            }
        }
        match &self.dkim {
            Some(Published::Absent) => found.change("there is no DKIM record for this selector"),
            Some(published) => judge_published("the DKIM record", published, found),
            None => {}
        }
    }
}

fn judge_published(name: &str, published: &Published, found: &mut Judgement) {
    match published {
        Published::Failed(error) => found.failures.push(error.clone()),
        Published::Invalid(why) => found.change(format!("{name} is not valid: {why}")),
        Published::Found(_) | Published::Absent => {}
    }
}

impl SessionReport {
    fn judge(&self, server: &ServerReport, policy: Option<&Policy>, found: &mut Judgement) {
        let place = format!("{} at {}", server.host, self.address);
        if let Some(failure) = &self.failure {
            let message = failure.message();
            if is_refused(failure) && !is_public(self.address) {
                return found.change(format!(
                    "{place} is not on the public Internet: give an address that others can reach"
                ));
            }
            // What others may reach, and this machine cannot or may not.
            if lacks_route(failure) || is_refused(failure) {
                return found.suggest(format!("{place} was not examined: {message}"));
            }
            let is_verified = self.by_dane(server).is_some_and(TlsInfo::is_verified);
            return match is_verified && policy.is_none() {
                true => found.suggest(format!("{place}, for senders without DANE: {message}")),
                false => found.change(format!("{place}: {message}")),
            };
        }
        let Some(tls) = &self.tls else {
            return match server.dane.is_ok() || policy.is_some() {
                true => found.change(format!(
                    "{place} offers no STARTTLS, which the domain promises"
                )),
                false => found.suggest(format!("{place} offers no STARTTLS")),
            };
        };
        let by_dane = self.by_dane(server);
        if let Some(reason) = by_dane.and_then(|tls| tls.not_verified_reason.as_ref()) {
            found.change(format!("{place} does not match its TLSA records: {reason}"));
        }
        let Some(reason) = &tls.not_verified_reason else {
            return;
        };
        match policy.map(|policy| policy.mode) {
            Some(Mode::Testing) => found.change(format!(
                "{place} has a certificate that does not meet the policy of MTA-STS, which is in \
                 testing: {reason}"
            )),
            Some(_) => found.change(format!(
                "{place} has a certificate that does not meet the policy of MTA-STS: {reason}"
            )),
            None if by_dane.is_none_or(|tls| !tls.is_verified()) => found.suggest(format!(
                "{place} has a certificate that cannot be verified: {reason}"
            )),
            None => {}
        }
    }
}

/// The lookup that kept a policy from being fetched.
fn lookup_of(error: &FetchError) -> Option<&LookupError> {
    error.source().and_then(|source| source.downcast_ref())
}

/// Whether the address may not be connected to.
fn is_refused(error: &Error) -> bool {
    problem_of(error) == Some(MxProblem::AddressRefused)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mx::{Addresses, DomainName, problem};
    use crate::{ErrorKind, Result};

    fn name(text: &str) -> DomainName {
        text.parse().unwrap()
    }

    /// A server at these addresses, with the result of each session in plaintext.
    fn server(host: &str, sessions: Vec<(&str, Result<()>)>) -> ServerReport {
        let sessions: Vec<_> = sessions
            .into_iter()
            .map(|(address, result)| SessionReport {
                address: address.parse().unwrap(),
                tls: None,
                dane: None,
                failure: result.err(),
            })
            .collect();
        ServerReport {
            host: name(host),
            preference: 10,
            addresses: Answer::Insecure(Ok(Addresses {
                name: name(host),
                aliases: Vec::new(),
                is_name_secure: false,
                addresses: sessions.iter().map(|session| session.address).collect(),
                incomplete: None,
            })),
            dane: Err(NoDane::NotApplicable(
                "the MX records are not signed".to_owned(),
            )),
            sessions,
        }
    }

    /// The judged report of a domain that publishes nothing else.
    fn judged(
        exchanges: &[(u16, &str)],
        problem: Option<MxProblem>,
        servers: Vec<ServerReport>,
    ) -> DomainReport {
        let mut report = DomainReport {
            domain: name("example.org"),
            mx: Answer::Insecure(Ok(MxRecords::example(exchanges))),
            problem,
            servers,
            mta_sts: Published::Absent,
            policy: None,
            tls_rpt: Published::Absent,
            spf: Published::Found("v=spf1 -all".to_owned()),
            dmarc: Published::Found("v=DMARC1; p=none".to_owned()),
            dmarc_domain: name("example.org"),
            dkim: None,
            changes: Vec::new(),
            suggestions: Vec::new(),
            failures: Vec::new(),
        };
        report.judge();
        report
    }

    #[track_caller]
    fn has(texts: &[String], words: &str, is_there: bool) {
        let found = texts.iter().any(|text| text.contains(words));
        assert_eq!(found, is_there, "{words}: {texts:#?}");
    }

    #[test]
    fn a_null_mx_is_alone_and_has_the_preference_0() {
        for (exchanges, problem, changes, suggestions) in [
            (&[(0, ".")][..], Some(MxProblem::NullMx), false, false),
            (&[(10, ".")], Some(MxProblem::NullMx), false, true),
            (&[(0, "."), (5, ".")], Some(MxProblem::NullMx), false, true),
            (&[(0, "."), (10, "mx.example.org")], None, true, false),
        ] {
            let report = judged(exchanges, problem, Vec::new());
            has(&report.changes, "a null MX beside others", changes);
            has(&report.suggestions, "should be one record", suggestions);
            has(&report.suggestions, "MTA-STS", false);
        }
    }

    #[test]
    fn an_address_that_is_not_connected_to_is_not_the_fault_of_the_domain() {
        let refused = |address: &str| Err(problem(MxProblem::AddressRefused, address, "no"));
        let no_route = || {
            let source = io::Error::from(io::ErrorKind::NetworkUnreachable);
            let error = Error::new(ErrorKind::Connect, Phase::Connect, "it cannot be reached");
            Err(error.with_source(source))
        };
        let sessions = vec![
            ("9.9.9.9", refused("9.9.9.9")),
            ("2620:fe::9", no_route()),
            ("10.0.0.5", refused("10.0.0.5")),
        ];
        let servers = vec![server("mx.example.org", sessions)];
        let report = judged(&[(10, "mx.example.org")], None, servers);
        for address in ["9.9.9.9", "2620:fe::9"] {
            let words = format!("mx.example.org at {address} was not examined");
            has(&report.suggestions, &words, true);
        }
        assert_eq!(
            report.changes,
            [
                "mx.example.org at 10.0.0.5 is not on the public Internet: give an address that \
              others can reach"
            ]
        );
    }

    #[test]
    fn this_network_may_block_the_port() {
        let unreached = || Err(Error::new(ErrorKind::Timeout, Phase::Connect, "no answer"));
        let words = "may block outgoing connections to port 25";
        for (second, is_there) in [(unreached(), true), (Ok(()), false)] {
            let sessions = vec![("9.9.9.9", unreached()), ("9.9.9.10", second)];
            let servers = vec![server("mx.example.org", sessions)];
            let report = judged(&[(10, "mx.example.org")], None, servers);
            has(&report.suggestions, words, is_there);
            has(&report.suggestions, "MTA-STS", true);
            has(
                &report.changes,
                "mx.example.org at 9.9.9.9: no answer",
                true,
            );
        }
    }

    /// The policy and the MX records are of the domain that is examined, and may be made to annoy.
    #[test]
    fn thousands_of_hosts_are_one_suggestion() {
        let published = |name: &str| {
            let policy = format!("version: STSv1\nmode: enforce\nmax_age: 31557600\n{name}");
            Some(Ok(policy.parse().unwrap()))
        };
        let hosts: Vec<String> = (0..4000).map(|n| format!("mx{n}.a.example.org")).collect();
        let exchanges: Vec<_> = hosts.iter().map(|host| (10, host.as_str())).collect();
        let mut report = judged(&exchanges, None, Vec::new());
        let suggestions = |report: &mut DomainReport, policy: &str| {
            report.policy = published(policy);
            report.judge();
            let about = report.suggestions.iter();
            let about = about.filter(|text| text.starts_with("the policy of MTA-STS names"));
            about.cloned().collect::<Vec<_>>()
        };
        let others: String = (0..2500)
            .map(|n| format!("mx: mx{n}.b.example.org\n"))
            .collect();
        let found = suggestions(&mut report, &others);
        assert_eq!(found.len(), 1);
        let text = &found[0];
        assert!(
            text.contains("mx9.b.example.org and 2490 more, which are not"),
            "{text}"
        );
        assert!(text.len() < 400, "{text}");
        assert!(report.to_string().len() < 2000);
        // The last of the hosts, and a wildcard for all of them.
        let last = "mx: mx3999.a.example.org\nmx: *.a.example.org\n";
        assert_eq!(suggestions(&mut report, last), [""; 0]);
        let other = "mx: *.a.example.org\nmx: *.example.org\n";
        let found = suggestions(&mut report, other);
        assert!(
            found[0].contains("names *.example.org, which is not"),
            "{found:?}"
        );
    }

    #[test]
    fn what_was_left_out_is_said() {
        let exchanges = [
            (10, "a.example.org"),
            (20, "b.example.org"),
            (30, "a.example.org"),
        ];
        let mut a = server(
            "a.example.org",
            vec![("9.9.9.9", Ok(())), ("9.9.9.10", Ok(()))],
        );
        a.sessions.pop();
        let report = judged(&exchanges, None, vec![a]);
        has(
            &report.suggestions,
            "1 of the 2 MX hosts were examined",
            true,
        );
        has(
            &report.suggestions,
            "1 of the 2 addresses were connected to",
            true,
        );
    }
}
