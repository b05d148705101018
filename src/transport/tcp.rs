//! TCP: resolves names and connects to the first address that answers.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt as _};
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use super::{Connected, Destination};
use crate::error::{Error, ErrorKind, Phase, Result};

/// How long an attempt may delay the next address (RFC 8305, 5).
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);

/// Socket options. By default only TCP_NODELAY is set, which sends written data at once; it costs
/// nothing, as everything that can be sent together is written together.
///
/// ```
/// use std::time::Duration;
/// use envoi::{Endpoint, SocketOptions};
///
/// let mut options = SocketOptions::default();
/// options.keepalive = Some(Duration::from_secs(60));
/// let endpoint = Endpoint::new("mail.example.org").socket_options(options);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SocketOptions {
    /// The time without data after which the system checks whether the peer is alive, and repeats
    /// the check as often as it does by default (on Linux nine times, 75 seconds apart). For a
    /// [`Connection`](crate::Connection) that is kept open: firewalls drop idle ones.
    pub keepalive: Option<Duration>,
    /// The size of the send buffer in bytes (SO_SNDBUF): a large message over a connection with a
    /// long round-trip time needs more than the default of some systems.
    pub send_buffer: Option<u32>,
    /// The size of the receive buffer in bytes (SO_RCVBUF).
    pub receive_buffer: Option<u32>,
}

/// The local addresses and options.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tcp {
    /// At most one address of each family; if there is one, the other family is not used.
    local: Vec<IpAddr>,
    pub(crate) options: SocketOptions,
}

impl Tcp {
    /// Sets the local address of its family.
    pub(crate) fn bind(&mut self, address: IpAddr) {
        self.local
            .retain(|other| other.is_ipv4() != address.is_ipv4());
        self.local.push(address);
    }

    /// Whether a local address is set.
    pub(super) fn is_bound(&self) -> bool {
        !self.local.is_empty()
    }

    pub(super) async fn connect(&self, destination: &Destination) -> Result<Connected> {
        let (stream, address) = self.open(destination).await?;
        let local_addr = stream.local_addr().ok();
        Ok(Connected {
            stream: Box::new(stream),
            peer: Destination::Address(address),
            local_addr: local_addr.map(|address| address.ip().to_canonical()),
        })
    }

    /// Resolves the destination, and connects to one of its addresses.
    pub(super) async fn open(&self, destination: &Destination) -> Result<(TcpStream, SocketAddr)> {
        self.open_any(destination, resolve(destination).await?)
            .await
    }

    /// Connects to the first of these addresses that answers (Happy Eyeballs, RFC 8305): a slow
    /// address does not delay the next one for long.
    pub(crate) async fn open_any(
        &self,
        destination: &Destination,
        addresses: Vec<SocketAddr>,
    ) -> Result<(TcpStream, SocketAddr)> {
        let addresses = self.reachable(addresses, destination)?;
        let mut waiting = addresses.iter().copied();
        let mut attempts = FuturesUnordered::new();
        let mut failures = Vec::new();
        loop {
            if let Some(address) = waiting.next() {
                attempts.push(async move { (address, self.attempt(address).await) });
            }
            let attempt = match waiting.len() {
                0 => attempts.next().await,
                _ => match timeout(ATTEMPT_DELAY, attempts.next()).await {
                    Ok(attempt) => attempt,
                    Err(_) => continue,
                },
            };
            match attempt {
                Some((address, Ok(stream))) => return Ok((stream, address)),
                Some((address, Err(error))) => failures.push((address, error)),
                None => return Err(self.unreachable(destination, failures)),
            }
        }
    }

    async fn attempt(&self, address: SocketAddr) -> io::Result<TcpStream> {
        let socket = if address.is_ipv4() {
            TcpSocket::new_v4()
        } else {
            TcpSocket::new_v6()
        }?;
        // Buffer sizes are set first, as the window is negotiated when the connection is
        // established.
        if let Some(bytes) = self.options.send_buffer {
            socket.set_send_buffer_size(bytes)?;
        }
        if let Some(bytes) = self.options.receive_buffer {
            socket.set_recv_buffer_size(bytes)?;
        }
        if let Some(idle) = self.options.keepalive {
            SockRef::from(&socket).set_tcp_keepalive(&TcpKeepalive::new().with_time(idle))?;
        }
        if let Some(local) = self
            .local
            .iter()
            .find(|local| local.is_ipv4() == address.is_ipv4())
        {
            socket.bind(SocketAddr::new(*local, 0)).map_err(|error| {
                io::Error::new(
                    error.kind(),
                    format!("it cannot be connected to from {local}: {error}"),
                )
            })?;
        }
        let stream = socket.connect(address).await?;
        // If this fails, data is sent a little later.
        stream.set_nodelay(true).ok();
        Ok(stream)
    }

    /// The addresses of the families that have a local address.
    fn reachable(
        &self,
        addresses: Vec<SocketAddr>,
        destination: &Destination,
    ) -> Result<Vec<SocketAddr>> {
        let fits = |address: &SocketAddr| {
            self.local.is_empty()
                || self
                    .local
                    .iter()
                    .any(|local| local.is_ipv4() == address.is_ipv4())
        };
        match self.local.first() {
            Some(local) if !addresses.iter().any(fits) => {
                let (mine, others) = if local.is_ipv4() {
                    ("IPv4", "IPv6")
                } else {
                    ("IPv6", "IPv4")
                };
                let message = format!(
                    "{destination} has {others} addresses only, and {local}, to connect from, is \
                        {mine}"
                );
                Err(
                    Error::new(ErrorKind::Config, Phase::Connect, message).with_hint(format!(
                        "Connect from an {others} address as well, or leave the \
                        choice to the system."
                    )),
                )
            }
            _ => Ok(addresses.into_iter().filter(fits).collect()),
        }
    }

