//! The ways to a server: through proxies inside the process, from an address, with a header before
//! all else.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use envoi::testing::Server;
use envoi::tls::{Security, Trust};
use envoi::{Client, Connection, Endpoint, Proxy, ProxyHeader};
use support::hello;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};

/// What each client asked the proxy for.
pub type Asked = Arc<Mutex<Vec<String>>>;

/// Leads each client through, once `shake_hands` has heard where it wants to go.
pub async fn proxy<F>(shake_hands: fn(TcpStream) -> F) -> (u16, Asked)
where
    F: Future<Output = (TcpStream, TcpStream, String)> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let asked = Asked::default();
    let noted = asked.clone();
    tokio::spawn(async move {
        loop {
            let (client, _) = listener.accept().await.unwrap();
            let noted = noted.clone();
            tokio::spawn(async move {
                let (mut client, mut server, what) = shake_hands(client).await;
                noted.lock().unwrap().push(what);
                let _ = copy_bidirectional(&mut client, &mut server).await;
            });
        }
    });
    (port, asked)
}

/// HTTP. The server's greeting comes in one piece with the answer.
async fn by_http(mut client: TcpStream) -> (TcpStream, TcpStream, String) {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        request.push(client.read_u8().await.unwrap());
    }
    let request = String::from_utf8(request).unwrap();
    let target = request
        .strip_prefix("CONNECT ")
        .unwrap()
        .split(' ')
        .next()
        .unwrap();
    let mut server = TcpStream::connect(target).await.unwrap();
    let mut answer = b"HTTP/1.1 200 Connection established\r\nVia: 1.1 tests\r\n\r\n".to_vec();
    let start = answer.len();
    answer.resize(start + 1000, 0);
    let heard = server.read(&mut answer[start..]).await.unwrap();
    client.write_all(&answer[..start + heard]).await.unwrap();
    (client, server, request)
}

/// SOCKS5 with a login, and the answer byte by byte.
pub async fn by_socks(mut client: TcpStream) -> (TcpStream, TcpStream, String) {
    let mut methods = vec![0; 4];
    client.read_exact(&mut methods).await.unwrap();
    assert_eq!(methods, [5, 2, 0, 2]);
    client.write_all(&[5, 2]).await.unwrap();
    assert_eq!(client.read_u8().await.unwrap(), 1);
    let (user, password) = (short_text(&mut client).await, short_text(&mut client).await);
    client.write_all(&[1, 0]).await.unwrap();
    let mut head = [0; 4];
    client.read_exact(&mut head).await.unwrap();
    let host = match head {
        [5, 1, 0, 3] => short_text(&mut client).await,
        [5, 1, 0, 1] => Ipv4Addr::from(client.read_u32().await.unwrap()).to_string(),
        other => panic!("{other:?}"),
    };
    let port = client.read_u16().await.unwrap();
    let server = TcpStream::connect((host.as_str(), port)).await.unwrap();
    client.set_nodelay(true).unwrap();
    for byte in [5, 0, 0, 3, 5].iter().chain(b"there").chain(&[0, 25]) {
        client.write_all(&[*byte]).await.unwrap();
    }
    (client, server, format!("{user} {password} {host}:{port}"))
}

async fn short_text(client: &mut TcpStream) -> String {
    let mut text = vec![0; client.read_u8().await.unwrap().into()];
    client.read_exact(&mut text).await.unwrap();
    String::from_utf8(text).unwrap()
}

fn through(server: &Server, proxy: &str) -> Endpoint {
    Endpoint::from_url(&server.url())
        .unwrap()
        .proxy(proxy.parse().unwrap())
}

#[tokio::test]
async fn a_message_is_sent_through_an_http_proxy() {
    let (port, asked) = proxy(by_http).await;
    let server = Server::builder()
        .login("alice", "secret")
        .start()
        .await
        .unwrap();
    let endpoint = through(&server, &format!("http://me:p%40ss@127.0.0.1:{port}"));
    let receipt = Client::new(endpoint).send(hello()).await.unwrap();
    // The name that was checked is the server's.
    assert!(receipt.tls.unwrap().is_verified());
    let target = format!("localhost:{}", server.port());
    let request = format!(
        "CONNECT {target} HTTP/1.1\r\nHost: {target}\r\nProxy-Authorization: Basic \
            bWU6cEBzcw==\r\n\r\n"
    );
    assert_eq!(*asked.lock().unwrap(), [request]);
    assert_eq!(
        server.connections()[0].commands().next(),
        Some("EHLO [127.0.0.1]")
    );
}

#[tokio::test]
async fn a_message_is_sent_through_a_socks5_proxy() {
    let (port, asked) = proxy(by_socks).await;
    let server = Server::builder().implicit_tls().start().await.unwrap();
    for scheme in ["socks5h", "socks5"] {
        let endpoint = through(&server, &format!("{scheme}://me:p%40ss@127.0.0.1:{port}"));
        let receipt = Client::new(endpoint).send(hello()).await.unwrap();
        assert!(receipt.tls.unwrap().is_verified());
    }
    let port = server.port();
    let (by_name, by_address) = (
        format!("me p@ss localhost:{port}"),
        format!("me p@ss 127.0.0.1:{port}"),
    );
    assert_eq!(*asked.lock().unwrap(), [by_name, by_address]);
}

