//! Policies of MTA-STS, and what is reported of the sessions.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use envoi::mail_builder::MessageBuilder;
use envoi::mx::mta_sts::PolicyCache;
use envoi::mx::tls_report::{PolicyType, ResultType, TlsEvent};
use envoi::mx::{MxClient, MxPolicy, MxReceipt, Resolver};
use envoi::testing::Server;
use envoi::tls::Trust;
use envoi::{ErrorKind, Timeouts};
use support::https::{End, HttpsServer, policy, response};
use support::program::{self, Run};
use tokio::net::UdpSocket;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::aws_lc_rs::default_provider;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::lab::lab;

/// TLS of a server with the certificate of this id.
pub fn server_config(id: &str) -> Arc<ServerConfig> {
    let issued = lab().certificates.get(id);
    let chain = vec![CertificateDer::from_pem_slice(issued.pem.as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(issued.key_pem.as_bytes()).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key);
    Arc::new(config.unwrap())
}

/// The server of policies for a domain.
pub async fn policies(last: u8, domain: &str, answer: Vec<u8>) -> HttpsServer {
    let config = server_config(&format!("mta-sts.{domain}"));
    let address = SocketAddr::from((lab().address(last), 443));
    HttpsServer::start(address, ServerConfig::clone(&config), answer).await
}

/// A policy that lists `mx.DOMAIN`.
fn listing(mode: &str, domain: &str) -> Vec<u8> {
    policy(&format!(
        "version: STSv1\r\nmode: {mode}\r\nmx: mx.{domain}\r\nmax_age: 86400\r\n"
    ))
}

/// A mail server with the certificate of this id.
async fn mail_server(last: u8, certificate: &str) -> Server {
    lab().server(last, certificate).start().await.unwrap()
}

type Events = Arc<Mutex<Vec<TlsEvent>>>;

fn client() -> (MxClient, Events) {
    let resolver = Resolver::new(lab().resolver())
        .anchors(&lab().anchors)
        .unwrap();
    let events = Events::default();
    let seen = events.clone();
    let client = MxClient::new(resolver)
        .timeouts(Timeouts::uniform(Duration::from_secs(10)))
        .trust(Trust::empty().file(lab().ca_file()))
        .on_tls_event(move |event| seen.lock().unwrap().push(event.clone()));
    (client, events)
}

async fn send(client: &MxClient, domain: &str) -> MxReceipt {
    let mail = MessageBuilder::new()
        .from("me@example.org")
        .to(format!("you@{domain}"))
        .subject("Hello")
        .text_body("Hello.");
    client.send(mail).await.unwrap()
}

/// The policy that was applied, and whether the server was verified and the message accepted.
fn summary(receipt: &MxReceipt) -> (MxPolicy, bool, bool) {
    let to = receipt.recipients().next().unwrap();
    let via = to.via.unwrap();
    let is_accepted = to.recipient.outcome.is_accepted();
    (via.policy, via.is_verified(), is_accepted)
}

/// The host, the kind of the policy and the failure of each event.
fn seen(events: &Events) -> Vec<(Option<String>, PolicyType, Option<ResultType>)> {
    let events = std::mem::take(&mut *events.lock().unwrap());
    let host = |event: &TlsEvent| {
        let host = event.mx_host.as_ref()?.as_str();
        Some(host.split('.').next()?.to_owned())
    };
    events
        .iter()
        .map(|event| {
            let failure = event.failure.as_ref().map(|failure| failure.result);
            (host(event), event.policy.policy_type, failure)
        })
        .collect()
}

fn host(name: &str) -> Option<String> {
    Some(name.to_owned())
}

#[tokio::test]
#[ignore = "needs root, NSD and Unbound"]
async fn an_enforced_policy_that_is_met() {
    let domain = "enforced.sts.example";
    let https = policies(101, domain, listing("enforce", domain)).await;
    let server = mail_server(100, "mx.enforced.sts.example").await;
    let (client, events) = client();
    for _ in 0..2 {
        let receipt = send(&client, domain).await;
        assert_eq!(summary(&receipt), (MxPolicy::MtaSts, true, true));
    }
    assert_eq!(server.messages().len(), 2);
    assert_eq!(https.requests().len(), 1);
    let mut events_of_mx = events.lock().unwrap().clone();
    assert_eq!(events_of_mx[0].address, Some(lab().address(100).into()));
    assert!(events_of_mx[0].local_address.unwrap().is_loopback());
    let applied = events_of_mx.remove(0).policy;
    assert_eq!(applied.mx_hosts, ["mx.enforced.sts.example"]);
    assert_eq!(applied.domain.as_str(), domain);
    assert_eq!(seen(&events), vec![(host("mx"), PolicyType::Sts, None); 2]);
    // Without MTA-STS, nothing is asked.
    let receipt = send(&client.mta_sts(false), domain).await;
    assert_eq!(summary(&receipt), (MxPolicy::Opportunistic, false, true));
    assert_eq!(https.requests().len(), 1);
}

#[tokio::test]
#[ignore = "needs root, NSD and Unbound"]
async fn a_host_that_is_not_listed_is_passed_over() {
    let domain = "unlisted.sts.example";
    let _https = policies(104, domain, listing("enforce", domain)).await;
    let other = mail_server(102, "other.unlisted.sts.example").await;
    let server = mail_server(103, "mx.unlisted.sts.example").await;
    let (client, events) = client();
    let receipt = send(&client, domain).await;
    assert_eq!(summary(&receipt), (MxPolicy::MtaSts, true, true));
    assert_eq!((other.connections().len(), server.messages().len()), (0, 1));
    let failure = &receipt.domains[0].failures[0];
    assert_eq!(failure.host.as_deref(), Some("other.unlisted.sts.example"));
    assert_eq!(failure.error.kind(), ErrorKind::Tls);
    let text = failure.error.message();
    assert!(
        text.contains("does not list other.unlisted.sts.example"),
        "{text}"
    );
    let unlisted = Some(ResultType::ValidationFailure);
    assert_eq!(
        seen(&events),
        [
            (host("other"), PolicyType::Sts, unlisted),
            (host("mx"), PolicyType::Sts, None)
        ]
    );
}

#[tokio::test]
#[ignore = "needs root, NSD and Unbound"]
async fn mail_waits_where_an_enforced_policy_is_not_met() {
    for (domain, last, failure) in [
        (
            "untrusted.sts.example",
            105,
            ResultType::CertificateNotTrusted,
        ),
        ("plain.sts.example", 107, ResultType::StartTlsNotSupported),
    ] {
        let _https = policies(last + 1, domain, listing("enforce", domain)).await;
        let server = match failure {
            ResultType::StartTlsNotSupported => {
                let builder = Server::builder().address(lab().address(last)).port(25);
                builder.plaintext().start().await.unwrap()
            }
            _ => mail_server(last, &format!("mx.{domain}:self-signed")).await,
        };
        let (client, events) = client();
        let receipt = send(&client, domain).await;
        assert_eq!(summary(&receipt), (MxPolicy::MtaSts, false, false));
        assert_eq!(
            seen(&events),
            [(host("mx"), PolicyType::Sts, Some(failure))]
        );
        let error = receipt.into_result().unwrap_err();
        assert!(
            error.is_transient() && error.kind() == ErrorKind::Tls,
            "{error}"
        );
        assert_eq!(error.exit_code(), 75);
        for words in ["MTA-STS", domain, &format!("mx.{domain}")] {
            assert!(error.message().contains(words), "{error}");
        }
        assert!(error.hint().is_some());
        assert!(server.messages().is_empty());
    }
}

#[tokio::test]
#[ignore = "needs root, NSD and Unbound"]
async fn policies_in_testing_and_none_only_report() {
    for (mode, last, policy_type, failure) in [
        (
            "testing",
            109,
            PolicyType::Sts,
            Some(ResultType::CertificateNotTrusted),
        ),
        ("none", 111, PolicyType::NoPolicyFound, None),
    ] {
        let domain = format!("{mode}.sts.example");
        let _https = policies(last + 1, &domain, listing(mode, &domain)).await;
        let server = mail_server(last, &format!("mx.{domain}:self-signed")).await;
        let (client, events) = client();
        let receipt = send(&client, &domain).await;
        assert_eq!(summary(&receipt), (MxPolicy::Opportunistic, false, true));
        assert_eq!(seen(&events), [(host("mx"), policy_type, failure)]);
        assert_eq!(server.messages().len(), 1);
        // A host that it does not list, by another certificate.
        let other = policy("version: STSv1\nmode: testing\nmx: a.example\nmax_age: 86400\n");
        if mode == "testing" {
            _https.answer(other, End::Close);
            let (client, events) = self::client();
            let receipt = send(&client, &domain).await;
            assert_eq!(summary(&receipt), (MxPolicy::Opportunistic, false, true));
            let unlisted = Some(ResultType::ValidationFailure);
            assert_eq!(seen(&events), [(host("mx"), PolicyType::Sts, unlisted)]);
        }
    }
}

/// RFC 8461, 3.3: the mail is sent as if there were no policy.
#[tokio::test]
#[ignore = "needs root, NSD and Unbound"]
async fn a_policy_that_cannot_be_fetched_is_reported() {
    let domain = "lost.sts.example";
    let https = policies(114, domain, response("404 Not Found", &[], "")).await;
    let server = mail_server(113, "mx.lost.sts.example:self-signed").await;
    let (client, events) = client();
    let (log, _guard) = support::log::Log::keep();
    for _ in 0..2 {
        let receipt = send(&client, domain).await;
        assert_eq!(summary(&receipt), (MxPolicy::Opportunistic, false, true));
        let via = receipt.recipients().next().unwrap().via.unwrap();
        assert!(via.policy_reason.contains("404"), "{}", via.policy_reason);
        let failure = Some(ResultType::StsPolicyFetchError);
        let none = PolicyType::NoPolicyFound;
        assert_eq!(
            seen(&events),
            [(None, none, failure), (host("mx"), none, None)]
        );
    }
    assert_eq!(server.messages().len(), 2);
    // It is not tried again at once.
    assert_eq!(https.requests().len(), 1);
    let warning = "the MTA-STS policy of lost.sts.example could not be fetched";
    let text = log.text();
    assert_eq!(text.matches(warning).count(), 1, "{text}");
    // An address that is not allowed is not connected to for a policy, either.
    let (client, events) = self::client();
    let refused = lab().address(114);
    let client = client.address_filter(move |address| address != refused);
    let _ = send(&client, domain).await;
    let failure = Some(ResultType::StsPolicyFetchError);
    assert_eq!(seen(&events)[0].2, failure);
    assert_eq!(https.requests().len(), 1);
}

/// The policy is as good as none then, and the message is sent before its deadline.
#[tokio::test]
#[ignore = "needs root, NSD and Unbound"]
async fn a_server_of_policies_that_hangs_leaves_time_for_the_message() {
    let domain = "hanging.sts.example";
    let https = policies(132, domain, Vec::new()).await;
    https.answer(Vec::new(), End::Hang);
    let server = mail_server(131, "mx.hanging.sts.example").await;
    let (client, events) = client();
    let timeouts = Timeouts::uniform(Duration::from_secs(10));
    let client = client.timeouts(timeouts.with_deadline(Duration::from_secs(12)));
    // The second one does not wait.
    for number in 1..3 {
        let receipt = send(&client, domain).await;
        assert_eq!(summary(&receipt), (MxPolicy::Opportunistic, false, true));
        let failure = Some(ResultType::StsPolicyFetchError);
        assert_eq!(seen(&events)[0].2, failure);
        assert_eq!(server.messages().len(), number);
    }
    assert_eq!(https.requests().len(), 1);
}

/// The resolver of the lab, which is silent about TXT records.
async fn without_texts() -> SocketAddr {
    const TXT: u8 = 16;
    let any = || UdpSocket::bind((Ipv4Addr::LOCALHOST, 0));
    let (socket, upstream) = (any().await.unwrap(), any().await.unwrap());
    let address = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let mut buffer = [0; 4096];
        loop {
            let (length, client) = socket.recv_from(&mut buffer).await.unwrap();
            let name = buffer[12..].iter().position(|byte| *byte == 0).unwrap();
            if buffer[12 + name + 2] == TXT {
                continue;
            }
            let question = &buffer[..length];
            upstream.send_to(question, lab().resolver()).await.unwrap();
            let length = upstream.recv(&mut buffer).await.unwrap();
            socket.send_to(&buffer[..length], client).await.unwrap();
        }
    });
    address
}