    fn unreachable(
        &self,
        destination: &Destination,
        failures: Vec<(SocketAddr, io::Error)>,
    ) -> Error {
        let all = |kind| failures.iter().all(|(_, error)| error.kind() == kind);
        let tried: Vec<String> = failures
            .iter()
            .map(|(address, error)| format!("{}: {error}", address.ip()))
            .collect();
        let message = format!("no connection to {destination} ({})", tried.join("; "));
        let hint = if all(io::ErrorKind::ConnectionRefused) {
            "Nothing listens on that port there, or a firewall refuses: check the port (587 for \
                STARTTLS, 465 for smtps, 25 between servers)."
        } else if !self.local.is_empty() && all(io::ErrorKind::AddrNotAvailable) {
            "The address to connect from must be one that this machine has now."
        } else {
            "Check that this machine can reach the server: network, firewall, and whether \
                outgoing connections to this port are allowed."
        };
        let error = Error::new(ErrorKind::Connect, Phase::Connect, message).with_hint(hint);
        match failures.into_iter().next() {
            Some((_, cause)) => error.with_source(cause),
            None => error,
        }
    }
}

/// Resolves the destination: at least one address, in the order in which they are tried.
pub(super) async fn resolve(destination: &Destination) -> Result<Vec<SocketAddr>> {
    if let Some(address) = destination.address() {
        return Ok(vec![address]);
    }
    let Destination::Host(host, port) = destination else {
        return Err(not_found(&destination.to_string(), "it has none"));
    };
    let addresses = match tokio::net::lookup_host((host.as_str(), *port)).await {
        Ok(addresses) => alternate_families(addresses.collect()),
        Err(error) => return Err(not_found(host, &error.to_string()).with_source(error)),
    };
    if addresses.is_empty() {
        Err(not_found(host, "it has none"))
    } else {
        Ok(addresses)
    }
}

/// Alternates the families, beginning with the one that the resolver returned first.
fn alternate_families(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let first_is_v6 = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let (mut first, mut second): (Vec<_>, Vec<_>) = addresses
        .into_iter()
        .partition(|address| address.is_ipv6() == first_is_v6);
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
    Error::new(
        ErrorKind::Connect,
        Phase::Connect,
        format!("no address was found for the host {host:?} ({why})"),
    )
    .with_hint("Check the spelling of the host name and the name servers (DNS) of this machine.")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn address_families_alternate() {
        let parse = |addresses: &[&str]| -> Vec<SocketAddr> {
            addresses.iter().map(|a| a.parse().unwrap()).collect()
        };
        let given = parse(&[
            "[::1]:25",
            "[::2]:25",
            "1.1.1.1:25",
            "[::3]:25",
            "2.2.2.2:25",
        ]);
        let turns = parse(&[
            "[::1]:25",
            "1.1.1.1:25",
            "[::2]:25",
            "2.2.2.2:25",
            "[::3]:25",
        ]);
        assert_eq!(alternate_families(given), turns);
        let given = parse(&["1.1.1.1:25", "[::1]:25", "[::2]:25"]);
        assert_eq!(alternate_families(given.clone()), given);
    }

    #[tokio::test]
    async fn an_address_that_refuses_does_not_stop_the_next() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        // On most machines `localhost` is ::1 as well; nothing listens there.
        let opened = Tcp::default()
            .open(&Destination::Host("localhost".into(), port))
            .await
            .unwrap();
        assert_eq!(opened.0.peer_addr().unwrap().port(), port);
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn socket_options_and_local_address_are_set() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut tcp = Tcp::default();
        tcp.bind([127, 0, 0, 9].into());
        // One of the other family, and another one of the same.
        tcp.bind(std::net::Ipv6Addr::LOCALHOST.into());
        tcp.bind([127, 0, 0, 2].into());
        tcp.options.keepalive = Some(Duration::from_secs(77));
        tcp.options.send_buffer = Some(32 * 1024);
        tcp.options.receive_buffer = Some(16 * 1024);
        let opened = tcp
            .open(&Destination::Address(listener.local_addr().unwrap()))
            .await
            .unwrap();
        assert_eq!(
            listener.accept().await.unwrap().1.ip(),
            IpAddr::from([127, 0, 0, 2])
        );
        assert_eq!(
            opened.0.local_addr().unwrap().ip(),
            IpAddr::from([127, 0, 0, 2])
        );
        let socket = SockRef::from(&opened.0);
        assert!(socket.tcp_nodelay().unwrap() && socket.keepalive().unwrap());
        assert_eq!(
            socket.tcp_keepalive_time().unwrap(),
            Duration::from_secs(77)
        );
        // Linux doubles both for its own overhead.
        assert!((32 * 1024..=64 * 1024).contains(&socket.send_buffer_size().unwrap()));
        assert!((16 * 1024..=32 * 1024).contains(&socket.recv_buffer_size().unwrap()));
    }

    #[tokio::test]
    async fn a_refusal_names_the_address() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let opening = Tcp::default()
            .open(&Destination::Host("127.0.0.1".into(), port))
            .await;
        let error = opening.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Connect);
        assert!(error.is_transient());
        assert!(error.to_string().contains("127.0.0.1"), "{error}");
    }
}
