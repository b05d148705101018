//! `envoi::probe::Inspector` and `probe --mx`.

use envoi::mx::Answer;
use envoi::probe::{Inspector, Published};
use envoi::testing::Server;
use envoi::tls::{TlsSettings, Trust};
use support::program::{self, Run};

use crate::lab::lab;
use crate::resolver::{name, resolver};

fn inspector() -> Inspector {
    Inspector::new(resolver()).tls(TlsSettings::new(Trust::empty().path(lab().ca_file())))
}

#[track_caller]
fn mentions(texts: &[String], words: &str) {
    assert!(
        texts.iter().any(|text| text.contains(words)),
        "{words}: {texts:#?}"
    );
}

/// One domain, as its server is put in order step by step.
#[tokio::test]
#[ignore = "needs root, NSD and Unbound"]
async fn a_server_must_meet_what_its_domain_publishes() {
    let domain = name("good.probe.example");
    let inspect = async || inspector().selector("s1").inspect(&domain).await;

    // Nothing listens.
    let report = inspect().await;
    assert_eq!(report.changes.len(), 1, "{report}");
    mentions(&report.changes, "mx.good.probe.example at");

    let plain = Server::builder()
        .address(lab().address(230))
        .port(25)
        .plaintext();
    let server = plain.start().await.unwrap();
    mentions(&inspect().await.changes, "no STARTTLS");
    server.shutdown().await;

    let server = lab()
        .server(230, "other.probe.example")
        .start()
        .await
        .unwrap();
    let report = inspect().await;
    mentions(&report.changes, "does not match its TLSA records");
    assert!(
        report.servers[0].sessions[0]
            .dane
            .as_ref()
            .unwrap()
            .is_err()
    );
    server.shutdown().await;

    let server = lab()
        .server(230, "mx.good.probe.example")
        .start()
        .await
        .unwrap();
    let report = inspect().await;
    assert!(report.is_fine(), "{report}");
    assert!(matches!(report.mx, Answer::Secure(_)));
    assert!(report.servers[0].sessions[0].dane.as_ref().unwrap().is_ok());
    for published in [
        &report.spf,
        &report.dmarc,
        &report.tls_rpt,
        report.dkim.as_ref().unwrap(),
    ] {
        assert!(matches!(published, Published::Found(_)), "{published}");
    }
    mentions(&report.suggestions, "publish record of MTA-STS");
    assert!(
        report.to_string().contains("Nothing needs to change."),
        "{report}"
    );

    // The program finds the same.
    let run = probe(&["good.probe.example", "--selector", "s1", "--json"]).await;
    run.exits_with(0);
    let json = run.json();
    assert_eq!(json["fine"], true);
    assert_eq!(json["mx"]["status"], "secure");
    assert_eq!(json["servers"][0]["sessions"][0]["dane"]["verified"], true);
    let key = &json["servers"][0]["sessions"][0]["tlsa"];
    assert_eq!(*key, json["servers"][0]["dane"]["records"][0]);
    assert_eq!(json["spf"]["text"], "v=spf1 mx -all");
    server.shutdown().await;

    let run = probe(&["good.probe.example"]).await;
    run.exits_with(69);
    says(&run, "To change: mx.good.probe.example at");
}

#[tokio::test]
#[ignore = "needs root, NSD and Unbound"]
async fn what_is_published_must_be_valid() {
    let report = inspector()
        .selector("s1")
        .inspect(&name("bad.probe.example"))
        .await;
    for words in [
        "no address",
        "SPF record is not valid: there are 2",
        "TLS-RPT is not valid",
        "DKIM record is not valid: its key was revoked",
        "record of MTA-STS is not valid",
    ] {
        mentions(&report.changes, words);
    }
    assert!(report.failures.is_empty(), "{report}");
    // A record, but no policy.
    let report = inspector().inspect(&name("nopolicy.probe.example")).await;
    assert!(matches!(report.policy, Some(Err(_))), "{report}");
    mentions(&report.changes, "mta-sts.nopolicy.probe.example");
    // A null MX is in order.
    let report = inspector().inspect(&name("null.probe.example")).await;
    assert!(report.is_fine() && report.servers.is_empty(), "{report}");
}

#[tokio::test]
#[ignore = "needs root, NSD and Unbound"]
async fn the_exit_code_says_whether_dns_failed() {
    for (domain, code, words) in [
        ("expired.example", 75, "DNSSEC refuses the answer"),
        ("missing.example", 75, "SERVFAIL"),
        ("absent.signed.example", 69, "does not exist"),
        ("two..dots", 64, "is not the name of a domain"),
    ] {
        let run = probe(&[domain]).await;
        run.exits_with(code);
        says(&run, words);
    }
}

/// An option for domains is refused beside a host.
#[tokio::test]
async fn a_host_has_no_selector() {
    for option in ["--selector", "--resolver", "--dnssec-anchor"] {
        let run = program::run("probe", &["mail.example", option, "x"], b"", &[]).await;
        run.exits_with(64).says("are for --mx");
    }
}

async fn probe(arguments: &[&str]) -> Run {
    let resolver = lab().resolver().to_string();
    let (anchors, trust) = (lab().anchor_file(), lab().ca_file());
    let options = [
        ("--resolver", resolver.as_str()),
        ("--dnssec-anchor", anchors.to_str().unwrap()),
        ("--trust", trust.to_str().unwrap()),
    ];
    let options = options.iter().flat_map(|(option, value)| [*option, *value]);
    let all: Vec<&str> = ["--mx"]
        .into_iter()
        .chain(arguments.iter().copied())
        .chain(options)
        .collect();
    program::run("probe", &all, b"", &[]).await
}

/// The report, or the error.
#[track_caller]
fn says(run: &Run, words: &str) {
    let all = run.stdout.clone() + &run.stderr;
    assert!(all.contains(words), "{words}: {all}");
}