#[tokio::test]
#[ignore = "needs root, NSD and Unbound"]
async fn a_lookup_of_a_policy_that_is_not_answered_leaves_time_for_the_message() {
    let server = mail_server(133, "mx.silent.sts.example").await;
    let resolver = Resolver::new(without_texts().await)
        .anchors(&lab().anchors)
        .unwrap();
    let timeouts = Timeouts::uniform(Duration::from_secs(10));
    let client = MxClient::new(resolver)
        .trust(Trust::empty().file(lab().ca_file()))
        .timeouts(timeouts.with_deadline(Duration::from_secs(12)));
    let receipt = send(&client, "silent.sts.example").await;
    assert_eq!(summary(&receipt), (MxPolicy::Opportunistic, false, true));
    let via = receipt.recipients().next().unwrap().via.unwrap();
    let reason = &via.policy_reason;
    assert!(reason.contains("did not answer in time"), "{reason}");
    assert_eq!(server.messages().len(), 1);
}

#[tokio::test]
#[ignore = "needs root, NSD and Unbound"]
async fn a_policy_outlives_its_server_and_the_process() {
    let domain = "kept.sts.example";
    let folder = tempfile::tempdir().unwrap();
    let server = mail_server(115, "mx.kept.sts.example:self-signed").await;
    let https = policies(116, domain, listing("enforce", domain)).await;
    for is_there in [true, false] {
        if !is_there {
            https.answer(response("500 Internal Server Error", &[], ""), End::Close);
        }
        let (client, _) = client();
        let cache = PolicyCache::in_folder(folder.path().join("state")).unwrap();
        let receipt = send(&client.policy_cache(cache), domain).await;
        assert_eq!(summary(&receipt), (MxPolicy::MtaSts, false, false));
    }
    assert!(server.messages().is_empty());
    assert_eq!(https.requests().len(), 1);
    // A damaged file is as good as none: without the server, there is no policy.
    let file = folder.path().join("state/mta-sts.kept.sts.example");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replace("86400", "86401")).unwrap();
    let (client, _) = client();
    let cache = PolicyCache::in_folder(folder.path().join("state")).unwrap();
    let receipt = send(&client.policy_cache(cache), domain).await;
    assert_eq!(summary(&receipt), (MxPolicy::Opportunistic, false, true));
    assert_eq!(https.requests().len(), 2);
}

