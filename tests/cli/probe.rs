//! `envoi::probe` and the `probe` example: what they find out about servers of many kinds.

use std::process::Stdio;
use std::time::Duration;

use envoi::probe::{Port, PortSecurity, Report};
use envoi::testing::Server;
use envoi::tls::{Security, TlsVersion, Trust};
use envoi::{Client, Connection, Credentials, Endpoint, ErrorKind, Phase, Proxy, Timeouts};
use serde_json::Value;
use support::program::{self, Run};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;
use tokio::time::{sleep, timeout};

/// Longer than any of these takes; a test that hangs should fail.
const PATIENCE: Duration = Duration::from_secs(60);

const PASSWORD: &str = "Xyzzy-4711";

async fn probe(endpoint: &Endpoint) -> Report {
    timeout(PATIENCE, envoi::probe(endpoint))
        .await
        .expect("probe hangs")
        .unwrap()
}

async fn probe_url(url: &str) -> Report {
    probe(&Endpoint::from_url(url).unwrap()).await
}

/// The one port of a report.
fn only(report: &Report) -> &Port {
    assert_eq!(report.ports.len(), 1);
    &report.ports[0]
}

/// How it failed, and the words in which that is told.
#[track_caller]
fn fails(report: &Report, kind: ErrorKind, phase: Phase, words: &str) {
    let failure = only(report).failure.as_ref().unwrap();
    assert_eq!(
        (failure.kind(), failure.phase()),
        (kind, phase),
        "{failure}"
    );
    assert!(
        failure.to_string().contains(words),
        "{words:?} is not in: {failure}"
    );
    assert!(!report.is_usable());
    // The text breaks lines at blanks.
    let flat = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let text = report.to_string();
    assert!(
        flat(&text).contains(&flat(failure.message())),
        "{failure} is not in:\n{text}"
    );
    assert!(
        flat(&text).contains(&flat(failure.hint().unwrap_or_default())),
        "{failure} is not in:\n{text}"
    );
}

fn commands(server: &Server) -> Vec<String> {
    server
        .connections()
        .iter()
        .flat_map(|session| session.commands())
        .map(str::to_owned)
        .collect()
}

/// A port where each connection is handled by this.
async fn listener<F: Future<Output = ()> + Send + 'static>(
    handle: impl Fn(TcpStream) -> F + Send + Sync + 'static,
) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            tokio::spawn(handle(listener.accept().await.unwrap().0));
        }
    });
    port
}

fn impatient(port: u16) -> Endpoint {
    Endpoint::new("127.0.0.1")
        .port(port)
        .timeouts(Timeouts::uniform(Duration::from_secs(4)))
        .trust(Trust::empty())
}

// ---- What can be used ----

#[tokio::test]
async fn probe_reports_lmtp_servers() {
    let plain = Server::builder().lmtp().start().await.unwrap();
    let protected = Server::builder().lmtp().starttls().start().await.unwrap();
    let implicit = Server::builder()
        .lmtp()
        .implicit_tls()
        .start()
        .await
        .unwrap();
    for (server, query) in [
        (&plain, "".into()),
        (
            &protected,
            format!("?tls=required&trust={}", protected.ca_file().display()),
        ),
    ] {
        let report = probe_url(&server.url()).await;
        assert!(report.is_usable(), "{report}");
        assert_eq!(
            report.advice.unwrap().url,
            format!("lmtp://localhost:{}{query}", server.port())
        );
    }
    let report = probe_url(&format!(
        "lmtp://localhost:{}?trust={}",
        implicit.port(),
        implicit.ca_file().display()
    ))
    .await;
    assert_eq!(only(&report).speaks, Some(PortSecurity::Tls));
    assert!(
        report
            .advice
            .unwrap()
            .rust
            .contains(".security(Security::Implicit)")
    );
    assert!(
        commands(&plain).contains(&"LHLO [127.0.0.1]".to_owned()),
        "{:?}",
        commands(&plain)
    );

    let usual = probe_url("lmtp://localhost").await;
    assert_eq!(
        usual
            .ports
            .iter()
            .map(|port| port.number)
            .collect::<Vec<_>>(),
        [24]
    );
}

#[cfg(unix)]
#[tokio::test]
async fn probe_refuses_a_unix_socket() {
    let error = envoi::probe(&Endpoint::lmtp_unix("/run/lmtp.sock"))
        .await
        .unwrap_err();
    assert_eq!(
        (error.kind(), error.message().contains("/run/lmtp.sock")),
        (ErrorKind::Request, true),
        "{error}"
    );
}

