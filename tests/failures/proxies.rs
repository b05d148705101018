//! Proxies that do not lead to the server, and what is no proxy; the way there as it can be set.

use std::sync::LazyLock;

use envoi::{Endpoint, ErrorKind, Phase, Proxy, Timeouts};

use crate::case::{World, case, play};
use crate::servers::Server::{self, Answers, NotListening, Replies, Says};

/// The port is the proxy's.
const URL: &str = "smtp://mail.example.org:{port}";

/// Versions and numbers of RFC 1928.
const NO_LOGIN: &[u8] = &[5, 0];
const LOGIN: &[u8] = &[5, 2];
const REFUSED_LOGIN: &[u8] = &[1, 1];
const NO_METHOD: &[u8] = &[5, 0xff];

fn through(endpoint: Endpoint, scheme: &str) -> Endpoint {
    let proxy = Proxy::from_url(&format!("{scheme}127.0.0.1:{}", endpoint.get_port())).unwrap();
    endpoint.port(587).proxy(proxy)
}

fn socks(endpoint: Endpoint, _: &World) -> Endpoint {
    through(endpoint, "socks5h://")
}

fn socks_with_login(endpoint: Endpoint, _: &World) -> Endpoint {
    through(endpoint, "socks5h://alice:hunter2@")
}

fn http(endpoint: Endpoint, _: &World) -> Endpoint {
    through(endpoint, "http://")
}

fn http_with_login(endpoint: Endpoint, _: &World) -> Endpoint {
    through(endpoint, "http://alice:hunter2@")
}

fn hurried(endpoint: Endpoint) -> Endpoint {
    endpoint.timeouts(Timeouts::uniform(std::time::Duration::from_millis(700)))
}

/// More than the head of an answer may have.
static LONG: LazyLock<String> =
    LazyLock::new(|| "HTTP/1.1 200 OK\r\n".to_owned() + &"X-Padding: padding\r\n".repeat(1000));

/// A SOCKS5 proxy's answer to the wish for a connection.
macro_rules! answer {
    ($code:expr) => {
        Replies(&[NO_LOGIN, &[5, $code, 0, 1, 0, 0, 0, 0, 0, 0]])
    };
}

