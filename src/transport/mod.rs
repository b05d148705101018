//! The async stream to the server, and how it is opened.
//!
//! A [`Route`] leads to a [`Destination`]: by TCP (`tcp.rs`), optionally through a proxy
//! (`proxy.rs`) and with a header of the PROXY protocol first (`header.rs`), or by a Unix socket of
//! this machine (`unix.rs`). This module knows addresses, sockets and whether TLS is active, but
//! not SMTP. To add a local transport, add a variant of `Destination`, its match arms here, and a
//! file.

#[cfg(feature = "proxy")]
mod header;
#[cfg(feature = "proxy")]
mod proxy;
mod tcp;
#[cfg(unix)]
mod unix;

use std::fmt;
use std::io::{self, IoSlice};
use std::net::{IpAddr, SocketAddr};
#[cfg(unix)]
use std::path::PathBuf;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

#[cfg(feature = "proxy")]
use crate::error::ErrorKind;
use crate::error::{Error, Result};
use crate::text::printable;
use crate::tls::TlsStream;

#[cfg(feature = "proxy")]
pub use header::ProxyHeader;
#[cfg(feature = "proxy")]
pub use proxy::Proxy;
#[cfg(feature = "proxy")]
pub(crate) use proxy::ProxyKind;
pub use tcp::SocketOptions;
pub(crate) use tcp::Tcp;

/// A stream of bytes in both directions: TCP, a Unix socket, or one given by the caller.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// The stream of the session, before or after the TLS handshake.
pub(crate) enum Transport {
    Plain(Box<dyn Stream>),
    Tls(Box<TlsStream<Box<dyn Stream>>>),
    /// The stream was moved into the handshake, which puts it back as `Tls`. If the handshake
    /// fails, or its future is dropped, the stream is closed, and every read and write here fails
    /// with `NotConnected`.
    Taken,
}

impl Transport {
    fn stream(&mut self) -> io::Result<Pin<&mut dyn Stream>> {
        match self {
            Transport::Plain(stream) => Ok(Pin::new(stream)),
            Transport::Tls(stream) => Ok(Pin::new(stream.as_mut())),
            Transport::Taken => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    /// The bytes that have left TLS; a flush that is pending may have written some. Without TLS,
    /// [`poll_write`](AsyncWrite::poll_write) tells.
    pub(crate) fn encrypted_bytes_gone(&self) -> u64 {
        match self {
            Transport::Tls(stream) => stream.get_ref().0.written,
            Transport::Plain(_) | Transport::Taken => 0,
        }
    }
}

impl AsyncRead for Transport {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.stream()?.poll_read(cx, buf)
    }
}

impl AsyncWrite for Transport {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
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

/// The address of a server. `Display` writes it in a form to paste: `mail.example.org:25`,
/// `[::1]:25`, `/run/lmtp.sock`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Destination {
    /// A host name or an IP address as text, and the port.
    Host(String, u16),
    Address(SocketAddr),
    /// A Unix socket of this machine.
    #[cfg(unix)]
    Unix(PathBuf),
}

impl Destination {
    /// The IP address and port, unless a name has to be resolved first.
    pub(crate) fn address(&self) -> Option<SocketAddr> {
        match self {
            Destination::Address(address) => Some(*address),
            _ => None,
        }
    }

    /// Whether it is a TCP port, which can be probed and reached through a proxy.
    pub(crate) fn has_port(&self) -> bool {
        match self {
            Destination::Host(..) | Destination::Address(_) => true,
            #[cfg(unix)]
            Destination::Unix(_) => false,
        }
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Destination::Host(host, port) if host.contains(':') => {
                write!(f, "[{}]:{port}", printable(host))
            }
            Destination::Host(host, port) => write!(f, "{}:{port}", printable(host)),
            Destination::Address(address) => write!(f, "{address}"),
            #[cfg(unix)]
            Destination::Unix(path) => f.write_str(&printable(path.to_string_lossy())),
        }
    }
}

/// How servers are reached.
#[derive(Clone, Default)]
pub(crate) struct Route {
    pub(crate) tcp: Tcp,
    #[cfg(feature = "proxy")]
    pub(crate) proxy: Option<Proxy>,
    #[cfg(feature = "proxy")]
    pub(crate) header: Option<ProxyHeader>,
}

/// A connection on which nothing has been sent.
pub(crate) struct Connected {
    pub(crate) stream: Box<dyn Stream>,
    /// What was connected to, for another connection to the same address.
    pub(crate) peer: Destination,
    /// The local address, for EHLO. `None` if it means nothing to the server: through a proxy, or
    /// without a TCP port.
    pub(crate) local_addr: Option<IpAddr>,
}