/// RFC 8461, 2: a policy does not override DANE.
#[tokio::test]
#[ignore = "needs root, NSD and Unbound"]
async fn dane_goes_first() {
    let domain = "dane.sts-signed.example";
    let https = policies(122, domain, listing("enforce", "other.example")).await;
    let server = mail_server(121, "mx.dane.sts-signed.example:self-signed").await;
    let (client, events) = client();
    let receipt = send(&client, domain).await;
    assert_eq!(summary(&receipt), (MxPolicy::Dane, true, true));
    assert_eq!(seen(&events), [(host("mx"), PolicyType::Tlsa, None)]);
    assert_eq!((server.messages().len(), https.requests().len()), (1, 0));
    let receipt = send(&client.dane(false), domain).await;
    let error = receipt.into_result().unwrap_err();
    assert!(
        error
            .message()
            .contains("does not list mx.dane.sts-signed.example"),
        "{error}"
    );

    let domain = "mismatch.sts-signed.example";
    let https = policies(124, domain, listing("enforce", domain)).await;
    let server = mail_server(123, "mx.mismatch.sts-signed.example").await;
    let (client, events) = self::client();
    let receipt = send(&client, domain).await;
    assert_eq!(summary(&receipt), (MxPolicy::Dane, false, false));
    let failure = Some(ResultType::CertificateNotTrusted);
    assert_eq!(seen(&events), [(host("mx"), PolicyType::Tlsa, failure)]);
    assert!(receipt.into_result().unwrap_err().is_transient());
    assert_eq!((server.messages().len(), https.requests().len()), (0, 0));
}

