//! Messages to servers with TLSA records.

use crate::cases::{self, CASES};
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
    assert_eq!(differences, []);
}
