//! Policies of MTA-STS by HTTPS, against a server of the tests.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use envoi::mx::DomainName;
use envoi::mx::mta_sts::{FetchError, FetchErrorKind, Mode, Policy, PolicyFetcher};
use envoi::mx::tls_report::ResultType;
use envoi::tls::{TlsSettings, Trust};
use envoi::{Endpoint, ProxyHeader};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use support::https::{End, HttpsServer, policy, response};
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::aws_lc_rs::default_provider;

use crate::transport::{by_socks, proxy};

const POLICY: &str = "version: STSv1\r\nmode: enforce\r\nmx: *.example.org\r\nmax_age: 86400\r\n";
const HOST: &str = "mta-sts.example.org";
const LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// A server of policies, and its authority as PEM.
struct Server {
    https: HttpsServer,
    ca: String,
}

impl Server {
    async fn start(name: &str, answer: Vec<u8>) -> Server {
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        Server::with_certificate(params, answer).await
    }

    async fn with_certificate(params: CertificateParams, answer: Vec<u8>) -> Server {
        let mut ca = CertificateParams::default();
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = CertifiedIssuer::self_signed(ca, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let leaf = params.signed_by(&key, &ca).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![leaf.der().clone()], key.into())
            .unwrap();
        Server {
            https: HttpsServer::start((LOCAL, 0).into(), config, answer).await,
            ca: ca.pem(),
        }
    }

    fn answer(&self, answer: Vec<u8>, end: End) {
        self.https.answer(answer, end);
    }

    fn port(&self) -> u16 {
        self.https.address.port()
    }
}

async fn server(answer: Vec<u8>) -> Server {
    Server::start(HOST, answer).await
}

fn fetcher(server: &Server) -> PolicyFetcher {
    PolicyFetcher::new(TlsSettings::new(Trust::empty().pem(&server.ca))).port(server.port())
}

async fn fetch(server: &Server) -> Result<Policy, FetchError> {
    let domain = DomainName::new("example.org").unwrap();
    fetcher(server).fetch(&domain, &[LOCAL]).await
}

async fn failure(server: &Server) -> (FetchErrorKind, String) {
    let error = fetch(server).await.unwrap_err();
    let text = error.to_string();
    let (before, reason) = text.split_once(": ").unwrap();
    assert!(
        before.contains("the MTA-STS policy of example.org"),
        "{text}"
    );
    assert!(!error.hint().is_empty());
    (error.kind(), reason.to_owned())
}

#[tokio::test]
async fn a_policy_is_fetched() {
    let server = server(policy(POLICY)).await;
    let fetched = fetch(&server).await.unwrap();
    assert_eq!(fetched, POLICY.parse().unwrap());
    assert_eq!(fetched.mode, Mode::Enforce);
    let requests = server.https.requests();
    let request = requests[0].to_ascii_lowercase();
    assert!(
        request.starts_with("get /.well-known/mta-sts.txt http/1.1\r\n"),
        "{request}"
    );
    let port = server.port();
    assert!(
        request.contains(&format!("\r\nhost: {HOST}:{port}\r\n")),
        "{request}"
    );
    assert_eq!(requests.len(), 1);
}

/// Each form in which HTTP/1.1 delimits a body, and addresses of which the first does not answer.
#[tokio::test]
async fn every_framing_is_understood() {
    let server = server(Vec::new()).await;
    let head = "HTTP/1.1 200 OK\r\nContent-Type: Text/Plain\r\n";
    let (first, second) = POLICY.split_at(20);
    let chunked = format!(
        "{head}Transfer-Encoding: chunked\r\n\r\n\
            {:x}\r\n{first}\r\n{:x};x=y\r\n{second}\r\n0\r\nX: y\r\n\r\n",
        first.len(),
        second.len()
    );
    let until_closed = format!("{head}\r\n{POLICY}");
    let old = until_closed.replace("HTTP/1.1", "HTTP/1.0");
    let interim = format!("HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n{until_closed}");
    let identity = until_closed.replace("\r\n\r\n", "\r\nContent-Encoding: identity\r\n\r\n");
    for answer in [chunked, until_closed.clone(), old, interim, identity] {
        server.answer(answer.clone().into_bytes(), End::Close);
        assert_eq!(
            fetch(&server).await.unwrap(),
            POLICY.parse().unwrap(),
            "{answer}"
        );
    }
    // Many servers close the connection without ending TLS.
    server.answer(until_closed.into_bytes(), End::Cut);
    fetch(&server).await.unwrap();
    // The end of the connection need not be waited for.
    server.answer(policy(POLICY), End::Hang);
    fetch(&server).await.unwrap();
    let domain = DomainName::new("example.org").unwrap();
    let refusing = IpAddr::from([127, 0, 0, 99]);
    fetcher(&server)
        .fetch(&domain, &[refusing, LOCAL])
        .await
        .unwrap();
}

