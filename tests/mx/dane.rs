//! Messages to servers with TLSA records.

use crate::cases::{self, CASES, Decision};
use crate::lab::lab;
use crate::postfix::Postfix;

#[tokio::test]
#[ignore = "needs root, NSD, Unbound and Postfix"]
async fn postfix_comes_to_the_same_decisions() {
    let _servers = cases::start().await;
    let recipients: Vec<_> = CASES.iter().map(cases::Case::recipient).collect();
    let send = move || Postfix::start(lab().resolver()).send(&recipients);
    let results = tokio::task::spawn_blocking(send).await.unwrap();
    let mut differences = Vec::new();
    for (case, (decision, line)) in CASES.iter().zip(results) {
        if decision != case.decision {
            println!("{}: {decision:?}: {line}", case.domain);
            differences.push((case.domain, decision));
        }
    }
    // Postfix uses the records of a host that unsigned MX records lead to, unless
    // smtp_tls_dane_insecure_mx_policy is `may`. RFC 7672, 2.2.1 does not require it: the name of
    // the host may be forged.
    let stricter = [("insecure-mx-mismatch.unsigned", Decision::Delayed)];
    assert_eq!(differences, stricter);
}