/// RFC 7672, 2.2: unusable TLSA records require TLS, and verify nothing. A policy that is enforced
/// still does.
#[tokio::test]
#[ignore = "needs root, NSD and Unbound"]
async fn unusable_tlsa_records_do_not_switch_a_policy_off() {
    let tlsa_invalid = Some(ResultType::TlsaInvalid);
    let unusable = (host("mx"), PolicyType::Tlsa, tlsa_invalid);
    for (domain, last, failure) in [
        ("unusable.sts-signed.example", 125, None),
        (
            "unmet.sts-signed.example",
            127,
            Some(ResultType::CertificateNotTrusted),
        ),
    ] {
        let https = policies(last + 1, domain, listing("enforce", domain)).await;
        let certificate = match failure {
            None => format!("mx.{domain}"),
            Some(_) => format!("mx.{domain}:self-signed"),
        };
        let server = mail_server(last, &certificate).await;
        let (client, events) = client();
        let receipt = send(&client, domain).await;
        let is_met = failure.is_none();
        assert_eq!(summary(&receipt), (MxPolicy::MtaSts, is_met, is_met));
        let session = (host("mx"), PolicyType::Sts, failure);
        assert_eq!(seen(&events), [unusable.clone(), session]);
        assert_eq!(server.messages().len(), usize::from(is_met));
        let via = receipt.recipients().next().unwrap().via.unwrap();
        for words in ["none of which is usable", "is enforced"] {
            assert!(via.policy_reason.contains(words), "{}", via.policy_reason);
        }
        // Without such a policy, the records require TLS, whatever the certificate.
        for mode in ["testing", "none"] {
            https.answer(listing(mode, domain), End::Close);
            let (client, events) = self::client();
            let receipt = send(&client, domain).await;
            assert_eq!(summary(&receipt), (MxPolicy::Dane, false, true));
            assert_eq!(seen(&events), std::slice::from_ref(&unusable));
        }
    }
}

