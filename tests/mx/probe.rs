//! `envoi::probe::Inspector` and `probe --mx`.

use std::error::Error as _;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use envoi::mx::{Answer, MxProblem};
use envoi::probe::{DomainReport, Inspector, Published};
use envoi::testing::{Builder, Server};
use envoi::tls::{TlsSettings, Trust};
use futures_util::future::{Either, join_all, select};
use serde_json::Value;
use support::https::{End, policy, response};
use support::program::{self, Run};
use tokio::io::{AsyncBufRead, AsyncBufReadExt as _, AsyncWrite, AsyncWriteExt as _, BufStream};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::server::Acceptor;

use crate::lab::lab;
use crate::mta_sts::{policies, server_config};
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
    let inspect = async || {
        let report = inspector().selector("s1").inspect(&domain).await;
        report.unwrap()
    };

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
        .start_again(|| lab().server(230, "other.probe.example"))
        .await;
    let report = inspect().await;
    mentions(&report.changes, "does not match its TLSA records");
    let by_dane = |report: &DomainReport| {
        let session = &report.servers[0].sessions[0];
        session.dane.as_ref().unwrap().is_verified()
    };
    assert!(!by_dane(&report));
    server.shutdown().await;

    let server = lab()
        .start_again(|| lab().server(230, "mx.good.probe.example"))
        .await;
    let report = inspect().await;
    assert!(report.is_fine(), "{report}");
    assert!(matches!(report.mx, Answer::Secure(_)));
    assert!(by_dane(&report));
    for published in [
        &report.spf,
        &report.dmarc,
        &report.tls_rpt,
        report.dkim.as_ref().unwrap(),
    ] {
        assert!(matches!(published, Published::Found(_)), "{published}");
    }
    mentions(
        &report.suggestions,
        "publish a record and a policy of MTA-STS",
    );
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

async fn inspect(domain: &str) -> DomainReport {
    let inspector = inspector().selector("s1");
    inspector.inspect(&name(domain)).await.unwrap()
}

/// The suggestions about the servers of a domain and how it sends.
const SUGGESTED: [&str; 4] = ["MTA-STS", "TLS-RPT", "SPF", "DMARC"];

/// The suggestions are of these kinds alone.
#[track_caller]
fn suggests(report: &DomainReport, kinds: &[&str]) {
    for kind in SUGGESTED.iter().chain(kinds) {
        let is_there = report.suggestions.iter().any(|text| text.contains(kind));
        assert_eq!(is_there, kinds.contains(kind), "{kind}: {report}");
    }
}

#[tokio::test]
#[ignore = "needs root, NSD and Unbound"]
async fn what_is_published_must_be_valid() {
    let report = inspect("bad.probe.example").await;
    for words in [
        "no address",
        "SPF record is not valid: there are 2",
        "TLS-RPT is not valid: it has no rua",
        "DKIM record is not valid: its key was revoked",
        "record of MTA-STS is not valid: the id \"not-valid\"",
    ] {
        mentions(&report.changes, words);
    }
    assert!(report.failures.is_empty(), "{report}");
    let report = inspect("texts.probe.example").await;
    for words in [
        "TLS-RPT is not valid: there are 2",
        "DMARC record is not valid: it has no policy",
        "DKIM record is not valid: it has no key",
        "no TLSA record of mx.texts.probe.example can be used",
    ] {
        mentions(&report.changes, words);
    }
    suggests(&report, &["MTA-STS", "SPF"]);
    // A record, but no policy.
    let report = inspect("nopolicy.probe.example").await;
    assert!(matches!(report.mta_sts, Published::Found(_)), "{report}");
    assert!(matches!(report.policy, Some(Err(_))), "{report}");
    mentions(
        &report.changes,
        "mta-sts.nopolicy.probe.example has no address",
    );
    mentions(&report.changes, "there is no DKIM record for this selector");
    suggests(&report, &["TLS-RPT", "SPF", "DMARC"]);
}

