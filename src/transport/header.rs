//! The header of the PROXY protocol, which tells a server behind a load balancer the client's
//! address.

use std::fmt;
use std::net::SocketAddr;

use proxy_header::{ProxiedAddress, ProxyHeader as Header};
use tokio::io::AsyncWriteExt as _;

use super::Stream;
use crate::error::{Error, Phase, Result};

/// A header of the [PROXY protocol](https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt),
/// sent first, to tell a server behind a load balancer the original client address (Postfix:
/// `smtpd_upstream_proxy_protocol = haproxy`; Exim: `hosts_proxy`). A server that does not expect
/// it treats it as an unknown command; one that expects it sends nothing before it.
///
/// ```
/// use envoi::{Endpoint, ProxyHeader};
///
/// # fn example() -> envoi::Result<()> {
/// let client = "192.0.2.7:41234".parse().unwrap();
/// let server = "198.51.100.1:25".parse().unwrap();
/// let endpoint = Endpoint::new("mail.example.org")
///     .port(10025)
///     .proxy_header(ProxyHeader::v2(client, server)?);
/// # Ok(())
/// # }
/// # example().unwrap();
/// ```
#[derive(Clone, PartialEq, Eq)]
#[must_use = "a method returns the changed value"]
pub struct ProxyHeader(Vec<u8>);

impl ProxyHeader {
    /// A header of version 1, a line of text: the address of the client, and the one that it
    /// connected to.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Request`](crate::ErrorKind::Request) if one address is IPv4 and the other one
    /// IPv6.
    pub fn v1(source: SocketAddr, destination: SocketAddr) -> Result<Self> {
        let mut bytes = Vec::new();
        let encoded = header(source, destination)?.encode_v1(&mut bytes);
        encoded.map(|()| ProxyHeader(bytes)).map_err(unfit)
    }

    /// A header of version 2, which is binary.
    ///
    /// # Errors
    ///
    /// See [`v1`](Self::v1).
    pub fn v2(source: SocketAddr, destination: SocketAddr) -> Result<Self> {
        let mut bytes = Vec::new();
        let encoded = header(source, destination)?.encode_v2(&mut bytes);
        encoded.map(|()| ProxyHeader(bytes)).map_err(unfit)
    }

    /// A header of version 2 without addresses (the command LOCAL): the server uses those of the
    /// connection.
    pub fn local() -> Self {
        let mut bytes = Vec::new();
        Header::with_local()
            .encode_v2(&mut bytes)
            .map(|()| ProxyHeader(bytes))
            .expect("it has no addresses to be wrong")
    }

    /// Sends the header, which must come before anything else.
    pub(super) async fn send(&self, stream: &mut Box<dyn Stream>) -> Result<()> {
        stream
            .write_all(&self.0)
            .await
            .map_err(|error| Error::connection_lost(Phase::Connect, error))
    }
}

fn header(source: SocketAddr, destination: SocketAddr) -> Result<Header<'static>> {
    if source.is_ipv4() != destination.is_ipv4() {
        let message = format!(
            "{source} and {destination} are of different families, and the PROXY protocol has one \
                for both"
        );
        return Err(Error::request(message)
            .with_hint("An IPv4 address can be written as one of IPv6: ::ffff:192.0.2.7."));
    }
    Ok(Header::with_address(ProxiedAddress::stream(
        source,
        destination,
    )))
}

fn unfit(error: proxy_header::Error) -> Error {
    Error::request(format!(
        "the addresses cannot be put into a header of the PROXY protocol: {error}"
    ))
}

impl fmt::Debug for ProxyHeader {
    /// Shows the bytes, escaped.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ProxyHeader({})", self.0.escape_ascii())
    }
}
