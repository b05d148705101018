//! [`TlsReports`]: sums up the events of each day.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::SystemTime;

use super::{AppliedPolicy, FailureDetail, PolicyReport, TlsEvent, TlsFailure, TlsReport};
use crate::dns::DomainName;

const DAY: u64 = 24 * 60 * 60;

/// The maximum number of domains and days of which results are kept.
const MAX_DOMAINS: usize = 100_000;

/// The maximum number of policies of a domain in a day.
const MAX_POLICIES: usize = 100;

/// The maximum number of kinds of failures under a policy.
const MAX_FAILURES: usize = 1000;

/// The maximum size of all that is kept, in bytes. Senders of mail choose its domains, and those
/// their policies.
const MAX_SIZE: usize = 64 * 1024 * 1024;

/// The size of an entry without its texts, by estimate.
const ENTRY_SIZE: usize = 256;

/// Sums events up for the reports of each day and domain, in memory.
///
/// A day is one of UTC. Events may come in any order. What it holds is limited: to 100,000 domains
/// and days, to 100 policies for each, to 1000 kinds of failures under a policy, and to about 64
/// MiB in all. An event of a domain or policy for which there is no space is counted in
/// [`ignored`](Self::ignored) alone, and a failure of such a kind in
/// [`PolicyReport::failed_sessions`] alone.
#[derive(Clone, Debug)]
pub struct TlsReports {
    organization_name: String,
    contact_info: String,
    /// By the number of the day since 1970, and the domain.
    days: BTreeMap<(u64, DomainName), Policies>,
    /// The sum of the sizes of all entries.
    size: usize,
    ignored: u64,
}

type Policies = BTreeMap<AppliedPolicy, Results>;

#[derive(Clone, Debug, Default)]
struct Results {
    successes: u64,
    failures: u64,
    details: BTreeMap<Detail, u64>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Detail {
    failure: TlsFailure,
    mx_host: Option<DomainName>,
    address: Option<IpAddr>,
    local_address: Option<IpAddr>,
}

impl TlsReports {
    /// Creates the sum for this organization, whose contact has this address.
    pub fn new(organization_name: impl Into<String>, contact_info: impl Into<String>) -> Self {
        TlsReports {
            organization_name: organization_name.into(),
            contact_info: contact_info.into(),
            days: BTreeMap::new(),
            size: 0,
            ignored: 0,
        }
    }

    /// Adds an event to the day of its time.
    pub fn add(&mut self, event: &TlsEvent) {
        let key = (day(event.time), event.domain.clone());
        let policies = self.days.get(&key);
        if !policies.is_some_and(|policies| policies.contains_key(&event.policy)) {
            let size = self.size + key_size(&key) + policy_size(&event.policy);
            let is_full = match policies {
                Some(policies) => policies.len() >= MAX_POLICIES,
                None => self.days.len() >= MAX_DOMAINS,
            };
            if is_full || size > MAX_SIZE {
                self.ignored = self.ignored.saturating_add(1);
                return;
            }
            self.size = size;
        }
        let policies = self.days.entry(key).or_default();
        let results = policies.entry(event.policy.clone()).or_default();
        let Some(failure) = &event.failure else {
            results.successes += 1;
            return;
        };
        results.failures += 1;
        let detail = Detail {
            failure: failure.clone(),
            mx_host: event.mx_host.clone(),
            address: event.address,
            local_address: event.local_address,
        };
        if let Some(sessions) = results.details.get_mut(&detail) {
            *sessions += 1;
            return;
        }
        let size = self.size + detail_size(&detail);
        if results.details.len() < MAX_FAILURES && size <= MAX_SIZE {
            results.details.insert(detail, 1);
            self.size = size;
        }
    }

    /// The domains with events in the day that this time is in, sorted.
    pub fn domains(&self, time: SystemTime) -> Vec<DomainName> {
        let day = day(time);
        let keys = self.days.keys().filter(|(other, _)| *other == day);
        keys.map(|(_, domain)| domain.clone()).collect()
    }