/// A null MX is in order, and there is nothing to say about servers.
#[tokio::test]
#[ignore = "needs root, NSD and Unbound"]
async fn a_null_mx_is_said() {
    let domain = "null.probe.example";
    let report = inspector().inspect(&name(domain)).await.unwrap();
    assert_eq!(report.problem, Some(MxProblem::NullMx));
    assert!(report.is_fine() && report.servers.is_empty(), "{report}");
    let text = report.to_string();
    assert!(
        text.contains("the domain accepts no mail (null MX, RFC 7505), secure"),
        "{text}"
    );
    suggests(&report, &["SPF", "DMARC", "v=spf1 -all", "p=reject"]);
    let run = probe(&[domain, "--json"]).await;
    run.exits_with(0);
    let json = run.json();
    assert_eq!(json["problem"], MxProblem::NullMx.to_string());
    assert!(json["mx"]["records"][0]["host"].is_null(), "{json}");
}

#[tokio::test]
#[ignore = "needs root, NSD and Unbound"]
async fn a_domain_without_servers_is_not_told_about_them() {
    let report = inspect("absent.probe.example").await;
    assert_eq!(report.problem, Some(MxProblem::NoSuchDomain));
    assert_eq!(report.changes.len(), 1, "{report}");
    mentions(
        &report.changes,
        "absent.probe.example does not exist (NXDOMAIN)",
    );
    assert!(report.suggestions.is_empty(), "{report}");

    let report = inspect("nodata.probe.example").await;
    mentions(&report.changes, "neither MX records nor an address");
    let text = report.to_string();
    assert!(!text.contains("DANE"), "{text}");
    suggests(&report, &["SPF", "DMARC"]);
    assert_eq!(report.suggestions.len(), 2, "{report}");

    let report = inspect("worse.signed.example").await;
    assert_eq!(report.problem, Some(MxProblem::NoValidHost));
    mentions(&report.changes, "none of the MX records");
    suggests(&report, &["SPF", "DMARC"]);

    let report = inspect("number.probe.example").await;
    mentions(&report.changes, "names the address 192.0.2.1");

    for domain in ["expired.example", "missing.example"] {
        let report = inspect(domain).await;
        assert!(
            !report.failures.is_empty() && report.changes.is_empty(),
            "{report}"
        );
        assert!(report.suggestions.is_empty(), "{report}");
        // A hint is shown once for all failures that share it.
        let text = report.to_string();
        assert_eq!(text.matches(report.failures[0].hint()).count(), 1, "{text}");
    }
}

/// RFC 5321, 5.1: without MX records, the host is the domain itself.
#[tokio::test]
#[ignore = "needs root, NSD and Unbound"]
async fn a_domain_may_be_its_own_server() {
    let server = lab().server(242, "implicit.probe.example");
    let server = server.start().await.unwrap();
    let domain = name("implicit.probe.example");
    let report = inspector().inspect(&domain).await.unwrap();
    assert!(report.is_fine(), "{report}");
    assert_eq!(report.servers[0].host.as_str(), "implicit.probe.example");
    suggests(
        &report,
        &["MTA-STS", "TLS-RPT", "SPF", "DMARC", "has no MX records"],
    );
    // With the record for the key in use.
    let record = lab().certificates.tlsa("implicit.probe.example", 3, 1, 1);
    let record = record.to_lowercase();
    let record = format!("_25._tcp.implicit.probe.example. IN TLSA {record}");
    mentions(&report.suggestions, &record);
    assert_eq!(server.messages().len(), 0);
}