#[tokio::test]
async fn probe_reports_starttls_and_login() {
    let server = Server::builder()
        .login("alice", PASSWORD)
        .max_size(50_000_000)
        .start()
        .await
        .unwrap();
    let report = probe_url(&server.url()).await;
    let port = only(&report);
    assert!(report.is_usable(), "{report}");
    assert_eq!(
        (port.number, port.address.unwrap().port()),
        (server.port(), server.port())
    );
    assert_eq!(port.speaks, Some(PortSecurity::Plaintext));
    assert_eq!(port.greeting.as_ref().unwrap().code(), 220);
    let (before, inside) = (
        port.before_tls.as_ref().unwrap(),
        port.inside_tls.as_ref().unwrap(),
    );
    assert!(before.offers("STARTTLS") && before.auth().is_empty());
    assert!(!inside.offers("STARTTLS"));
    assert_eq!(inside.auth(), ["PLAIN", "LOGIN"]);
    assert_eq!(inside.size_limit(), Some(50_000_000));
    let tls = port.tls.as_ref().unwrap();
    assert_eq!(tls.version, "TLSv1.3");
    assert!(
        tls.is_verified()
            && tls.verified_by.is_some()
            && !tls.resumed
            && tls.key_exchange.is_some()
    );
    assert!(tls.peer().unwrap().names.contains(&"localhost".to_owned()));
    let versions: Vec<_> = port
        .versions
        .iter()
        .map(|version| (version.version, version.is_accepted()))
        .collect();
    assert_eq!(
        versions,
        [(TlsVersion::Tls13, true), (TlsVersion::Tls12, true)]
    );
    assert_eq!(port.login.unwrap().to_string(), "PLAIN");
    let timings = &port.timings;
    let all = [
        timings.connect,
        timings.greeting,
        timings.tls,
        timings.ready,
        timings.login,
    ];
    assert!(all.iter().all(Option::is_some), "{timings:?}");
    // Nothing was sent, each connection was left politely, and there were three: in clear, as a
    // client, and with TLS 1.2.
    assert!(server.messages().is_empty());
    assert_eq!(server.connections().len(), 3);
    assert_eq!(
        commands(&server)
            .iter()
            .filter(|command| *command == "QUIT")
            .count(),
        3
    );
    assert_eq!(
        commands(&server)
            .iter()
            .filter(|command| command.starts_with("AUTH"))
            .count(),
        1
    );
    assert!(!format!("{report} {report:?}").contains(PASSWORD));
    for words in [
        "plaintext and then STARTTLS: can be used",
        "alice logged in with PLAIN",
        "50000000 bytes (50 MB)",
    ] {
        assert!(
            report.to_string().contains(words),
            "{words:?} is not in:\n{report}"
        );
    }
}

#[tokio::test]
async fn probe_finds_implicit_tls_on_any_port() {
    let server = Server::builder()
        .implicit_tls()
        .login("alice", PASSWORD)
        .start()
        .await
        .unwrap();
    let url = server.url().replace("smtps://", "smtp://");
    let report = probe_url(&url).await;
    let port = only(&report);
    assert!(report.is_usable(), "{report}");
    assert_eq!(port.speaks, Some(PortSecurity::Tls));
    assert!(port.before_tls.is_none() && port.inside_tls.is_some() && port.greeting.is_some());
    assert!(port.login.is_some());
    assert!(
        report
            .advice
            .as_ref()
            .unwrap()
            .url
            .starts_with("smtps://alice@localhost:")
    );
}

#[tokio::test]
async fn the_advised_url_works() {
    for builder in [Server::builder(), Server::builder().implicit_tls()] {
        let server = builder
            .login("alice@example.org", PASSWORD)
            .start()
            .await
            .unwrap();
        let report = probe_url(&server.url()).await;
        let advice = report.advice.as_ref().unwrap();
        assert!(advice.usable && advice.port == server.port());
        assert!(
            advice.url.contains("alice%40example.org@"),
            "{}",
            advice.url
        );
        assert!(
            advice
                .rust
                .contains(&format!("Endpoint::from_url({:?})?", advice.url)),
            "{}",
            advice.rust
        );
        assert!(
            advice.rust.contains(".password(password)"),
            "{}",
            advice.rust
        );
        let endpoint = Endpoint::from_url(&advice.url).unwrap().password(PASSWORD);
        Client::new(endpoint).connect().await.unwrap().quit().await;
    }
}

