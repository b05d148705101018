//! `probe --mx`: what a domain publishes, and whether its servers meet it.

use envoi::Endpoint;
use envoi::mx::mta_sts::Policy;
use envoi::mx::{Answer, DomainName, LookupError, Resolver, TlsaRecord};
use envoi::probe::{DomainReport, Inspector, Published, ServerReport, SessionReport};
use envoi::tls::{TlsSettings, Trust};
use serde_json::{Value, json};

use crate::report::{self, Failure};
use crate::{Options, trust};

/// Examines the domain and prints the report. 0 if nothing needs to change, 75 if a lookup failed,
/// else 69.
pub async fn run(domain: &str, options: &Options) -> Result<u8, Failure> {
    let request = |error: envoi::mx::DomainNameError| Failure::request(error.to_string());
    let domain = DomainName::new(domain).map_err(request)?;
    let tls = tls(options);
    trust::check(tls.get_trust())?;
    let mut inspector = Inspector::new(resolver(options)?).tls(tls);
    if let Some(selector) = &options.selector {
        DomainName::new(selector).map_err(request)?;
        inspector = inspector.selector(selector);
    }
    if let Some(timeout) = options.timeout.as_deref() {
        inspector = inspector.timeout(crate::timeout(timeout)?);
    }
    let report = inspector.inspect(&domain).await;
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

fn resolver(options: &Options) -> Result<Resolver, Failure> {
    let mut resolver = match &options.resolver {
        Some(address) => address
            .parse()
            .map_err(|error| Failure::from(error).of("--resolver"))?,
        None => Resolver::system()?,
    };
    if let Some(path) = &options.dnssec_anchor {
        resolver = resolver
            .anchor_file(path)
            .map_err(|error| Failure::from(error).of("--dnssec-anchor"))?;
    }
    if let Some(timeout) = options.timeout.as_deref() {
        resolver = resolver.timeout(crate::timeout(timeout)?);
    }
    Ok(resolver)
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

fn report_json(report: &DomainReport) -> Value {
    let mx = report.mx.records().map(|records| {
        let exchange = |mx: &envoi::mx::Mx| {
            let host = mx.host.as_ref().map(DomainName::as_str);
            json!({"preference": mx.preference, "host": host})
        };
        records.exchanges.iter().map(exchange).collect::<Vec<_>>()
    });
    let policy = report.policy.as_ref().map(Result::as_ref);
    let (policy, policy_error) = match policy {
        Some(Ok(policy)) => (Some(policy_json(policy)), None),
        Some(Err(error)) => (None, Some(error.to_string())),
        None => (None, None),
    };
    json!({
        "domain": report.domain.as_str(),
        "fine": report.is_fine(),
        "mx": {"status": status(&report.mx), "records": mx},
        "servers": report.servers.iter().map(server_json).collect::<Vec<_>>(),
        "mta_sts": {
            "record": published_json(&report.mta_sts),
            "policy": policy,
            "error": policy_error,
        },
        "tls_rpt": published_json(&report.tls_rpt),
        "spf": published_json(&report.spf),
        "dmarc": published_json(&report.dmarc),
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
    let dane = server.dane.as_ref().map(|(base, answer)| {
        let records = answer
            .records()
            .map(|records| records.iter().map(ToString::to_string));
        json!({
            "base": base.as_str(),
            "status": status(answer),
            "records": records.map(Iterator::collect::<Vec<_>>),
        })
    });
    json!({
        "host": server.host.as_str(),
        "preference": server.preference,
        "status": status(&server.addresses),
        "dane": dane,
        "sessions": server.sessions.iter().map(session_json).collect::<Vec<_>>(),
    })
}

fn session_json(session: &SessionReport) -> Value {
    let dane = session.dane.as_ref().map(|dane| match dane {
        Ok(by) => json!({"verified": true, "by": by, "error": null}),
        Err(error) => json!({"verified": false, "by": null, "error": error.message()}),
    });
    let peer = session.tls.as_ref().and_then(|tls| tls.peer());
    let key = peer.map(|peer| TlsaRecord::of_key(peer).to_string());
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
