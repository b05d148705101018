//! The one async stream to the server, and how it is opened.
//!
//! A [`Route`] leads to a [`Destination`]: by TCP (`tcp.rs`), perhaps through a proxy (`proxy.rs`)
//! and with a header of the PROXY protocol before all else (`header.rs`). `unix.rs` has the sockets
//! of this machine. All of it knows addresses, sockets and whether TLS is on top; it knows nothing
//! of SMTP.

#[cfg(feature = "proxy")]
mod header;
#[cfg(feature = "proxy")]
mod proxy;
mod tcp;
mod unix;

use std::fmt;
use std::io::{self, IoSlice};
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

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
pub(crate) use unix::connect_to_socket;

/// What TCP, Unix sockets and streams of the caller's have in common.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// The stream under the session, before and after the handshake.
pub(crate) enum Transport {
    Plain(Box<dyn Stream>),
    Tls(Box<TlsStream<Box<dyn Stream>>>),
    /// Handed to a handshake that has not come back.
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

/// Where a server is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Destination {
    Host(String, u16),
    Address(SocketAddr),
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Destination::Host(host, port) => write!(f, "{}, port {port}", printable(host)),
            Destination::Address(address) => write!(f, "{}, port {}", address.ip(), address.port()),
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

/// A connection on which nothing was said yet.
pub(crate) struct Connected {
    pub(crate) stream: TcpStream,
    /// What was connected to in the end: for another connection to the same.
    pub(crate) peer: Destination,
    /// The address that this end has, for EHLO. Behind a proxy it means nothing to the server.
    pub(crate) local_addr: Option<IpAddr>,
}

impl Route {
    /// Connects. `at_proxy` tells, even where this is cut short, whether the proxy was reached.
    pub(crate) async fn open(
        &self,
        destination: &Destination,
        at_proxy: &mut bool,
    ) -> Result<Connected> {
        #[cfg(feature = "proxy")]
        {
            let mut opened = match &self.proxy {
                Some(proxy) => proxy.connect(&self.tcp, destination, at_proxy).await?,
                None => self.tcp.open(destination).await?,
            };
            if let Some(header) = &self.header {
                header.send(&mut opened.stream).await?;
            }
            Ok(opened)
        }
        #[cfg(not(feature = "proxy"))]
        {
            let _ = at_proxy;
            self.tcp.open(destination).await
        }
    }

    /// Where a proxy is in between, a connection that took too long is told with it.
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