#[tokio::test]
async fn advice_uses_rust_for_what_a_url_cannot_say() {
    let server = Server::start().await.unwrap();
    let at = || Endpoint::new("localhost").port(server.port());
    let rust = |report: Report| report.advice.unwrap().rust;

    let memory = rust(probe(&at().trust(Trust::empty().pem(server.ca_pem()))).await);
    assert!(memory.contains(".tls(tls)"), "{memory}");
    let both = rust(probe(&at().trust(Trust::system().path(server.ca_file()))).await);
    assert!(
        both.contains("?trust=/") && both.contains(".system_trust()"),
        "{both}"
    );
    let pin = only(&probe(&at().trust(Trust::empty().path(server.ca_file()))).await)
        .tls
        .as_ref()
        .unwrap()
        .chain[0]
        .pin();
    let pinned = probe(&at().trust(Trust::empty()).pin(&pin)).await;
    assert!(pinned.is_usable(), "{pinned}");
    let url = pinned.advice.unwrap().url;
    assert!(url.contains("?pin=sha256"), "{url}");
    Client::from_url(&url)
        .unwrap()
        .connect()
        .await
        .unwrap()
        .quit()
        .await;
}

#[tokio::test]
async fn probe_accepts_plaintext_if_the_policy_allows_it() {
    let server = Server::builder().plaintext().start().await.unwrap();
    for policy in ["none", "opportunistic"] {
        let report = probe_url(&format!("smtp://localhost:{}?tls={policy}", server.port())).await;
        assert!(report.is_usable(), "{report}");
        let port = only(&report);
        assert!(port.tls.is_none() && port.versions.is_empty() && port.inside_tls.is_none());
        assert_eq!(
            report.advice.unwrap().url,
            format!("smtp://localhost:{}?tls=none", server.port())
        );
    }
}

#[tokio::test]
async fn probe_accepts_an_unverified_certificate_if_the_policy_allows_it() {
    let server = Server::start().await.unwrap();
    let endpoint = Endpoint::new("localhost")
        .port(server.port())
        .trust(Trust::empty());
    let report = probe(&endpoint.security(Security::Opportunistic)).await;
    assert!(report.is_usable(), "{report}");
    let tls = only(&report).tls.as_ref().unwrap();
    assert!(!tls.is_verified() && !tls.not_verified_reason.as_ref().unwrap().hint().is_empty());
    assert!(report.advice.unwrap().url.contains("?tls=opportunistic"));
}

// ---- What cannot ----

#[tokio::test]
async fn probe_fails_without_tls_if_the_policy_requires_it() {
    let server = Server::builder().plaintext().start().await.unwrap();
    let report = probe(&Endpoint::new("localhost").port(server.port())).await;
    fails(
        &report,
        ErrorKind::Tls,
        Phase::StartTls,
        "does not offer STARTTLS; it offers",
    );
    assert!(only(&report).before_tls.is_some());
}

#[tokio::test]
async fn probe_never_sends_a_password_in_clear() {
    let server = Server::builder()
        .plaintext()
        .auth_in_clear(true)
        .login("alice", PASSWORD)
        .start()
        .await
        .unwrap();
    assert!(server.url().contains("auth-in-clear=yes"));
    let report = probe_url(&server.url()).await;
    fails(
        &report,
        ErrorKind::Insecure,
        Phase::Auth,
        "the password would cross the network in clear",
    );
    assert!(
        !commands(&server)
            .iter()
            .any(|command| command.starts_with("AUTH"))
    );
}

#[tokio::test]
async fn probe_never_sends_a_password_to_an_unverified_server() {
    for policy in ["required", "opportunistic", "none"] {
        let server = Server::builder()
            .login("alice", PASSWORD)
            .start()
            .await
            .unwrap();
        let untrusted = Server::start().await.unwrap();
        let url = format!(
            "smtp://alice:{PASSWORD}@localhost:{}?tls={policy}&auth-in-clear=yes",
            server.port()
        );
        let endpoint = Endpoint::from_url(&url)
            .unwrap()
            .trust(Trust::empty().path(untrusted.ca_file()));
        let report = probe(&endpoint).await;
        fails(
            &report,
            ErrorKind::Tls,
            Phase::Tls,
            "its signature is not by the key",
        );
        assert!(only(&report).login.is_none());
        assert!(
            !commands(&server)
                .iter()
                .any(|command| command.starts_with("AUTH"))
        );
        assert!(report.to_string().contains("NOT verified: "), "{report}");
        // What it offers is seen nevertheless.
        assert_eq!(
            only(&report).inside_tls.as_ref().unwrap().auth(),
            ["PLAIN", "LOGIN"]
        );
    }
}

