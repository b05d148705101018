//! A hostile proxy (RFC 1928, RFC 9110, 9.3.6): it has the login for itself and none of the
//! session's bytes inside TLS, and it may say anything, for ever, or say nothing. The login is in
//! no error, no transcript and nothing that `tracing` tells.

use std::time::Duration;

use envoi::tls::Security;
use envoi::{Client, Endpoint, Error, ErrorKind, Phase, Proxy};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::time::{Instant, sleep};

use crate::secrets::{assert_silent, base64, error_text};
use crate::server::text_message;
use support::log::Log;

const USER: &str = "alice";
const PASSWORD: &str = "tr0ub\"adour\\&3";

/// What the proxy does with a client.
#[derive(Clone)]
enum Part {
    /// Says this to the first words that it hears, and waits for the client to go.
    Say(Vec<u8>),
    /// Says these, each to words of the client's.
    Converse(Vec<Vec<u8>>),
    /// Says the same again and again, a byte every so many seconds.
    Trickle(Vec<u8>, u64),
    Flood(Vec<u8>),
    /// Closes at once, with what was said unread: a reset.
    Reset,
}

/// The client sends a message through a proxy that plays this part: what came of it, and how long
/// it took.
async fn meet(scheme: &str, part: Part) -> (Error, Duration) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let serving = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut heard = vec![0; 64 * 1024];
        if let Part::Reset = part {
            return;
        }
        let _ = stream.read(&mut heard).await;
        match part {
            Part::Say(words) => drop(stream.write_all(&words).await),
            Part::Converse(turns) => {
                for words in turns {
                    let _ = stream.write_all(&words).await;
                    let _ = stream.read(&mut heard).await;
                }
            }
            Part::Trickle(words, seconds) => {
                for byte in words.into_iter().cycle() {
                    sleep(Duration::from_secs(seconds)).await;
                    if stream.write_all(&[byte]).await.is_err() {
                        return;
                    }
                }
            }
            Part::Flood(words) => while stream.write_all(&words).await.is_ok() {},
            Part::Reset => {}
        }
        while stream.read(&mut heard).await.is_ok_and(|length| length > 0) {}
    });
    let proxy = Proxy::from_url(&format!("{scheme}://127.0.0.1:{port}"))
        .unwrap()
        .login(USER, PASSWORD)
        .unwrap();
    let endpoint = Endpoint::new("127.0.0.1")
        .port(25)
        .security(Security::None)
        .proxy(proxy);
    let began = Instant::now();
    let error = Client::new(endpoint)
        .send(text_message(0, &["you@example.com"], 100))
        .await
        .unwrap_err();
    let took = began.elapsed();
    serving.abort();
    (error, took)
}

#[tokio::test]
async fn a_proxy_that_echoes_the_login_reveals_nothing() {
    let (log, kept) = Log::keep();
    let field = base64(format!("{USER}:{PASSWORD}").as_bytes());
    let header = format!("Proxy-Authorization: Basic {field}");
    let percent: String = PASSWORD
        .bytes()
        .map(|byte| format!("%{byte:02X}"))
        .collect();
    let hex: String = PASSWORD.bytes().map(|byte| format!("{byte:02x}")).collect();
    let encoded = base64(PASSWORD.as_bytes());
    for echo in [
        &field,
        &header,
        PASSWORD,
        &encoded,
        &format!("{PASSWORD:?}"),
        &percent,
        &hex,
        &hex.to_uppercase(),
    ] {
        for words in [
            format!("{header}\r\n\r\n"),
            format!("220 {echo}\r\n"),
            format!("{echo}\r\n"),
            // Where it is cut, and a half of it would be left.
            format!("{}{echo}\r\n", "x".repeat(93)),
            format!("HTTP/1.1 403 {echo}\r\n\r\n"),
            format!("HTTP/1.1 502 {}{echo}\r\n\r\n", "x".repeat(93)),
            format!(
                "HTTP/1.1 407 {echo}\r\nProxy-Authenticate: Basic realm=\"{echo}\"\r\n\r\n{echo}"
            ),
            format!("HTTP/1.1 200 OK\r\nX: {echo}\r\n\r\n554 5.7.1 {echo}\r\n"),
            format!("HTTP/1.1 200 OK\r\n\r\n{echo}\r\n"),
            format!("HTTP/1.1 200 OK\r\n\r\n220-{echo}\r\n554 no\r\n"),
        ] {
            let (error, _) = meet("http", Part::Say(words.clone().into())).await;
            assert_silent(&words, &error_text(&error), PASSWORD);
            assert!(
                !error_text(&error).contains(&field[..12]),
                "{words}: {error:?}"
            );
        }
        // Behind a proxy that keeps to SOCKS5 there may be anybody who knows what it knows.
        for scheme in ["socks5", "socks5h"] {
            let granted = vec![5, 0, 0, 1, 127, 0, 0, 1, 0, 25];
            let turns = vec![
                vec![5, 2],
                vec![1, 0],
                [granted, format!("554 5.7.1 {echo}\r\n").into()].concat(),
            ];
            let (error, _) = meet(scheme, Part::Converse(turns)).await;
            assert_eq!(error.phase(), Phase::Greeting, "{error}");
            assert_silent(scheme, &error_text(&error), PASSWORD);
        }
    }
    drop(kept);
    let text = log.text();
    assert!(text.contains("554"), "{text}");
    assert_silent("tracing", &text, PASSWORD);
    assert!(!text.contains(&field[..12]), "{text}");
}