/// RFC 7672, 3.2.2: the certificate may be for the domain that the CNAMEs of the domain lead to.
#[tokio::test]
#[ignore = "needs root, NSD and Unbound"]
async fn a_domain_may_be_an_alias() {
    let server = with_authority(243, "real.alias.probe.example");
    let _server = server.start().await.unwrap();
    let domain = name("alias.probe.example");
    let report = inspector().inspect(&domain).await.unwrap();
    assert!(report.is_fine(), "{report}");
    assert!(
        report.servers[0].sessions[0]
            .dane
            .as_ref()
            .unwrap()
            .is_verified()
    );
    let text = report.to_string();
    assert!(
        text.contains("secure, of real.alias.probe.example (CNAME)"),
        "{text}"
    );
    let json = probe(&["alias.probe.example", "--json"]).await.json();
    assert_eq!(json["mx"]["name"], "real.alias.probe.example");
}

/// A server that has its authority's certificate, too.
fn with_authority(last: u8, id: &str) -> Builder {
    let issued = lab().certificates.get(id);
    let chain = issued.pem + lab().certificates.ca_pem();
    let server = Server::builder().address(lab().address(last)).port(25);
    server.certificate_pem(chain, issued.key_pem)
}

#[tokio::test]
#[ignore = "needs root, NSD and Unbound"]
async fn an_expired_certificate_does_not_match_its_authority() {
    let server = with_authority(240, "mx.expired.probe.example:expired");
    let _server = server.start().await.unwrap();
    let domain = name("expired.probe.example");
    let report = inspector().inspect(&domain).await.unwrap();
    mentions(&report.changes, "does not match its TLSA records");
    mentions(&report.changes, "expired");
}

/// RFC 7672, 8.1: a sender with DANE names the TLSA base domain, and one without the host.
#[tokio::test]
#[ignore = "needs root, NSD and Unbound"]
async fn the_server_name_is_the_base_domain() {
    let base = "real.sni.probe.example";
    let listener = TcpListener::bind((lab().address(234), 25)).await.unwrap();
    let config = server_config(base);
    let serving = tokio::spawn(async move {
        let mut names = Vec::new();
        while names.len() < 2 {
            let (stream, _) = listener.accept().await.unwrap();
            names.extend(serve_by_name(stream, base, &config).await);
        }
        names
    });
    let domain = name("sni.probe.example");
    let report = inspector().inspect(&domain).await.unwrap();
    let session = &report.servers[0].sessions[0];
    assert!(session.dane.as_ref().unwrap().is_verified(), "{report}");
    assert!(report.is_fine(), "{report}");
    mentions(&report.suggestions, "for senders without DANE");
    mentions(
        &report.suggestions,
        "the MX host mx.sni.probe.example is an alias",
    );
    assert_eq!(serving.await.unwrap(), ["mx.sni.probe.example", base]);
}

/// Serves one session of a server that has a certificate for this name alone, and returns the name
/// that the client gave.
async fn serve_by_name(
    stream: TcpStream,
    name: &str,
    config: &Arc<ServerConfig>,
) -> Option<String> {
    let mut stream = BufStream::new(stream);
    dialogue(&mut stream, &["250-mx\r\n250 STARTTLS\r\n", "220 Go\r\n"]).await;
    let acceptor = LazyConfigAcceptor::new(Acceptor::default(), stream.into_inner());
    let hello = acceptor.await.unwrap();
    let given = hello.client_hello().server_name()?.to_owned();
    if given == name {
        let mut stream = BufStream::new(hello.into_stream(config.clone()).await.unwrap());
        let replies = ["250 mx\r\n", "221 Bye\r\n"];
        for reply in replies {
            answer(&mut stream, reply).await;
        }
    }
    Some(given)
}

/// Greets, and answers each command.
async fn dialogue(stream: &mut (impl AsyncBufRead + AsyncWrite + Unpin), replies: &[&str]) {
    stream.write_all(b"220 mx\r\n").await.unwrap();
    stream.flush().await.unwrap();
    for reply in replies {
        answer(stream, reply).await;
    }
}

async fn answer(stream: &mut (impl AsyncBufRead + AsyncWrite + Unpin), reply: &str) {
    let mut command = String::new();
    stream.read_line(&mut command).await.unwrap();
    stream.write_all(reply.as_bytes()).await.unwrap();
    stream.flush().await.unwrap();
}