#[tokio::test]
async fn the_received_chain_can_be_used_as_trust() {
    let server = Server::start().await.unwrap();
    let endpoint = Endpoint::new("localhost").port(server.port());
    let pem = probe(&endpoint.clone().trust(Trust::empty()))
        .await
        .certificates_pem();
    assert!(
        pem.starts_with("# localhost, port ") && pem.contains("-----BEGIN CERTIFICATE-----"),
        "{pem}"
    );
    let report = probe(&endpoint.trust(Trust::empty().pem(pem))).await;
    assert!(report.is_usable(), "{report}");
}

#[tokio::test]
async fn probe_reports_a_wrong_password() {
    let server = Server::builder()
        .login("alice", PASSWORD)
        .start()
        .await
        .unwrap();
    let endpoint = Endpoint::from_url(&server.url())
        .unwrap()
        .credentials(Credentials::new("alice", "hunter2-wrong"));
    let report = probe(&endpoint).await;
    fails(
        &report,
        ErrorKind::Auth,
        Phase::Auth,
        "Check user name and password",
    );
    assert!(!format!("{report} {report:?}").contains("hunter2"));
    assert!(!report.advice.unwrap().usable);
}

#[tokio::test]
async fn probe_reports_refused_starttls() {
    let builder = Server::builder()
        .answer(|command| (command == "STARTTLS").then(|| "454 4.7.0 Not now".into()));
    let report = probe_url(&builder.start().await.unwrap().url()).await;
    fails(
        &report,
        ErrorKind::Tls,
        Phase::StartTls,
        "454 4.7.0 Not now",
    );
    assert!(
        only(&report)
            .versions
            .iter()
            .all(|version| !version.is_accepted())
    );
    assert!(only(&report).before_tls.is_some());
}

#[tokio::test]
async fn probe_reports_a_refused_connection() {
    let free = TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let report = probe(&impatient(free)).await;
    fails(
        &report,
        ErrorKind::Connect,
        Phase::Connect,
        "Nothing listens on that port",
    );
    assert!(only(&report).address.is_none() && report.advice.is_none());
    assert!(
        report
            .to_string()
            .ends_with("No mail server was found here.\n"),
        "{report}"
    );
}

#[tokio::test]
async fn probe_reports_a_silent_server() {
    let port = listener(|stream| async move {
        sleep(PATIENCE).await;
        drop(stream);
    })
    .await;
    let report = probe(&impatient(port)).await;
    fails(
        &report,
        ErrorKind::Timeout,
        Phase::Greeting,
        "did not greet within 4s, and does not answer TLS either",
    );
    assert!(report.advice.is_none() && only(&report).speaks.is_none());
}

#[tokio::test]
async fn probe_reports_silence_after_the_handshake() {
    let server = Server::start().await.unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(server.tls_config());
    let port = listener(move |stream| {
        let handshake = acceptor.accept(stream);
        async move {
            let stream = handshake.await;
            sleep(PATIENCE).await;
            drop(stream);
        }
    })
    .await;
    let report = probe(&impatient(port).trust(Trust::empty().path(server.ca_file()))).await;
    fails(
        &report,
        ErrorKind::Timeout,
        Phase::Greeting,
        "no mail server sends a greeting inside it",
    );
    // What TLS showed is there.
    assert!(only(&report).tls.as_ref().unwrap().is_verified());
    assert!(
        only(&report)
            .versions
            .iter()
            .all(|version| version.is_accepted())
    );
}

#[tokio::test]
async fn probe_recognises_a_web_server() {
    let port = listener(|mut stream| async move {
        let _ = stream.read(&mut [0; 1024]).await;
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
    })
    .await;
    let report = probe(&impatient(port)).await;
    fails(
        &report,
        ErrorKind::Tls,
        Phase::Tls,
        "is a web server on this port",
    );
    assert!(report.advice.is_none());
}

