//! What the DNS says about the servers of a domain: which hosts there are, at which addresses, and
//! how each is to be protected.
//!
//! The functions that ask a resolver do nothing else; what an answer means is decided by functions
//! without I/O.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::problem::{MxProblem, lookup_failed, problem};
use super::route;
use crate::Address;
use crate::dns::{Absence, Addresses, Answer, DomainName, MxRecords};
use crate::error::Result;

/// Where mail for a domain goes first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum NextHop {
    Domain(DomainName),
    /// An address literal (RFC 5321, 4.1.3), for which there are no lookups.
    Literal(IpAddr),
}

impl NextHop {
    pub(super) fn of(recipient: &Address) -> Result<Self> {
        let domain = recipient.domain();
        if let Some(literal) = domain.strip_prefix('[') {
            let literal = literal.strip_suffix(']').unwrap_or(literal);
            let is_v6 = |tag: &str| tag.eq_ignore_ascii_case("IPv6");
            let address = match literal.split_once(':') {
                Some((tag, address)) if is_v6(tag) => address.parse::<Ipv6Addr>().map(Into::into),
                _ => literal.parse::<Ipv4Addr>().map(Into::into),
            };
            return address
                .map(NextHop::Literal)
                .map_err(|_| problem(MxProblem::NotAName, domain, ""));
        }
        DomainName::new(domain)
            .map(NextHop::Domain)
            .map_err(|error| problem(MxProblem::NotAName, domain, error.reason()))
    }
}

/// A host of a domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum HostName {
    Name(DomainName),
    Literal(IpAddr),
}

impl HostName {
    /// The host as an [`Endpoint`](crate::Endpoint) has it.
    pub(super) fn of_endpoint(&self) -> String {
        match self {
            HostName::Name(name) => name.as_str().to_owned(),
            HostName::Literal(address) => address.to_string(),
        }
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HostName::Name(name) => write!(f, "{name}"),
            HostName::Literal(IpAddr::V4(address)) => write!(f, "[{address}]"),
            HostName::Literal(IpAddr::V6(address)) => write!(f, "[IPv6:{address}]"),
        }
    }
}

/// The hosts of a domain.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Hosts {
    /// In the order in which they are tried.
    pub(crate) names: Vec<HostName>,
    /// Whether DNSSEC proves that these are the hosts.
    pub(crate) is_secure: bool,
    /// The domain and the names that its CNAMEs lead through and to.
    pub(super) domain_names: Vec<DomainName>,
}

/// Reads the hosts of a domain from the answer with its MX records; of a domain without MX records,
/// the host is the domain itself (RFC 5321, 5.1).
///
/// # Errors
///
/// The domain does not exist, accepts no mail, has this machine as its best server, names no valid
/// host, or the answer is a failure.
pub(crate) fn hosts(
    domain: &DomainName,
    answer: Answer<MxRecords>,
    own: &[DomainName],
    seed: u64,
) -> Result<Hosts> {
    let is_secure = answer.is_secure();
    let records = match answer {
        Answer::Failed(error) => return Err(lookup_failed(error)),
        Answer::SecureAbsence(Absence::NoSuchName) | Answer::Insecure(Err(Absence::NoSuchName)) => {
            return Err(problem(MxProblem::NoSuchDomain, domain, ""));
        }
        Answer::SecureAbsence(Absence::NoRecords) | Answer::Insecure(Err(Absence::NoRecords)) => {
            None
        }
        Answer::Secure(records) | Answer::Insecure(Ok(records)) => Some(records),
    };
    let Some(records) = records else {
        if own.contains(domain) {
            return Err(problem(MxProblem::OwnHost, domain, ""));
        }
        return Ok(Hosts {
            names: vec![HostName::Name(domain.clone())],
            is_secure,
            domain_names: vec![domain.clone()],
        });
    };
    if records.exchanges.is_empty() {
        return Err(problem(MxProblem::NoValidHost, domain, ""));
    }
    let exchanges: Vec<_> = records
        .exchanges
        .into_iter()
        .filter_map(|mx| Some((mx.preference, mx.host?)))
        .collect();
    if exchanges.is_empty() {
        return Err(problem(MxProblem::NullMx, domain, ""));
    }
    // On any machine, it would be that machine (RFC 6761, 6.3).
    let is_elsewhere = |(_, host): &(u16, DomainName)| !host.is_localhost();
    let exchanges: Vec<_> = exchanges.into_iter().filter(is_elsewhere).collect();
    if exchanges.is_empty() {
        return Err(problem(MxProblem::NoValidHost, domain, ""));
    }
    let names = route::order(exchanges, own, seed);
    if names.is_empty() {
        return Err(problem(MxProblem::OwnHost, domain, ""));
    }
    let mut domain_names = vec![domain.clone()];
    for name in records.aliases.into_iter().chain([records.name]) {
        if !domain_names.contains(&name) {
            domain_names.push(name);
        }
    }
    Ok(Hosts {
        names: names.into_iter().map(HostName::Name).collect(),
        is_secure,
        domain_names,
    })
}