#[tokio::test]
#[ignore = "needs root, NSD and Unbound"]
async fn servers_must_meet_the_policy() {
    let domain = "sts.probe.example";
    let text = |mode: &str, mx: &str| {
        let text = format!("version: STSv1\nmode: {mode}\nmx: {mx}\nmax_age: 604800\n");
        policy(&text)
    };
    let (own, other) = ("mx.sts.probe.example", "other.sts.probe.example");
    let https = policies(236, domain, text("enforce", own)).await;
    let server = lab().server(235, own).start().await.unwrap();
    let inspect = async || inspector().inspect(&name(domain)).await.unwrap();

    let report = inspect().await;
    assert!(report.is_fine(), "{report}");
    suggests(&report, &["TLS-RPT", "SPF", "DMARC"]);
    let json = probe(&[domain, "--json"]).await.json();
    assert_eq!(json["mta_sts"]["policy"]["mode"], "enforce");

    https.answer(text("enforce", other), End::Close);
    let report = inspect().await;
    mentions(
        &report.changes,
        "does not name the MX host mx.sts.probe.example",
    );
    mentions(
        &report.suggestions,
        "names other.sts.probe.example, which is not an MX host",
    );

    https.answer(text("testing", own), End::Close);
    let report = inspect().await;
    assert!(report.is_fine(), "{report}");
    mentions(&report.suggestions, "is in testing");

    https.answer(text("none", other), End::Close);
    let report = inspect().await;
    assert!(report.is_fine(), "{report}");
    mentions(&report.suggestions, "is of the mode none");

    https.answer(response("404 Not Found", &[], ""), End::Close);
    mentions(&inspect().await.changes, "404");
    server.shutdown().await;

    // A certificate that the policy does not allow.
    let certificate = format!("{own}:self-signed");
    let _server = lab().start_again(|| lab().server(235, &certificate)).await;
    for (mode, words) in [
        ("enforce", "does not meet the policy of MTA-STS: "),
        (
            "testing",
            "does not meet the policy of MTA-STS, which is in testing: ",
        ),
    ] {
        https.answer(text(mode, own), End::Close);
        mentions(&inspect().await.changes, words);
    }
    https.answer(text("none", own), End::Close);
    let report = inspect().await;
    assert!(report.is_fine(), "{report}");
    mentions(
        &report.suggestions,
        "has a certificate that cannot be verified",
    );

    // An address that is not allowed is connected to neither for mail nor for the policy.
    let requests = https.requests().len();
    let report = inspector().public_only(true).inspect(&name(domain)).await;
    let report = report.unwrap();
    let failure = report.servers[0].sessions[0].failure.as_ref().unwrap();
    let problem = failure.source().and_then(|source| source.downcast_ref());
    assert_eq!(problem, Some(&MxProblem::AddressRefused));
    mentions(&report.changes, "is not on the public Internet");
    mentions(
        &report.changes,
        "no address of mta-sts.sts.probe.example is allowed. The domain names a web server",
    );
    let report = inspector().address_filter(|address| address.is_ipv6());
    let report = report.inspect(&name(domain)).await.unwrap();
    assert!(report.servers[0].sessions[0].failure.is_some(), "{report}");
    assert_eq!(https.requests().len(), requests);
}

/// RFC 5890: a name beyond ASCII is looked up by its A-labels.
#[tokio::test]
#[ignore = "needs root, NSD and Unbound"]
async fn a_domain_may_be_beyond_ascii() {
    for domain in [
        "b\u{fc}cher.probe.example",
        "B\u{dc}CHER.Probe.Example.",
        "xn--bcher-kva.probe.example",
    ] {
        let run = probe(&[domain, "--json"]).await;
        run.exits_with(0);
        let json = run.json();
        assert_eq!(json["domain"], "xn--bcher-kva.probe.example");
        assert_eq!(json["problem"], MxProblem::NullMx.to_string());
    }
}