    /// The report for a domain, of the day that this time is in. `None` without events.
    pub fn report(&self, domain: &DomainName, time: SystemTime) -> Option<TlsReport> {
        let day = day(time);
        let policies = self.days.get(&(day, domain.clone()))?;
        let start = day * DAY;
        let date = crate::date::to_text(start);
        Some(TlsReport {
            domain: domain.clone(),
            organization_name: self.organization_name.clone(),
            contact_info: self.contact_info.clone(),
            report_id: format!("{}_{domain}", &date[..10]),
            start,
            end: start + DAY - 1,
            policies: policies.iter().map(policy_report).collect(),
        })
    }

    /// Forgets the events of the day that this time is in, and of all days before.
    pub fn forget_until(&mut self, time: SystemTime) {
        let day = day(time);
        self.days.retain(|(other, _), _| *other > day);
        self.size = self.days.iter().map(day_size).sum();
    }

    /// The number of events that were not counted, for the limits.
    pub fn ignored(&self) -> u64 {
        self.ignored
    }
}

/// The size of a domain in a day, with all that is known of it.
fn day_size((key, policies): (&(u64, DomainName), &Policies)) -> usize {
    let size = |(policy, results): (&AppliedPolicy, &Results)| {
        let details = results.details.keys().map(detail_size);
        key_size(key) + policy_size(policy) + details.sum::<usize>()
    };
    policies.iter().map(size).sum()
}

/// The size of a key, which is counted for each policy.
fn key_size((_, domain): &(u64, DomainName)) -> usize {
    ENTRY_SIZE + domain.as_str().len()
}

fn policy_size(policy: &AppliedPolicy) -> usize {
    let texts = policy.strings.iter().chain(&policy.mx_hosts);
    let texts = texts.map(|text| size_of::<String>() + text.len());
    ENTRY_SIZE + policy.domain.as_str().len() + texts.sum::<usize>()
}

fn detail_size(detail: &Detail) -> usize {
    let host = detail
        .mx_host
        .as_ref()
        .map_or(0, |host| host.as_str().len());
    ENTRY_SIZE + host + detail.failure.reason.len()
}

/// The number of the day since 1970; that of dates before is 0, and the last has a year of four
/// digits.
fn day(time: SystemTime) -> u64 {
    crate::date::seconds(time).unwrap_or_default() / DAY
}

fn policy_report((policy, results): (&AppliedPolicy, &Results)) -> PolicyReport {
    PolicyReport {
        policy: policy.clone(),
        successful_sessions: results.successes,
        failed_sessions: results.failures,
        failures: results.details.iter().map(failure_detail).collect(),
    }
}

fn failure_detail((detail, sessions): (&Detail, &u64)) -> FailureDetail {
    FailureDetail {
        result: detail.failure.result,
        local_address: detail.local_address,
        mx_host: detail.mx_host.as_ref().map(DomainName::to_string),
        address: detail.address,
        sessions: *sessions,
        reason: detail.failure.reason.clone(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::super::{PolicyType, ResultType};
    use super::*;

    fn at(text: &str) -> SystemTime {
        crate::date::from_text(text).unwrap()
    }

    fn name(text: &str) -> DomainName {
        DomainName::new(text).unwrap()
    }

    fn reports() -> TlsReports {
        TlsReports::new("Company-X", "sts-reporting@company-x.example")
    }

    /// The report of RFC 8460, appendix B, with erratum 6241: `mx-host` is an array. What it has
    /// beyond the events of a client is left out: an id of the sender's choice, and
    /// additional-information.
    #[test]
    fn the_example_of_the_rfc() {
        let policy = AppliedPolicy {
            policy_type: PolicyType::Sts,
            domain: name("company-y.example"),
            strings: [
                "version: STSv1",
                "mode: testing",
                "mx: *.mail.company-y.example",
                "max_age: 86400",
            ]
            .map(str::to_owned)
            .into(),
            mx_hosts: vec!["*.mail.company-y.example".into()],
        };
        let time = at("2016-04-01T12:00:00Z");
        let success = TlsEvent::new(time, name("company-y.example"), policy);
        let failure = |from: &str, host: &str, to: Option<&str>| TlsEvent {
            local_address: Some(from.parse().unwrap()),
            mx_host: Some(name(host)),
            address: to.map(|to| to.parse().unwrap()),
            ..success.clone()
        };
        let expired = failure("2001:db8:abcd:0012::1", "mx1.mail.company-y.example", None)
            .with_failure(ResultType::CertificateExpired, "");
        let no_starttls = failure(
            "2001:db8:abcd:0013::1",
            "mx2.mail.company-y.example",
            Some("203.0.113.56"),
        )
        .with_failure(ResultType::StartTlsNotSupported, "");
        let invalid = failure(
            "198.51.100.62",
            "mx-backup.mail.company-y.example",
            Some("203.0.113.58"),
        )
        .with_failure(
            ResultType::ValidationFailure,
            "X509_V_ERR_PROXY_PATH_LENGTH_EXCEEDED",
        );
        let mut reports = reports();
        for (event, times) in [
            (&invalid, 3),
            (&success, 5326),
            (&expired, 100),
            (&no_starttls, 200),
        ] {
            (0..times).for_each(|_| reports.add(event));
        }
        let report = reports.report(&success.domain, time).unwrap();
        let mut written: Value = serde_json::from_str(&report.to_json()).unwrap();
        written["policies"][0]["failure-details"]
            .as_array_mut()
            .unwrap()
            .sort_by_key(|detail| detail["result-type"].to_string());
        assert_eq!(
            written,
            json!({
                "organization-name": "Company-X",
                "date-range": {
                    "start-datetime": "2016-04-01T00:00:00Z",
                    "end-datetime": "2016-04-01T23:59:59Z"
                },
                "contact-info": "sts-reporting@company-x.example",
                "report-id": "2016-04-01_company-y.example",
                "policies": [{
                    "policy": {
                        "policy-type": "sts",
                        "policy-string": ["version: STSv1", "mode: testing",
                            "mx: *.mail.company-y.example", "max_age: 86400"],
                        "policy-domain": "company-y.example",
                        "mx-host": ["*.mail.company-y.example"]
                    },
                    "summary": {
                        "total-successful-session-count": 5326,
                        "total-failure-session-count": 303
                    },
                    "failure-details": [{
                        "result-type": "certificate-expired",
                        "sending-mta-ip": "2001:db8:abcd:12::1",
                        "receiving-mx-hostname": "mx1.mail.company-y.example",
                        "failed-session-count": 100
                    }, {
                        "result-type": "starttls-not-supported",
                        "sending-mta-ip": "2001:db8:abcd:13::1",
                        "receiving-mx-hostname": "mx2.mail.company-y.example",
                        "receiving-ip": "203.0.113.56",
                        "failed-session-count": 200
                    }, {
                        "result-type": "validation-failure",
                        "sending-mta-ip": "198.51.100.62",
                        "receiving-ip": "203.0.113.58",
                        "receiving-mx-hostname": "mx-backup.mail.company-y.example",
                        "failed-session-count": 3,
                        "failure-reason-code": "X509_V_ERR_PROXY_PATH_LENGTH_EXCEEDED"
                    }]
                }]
            })
        );
        let sender = name("mail.company-x.example");
        assert_eq!(
            report.file_name(&sender),
            "mail.company-x.example!company-y.example!1459468800!1459555199.json"
        );
        assert_eq!(
            report.subject(&sender),
            "Report Domain: company-y.example Submitter: mail.company-x.example \
             Report-ID: <2016-04-01_company-y.example@mail.company-x.example>"
        );
    }

    #[test]
    fn a_day_is_one_of_utc() {
        let domain = name("example.org");
        let mut reports = reports();
        for time in [
            "2026-11-26T23:59:59Z",
            "2026-11-27T00:00:00Z",
            "2026-11-27T23:59:59Z",
        ] {
            reports.add(&TlsEvent::new(
                at(time),
                domain.clone(),
                AppliedPolicy::none(domain.clone()),
            ));
        }
        let successes = |reports: &TlsReports, time| {
            let report = reports.report(&domain, at(time))?;
            Some(report.policies[0].successful_sessions)
        };
        assert_eq!(successes(&reports, "2026-11-26T00:00:00Z"), Some(1));
        assert_eq!(successes(&reports, "2026-11-27T12:00:00Z"), Some(2));
        assert_eq!(successes(&reports, "2026-11-28T00:00:00Z"), None);
        let report = reports.report(&domain, at("2026-11-27T12:00:00Z")).unwrap();
        let written: Value = serde_json::from_str(&report.to_json()).unwrap();
        assert_eq!(
            written["policies"],
            json!([{
                "policy": { "policy-type": "no-policy-found", "policy-domain": "example.org" },
                "summary": { "total-successful-session-count": 2, "total-failure-session-count": 0 }
            }])
        );
        reports.forget_until(at("2026-11-26T00:00:00Z"));
        assert_eq!(successes(&reports, "2026-11-26T00:00:00Z"), None);
        assert_eq!(
            reports.domains(at("2026-11-27T00:00:00Z")),
            std::slice::from_ref(&domain)
        );
        reports.forget_until(at("2026-11-27T00:00:00Z"));
        assert!(reports.days.is_empty());
    }

    #[test]
    fn what_is_kept_is_limited() {
        let domain = name("example.org");
        let time = at("2026-11-27T00:00:00Z");
        let none = AppliedPolicy::none(domain.clone());
        let mut reports = reports();
        for number in 0..MAX_FAILURES as u64 + 10 {
            let event = TlsEvent::new(time, domain.clone(), none.clone());
            reports.add(&event.with_failure(ResultType::ValidationFailure, number.to_string()));
        }
        let report = reports.report(&domain, time).unwrap();
        assert_eq!(report.policies[0].failed_sessions, MAX_FAILURES as u64 + 10);
        assert_eq!(report.policies[0].failures.len(), MAX_FAILURES);
        for number in 0..MAX_POLICIES {
            let policy = AppliedPolicy::tlsa(domain.clone(), [number.to_string()]);
            reports.add(&TlsEvent::new(time, domain.clone(), policy));
        }
        assert_eq!(
            reports.report(&domain, time).unwrap().policies.len(),
            MAX_POLICIES
        );
        assert_eq!(reports.ignored(), 1);
        for day in 0..MAX_DOMAINS as u64 {
            let time = SystemTime::UNIX_EPOCH + Duration::from_secs(day % 1000 * DAY);
            let domain = name(&format!("d{}.example", day / 1000));
            reports.add(&TlsEvent::new(time, domain, none.clone()));
        }
        assert_eq!((reports.days.len(), reports.ignored()), (MAX_DOMAINS, 2));
    }

    /// Policies and reasons are texts of others.
    #[test]
    fn the_size_of_all_is_limited() {
        let domain = name("example.org");
        let time = at("2026-11-27T00:00:00Z");
        let later = at("2026-11-28T00:00:00Z");
        let event = |number: usize, time| {
            let domain = name(&format!("d{number}.example"));
            let policy = AppliedPolicy::tlsa(domain.clone(), ["x".repeat(1 << 20)]);
            TlsEvent::new(time, domain, policy)
        };
        let mut reports = reports();
        for number in 0..100 {
            reports.add(&event(number, time));
        }
        assert_eq!((reports.days.len(), reports.ignored()), (63, 37));
        // What is known is counted all the same, and what is small has space.
        reports.add(&event(62, time));
        assert_eq!(reports.ignored(), 37);
        let none = TlsEvent::new(time, domain.clone(), AppliedPolicy::none(domain.clone()));
        for number in 0..10 {
            let reason = format!("{number}{}", "x".repeat(1 << 18));
            let failed = none.clone().with_failure(ResultType::TlsaInvalid, reason);
            (0..2).for_each(|_| reports.add(&failed));
        }
        let report = reports.report(&domain, time).unwrap();
        let kept: u64 = report.policies[0]
            .failures
            .iter()
            .map(|kind| kind.sessions)
            .sum();
        assert_eq!((report.policies[0].failed_sessions, kept), (20, 6));
        let sum = |reports: &TlsReports| reports.days.iter().map(day_size).sum::<usize>();
        assert_eq!(reports.size, sum(&reports));
        assert!(reports.size <= MAX_SIZE);
        // Another day has no space until this one is forgotten.
        reports.add(&event(0, later));
        assert_eq!(reports.ignored(), 38);
        reports.forget_until(time);
        assert_eq!(reports.size, 0);
        reports.add(&event(0, later));
        assert_eq!((reports.days.len(), reports.ignored()), (1, 38));
        assert_eq!(reports.size, sum(&reports));
    }

    fn event() -> impl Strategy<Value = TlsEvent> {
        let failures = [ResultType::CertificateExpired, ResultType::TlsaInvalid];
        (
            0..3 * DAY,
            0..2u8,
            0..3u8,
            prop::option::of((0..2usize, "[ab\u{1b}]?")),
            0..2u8,
        )
            .prop_map(move |(seconds, domain, policy, failure, host)| {
                let domain = name(&format!("d{domain}.example"));
                let policy = match policy {
                    0 => AppliedPolicy::none(domain.clone()),
                    number => AppliedPolicy::tlsa(domain.clone(), [format!("3 1 1 0{number}")]),
                };
                let time = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
                let event = TlsEvent {
                    mx_host: Some(name(&format!("mx{host}.example"))),
                    ..TlsEvent::new(time, domain, policy)
                };
                match failure {
                    Some((result, reason)) => event.with_failure(failures[result], reason),
                    None => event,
                }
            })
    }

    proptest! {
        /// Each event is counted once, under its day, domain, policy and failure; the order does
        /// not matter.
        #[test]
        fn every_event_is_counted_once(mut events in prop::collection::vec(event(), 0..60)) {
            let sum = |events: &[TlsEvent]| {
                let mut reports = reports();
                events.iter().for_each(|event| reports.add(event));
                let mut all = Vec::new();
                for day in 0..4 {
                    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(day * DAY + 7);
                    let of_day = reports.domains(time);
                    all.extend(of_day.iter().map(|domain| reports.report(domain, time).unwrap()));
                }
                all
            };
            let all = sum(&events);
            for report in &all {
                for part in &report.policies {
                    let is_here = |event: &&TlsEvent| {
                        let seconds = crate::date::seconds(event.time).unwrap();
                        event.domain == report.domain
                            && event.policy == part.policy
                            && (report.start..=report.end).contains(&seconds)
                    };
                    let here: Vec<_> = events.iter().filter(is_here).collect();
                    let failed = here.iter().filter(|event| event.failure.is_some()).count() as u64;
                    prop_assert_eq!(part.failed_sessions, failed);
                    prop_assert_eq!(part.successful_sessions, here.len() as u64 - failed);
                    let sessions = part.failures.iter().map(|detail| detail.sessions);
                    prop_assert_eq!(sessions.sum::<u64>(), failed);
                    for detail in &part.failures {
                        let alike = here.iter().filter(|event| {
                            let host = event.mx_host.as_ref().map(DomainName::to_string);
                            event.failure.as_ref().is_some_and(|failure| {
                                failure.result == detail.result && failure.reason == detail.reason
                            }) && host == detail.mx_host
                        });
                        prop_assert_eq!(alike.count() as u64, detail.sessions);
                    }
                }
            }
            let counted = all.iter().flat_map(|report| &report.policies);
            let counted = counted.map(|part| part.successful_sessions + part.failed_sessions);
            let counted: u64 = counted.sum();
            prop_assert_eq!(counted, events.len() as u64);
            events.reverse();
            prop_assert_eq!(sum(&events), all);
        }
    }
}
