//! The one async stream to the server, and how it is opened.
//!
//! It knows addresses, sockets and whether TLS is on top; it knows nothing of SMTP.

use std::io::{self, IoSlice};
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::stream::{FuturesUnordered, StreamExt as _};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::error::{Error, Kind, Phase, Result};
use crate::tls::TlsStream;

/// What TCP, Unix sockets and streams of the caller's have in common.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// The stream under the session, before and after the handshake.
pub(crate) enum Transport {
    Plain(Box<dyn Stream>),
    Tls(Box<TlsStream<Box<dyn Stream>>>),
    /// Handed to a handshake that has not come back.
    Gone,
}

impl Transport {
    fn stream(&mut self) -> io::Result<Pin<&mut dyn Stream>> {
        match self {
            Transport::Plain(stream) => Ok(Pin::new(stream)),
            Transport::Tls(stream) => Ok(Pin::new(stream.as_mut())),
            Transport::Gone => Err(io::ErrorKind::NotConnected.into()),
        }
    }
}

impl AsyncRead for Transport {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.stream()?.poll_read(cx, buf)
    }
}

impl AsyncWrite for Transport {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.stream()?.poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.stream()?.poll_write_vectored(cx, bufs)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream()?.poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream()?.poll_shutdown(cx)
    }
}

/// How long one address may keep the others waiting (RFC 8305, 5).
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);

/// Opens a TCP connection to the first address of the host that answers (Happy Eyeballs, RFC 8305):
/// IPv6 and IPv4 take turns, and an address that does not answer at once does not hold up the next.
pub(crate) async fn connect(host: &str, port: u16) -> Result<TcpStream> {
    let found = tokio::net::lookup_host((host, port)).await;
    let addresses = take_turns(match found {
        Ok(addresses) => addresses.collect(),
        Err(error) => return Err(not_found(host, &error.to_string()).with_source(error)),
    });
    if addresses.is_empty() {
        return Err(not_found(host, "it has none"));
    }
    let mut waiting = addresses.iter().copied();
    let mut attempts = FuturesUnordered::new();
    let mut failures = Vec::new();
    loop {
        if let Some(address) = waiting.next() {
            attempts.push(async move { (address, TcpStream::connect(address).await) });
        }
        let attempt = match waiting.len() {
            0 => attempts.next().await,
            _ => match timeout(ATTEMPT_DELAY, attempts.next()).await {
                Ok(attempt) => attempt,
                Err(_) => continue,
            },
        };
        match attempt {
            Some((_, Ok(stream))) => {
                // What is written is meant to go at once. Where this cannot be set, it goes a little later.
                stream.set_nodelay(true).ok();
                return Ok(stream);
            }
            Some((address, Err(error))) => failures.push((address, error)),
            None => return Err(unreachable(host, port, failures)),
        }
    }
}

/// Opens a connection to a Unix socket, where another program of this machine listens.
#[cfg(unix)]
pub(crate) async fn connect_to_socket(path: &Path) -> Result<Box<dyn Stream>> {
    let connected = tokio::net::UnixStream::connect(path).await;
    connected.map(|stream| Box::new(stream) as Box<dyn Stream>).map_err(|error| {
        let hint = match error.kind() {
            io::ErrorKind::PermissionDenied => {
                "Sockets have owners and modes, as files have: this program's user must be allowed to write to it."
            }
            _ => "Check the path, and that the server runs; its configuration says where it makes the socket.",
        };
        let message = format!("no connection to the socket {} ({error})", path.display());
        Error::new(Kind::Connect, Phase::Connect, message).with_hint(hint).with_source(error)
    })
}

#[cfg(not(unix))]
pub(crate) async fn connect_to_socket(path: &Path) -> Result<Box<dyn Stream>> {
    Err(Error::request(format!("there are no Unix sockets on this system, and so not {}", path.display())))
}

/// The families take turns, beginning with the one that the resolver put first.
fn take_turns(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let first_is_v6 = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let (mut first, mut second): (Vec<_>, Vec<_>) =
        addresses.into_iter().partition(|address| address.is_ipv6() == first_is_v6);
    let mut turns = Vec::with_capacity(first.len() + second.len());
    first.reverse();
    second.reverse();
    while let Some(address) = first.pop() {
        turns.push(address);
        turns.extend(second.pop());
    }
    second.reverse();
    turns.extend(second);
    turns
}

fn not_found(host: &str, why: &str) -> Error {
    Error::new(Kind::Connect, Phase::Connect, format!("no address was found for the host {host:?} ({why})"))
        .with_hint("Check the spelling of the host name and the name servers (DNS) of this machine.")
}

fn unreachable(host: &str, port: u16, failures: Vec<(SocketAddr, io::Error)>) -> Error {
    let refused = failures.iter().all(|(_, error)| error.kind() == io::ErrorKind::ConnectionRefused);
    let tried: Vec<String> = failures.iter().map(|(address, error)| format!("{}: {error}", address.ip())).collect();
    let message = format!("no connection to {host}, port {port} ({})", tried.join("; "));
    let hint = if refused {
        "Nothing listens on that port there, or a firewall refuses: check the port (587 for STARTTLS, 465 for smtps, 25 between servers)."
    } else {
        "Check that this machine can reach the server: network, firewall, and whether outgoing connections to this port are allowed."
    };
    let error = Error::new(Kind::Connect, Phase::Connect, message).with_hint(hint);
    match failures.into_iter().next() {
        Some((_, cause)) => error.with_source(cause),
        None => error,
    }
}

/// The address that this end of the connection has, for EHLO.
pub(crate) fn local_ip(stream: &TcpStream) -> Option<IpAddr> {
    stream.local_addr().ok().map(|address| address.ip().to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_take_turns() {
        let parse = |addresses: &[&str]| -> Vec<SocketAddr> { addresses.iter().map(|a| a.parse().unwrap()).collect() };
        let given = parse(&["[::1]:25", "[::2]:25", "1.1.1.1:25", "[::3]:25", "2.2.2.2:25"]);
        let turns = parse(&["[::1]:25", "1.1.1.1:25", "[::2]:25", "2.2.2.2:25", "[::3]:25"]);
        assert_eq!(take_turns(given), turns);
        let given = parse(&["1.1.1.1:25", "[::1]:25", "[::2]:25"]);
        assert_eq!(take_turns(given.clone()), given);
    }

    #[tokio::test]
    async fn an_address_that_refuses_does_not_stop_the_next() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        // `localhost` has ::1 as well on most machines; nothing listens there.
        let stream = connect("localhost", port).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap().port(), port);
    }

    #[tokio::test]
    async fn a_refusal_names_the_address() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let error = connect("127.0.0.1", port).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Connect);
        assert!(error.is_transient());
        assert!(error.to_string().contains("127.0.0.1"), "{error}");
    }
}