#[tokio::test]
async fn other_answers_are_told_apart() {
    use FetchErrorKind::{
        Http, MediaType, NotFound, Policy as NotAPolicy, Redirected, Status, TooLarge,
    };
    let text = "Content-Type: text/plain";
    let large = "#".repeat(64 * 1024 + 1);
    let server = server(Vec::new()).await;
    for (answer, kind, reason) in [
        (
            response(
                "301 Moved Permanently",
                &["Location: https://example.org/x", text],
                POLICY,
            ),
            Redirected,
            "the server redirects to \"https://example.org/x\" (status 301 Moved Permanently)",
        ),
        (
            response("302 Found", &[], ""),
            Redirected,
            "the server redirects (status 302 Found)",
        ),
        (
            response("404 Not Found", &[text], POLICY),
            NotFound,
            "the server has no policy (status 404 Not Found)",
        ),
        (
            response("503 Service Unavailable", &[text], POLICY),
            Status,
            "the server answered with the status 503 Service Unavailable",
        ),
        (
            response("204 No Content", &[text], ""),
            Status,
            "the server answered with the status 204 No Content",
        ),
        (
            response(
                "200 OK",
                &["Content-Type: text/html; charset=utf-8"],
                POLICY,
            ),
            MediaType,
            "its media type is not text/plain, but \"text/html\"",
        ),
        (
            response("200 OK", &[], POLICY),
            MediaType,
            "its media type is not text/plain, but none",
        ),
        (
            response("200 OK", &[text, "Content-Encoding: gzip"], POLICY),
            Http,
            "it is encoded (gzip), which was not allowed",
        ),
        (policy(&large), TooLarge, "it is larger than 64 KiB"),
        (
            format!("HTTP/1.1 200 OK\r\n{text}\r\n\r\n{large}").into_bytes(),
            TooLarge,
            "it is larger than 64 KiB",
        ),
        (
            format!("HTTP/1.1 200 OK\r\n{text}\r\nContent-Length: 99999999999\r\n\r\n")
                .into_bytes(),
            TooLarge,
            "it is larger than 64 KiB",
        ),
        (
            policy("<html>"),
            NotAPolicy,
            "line 1 of the policy is not of the form name: value: \"<html>\"",
        ),
        (policy(""), NotAPolicy, "the policy has no version"),
    ] {
        server.answer(answer, End::Close);
        assert_eq!(failure(&server).await, (kind, reason.to_owned()));
    }
    let largest = format!("{POLICY}x: {}", "y".repeat(64 * 1024 - POLICY.len() - 3));
    server.answer(policy(&largest), End::Close);
    fetch(&server).await.unwrap();
}

#[tokio::test]
async fn broken_http_is_an_error() {
    let whole = policy(POLICY);
    let chunked = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\
        Transfer-Encoding: chunked\r\n\r\n2\r\nve\r\n";
    let header = format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "x".repeat(100_000));
    let within_a_line = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n{}",
        POLICY.trim_end()
    );
    let server = server(Vec::new()).await;
    for (answer, end) in [
        (b"".to_vec(), End::Close),
        (b"220 mail.example.org ESMTP\r\n".to_vec(), End::Close),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1".to_vec(), End::Close),
        (b"HTTP/2 200 OK\r\n\r\n".to_vec(), End::Close),
        (header.into_bytes(), End::Close),
        (whole[..whole.len() - 1].to_vec(), End::Close),
        (whole[..whole.len() - 1].to_vec(), End::Cut),
        (chunked.as_bytes().to_vec(), End::Close),
        (chunked.as_bytes().to_vec(), End::Cut),
        // It may be the beginning of a longer line.
        (within_a_line.into_bytes(), End::Cut),
    ] {
        let text = String::from_utf8_lossy(&answer).into_owned();
        server.answer(answer, end);
        let (kind, reason) = failure(&server).await;
        assert_eq!(kind, FetchErrorKind::Http, "{text}");
        assert!(reason.starts_with("HTTP failed: "), "{reason}");
    }
}

#[tokio::test]
async fn a_slow_server_is_not_waited_for() {
    let whole = policy(POLICY);
    let server = server(Vec::new()).await;
    let domain = DomainName::new("example.org").unwrap();
    for sent in [0, 10, whole.len() - 1] {
        server.answer(whole[..sent].to_vec(), End::Hang);
        let fetcher = fetcher(&server).timeout(Duration::from_millis(300));
        let error = fetcher.fetch(&domain, &[LOCAL]).await.unwrap_err();
        assert_eq!(error.kind(), FetchErrorKind::TimedOut, "{sent}: {error}");
        assert!(
            error.to_string().ends_with("it did not come within 300ms"),
            "{error}"
        );
    }
}

#[tokio::test]
async fn the_certificate_is_verified() {
    let check = async |server: &Server, fetcher: PolicyFetcher, words: &str| {
        let domain = DomainName::new("example.org").unwrap();
        let error = fetcher.fetch(&domain, &[LOCAL]).await.unwrap_err();
        assert_eq!(error.kind(), FetchErrorKind::Certificate, "{error}");
        assert_eq!(error.result_type(), ResultType::StsWebpkiInvalid);
        assert!(error.to_string().contains(words), "{error}");
        assert_eq!(server.https.requests(), [""; 0]);
    };
    let other = Server::start("example.org", policy(POLICY)).await;
    check(&other, fetcher(&other), HOST).await;
    let mut expired = CertificateParams::new(vec![HOST.to_owned()]).unwrap();
    expired.not_after = (SystemTime::now() - Duration::from_secs(3600)).into();
    let expired = Server::with_certificate(expired, policy(POLICY)).await;
    check(&expired, fetcher(&expired), "expired").await;
    let untrusted = server(policy(POLICY)).await;
    let settings = TlsSettings::new(Trust::empty().pem(&expired.ca));
    let fetcher = PolicyFetcher::new(settings).port(untrusted.port());
    check(&untrusted, fetcher, HOST).await;
}

