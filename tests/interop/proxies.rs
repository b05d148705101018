//! Real proxies on the way to Postfix, and its own PROXY protocol.

use envoi::{Client, Endpoint, Error, ErrorKind, Phase, Proxy, ProxyHeader, Receipt};

use crate::servers::{ALICE, NO_LOGIN, Server, postfix, someone, special, special_port};
use crate::settings::hello;

async fn send(endpoint: Endpoint, server: &Server) -> Result<(Receipt, String), Error> {
    let to = someone("proxies");
    let receipt = Client::new(endpoint).send(hello(&to)).await?;
    let delivered = server.delivered(&to).await;
    assert_eq!(delivered.message, hello(&to).write_to_vec().unwrap());
    Ok((receipt, delivered.trace))
}

fn through(url: &str, proxy: &str) -> Endpoint {
    Endpoint::from_url(url)
        .unwrap()
        .proxy(Proxy::from_url(proxy).unwrap())
}

#[tokio::test]
#[ignore = "needs real servers"]
async fn each_proxy_leads_to_starttls_and_login() {
    let (server, socks, http) = (postfix(), special_port("SOCKS"), special_port("HTTP"));
    for proxy in [
        format!("socks5://alice:secret%401@127.0.0.1:{socks}"),
        format!("socks5h://alice:secret%401@localhost:{socks}"),
        format!("http://alice:secret1@127.0.0.1:{http}"),
    ] {
        let (receipt, _) = send(through(&server.starttls(ALICE), &proxy), server)
            .await
            .unwrap();
        assert!(receipt.tls.unwrap().is_verified(), "{proxy}");
        assert!(receipt.transcript.to_string().contains("EHLO [127.0.0.1]"));
    }
    // TLS from the first byte behind one whose answer comes with nothing else.
    let proxy = format!("socks5h://alice:secret%401@127.0.0.1:{socks}");
    let (receipt, _) = send(through(&server.implicit(ALICE), &proxy), server)
        .await
        .unwrap();
    assert!(receipt.all_accepted());
}

#[tokio::test]
#[ignore = "needs real servers"]
async fn refusals_of_proxies_are_reported() {
    let (server, socks, http) = (postfix(), special_port("SOCKS"), special_port("HTTP"));
    // Nothing listens on port 1 of the loopback interface.
    let closed = "smtp://127.0.0.1:1?tls=none&timeout=30";
    for (url, proxy, kind) in [
        (
            server.starttls(ALICE),
            format!("socks5h://127.0.0.1:{socks}"),
            ErrorKind::Auth,
        ),
        (
            server.starttls(ALICE),
            format!("socks5h://alice:hunter2@127.0.0.1:{socks}"),
            ErrorKind::Auth,
        ),
        (
            server.starttls(ALICE),
            format!("http://127.0.0.1:{http}"),
            ErrorKind::Auth,
        ),
        (
            server.starttls(ALICE),
            format!("http://alice:hunter2@127.0.0.1:{http}"),
            ErrorKind::Auth,
        ),
        (
            server.implicit(ALICE),
            format!("http://alice:secret1@127.0.0.1:{http}"),
            ErrorKind::Refused,
        ),
        (
            closed.to_owned(),
            format!("socks5h://alice:secret%401@127.0.0.1:{socks}"),
            ErrorKind::Connect,
        ),
        // A mail server in their place.
        (
            server.starttls(ALICE),
            format!("http://127.0.0.1:{}", server.port_25),
            ErrorKind::Protocol,
        ),
        (
            server.starttls(ALICE),
            format!("socks5h://127.0.0.1:{}", server.port_25),
            ErrorKind::Protocol,
        ),
    ] {
        let error = send(through(&url, &proxy), server).await.unwrap_err();
        assert_eq!(
            (error.kind(), error.phase()),
            (kind, Phase::Connect),
            "{proxy}: {error}"
        );
        let text = format!("{error} {error:?}");
        assert!(
            text.contains("proxy") && !text.contains("hunter2"),
            "{text}"
        );
    }
}

#[tokio::test]
#[ignore = "needs real servers"]
async fn a_proxy_header_announces_another_client() {
    let server = special("HAPROXY");
    let (source, destination) = (
        "192.0.2.7:41234".parse().unwrap(),
        "198.51.100.1:25".parse().unwrap(),
    );
    for (header, client) in [
        (ProxyHeader::v1(source, destination).unwrap(), "[192.0.2.7]"),
        (ProxyHeader::v2(source, destination).unwrap(), "[192.0.2.7]"),
        (ProxyHeader::local(), "[127.0.0.1]"),
    ] {
        let endpoint = Endpoint::from_url(&server.starttls(NO_LOGIN))
            .unwrap()
            .proxy_header(header.clone());
        let (receipt, trace) = send(endpoint, &server)
            .await
            .unwrap_or_else(|error| panic!("{header:?}: {error}"));
        assert!(receipt.tls.unwrap().is_verified());
        assert!(trace.contains(client), "{header:?}: {trace}");
    }
}