#[tokio::test]
async fn probe_recognises_other_protocols_by_their_greeting() {
    for (greeting, kind, words) in [
        (
            "SSH-2.0-OpenSSH_9.2p1\r\n",
            ErrorKind::Protocol,
            "That is an SSH server",
        ),
        (
            "* OK IMAP4rev1 ready\r\n",
            ErrorKind::Protocol,
            "a server for reading mail",
        ),
        (
            "554 5.7.1 You are on a list\r\n",
            ErrorKind::Refused,
            "554 5.7.1 You are on a list",
        ),
        (
            "",
            ErrorKind::Closed,
            "the server closed the connection without sending anything",
        ),
    ] {
        let port = listener(move |mut stream| async move {
            let _ = stream.write_all(greeting.as_bytes()).await;
            if !greeting.is_empty() {
                let _ = stream.read(&mut [0; 1024]).await;
            }
        })
        .await;
        let report = probe(&impatient(port)).await;
        fails(&report, kind, Phase::Greeting, words);
        assert_eq!(
            report.advice.is_some(),
            kind == ErrorKind::Refused,
            "{report}"
        );
    }
}

#[tokio::test]
async fn probe_waits_for_a_delayed_greeting() {
    let port = listener(|mut stream| async move {
        sleep(Duration::from_millis(1300)).await;
        let _ = stream.write_all(b"220 slow.example.org\r\n").await;
        let _ = stream.read(&mut [0; 1024]).await;
        let _ = stream
            .write_all(b"250-slow.example.org\r\n250 XXXXXXXA\r\n")
            .await;
        let _ = stream.read(&mut [0; 1024]).await;
    })
    .await;
    let report = probe(&impatient(port)).await;
    assert_eq!(only(&report).speaks, Some(PortSecurity::Plaintext));
    assert!(only(&report).timings.greeting.unwrap() >= Duration::from_millis(1300));
    fails(
        &report,
        ErrorKind::Tls,
        Phase::StartTls,
        "A device between you and the server rewrites SMTP",
    );
}

#[tokio::test]
async fn probe_returns_an_error_for_invalid_settings() {
    for (endpoint, kind) in [
        (Endpoint::new("not a host"), ErrorKind::Request),
        (Endpoint::new("localhost").user("alice"), ErrorKind::Request),
        (
            Endpoint::new("localhost").trust(Trust::empty().path("/nowhere/ca.pem")),
            ErrorKind::Config,
        ),
    ] {
        assert_eq!(envoi::probe(&endpoint).await.unwrap_err().kind(), kind);
    }
}

#[tokio::test]
#[ignore = "needs openssl"]
async fn probe_reports_a_server_with_tls_1_2_only() {
    let (port, ca) = openssl_server(&["-tls1_2"]).await;
    let report =
        probe(&impatient(port).trust(Trust::empty().path(ca.path().join("cert.pem")))).await;
    let port = only(&report);
    assert_eq!(port.speaks, Some(PortSecurity::Tls));
    assert_eq!(port.tls.as_ref().unwrap().version, "TLSv1.2");
    let [new, old] = &port.versions[..] else {
        panic!("{report}")
    };
    assert!(old.is_accepted(), "{report}");
    let failure = new.failure.as_ref().unwrap();
    assert!(
        failure.message().contains("no version of TLS in common"),
        "{failure}"
    );
    assert!(
        report
            .to_string()
            .contains("TLSv1.2, not TLSv1.3; TLS_ECDHE"),
        "{report}"
    );
}

#[tokio::test]
#[ignore = "needs openssl"]
async fn probe_reports_a_server_with_tls_1_0_only() {
    let (port, _folder) = openssl_server(&["-tls1", "-cipher", "ALL:@SECLEVEL=0"]).await;
    let report = probe(&impatient(port)).await;
    fails(
        &report,
        ErrorKind::Tls,
        Phase::Tls,
        "no version of TLS in common",
    );
    assert!(
        report.to_string().contains("neither TLSv1.3 nor TLSv1.2"),
        "{report}"
    );
    assert_eq!(
        report.advice.unwrap().url,
        format!("smtps://127.0.0.1:{port}")
    );
}

/// `openssl s_server` with a certificate in a folder.
async fn openssl_server(options: &[&str]) -> (u16, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let own = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    std::fs::write(folder.path().join("cert.pem"), own.cert.pem()).unwrap();
    std::fs::write(
        folder.path().join("key.pem"),
        own.signing_key.serialize_pem(),
    )
    .unwrap();
    let port = TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let mut command = Command::new("openssl");
    command.args([
        "s_server", "-quiet", "-cert", "cert.pem", "-key", "key.pem", "-accept",
    ]);
    command
        .arg(format!("127.0.0.1:{port}"))
        .args(options)
        .current_dir(folder.path())
        .kill_on_drop(true);
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let mut child = command.spawn().expect("openssl is installed");
    for _ in 0..200 {
        if TcpStream::connect(("127.0.0.1", port)).await.is_ok() {
            // It lives as long as its standard input is open.
            tokio::spawn(async move { child.wait().await });
            return (port, folder);
        }
        sleep(Duration::from_millis(20)).await;
    }
    panic!("openssl s_server does not listen");
}

