//! `probe --mx`: what a domain publishes, and whether its servers meet it.

use std::net::IpAddr;

use envoi::Endpoint;
use envoi::mx::mta_sts::Policy;
use envoi::mx::{Answer, Dane, DomainName, LookupError, Mx, NoDane, TlsaRecord};
use envoi::probe::{DomainReport, Inspector, Published, ServerReport, SessionReport};
use envoi::tls::{TlsSettings, Trust};
use serde_json::{Value, json};

use crate::report::{self, Failure};
use crate::{Options, resolver, trust};

/// Examines the domain and prints the report. 0 if nothing needs to change, 75 if a lookup failed,
/// else 69.
pub async fn run(domain: &str, options: &Options) -> Result<u8, Failure> {
    let request = |error: envoi::mx::DomainNameError| Failure::request(error.to_string());
    if domain.starts_with('[') || domain.parse::<IpAddr>().is_ok() {
        let failure = Failure::request("--mx takes the name of a domain, and not an address");
        return Err(failure.with_hint("To examine the server at an address: probe ADDRESS."));
    }
    let domain = DomainName::new(domain).map_err(request)?;
    let tls = tls(options);
    trust::check(tls.get_trust())?;
    let timeout = options.timeout.as_deref().map(crate::timeout).transpose()?;
    let resolver = resolver::open(
        options.resolver.as_deref(),
        options.dnssec_anchor.as_deref(),
        timeout,
    )?;
    let mut inspector = Inspector::new(resolver).tls(tls);
    if let Some(selector) = &options.selector {
        DomainName::new(selector).map_err(request)?;
        inspector = inspector.selector(selector);
    }
    if let Some(timeout) = timeout {
        inspector = inspector.timeout(timeout);
    }
    let report = inspector.inspect(&domain).await?;
    match options.json {
        true => report::write_stdout(format!("{}\n", report_json(&report))),
        false => report::write_stdout(&report),
    }
    Ok(match report.is_fine() {
        true => 0,
        false if !report.failures.is_empty() => 75,
        false => 69,
    })
}

/// What is trusted, as for the endpoint of one server.
fn tls(options: &Options) -> TlsSettings {
    let mut endpoint = Endpoint::new("localhost");
    if !options.trust.is_empty() {
        endpoint = endpoint.trust(options.trust.iter().fold(Trust::empty(), Trust::path));
    }
    if options.system_trust {
        endpoint = endpoint.system_trust();
    }
    endpoint.get_tls().clone()
}

/// The form of the report, for a request that is invalid.
pub fn no_report(error: Value) -> Value {
    json!({
        "domain": null,
        "fine": false,
        "problem": null,
        "mx": null,
        "servers": [],
        "mta_sts": null,
        "tls_rpt": null,
        "spf": null,
        "dmarc": null,
        "dkim": null,
        "changes": [],
        "suggestions": [],
        "failures": [],
        "error": error,
    })
}

fn report_json(report: &DomainReport) -> Value {
    let records = report.mx.records();
    let exchange = |mx: &Mx| {
        let host = mx.host.as_ref().map(DomainName::as_str);
        json!({"preference": mx.preference, "host": host})
    };
    let mx = records.map(|found| found.exchanges.iter().map(exchange).collect::<Vec<_>>());
    let mut dmarc = published_json(&report.dmarc);
    dmarc["domain"] = json!(report.dmarc_domain.as_str());
    let policy = report.policy.as_ref().map(Result::as_ref);
    let (policy, policy_error) = match policy {
        Some(Ok(policy)) => (Some(policy_json(policy)), None),
        Some(Err(error)) => (None, Some(error.to_string())),
        None => (None, None),
    };
    json!({
        "domain": report.domain.as_str(),
        "fine": report.is_fine(),
        "problem": report.problem.map(|problem| problem.to_string()),
        "mx": {
            "status": status(&report.mx),
            // Where the domain's CNAMEs lead.
            "name": records.map(|found| found.name.as_str()),
            "records": mx,
        },
        "servers": report.servers.iter().map(server_json).collect::<Vec<_>>(),
        "mta_sts": {
            "record": published_json(&report.mta_sts),
            "policy": policy,
            "error": policy_error,
        },
        "tls_rpt": published_json(&report.tls_rpt),
        "spf": published_json(&report.spf),
        "dmarc": dmarc,
        "dkim": report.dkim.as_ref().map(published_json),
        "changes": report.changes,
        "suggestions": report.suggestions,
        "failures": report.failures.iter().map(failure_json).collect::<Vec<_>>(),
        "error": null,
    })
}

/// The kind of an answer, in one word.
fn status<T>(answer: &Answer<T>) -> &'static str {
    match answer {
        Answer::Secure(_) => "secure",
        Answer::SecureAbsence(_) => "secure-absence",
        Answer::Insecure(Ok(_)) => "insecure",
        Answer::Insecure(Err(_)) => "insecure-absence",
        Answer::Failed(_) => "failed",
    }
}

fn server_json(server: &ServerReport) -> Value {
    let addresses = server.addresses.records();
    let sessions = server.sessions.iter();
    let sessions = sessions.map(|session| session_json(session, server));
    let no_dane = server.dane.as_ref().err();
    let dane = match &server.dane {
        Ok(dane) => {
            let records = dane.records().iter().map(ToString::to_string);
            let records: Vec<_> = records.collect();
            json!({"base": dane.base_domain(), "status": "secure", "records": records})
        }
        Err(NoDane::LookupFailed { base, .. }) => {
            json!({"base": base.as_str(), "status": "failed", "records": null})
        }
        Err(_) => Value::Null,
    };
    json!({
        "host": server.host.as_str(),
        "preference": server.preference,
        "status": status(&server.addresses),
        "name": addresses.map(|found| found.name.as_str()),
        "addresses": addresses.map(|found| &found.addresses),
        "dane": dane,
        "no_dane": no_dane.map(ToString::to_string),
        "sessions": sessions.collect::<Vec<_>>(),
    })
}

fn session_json(session: &SessionReport, server: &ServerReport) -> Value {
    let is_usable = server.dane.as_ref().is_ok_and(Dane::is_usable);
    let dane = session.dane.as_ref().filter(|_| is_usable).map(|tls| {
        let reason = tls.not_verified_reason.as_ref();
        json!({
            "verified": tls.is_verified(),
            "by": tls.verified_by,
            "error": reason.map(ToString::to_string),
        })
    });
    let key = session
        .certificate()
        .map(|peer| TlsaRecord::of_key(peer).to_string());
    json!({
        "address": session.address,
        "tls": session.tls.as_ref().map(report::tls_json),
        // What to publish for the key in use.
        "tlsa": key,
        "dane": dane,
        "error": session.failure.as_ref().map(report::error_json),
    })
}

fn published_json(published: &Published) -> Value {
    let (status, text) = match published {
        Published::Found(text) => ("found", Some(text.clone())),
        Published::Absent => ("absent", None),
        Published::Invalid(why) => ("invalid", Some(why.clone())),
        Published::Failed(error) => ("failed", Some(error.to_string())),
        _ => ("unknown", None),
    };
    json!({"status": status, "text": text})
}

fn policy_json(policy: &Policy) -> Value {
    json!({
        "mode": policy.mode.as_str(),
        "mx": policy.mx.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "max_age": policy.max_age.as_secs(),
    })
}

fn failure_json(error: &LookupError) -> Value {
    json!({
        "name": error.name().as_str(),
        "type": error.record_type(),
        "message": error.to_string(),
        "hint": error.hint(),
    })
}