async fn run(recipient: &str, more: &[&str]) -> Run {
    let resolver = lab().resolver().to_string();
    let (anchors, ca) = (lab().anchor_file(), lab().ca_file());
    let mut arguments = vec!["--mx", "--resolver", &resolver, "--json", "--timeout", "10"];
    arguments.extend(["--dnssec-anchor", anchors.to_str().unwrap()]);
    arguments.extend(["--trust", ca.to_str().unwrap(), "--to", recipient]);
    arguments.extend(["--from", "me@example.org", "--subject", "a", "--body", "b"]);
    arguments.extend(more);
    program::run("send", &arguments, b"", &[]).await
}

#[tokio::test]
#[ignore = "needs root, NSD and Unbound"]
async fn send_applies_and_keeps_policies() {
    let domain = "sent.sts.example";
    let https = policies(118, domain, listing("enforce", domain)).await;
    let _server = mail_server(117, "mx.sent.sts.example").await;
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state");
    for _ in 0..2 {
        let run = run(
            "you@sent.sts.example",
            &["--state", state.to_str().unwrap()],
        )
        .await;
        run.exits_with(0);
        let via = &run.json()["recipients"][0]["via"];
        assert_eq!(via["policy"], "mta-sts", "{via}");
        assert_eq!(
            (&via["verified"], &via["dnssec"]),
            (&true.into(), &false.into())
        );
    }
    assert_eq!(https.requests().len(), 1);
    assert!(state.join("mta-sts.sent.sts.example").is_file());
    let run = run("you@sent.sts.example", &["--mta-sts", "off"]).await;
    run.exits_with(0);
    assert_eq!(
        run.json()["recipients"][0]["via"]["policy"],
        "opportunistic"
    );
}

#[tokio::test]
#[ignore = "needs root, NSD and Unbound"]
async fn send_says_which_policy_is_not_met() {
    let domain = "unmet.sts.example";
    let _https = policies(120, domain, listing("enforce", domain)).await;
    let server = mail_server(119, "mx.unmet.sts.example:expired").await;
    let run = run("you@unmet.sts.example", &[]).await;
    run.exits_with(75);
    let json = run.json();
    let error = &json["error"];
    assert_eq!(error["kind"], "tls", "{json}");
    let message = error["message"].as_str().unwrap();
    for words in [
        "MTA-STS",
        "unmet.sts.example",
        "mx.unmet.sts.example",
        "expired",
    ] {
        assert!(message.contains(words), "{message}");
    }
    assert!(error["hint"].is_string());
    assert!(server.messages().is_empty());
}

/// Otherwise the policy could not be fetched, and the mail would go without it.
#[tokio::test]
#[ignore = "needs root, NSD and Unbound"]
async fn send_refuses_trust_that_cannot_be_read() {
    let server = mail_server(129, "mx.untried.sts.example").await;
    let run = run(
        "you@untried.sts.example",
        &["--trust", "/nonexistent/ca.pem"],
    )
    .await;
    run.exits_with(78);
    let json = run.json();
    assert_eq!(json["error"]["kind"], "config");
    let message = json["error"]["message"].as_str().unwrap();
    assert!(message.contains("/nonexistent/ca.pem"), "{message}");
    assert!(server.connections().is_empty());
}

#[tokio::test]
#[ignore = "needs root, NSD and Unbound"]
async fn send_refuses_a_folder_that_cannot_be_made() {
    let run = run("you@enforced.sts.example", &["--state", "/dev/null/state"]).await;
    run.exits_with(78);
    assert_eq!(run.json()["error"]["kind"], "config");
}