/// An HTTP proxy that leads the ports 465 and 587 of any host to these ports of this machine, and
/// refuses the others.
async fn proxy(smtps: u16, submission: u16) -> u16 {
    listener(move |mut client| async move {
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            request.push(client.read_u8().await.unwrap());
        }
        let request = String::from_utf8(request).unwrap();
        let target = request.split(' ').nth(1).unwrap();
        let port = match target.rsplit_once(':').unwrap().1 {
            "465" => smtps,
            "587" => submission,
            _ => {
                let refusal = b"HTTP/1.1 403 Forbidden\r\n\r\n";
                return client.write_all(refusal).await.unwrap();
            }
        };
        let mut server = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        let answer = b"HTTP/1.1 200 Connection established\r\n\r\n";
        client.write_all(answer).await.unwrap();
        let _ = copy_bidirectional(&mut client, &mut server).await;
    })
    .await
}

#[tokio::test]
async fn a_refused_login_is_not_tried_on_the_next_port() {
    let server = || Server::builder().login("alice", "right").start();
    let (first, second) = (server().await.unwrap(), server().await.unwrap());
    let proxy = proxy(first.port(), second.port()).await;
    let endpoint = Endpoint::new("localhost")
        .proxy(Proxy::from_url(&format!("http://127.0.0.1:{proxy}")).unwrap())
        .trust(Trust::empty().pem(first.ca_pem()).pem(second.ca_pem()))
        .credentials(Credentials::new("alice", "wrong"));
    let report = probe(&endpoint).await;
    let numbers: Vec<_> = report.ports.iter().map(|port| port.number).collect();
    assert_eq!(numbers, [25, 465, 587]);
    let failure = |index: usize| report.ports[index].failure.as_ref().unwrap();
    assert_eq!(failure(0).kind(), ErrorKind::Refused, "{report}");
    assert_eq!(failure(1).reply().unwrap().code(), 535, "{report}");
    assert_eq!(failure(2).kind(), ErrorKind::Auth, "{report}");
    let message = failure(2).message();
    assert!(message.contains("it was refused on port 465"), "{report}");
    let logins = |server| {
        let is_login = |command: &&String| command.starts_with("AUTH");
        commands(server).iter().filter(is_login).count()
    };
    assert_eq!((logins(&first), logins(&second)), (1, 0));
}

// ---- The greeting that a connection keeps ----

#[tokio::test]
async fn a_connection_returns_its_greeting() {
    let server = Server::start().await.unwrap();
    let connection = Connection::connect(&Endpoint::from_url(&server.url()).unwrap())
        .await
        .unwrap();
    assert_eq!(connection.greeting().unwrap().code(), 220);
    connection.quit().await;
}

// ---- The example as a program ----

async fn run(arguments: &[&str]) -> Run {
    program::run("probe", arguments, b"", &[]).await
}

fn keys(object: &Value) -> Vec<&str> {
    // In alphabetical order, as the map has them.
    object
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect()
}

#[tokio::test]
async fn probe_prints_a_readable_report() {
    let server = Server::builder()
        .login("alice", PASSWORD)
        .start()
        .await
        .unwrap();
    let run = run(&["--url", &server.url()]).await;
    run.exits_with(0);
    assert!(
        run.stdout.contains("\nUse smtp://alice@localhost:"),
        "{}",
        run.stdout
    );
    assert!(
        run.stdout.contains("let client = Client::new(endpoint);"),
        "{}",
        run.stdout
    );
    assert!(
        run.stdout.lines().count() < 40 && !run.stdout.contains(PASSWORD),
        "{}",
        run.stdout
    );
    assert_eq!(run.stderr, "");
}