#[tokio::test]
async fn malformed_proxy_replies_are_errors() {
    let socks =
        |turns: &[&[u8]]| Part::Converse(turns.iter().map(|words| words.to_vec()).collect());
    let endless = [b"HTTP/1.1 200 OK\r\n".to_vec(), b"X-A: b\r\n".repeat(5000)].concat();
    for (attack, scheme, part, kind, words) in [
        (
            "a mail server in its place",
            "http",
            Part::Say(b"220 hi\r\n".into()),
            ErrorKind::Protocol,
            "220 hi",
        ),
        (
            "escape sequences for the terminal",
            "http",
            Part::Say(b"\x1b]0;x\x07\r\n\r\n".into()),
            ErrorKind::Protocol,
            "\\u{1b}",
        ),
        (
            "escape sequences in its reason",
            "http",
            Part::Say(b"HTTP/1.1 403 \x1b[2J\r\n\r\n".into()),
            ErrorKind::Protocol,
            "",
        ),
        (
            "fields without an end",
            "http",
            Part::Say(endless),
            ErrorKind::Protocol,
            "HTTP proxy",
        ),
        (
            "a line without an end",
            "http",
            Part::Flood(vec![b'x'; 4096]),
            ErrorKind::Protocol,
            "HTTP proxy",
        ),
        (
            "NULs without an end",
            "http",
            Part::Flood(vec![0; 4096]),
            ErrorKind::Protocol,
            "HTTP proxy",
        ),
        (
            "a reset",
            "http",
            Part::Reset,
            ErrorKind::Connect,
            "ended the connection",
        ),
        (
            "a reset",
            "socks5",
            Part::Reset,
            ErrorKind::Connect,
            "ended the connection",
        ),
        (
            "a code that is none",
            "http",
            Part::Say(b"HTTP/1.1 999 x\r\n\r\n".into()),
            ErrorKind::Protocol,
            "999",
        ),
        (
            "another version of SOCKS",
            "socks5",
            socks(&[&[4, 90, 0, 0, 0, 0, 0, 0]]),
            ErrorKind::Protocol,
            "SOCKS5",
        ),
        (
            "a method that was not offered",
            "socks5",
            socks(&[&[5, 0x80]]),
            ErrorKind::Protocol,
            "SOCKS5",
        ),
        (
            "no login wanted, and none made",
            "socks5",
            socks(&[&[5, 0], &[5, 1, 0, 1, 0, 0, 0, 0, 0, 0]]),
            ErrorKind::Connect,
            "",
        ),
        (
            "a login refused",
            "socks5",
            socks(&[&[5, 2], &[1, 1]]),
            ErrorKind::Auth,
            "login",
        ),
        (
            "a reply of a type that is none",
            "socks5",
            socks(&[&[5, 2], &[1, 0], &[5, 0, 0, 9, 0, 0]]),
            ErrorKind::Protocol,
            "",
        ),
    ] {
        let (error, _) = meet(scheme, part).await;
        assert_eq!(
            (error.kind(), error.phase()),
            (kind, Phase::Connect),
            "{attack}: {error}"
        );
        assert!(error.to_string().contains(words), "{attack}: {error}");
        assert!(
            !error.to_string().contains(char::is_control),
            "{attack}: {error:?}"
        );
        assert!(error.to_string().len() < 600, "{attack}: {error}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_proxy_times_out() {
    // Each byte comes in time; connecting has one limit, with all that the proxy has to say.
    for (attack, scheme, part) in [
        (
            "HTTP, a byte every second",
            "http",
            Part::Trickle(b"HTTP/1.1 200 OK and so on".to_vec(), 1),
        ),
        (
            "HTTP, a byte every ten seconds",
            "http",
            Part::Trickle(b"HTTP/1.1 200 OK\r\nX: y\r\n".to_vec(), 10),
        ),
        ("HTTP, silence", "http", Part::Say(Vec::new())),
        (
            "SOCKS5, a byte every ten seconds",
            "socks5h",
            Part::Trickle(vec![5, 2, 1, 0, 5, 0, 0, 3, 200], 10),
        ),
        ("SOCKS5, silence", "socks5", Part::Say(Vec::new())),
    ] {
        let (error, took) = meet(scheme, part).await;
        assert_eq!(
            (error.kind(), error.phase()),
            (ErrorKind::Timeout, Phase::Connect),
            "{attack}: {error}"
        );
        assert!(
            error.to_string().contains("within 30s"),
            "{attack}: {error}"
        );
        assert_eq!(took.as_secs(), 30, "{attack}");
    }
}