/// A machine may reach the web by its proxy alone, and may use one of its addresses.
#[tokio::test]
async fn proxy_and_local_address_are_those_of_the_endpoint() {
    let server = server(policy(POLICY)).await;
    let domain = DomainName::new("example.org").unwrap();
    let settings = TlsSettings::new(Trust::empty().pem(&server.ca));
    let endpoint = Endpoint::new("mx.example.org").tls(settings);
    let from = async |endpoint: &Endpoint| {
        let fetcher = PolicyFetcher::of_endpoint(endpoint).port(server.port());
        fetcher.fetch(&domain, &[LOCAL]).await
    };
    let (port, asked) = proxy(by_socks).await;
    let by_proxy = format!("socks5h://me:p%40ss@127.0.0.1:{port}");
    // The header is for mail servers.
    let proxied = endpoint.clone().proxy_header(ProxyHeader::local());
    let proxied = proxied.proxy(by_proxy.parse().unwrap());
    from(&proxied).await.unwrap();
    let to = format!("me p@ss 127.0.0.1:{}", server.port());
    assert_eq!(*asked.lock().unwrap(), [to]);
    let error = from(
        &endpoint
            .clone()
            .proxy("socks5://127.0.0.1:1".parse().unwrap()),
    )
    .await
    .unwrap_err();
    assert_eq!(error.kind(), FetchErrorKind::Connect);
    assert!(error.to_string().contains("the proxy"), "{error}");
    #[cfg(target_os = "linux")]
    {
        let local = IpAddr::from([127, 0, 0, 9]);
        from(&endpoint.bind(local)).await.unwrap();
        assert_eq!(server.https.peers(), [LOCAL, local]);
    }
}

/// The server name of the settings is that of mail servers.
#[tokio::test]
async fn the_name_is_that_of_the_domain() {
    let server = server(policy(POLICY)).await;
    let settings = TlsSettings::new(Trust::empty().pem(&server.ca)).server_name("mx.example.org");
    let fetcher = PolicyFetcher::new(settings).port(server.port());
    let domain = DomainName::new("example.org").unwrap();
    fetcher.fetch(&domain, &[LOCAL]).await.unwrap();
    let other = DomainName::new("example.com").unwrap();
    let error = fetcher.fetch(&other, &[LOCAL]).await.unwrap_err();
    assert_eq!(error.kind(), FetchErrorKind::Certificate);
    assert_eq!(error.domain(), &other);
}

/// Recipients are often user input, and their domain may name any address.
#[tokio::test]
async fn addresses_that_are_not_allowed_are_not_connected_to() {
    let server = server(policy(POLICY)).await;
    let domain = DomainName::new("example.org").unwrap();
    let fetcher = fetcher(&server).address_filter(|address| !address.is_loopback());
    let error = fetcher.fetch(&domain, &[LOCAL]).await.unwrap_err();
    assert_eq!(error.kind(), FetchErrorKind::AddressRefused);
    assert_eq!(server.https.requests(), [""; 0]);
}

#[tokio::test]
async fn a_server_that_cannot_be_reached_is_an_error() {
    let domain = DomainName::new("example.org").unwrap();
    let server = server(policy(POLICY)).await;
    let none = fetcher(&server).fetch(&domain, &[]).await.unwrap_err();
    assert_eq!(none.kind(), FetchErrorKind::NoAddress);
    let refusing = IpAddr::from([127, 0, 0, 99]);
    let error = fetcher(&server)
        .fetch(&domain, &[refusing])
        .await
        .unwrap_err();
    assert_eq!(error.kind(), FetchErrorKind::Connect);
    assert!(error.to_string().contains("127.0.0.99"), "{error}");
    assert_eq!(error.result_type(), ResultType::StsPolicyFetchError);
    let no_trust = PolicyFetcher::new(TlsSettings::new(Trust::empty()));
    let error = no_trust.fetch(&domain, &[LOCAL]).await.unwrap_err();
    assert_eq!(error.kind(), FetchErrorKind::Trust);
    let plaintext = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = plaintext.local_addr().unwrap().port();
    let answering = tokio::spawn(async move {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let (mut stream, _) = plaintext.accept().await.unwrap();
        let _ = stream.read(&mut [0; 4096]).await;
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
    });
    let error = fetcher(&server)
        .port(port)
        .fetch(&domain, &[LOCAL])
        .await
        .unwrap_err();
    assert_eq!(error.kind(), FetchErrorKind::Tls);
    assert!(error.to_string().contains("does not speak TLS"), "{error}");
    answering.await.unwrap();
}