/// RFC 7489, 6.6.3.
#[tokio::test]
#[ignore = "needs root, NSD and Unbound"]
async fn dmarc_may_be_of_a_domain_above() {
    let report = inspect("sub.good.probe.example").await;
    assert!(matches!(report.dmarc, Published::Found(_)), "{report}");
    assert_eq!(report.dmarc_domain, name("good.probe.example"));
    let text = report.to_string();
    assert!(text.contains("p=reject (of good.probe.example)"), "{text}");
}

/// All servers are connected to at once, so that a silent one does not delay the others.
#[tokio::test]
#[ignore = "needs root, NSD and Unbound"]
async fn servers_are_connected_to_side_by_side() {
    let listen = async |last| TcpListener::bind((lab().address(last), 25)).await.unwrap();
    let silent = [listen(237).await, listen(238).await, listen(239).await];
    let domain = name("silent.probe.example");
    let patient = inspector().timeout(Duration::from_secs(3600));
    let inspecting = pin!(patient.inspect(&domain));
    let accepting = pin!(join_all(silent.iter().map(TcpListener::accept)));
    match select(inspecting, accepting).await {
        Either::Left((report, _)) => panic!("{}", report.unwrap()),
        Either::Right((accepted, _)) => assert!(accepted.iter().all(Result::is_ok)),
    }
    // Each is given up after its time.
    let impatient = inspector().timeout(Duration::from_millis(300));
    let report = impatient.inspect(&domain).await.unwrap();
    assert_eq!(report.changes.len(), 3, "{report}");
    let hosts = report.servers.iter().map(|server| server.preference);
    assert!(hosts.eq([10, 20, 30]), "{report}");
}

#[tokio::test]
#[ignore = "needs root, NSD and Unbound"]
async fn the_exit_code_says_whether_dns_failed() {
    for (domain, code, words) in [
        ("expired.example", 75, "DNSSEC refuses the answer"),
        ("missing.example", 75, "SERVFAIL"),
        ("absent.signed.example", 69, "does not exist"),
        (
            "nodata.probe.example",
            69,
            "neither MX records nor an address",
        ),
        ("null.probe.example", 0, "Nothing needs to change"),
    ] {
        let run = probe(&[domain]).await;
        run.exits_with(code);
        says(&run, words);
    }
}

/// A request that is invalid has the form of a report.
#[tokio::test]
async fn an_invalid_request_is_said_in_json() {
    for (arguments, code, words) in [
        (
            &["--mx", "two..dots"][..],
            64,
            "is not the name of a domain",
        ),
        (&["--mx=two..dots"], 64, "is not the name of a domain"),
        (
            &["--mx", "a@example.org"],
            64,
            "is not the name of a domain",
        ),
        (&["--mx", "[192.0.2.1]"], 64, "and not an address"),
        (&["--mx", "192.0.2.1"], 64, "and not an address"),
        (
            &["--mx", "example.org", "--nonsense"],
            64,
            "unexpected argument",
        ),
        (
            &["--mx", "example.org", "--selector", "a b"],
            64,
            "is not the name",
        ),
        (
            &["--mx", "example.org", "--trust", "/absent"],
            78,
            "/absent",
        ),
    ] {
        let more = ["--resolver", "127.0.0.1:1", "--json"];
        let run = program::run("probe", &[arguments, &more].concat(), b"", &[]).await;
        run.exits_with(code);
        let json = run.json();
        let message = json["error"]["message"].as_str().unwrap();
        assert!(message.contains(words), "{json}");
        assert_eq!(
            (&json["domain"], &json["fine"]),
            (&Value::Null, &false.into()),
            "{json}"
        );
        assert!(
            json["changes"].is_array() && json.get("ports").is_none(),
            "{json}"
        );
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