impl Route {
    /// Whether a proxy is between this machine and the servers.
    #[cfg(feature = "mx")]
    pub(crate) fn has_proxy(&self) -> bool {
        #[cfg(feature = "proxy")]
        return self.proxy.is_some();
        #[cfg(not(feature = "proxy"))]
        false
    }

    /// Checks that the settings fit the destination, before anything is opened.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Request`](crate::ErrorKind::Request).
    pub(crate) fn check(&self, destination: &Destination) -> Result<()> {
        if !destination.has_port() && self.tcp.is_bound() {
            let message = format!(
                "{destination} is a socket, which cannot be connected to from an IP address"
            );
            return Err(Error::request(message).with_hint("Leave the local address out."));
        }
        #[cfg(feature = "proxy")]
        if !destination.has_port() && (self.proxy.is_some() || self.header.is_some()) {
            let message = format!(
                "{destination} has no TCP port: it cannot be reached through a proxy or with a \
                    header of the PROXY protocol"
            );
            return Err(Error::request(message).with_hint("Leave the proxy out."));
        }
        Ok(())
    }

    /// Connects. `at_proxy` is set when the proxy has been reached, even if this future is dropped.
    pub(crate) async fn open(
        &self,
        destination: &Destination,
        at_proxy: &mut bool,
    ) -> Result<Connected> {
        match destination {
            Destination::Host(..) | Destination::Address(_) => {
                self.open_tcp(destination, at_proxy).await
            }
            #[cfg(unix)]
            Destination::Unix(path) => Ok(Connected {
                stream: Box::new(unix::connect(path).await?),
                peer: destination.clone(),
                local_addr: None,
            }),
        }
    }

    /// Connects to one of these addresses of a host that is not a mail server: without the header
    /// of the PROXY protocol.
    #[cfg(feature = "mx")]
    pub(crate) async fn open_any(
        &self,
        host: &Destination,
        addresses: Vec<SocketAddr>,
    ) -> Result<Box<dyn Stream>> {
        #[cfg(feature = "proxy")]
        if let Some(proxy) = &self.proxy {
            let beyond = addresses.into_iter().map(Destination::Address).collect();
            let connected = proxy.connect_any(&self.tcp, beyond, &mut false).await?;
            return Ok(connected.stream);
        }
        let (stream, _) = self.tcp.open_any(host, addresses).await?;
        Ok(Box::new(stream))
    }

    #[cfg(feature = "proxy")]
    async fn open_tcp(&self, destination: &Destination, at_proxy: &mut bool) -> Result<Connected> {
        let mut connected = match &self.proxy {
            Some(proxy) => proxy.connect(&self.tcp, destination, at_proxy).await?,
            None => self.tcp.connect(destination).await?,
        };
        if let Some(header) = &self.header {
            header.send(&mut connected.stream).await?;
        }
        Ok(connected)
    }

    #[cfg(not(feature = "proxy"))]
    async fn open_tcp(&self, destination: &Destination, _: &mut bool) -> Result<Connected> {
        self.tcp.connect(destination).await
    }

    /// Names the proxy in a time-out error, if there is one.
    pub(crate) fn with_proxy_context(&self, error: Error, at_proxy: bool) -> Error {
        #[cfg(feature = "proxy")]
        if let Some(proxy) = self
            .proxy
            .as_ref()
            .filter(|_| error.kind() == ErrorKind::Timeout)
        {
            return proxy.too_slow(error, at_proxy);
        }
        let _ = at_proxy;
        error
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_destination_can_be_pasted() {
        let host = |host: &str| Destination::Host(host.to_owned(), 25);
        for (destination, shown) in [
            (host("mail.example.org"), "mail.example.org:25"),
            (host("192.0.2.1"), "192.0.2.1:25"),
            (host("2001:db8::1"), "[2001:db8::1]:25"),
            (host("fe80::1%eth0"), "[fe80::1%eth0]:25"),
            (
                Destination::Address("[::1]:2525".parse().unwrap()),
                "[::1]:2525",
            ),
            #[cfg(unix)]
            (Destination::Unix("/run/lmtp.sock".into()), "/run/lmtp.sock"),
            #[cfg(unix)]
            (Destination::Unix("/a\u{1b}".into()), "/a\u{fffd}"),
        ] {
            assert_eq!(destination.to_string(), shown);
        }
    }
}
