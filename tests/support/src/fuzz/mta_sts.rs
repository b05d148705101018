//! Policies of MTA-STS, and the TXT records of MTA-STS and TLS reports. What is accepted is written
//! and parsed alike, a reference decides which hosts a policy allows, and no error shows a control
//! character.

use envoi::mx::DomainName;
use envoi::mx::mta_sts::{Mode, Policy, StsRecord};
use envoi::mx::tls_report::TlsRptRecord;

/// The input is the policy; its lines are TXT records, too.
pub fn check(data: &[u8]) {
    match Policy::parse(data) {
        Ok(policy) => check_policy(&policy, data),
        Err(error) => check_text(&error.to_string()),
    }
    let records = || data.split(|byte| *byte == b'\n');
    match StsRecord::from_txt(records()) {
        Ok(Some(record)) => {
            assert!((1..=32).contains(&record.id().len()));
            assert!(record.id().bytes().all(|byte| byte.is_ascii_alphanumeric()));
        }
        Ok(None) => {}
        Err(error) => check_text(&error.to_string()),
    }
    match TlsRptRecord::from_txt(records()) {
        Ok(Some(record)) => assert!(!record.rua.is_empty()),
        Ok(None) => {}
        Err(error) => check_text(&error.to_string()),
    }
}

fn check_policy(policy: &Policy, data: &[u8]) {
    assert!(policy.mode == Mode::None || !policy.mx.is_empty());
    assert!(policy.max_age.as_secs() <= 31_557_600);
    let written = policy.to_string();
    assert_eq!(Policy::parse(written.as_bytes()).as_ref(), Ok(policy));
    let text = std::str::from_utf8(data).expect("a policy is UTF-8");
    // Any name in the input is a host.
    let words = text.split(|c: char| c.is_whitespace() || matches!(c, ':' | '*'));
    for word in words.take(64) {
        let word = word.strip_prefix('.').unwrap_or(word);
        for host in [word.to_owned(), format!("a.{word}"), format!("a.b.{word}")] {
            let Ok(host) = DomainName::new(&host) else {
                continue;
            };
            let allowed = policy
                .mx
                .iter()
                .any(|mx| is_match(&mx.to_string(), host.as_str()));
            assert_eq!(policy.allows(&host), allowed, "{host} {written:?}");
        }
    }
}

/// RFC 8461, 4.1, label by label.
fn is_match(pattern: &str, host: &str) -> bool {
    let (wanted, labels): (Vec<_>, Vec<_>) =
        (pattern.split('.').collect(), host.split('.').collect());
    wanted.len() == labels.len()
        && wanted
            .iter()
            .zip(&labels)
            .enumerate()
            .all(|(index, (wanted, label))| wanted == label || index == 0 && *wanted == "*")
}

fn check_text(text: &str) {
    assert!(!text.contains(char::is_control), "{text:?}");
}