#[tokio::test]
async fn probe_prints_json() {
    let server = Server::builder()
        .login("alice", PASSWORD)
        .start()
        .await
        .unwrap();
    let run = run(&["--url", &server.url(), "--json"]).await;
    let json = run.exits_with(0).json();
    assert!(!run.stdout.contains(PASSWORD));
    assert_eq!(
        keys(&json),
        [
            "advice", "error", "host", "ports", "seconds", "trusted", "usable", "user"
        ]
    );
    assert_eq!(
        (&json["usable"], &json["host"], &json["user"]),
        (&true.into(), &"localhost".into(), &"alice".into())
    );
    assert_eq!(keys(&json["advice"]), ["port", "rust", "url", "usable"]);
    let port = &json["ports"][0];
    assert_eq!(
        keys(port),
        [
            "address",
            "before_tls",
            "error",
            "greeting",
            "inside_tls",
            "login",
            "port",
            "seconds",
            "speaks",
            "tls",
            "usable",
            "versions"
        ]
    );
    assert_eq!(
        (&port["speaks"], &port["login"]),
        (&"plaintext".into(), &"PLAIN".into())
    );
    assert_eq!(
        keys(&port["inside_tls"]),
        ["auth", "keywords", "server", "size"]
    );
    assert_eq!(
        port["inside_tls"]["auth"],
        serde_json::json!(["PLAIN", "LOGIN"])
    );
    assert_eq!(
        keys(&port["tls"]),
        [
            "chain",
            "cipher",
            "hint",
            "key_exchange",
            "not_verified_reason",
            "verified",
            "verified_by",
            "version"
        ]
    );
    let certificate = &port["tls"]["chain"][0];
    assert_eq!(
        keys(certificate),
        [
            "issuer",
            "names",
            "not_after",
            "not_before",
            "pin",
            "sha256",
            "subject"
        ]
    );
    assert_eq!(keys(&port["versions"][0]), ["accepted", "error", "version"]);
    assert_eq!(
        keys(&port["seconds"]),
        ["connect", "greeting", "login", "ready", "tls"]
    );
    assert!(port["seconds"]["connect"].is_f64());
}

#[tokio::test]
async fn probe_exits_with_a_code_for_each_failure() {
    let server = Server::builder()
        .login("alice", PASSWORD)
        .start()
        .await
        .unwrap();
    let ca = server.ca_file().to_str().unwrap().to_owned();
    let place = format!("localhost:{}", server.port());
    let wrong = format!("smtp://alice:hunter2-wrong@{place}");
    let free = TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let closed = format!("127.0.0.1:{free}");
    // One that signed nothing here.
    let untrusted = Server::start().await.unwrap();
    let other = untrusted.ca_file().to_str().unwrap().to_owned();
    for (arguments, code, kind) in [
        (vec![place.as_str(), "--trust", &ca], 0, ""),
        (vec![&place, "--url", &server.url()], 0, ""),
        (vec![&place, "--trust", &other], 76, "tls"),
        (vec![&closed, "--timeout", "5"], 75, "connect"),
        (vec!["--url", &wrong, "--trust", &ca], 77, "auth"),
        (vec![&place, "--trust", "/nowhere/ca.pem"], 78, "config"),
        (
            vec!["--url", &wrong, "--password-file", "/nowhere/password"],
            66,
            "input",
        ),
        (vec!["other.example.org", "--url", &wrong], 64, "request"),
        (vec![&place, "--timeout", "soon"], 64, "request"),
        (vec![&wrong], 64, "request"),
        (vec!["[::1"], 64, "request"),
        (vec![&place, "hunter2-wrong"], 64, "request"),
        (vec!["--hunter2-wrong"], 64, "request"),
        (vec![], 64, "request"),
    ] {
        let plain = run(&arguments).await;
        plain.exits_with(code);
        let with_json = run(&[arguments.clone(), vec!["--json"]].concat()).await;
        let json = with_json.exits_with(code).json();
        match code {
            0 => assert!(json["error"].is_null()),
            _ => assert_eq!(json["error"]["kind"], kind, "{json}"),
        }
        let said = [
            plain.stdout,
            plain.stderr,
            with_json.stdout,
            with_json.stderr,
        ]
        .concat();
        assert!(
            !said.contains("hunter2") && !said.contains(PASSWORD),
            "{said}"
        );
    }
}