#[tokio::test]
async fn proxy_failures_have_their_pinned_texts() {
    let row =
        |name, server: Server, kind, exit| case(name, server, URL, kind, Phase::Connect, exit);
    let by_socks = |name, server, kind, exit| row(name, server, kind, exit).with(socks);
    let by_http = |name, answer: &'static str, kind, exit| {
        row(
            name,
            Replies(Box::leak(Box::new([answer.as_bytes()]))),
            kind,
            exit,
        )
        .with(http)
    };
    let cases = vec![
        // The proxy itself.
        row("no SOCKS5 proxy", NotListening, ErrorKind::Connect, 75).with(socks),
        row("no HTTP proxy", NotListening, ErrorKind::Connect, 75).with(http),
        row(
            "a proxy behind a firewall",
            Server::Full,
            ErrorKind::Timeout,
            75,
        )
        .with(|endpoint, world| hurried(http(endpoint, world))),
        case(
            "no such proxy",
            NotListening,
            URL,
            ErrorKind::Connect,
            Phase::Connect,
            75,
        )
        .with(|endpoint, _| {
            endpoint
                .proxy(Proxy::from_url("socks5h://proxy.example.invalid").unwrap())
                .port(587)
        }),
        case(
            "a name that is not found here",
            NotListening,
            "smtp://mail.example.invalid:{port}",
            ErrorKind::Connect,
            Phase::Connect,
            75,
        )
        .with(|endpoint, _| through(endpoint, "socks5://")),
        // Logins.
        by_socks(
            "SOCKS5 wants a login",
            Replies(&[NO_METHOD]),
            ErrorKind::Auth,
            77,
        ),
        row(
            "SOCKS5 takes no password",
            Replies(&[NO_METHOD]),
            ErrorKind::Auth,
            77,
        )
        .with(socks_with_login),
        row(
            "SOCKS5 refuses the login",
            Replies(&[LOGIN, REFUSED_LOGIN]),
            ErrorKind::Auth,
            77,
        )
        .with(socks_with_login),
        by_http(
            "HTTP wants a login",
            "HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic \
                realm=\"x\"\r\n\r\n",
            ErrorKind::Auth,
            77,
        ),
        row(
            "HTTP refuses the login",
            Replies(&[b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n"]),
            ErrorKind::Auth,
            77,
        )
        .with(http_with_login),
        // What is behind it.
        by_socks(
            "SOCKS5: general failure",
            answer!(1),
            ErrorKind::Connect,
            75,
        ),
        by_socks("SOCKS5: not allowed", answer!(2), ErrorKind::Refused, 69),
        by_socks(
            "SOCKS5: network unreachable",
            answer!(3),
            ErrorKind::Connect,
            75,
        ),
        by_socks(
            "SOCKS5: host unreachable",
            answer!(4),
            ErrorKind::Connect,
            75,
        ),
        by_socks(
            "SOCKS5: connection refused",
            answer!(5),
            ErrorKind::Connect,
            75,
        ),
        by_socks("SOCKS5: TTL expired", answer!(6), ErrorKind::Connect, 75),
        by_socks("SOCKS5: no CONNECT", answer!(7), ErrorKind::Unsupported, 69),
        by_socks(
            "SOCKS5: type of address",
            answer!(8),
            ErrorKind::Unsupported,
            69,
        ),
        by_http(
            "HTTP: forbidden",
            "HTTP/1.1 403 Forbidden\r\nServer: squid\r\n\r\n",
            ErrorKind::Refused,
            69,
        ),
        by_http(
            "HTTP: the host is not reached",
            "HTTP/1.1 503 Service Unavailable\r\nX-Squid-Error: ERR_DNS_FAIL 0\r\n\r\n",
            ErrorKind::Connect,
            75,
        ),
        by_http(
            "HTTP: an error of its own",
            "HTTP/1.0 500 Unable to connect\r\n\r\n",
            ErrorKind::Connect,
            75,
        ),
        by_http(
            "HTTP: no CONNECT",
            "HTTP/1.1 405 Method Not Allowed\r\n\r\n",
            ErrorKind::Refused,
            69,
        ),
        // Silence and ends.
        row(
            "SOCKS5: silence",
            Replies(&[NO_LOGIN]),
            ErrorKind::Timeout,
            75,
        )
        .with(|endpoint, world| hurried(socks(endpoint, world))),
        row(
            "HTTP: silence",
            Replies(&[b"HTTP/1.1 200"]),
            ErrorKind::Timeout,
            75,
        )
        .with(|endpoint, world| hurried(http(endpoint, world))),
        by_socks("SOCKS5: closed", Answers(NO_LOGIN), ErrorKind::Connect, 75),
        row("HTTP: closed", Answers(b""), ErrorKind::Connect, 75).with(http),
        // Something else.
        by_socks(
            "an SMTP server in place of a SOCKS5 proxy",
            Says("220 mail.example.org ESMTP\r\n"),
            ErrorKind::Protocol,
            76,
        ),
        row(
            "an SMTP server in place of an HTTP proxy",
            Says("220 mail.example.org ESMTP\r\n"),
            ErrorKind::Protocol,
            76,
        )
        .with(http),
        by_socks(
            "an HTTP proxy in place of a SOCKS5 one",
            Answers(b"HTTP/1.1 400 Bad Request\r\n\r\n"),
            ErrorKind::Protocol,
            76,
        ),
        row(
            "a SOCKS5 proxy in place of an HTTP one",
            Answers(&[5, 0xff]),
            ErrorKind::Connect,
            75,
        )
        .with(http),
        by_http("an answer without an end", &LONG, ErrorKind::Protocol, 76),
        // Where to connect from.
        case(
            "an address of the other family",
            NotListening,
            "smtp://127.0.0.1:{port}",
            ErrorKind::Config,
            Phase::Connect,
            78,
        )
        .with(|endpoint, _| endpoint.bind(std::net::Ipv6Addr::LOCALHOST)),
        case(
            "an address of another host",
            NotListening,
            "smtp://127.0.0.1:{port}",
            ErrorKind::Connect,
            Phase::Connect,
            75,
        )
        .with(|endpoint, _| endpoint.bind(std::net::Ipv4Addr::new(192, 0, 2, 1))),
    ];
    play("proxies", cases).await;
}