/// Reads the addresses of a host from the answer.
///
/// # Errors
///
/// The host has none, its CNAMEs lead to this machine, or the answer is a failure.
pub(super) fn addresses(
    host: &DomainName,
    answer: Answer<Addresses>,
    own: &[DomainName],
) -> Result<Addresses> {
    match answer {
        Answer::Failed(error) => Err(lookup_failed(error)),
        Answer::SecureAbsence(absence) | Answer::Insecure(Err(absence)) => Err(match absence {
            Absence::NoSuchName => problem(MxProblem::NoSuchHost, host, ""),
            Absence::NoRecords => problem(MxProblem::NoAddress, host, ""),
        }),
        Answer::Secure(addresses) | Answer::Insecure(Ok(addresses)) => {
            if own.contains(&addresses.name)
                || addresses.aliases.iter().any(|alias| own.contains(alias))
            {
                return Err(problem(MxProblem::OwnHost, host, ""));
            }
            Ok(addresses)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;

    use super::*;
    use crate::dns::{LookupError, LookupErrorKind};
    use crate::mx::problem::problem_of;

    fn name(text: &str) -> DomainName {
        text.parse().unwrap()
    }

    fn hosts_of(answer: Answer<MxRecords>, own: &[&str]) -> Result<Hosts> {
        let own: Vec<DomainName> = own.iter().map(|text| name(text)).collect();
        hosts(&name("example.org"), answer, &own, 1)
    }

    fn texts(hosts: &Hosts) -> Vec<String> {
        hosts.names.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn next_hops_are_domains_and_literals() {
        let next_hop = |address: &str| NextHop::of(&address.parse().unwrap());
        let literal = |text: &str| NextHop::Literal(text.parse().unwrap());
        assert_eq!(
            next_hop("a@Example.ORG").unwrap(),
            NextHop::Domain(name("example.org"))
        );
        #[cfg(feature = "idna")]
        assert_eq!(
            next_hop("a@b\u{fc}cher.example").unwrap(),
            NextHop::Domain(name("xn--bcher-kva.example"))
        );
        assert_eq!(next_hop("a@[192.0.2.1]").unwrap(), literal("192.0.2.1"));
        assert_eq!(
            next_hop("a@[IPv6:2001:db8::1]").unwrap(),
            literal("2001:db8::1")
        );
        let long = format!("a@{}", ["a"; 128].join("."));
        let error = next_hop(&long).unwrap_err();
        assert!(error.is_permanent() && error.hint().is_some(), "{error:?}");
        assert_eq!(problem_of(&error), Some(MxProblem::NotAName));
        assert!(error.message().contains("longer than 253"), "{error}");
    }

    #[test]
    fn each_answer_about_a_domain_has_its_meaning() {
        let found = hosts_of(
            Answer::Secure(MxRecords::example(&[(20, "b.test"), (10, "a.test")])),
            &[],
        );
        let found = found.unwrap();
        assert!(found.is_secure);
        assert_eq!(texts(&found), ["a.test", "b.test"]);
        let found = hosts_of(
            Answer::Insecure(Ok(MxRecords::example(&[(10, "a.test")]))),
            &[],
        )
        .unwrap();
        assert!(!found.is_secure);
        // Without MX records, the domain is its own host.
        for (answer, is_secure) in [
            (Answer::SecureAbsence(Absence::NoRecords), true),
            (Answer::Insecure(Err(Absence::NoRecords)), false),
        ] {
            let found = hosts_of(answer, &[]).unwrap();
            assert_eq!(texts(&found), ["example.org"]);
            assert_eq!(found.is_secure, is_secure);
        }
        // A null MX beside others says nothing (RFC 7505, 3).
        let found = hosts_of(
            Answer::Secure(MxRecords::example(&[(0, "."), (10, "a.test")])),
            &[],
        );
        assert_eq!(texts(&found.unwrap()), ["a.test"]);
        // Nor does one that names the machine that reads it.
        let records = MxRecords::example(&[(0, "localhost"), (10, "a.test")]);
        let found = hosts_of(Answer::Secure(records), &[]);
        assert_eq!(texts(&found.unwrap()), ["a.test"]);
        for (answer, own, problem) in [
            (
                Answer::Secure(MxRecords::example(&[(0, ".")])),
                "",
                MxProblem::NullMx,
            ),
            (
                Answer::Secure(MxRecords::example(&[])),
                "",
                MxProblem::NoValidHost,
            ),
            (
                Answer::Secure(MxRecords::example(&[(10, "localhost")])),
                "",
                MxProblem::NoValidHost,
            ),
            (
                Answer::SecureAbsence(Absence::NoSuchName),
                "",
                MxProblem::NoSuchDomain,
            ),
            (
                Answer::Insecure(Err(Absence::NoSuchName)),
                "",
                MxProblem::NoSuchDomain,
            ),
            (
                Answer::Secure(MxRecords::example(&[(10, "a.test"), (20, "b.test")])),
                "a.test",
                MxProblem::OwnHost,
            ),
            (
                Answer::SecureAbsence(Absence::NoRecords),
                "example.org",
                MxProblem::OwnHost,
            ),
        ] {
            let own: Vec<&str> = own.split_whitespace().collect();
            let error = hosts_of(answer, &own).unwrap_err();
            assert!(error.is_permanent() && error.exit_code() == 69, "{error:?}");
            assert_eq!(problem_of(&error), Some(problem));
            assert!(error.hint().is_some() && error.message().contains("example.org"));
        }
    }

    #[test]
    fn a_lookup_that_failed_may_succeed_later() {
        for kind in [LookupErrorKind::Bogus, LookupErrorKind::ServerFailure] {
            let failed = || LookupError::new(name("example.org"), "MX", kind, "");
            let error = hosts_of(Answer::Failed(failed()), &[]).unwrap_err();
            let host = name("mx.example.org");
            let host = addresses(&host, Answer::Failed(failed()), &[]).unwrap_err();
            for error in [error, host] {
                assert!(error.is_transient() && error.exit_code() == 75, "{error:?}");
                let source = error.source().and_then(|source| source.downcast_ref());
                assert_eq!(source, Some(&failed()));
                assert!(error.hint().is_some_and(|hint| hint.ends_with('.')));
            }
        }
    }

    #[test]
    fn a_host_without_an_address_is_a_permanent_failure() {
        for (absence, problem) in [
            (Absence::NoSuchName, MxProblem::NoSuchHost),
            (Absence::NoRecords, MxProblem::NoAddress),
        ] {
            for answer in [
                Answer::SecureAbsence(absence),
                Answer::Insecure(Err(absence)),
            ] {
                let error = addresses(&name("mx.example.org"), answer, &[]).unwrap_err();
                assert!(error.is_permanent());
                assert_eq!(problem_of(&error), Some(problem));
            }
        }
    }

    /// A domain without MX records, or a host of one that has them, is an alias of this machine.
    #[test]
    fn an_alias_of_this_machine_is_this_machine() {
        let answer = || {
            Answer::Insecure(Ok(Addresses {
                name: name("real.test"),
                aliases: vec![name("example.org"), name("between.test")],
                is_name_secure: false,
                addresses: vec![[192, 0, 2, 1].into()],
                incomplete: None,
            }))
        };
        let host = name("example.org");
        for own in ["real.test", "between.test", "example.org"] {
            let error = addresses(&host, answer(), &[name(own)]).unwrap_err();
            assert!(error.is_permanent());
            assert_eq!(problem_of(&error), Some(MxProblem::OwnHost), "{own}");
        }
        assert!(addresses(&host, answer(), &[name("other.test")]).is_ok());
    }

    #[test]
    fn the_names_of_the_domain_are_those_that_its_aliases_lead_through() {
        let mut aliased = MxRecords::example(&[(10, "a.test")]);
        aliased.aliases = vec![name("example.org"), name("alias.test")];
        aliased.name = name("real.test");
        let found = hosts_of(Answer::Secure(aliased), &[]).unwrap();
        let expected = ["example.org", "alias.test", "real.test"].map(name);
        assert_eq!(found.domain_names, expected);
    }
}