#[tokio::test]
async fn opportunistic_tls_falls_back_through_the_proxy() {
    let (port, asked) = proxy(by_http).await;
    // It agrees to TLS, and goes on in clear.
    let broken = |command: &str| (command == "STARTTLS").then(|| "220 go".to_owned());
    let server = Server::builder()
        .plaintext()
        .offer("STARTTLS")
        .answer(broken)
        .start()
        .await
        .unwrap();
    let endpoint = through(&server, &format!("http://127.0.0.1:{port}"))
        .security(Security::Opportunistic)
        .trust(Trust::empty());
    let receipt = Client::new(endpoint).send(hello()).await.unwrap();
    assert!(receipt.plaintext_reason.is_some());
    assert_eq!(asked.lock().unwrap().len(), 2);
}

#[tokio::test]
async fn the_proxy_header_precedes_everything() {
    let (source, destination) = (
        "192.0.2.7:41234".parse().unwrap(),
        "198.51.100.1:25".parse().unwrap(),
    );
    let v1 = b"PROXY TCP4 192.0.2.7 198.51.100.1 41234 25\r\n".to_vec();
    let signature = b"\r\n\r\n\0\r\nQUIT\n".to_vec();
    let v2 = [
        &signature[..],
        &[
            0x21, 0x11, 0, 12, 192, 0, 2, 7, 198, 51, 100, 1, 0xa1, 0x12, 0, 25,
        ],
    ]
    .concat();
    let local = [&signature[..], &[0x20, 0, 0, 0]].concat();
    for (header, expected) in [
        (ProxyHeader::v1(source, destination).unwrap(), v1),
        (ProxyHeader::v2(source, destination).unwrap(), v2),
        (ProxyHeader::local(), local),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let endpoint = Endpoint::from_url(&format!("smtp://127.0.0.1:{port}?tls=none")).unwrap();
        let client = tokio::spawn(async move {
            Connection::connect(&endpoint.proxy_header(header))
                .await
                .map(drop)
        });
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut heard = vec![0; expected.len()];
        stream.read_exact(&mut heard).await.unwrap();
        assert_eq!(heard, expected);
        stream
            .write_all(b"220 there\r\n250 there\r\n")
            .await
            .unwrap();
        drop(stream);
        let _ = client.await.unwrap();
    }
    let v6: SocketAddr = "[2001:db8::1]:25".parse().unwrap();
    assert!(ProxyHeader::v1(source, v6).is_err());
    assert!(ProxyHeader::v2("[2001:db8::7]:1".parse().unwrap(), v6).is_ok());
}

#[tokio::test]
async fn a_connection_is_bound_to_the_local_address() {
    let server = Server::builder().plaintext().start().await.unwrap();
    let endpoint = Endpoint::from_url(&server.url())
        .unwrap()
        .bind(Ipv4Addr::new(127, 0, 0, 3));
    assert!(
        Client::new(endpoint)
            .send(hello())
            .await
            .unwrap()
            .all_accepted()
    );
    assert_eq!(
        server.connections()[0].commands().next(),
        Some("EHLO [127.0.0.3]")
    );
}

#[test]
fn proxy_urls_are_parsed_and_displayed() {
    for (url, shown) in [
        ("socks5://proxy", "socks5://proxy:1080"),
        ("SOCKS5H://u:p@[::1]:9050/", "socks5h://[::1]:9050"),
        (
            "http://u@proxy.example.org:3128",
            "http://proxy.example.org:3128",
        ),
    ] {
        assert_eq!(Proxy::from_url(url).unwrap().to_string(), shown);
        // What is shown can be pasted.
        assert_eq!(Proxy::from_url(shown).unwrap().to_string(), shown);
    }
    for (url, says) in [
        ("proxy:1080", "scheme"),
        ("https://u:hunter2@proxy:443", "TLS"),
        ("socks4://u:hunter2@proxy", "version 5"),
        ("ftp://u:hunter2@proxy", "not known"),
        ("http://u:hunter2@proxy", "no port"),
        ("socks5://u:hunter2@", "no host"),
        ("socks5://u:hunter2@proxy:99999", "port"),
        ("socks5://u:hunt/er2@proxy/path", "after"),
        ("socks5://u:hunt?er2@proxy?x=y", "after"),
        ("socks5://u:hunter2%zz@proxy", "hexadecimal"),
        ("socks5://:hunter2@proxy", "empty"),
        ("socks5://user@proxy", "password"),
        ("http://a%3Ab:hunter2@proxy:1", "colon"),
    ] {
        let error = Proxy::from_url(url).unwrap_err();
        assert_eq!(error.kind(), envoi::ErrorKind::Request);
        let all = format!("{error} {error:?}");
        assert!(error.message().contains(says), "{url}: {all}");
        assert!(error.hint().unwrap().contains("socks5://"), "{url}");
        assert!(!all.contains("hunt"), "{all}");
    }
    let proxy = Proxy::from_url("socks5://alice:hunter2@proxy").unwrap();
    let endpoint = Endpoint::new("mail.example.org").proxy(proxy.clone());
    assert!(!format!("{proxy} {proxy:?} {endpoint:?}").contains("hunter2"));
    assert!(proxy.login("a".repeat(256), "b").is_err());
}