#[tokio::test]
async fn probe_saves_the_chain() {
    let server = Server::start().await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let untrusted = Server::start().await.unwrap();
    let (place, file) = (
        format!("localhost:{}", server.port()),
        folder.path().join("chain.pem"),
    );
    let (other, path) = (
        untrusted.ca_file().to_str().unwrap(),
        file.to_str().unwrap(),
    );

    let plain = run(&[&place, "--trust", other]).await;
    plain.exits_with(76);
    assert!(
        plain.stdout.contains("--save-chain FILE"),
        "{}",
        plain.stdout
    );
    run(&[&place, "--trust", other, "--save-chain", path])
        .await
        .exits_with(76);
    assert!(
        std::fs::read_to_string(&file)
            .unwrap()
            .contains("-----BEGIN CERTIFICATE-----")
    );
    run(&[&place, "--trust", path]).await.exits_with(0);
    run(&[
        &place,
        "--trust",
        path,
        "--save-chain",
        "/nowhere/chain.pem",
    ])
    .await
    .exits_with(73);

    let plaintext = Server::builder().plaintext().start().await.unwrap();
    let none = folder.path().join("none.pem");
    let place = format!("localhost:{}", plaintext.port());
    let saved = run(&[&place, "--save-chain", none.to_str().unwrap()]).await;
    assert!(saved.exits_with(76).stdout.contains("the server sent none") && !none.exists());
}

#[tokio::test]
async fn probe_reads_a_key_store_and_a_password_file() {
    let server = Server::builder()
        .login("alice", PASSWORD)
        .start()
        .await
        .unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("password");
    std::fs::write(&file, format!("{PASSWORD}\r\n")).unwrap();
    let url = format!("smtp://alice@localhost:{}", server.port());
    let arguments = [
        "--url",
        &url,
        "--password-file",
        file.to_str().unwrap(),
        "--trust",
    ];
    let ca = server.ca_file().to_str().unwrap();
    run(&[&arguments[..], &[ca]].concat()).await.exits_with(0);
    // A trust store of another, which needs its password.
    let store = concat!(env!("CARGO_MANIFEST_DIR"), "/src/tls/tests/stores/java.p12");
    run(&[&arguments[..], &[store]].concat())
        .await
        .exits_with(78);
    run(&[
        &arguments[..],
        &[store, "--trust", ca, "--trust-password", "changeit"],
    ]
    .concat())
    .await
    .exits_with(0);
    let with_file = [store, "--trust", ca, "--trust-password-file", ca];
    run(&[&arguments[..], &with_file].concat())
        .await
        .exits_with(78)
        .says("the password given does not open");
    std::fs::write(&file, "changeit").unwrap();
    let with_file = [
        "localhost",
        "--url",
        &server.url(),
        "--trust",
        store,
        "--trust-password-file",
        file.to_str().unwrap(),
    ];
    run(&with_file).await.exits_with(76);
}

/// As from `<(…)` in a shell: it can be read once.
#[cfg(unix)]
#[tokio::test]
async fn probe_reads_trust_from_a_fifo() {
    let server = Server::start().await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let fifo = folder.path().join("fifo");
    assert!(
        std::process::Command::new("mkfifo")
            .arg(&fifo)
            .status()
            .unwrap()
            .success()
    );
    let ca = std::fs::read(server.ca_file()).unwrap();
    let writing = tokio::task::spawn_blocking({
        let fifo = fifo.clone();
        move || std::fs::write(fifo, ca).unwrap()
    });
    let place = format!("localhost:{}", server.port());
    run(&[&place, "--trust", fifo.to_str().unwrap()])
        .await
        .exits_with(0);
    writing.await.unwrap();
    // Without a process that writes, the limit of each step is that of a password, too.
    let started = std::time::Instant::now();
    let run = run(&[
        &place,
        "--trust-password-file",
        fifo.to_str().unwrap(),
        "--timeout",
        "0.1",
    ])
    .await;
    run.exits_with(78).says("its end did not come in time");
    assert!(started.elapsed() < std::time::Duration::from_secs(4));
}

#[tokio::test]
#[ignore = "needs IPv6"]
async fn probe_connects_to_an_ipv6_address() {
    let listener = TcpListener::bind("[::1]:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _ = stream.write_all(b"220 six.example.org\r\n").await;
            let _ = stream.read(&mut [0; 1024]).await;
            let _ = stream.write_all(b"250 six.example.org\r\n").await;
            let _ = stream.read(&mut [0; 1024]).await;
        }
    });
    let json = run(&[&format!("[::1]:{port}"), "--json"])
        .await
        .exits_with(76)
        .json();
    assert_eq!(json["ports"][0]["address"], format!("[::1]:{port}"));
    let json = run(&["--url", &format!("smtp://[::1]:{port}?tls=none"), "--json"])
        .await
        .exits_with(0)
        .json();
    assert_eq!(
        json["advice"]["url"],
        format!("smtp://[::1]:{port}?tls=none")
    );
}
