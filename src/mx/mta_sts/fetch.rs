//! [`PolicyFetcher`]: gets policies by HTTPS.

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{Either, select};
use hyper::body::{Body as _, Incoming};
use hyper::client::conn::http1;
use hyper::header::{
    ACCEPT_ENCODING, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderName,
    LOCATION, TRANSFER_ENCODING, USER_AGENT,
};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;

use super::{FetchError, FetchErrorKind, MAX_POLICY, Policy};
use crate::Endpoint;
use crate::connection::clock::Clock;
use crate::connection::connector_for;
use crate::dns::DomainName;
use crate::file;
use crate::text::{beginning, printable_bytes, quoted};
use crate::tls::{Security, TlsMode, TlsSettings};
use crate::transport::Destination;

/// The maximum time for a policy (RFC 8461, 3.3).
const TIMEOUT: Duration = Duration::from_secs(60);

/// The maximum size of the response's header.
const MAX_HEADER: usize = 32 * 1024;

const PATH: &str = "/.well-known/mta-sts.txt";

/// Gets the policies of domains by HTTPS (RFC 8461, 3.3), from
/// `https://mta-sts.DOMAIN/.well-known/mta-sts.txt`.
///
/// The certificate must be valid for `mta-sts.DOMAIN` by the trust of the settings. Redirects are
/// not followed, and nothing is cached by the rules of HTTP. The response must have the status 200
/// and the media type `text/plain`; at most 64 KiB are read.
#[derive(Clone)]
#[must_use = "a method returns the changed value"]
pub struct PolicyFetcher {
    /// TLS and route alone; the host is that of each policy.
    endpoint: Endpoint,
    timeout: Duration,
    port: u16,
    filter: Option<AddressFilter>,
}

type AddressFilter = Arc<dyn Fn(IpAddr) -> bool + Send + Sync>;

impl PolicyFetcher {
    /// Creates a fetcher with these settings for TLS: trust anchors, versions and provider. The
    /// files are read with the first policy, and again when they change.
    ///
    /// Server name, client certificate and TLSA records of the settings are for mail servers, and
    /// not used.
    pub fn new(settings: TlsSettings) -> Self {
        PolicyFetcher::of_endpoint(&Endpoint::new("").tls(settings))
    }

    /// Creates a fetcher that connects as this endpoint does: with its settings for TLS, as
    /// [`new`](Self::new) takes them, from its local address, with its socket options, and through
    /// its proxy, which is asked for the addresses that [`fetch`](Self::fetch) is given. Its other
    /// settings are for mail servers, and not used.
    pub fn of_endpoint(endpoint: &Endpoint) -> Self {
        let settings = TlsSettings {
            server_name: None,
            client_certificate: None,
            dane: None,
            ..endpoint.get_tls().clone()
        };
        let mut own = Endpoint::new("").security(Security::Required).tls(settings);
        own.route = endpoint.route.clone();
        PolicyFetcher {
            endpoint: own,
            timeout: TIMEOUT,
            port: 443,
            filter: None,
        }
    }

    /// Sets the maximum time for one policy, from connecting on. The default is 60 seconds, which
    /// is also the maximum.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout.min(TIMEOUT);
        self
    }

    pub(super) fn get_timeout(&self) -> Duration {
        self.timeout
    }

    /// Sets the port, for tests. The default is 443.
    pub fn port(mut self, port: u16) -> Self {
        self.port = port;
        self
    }

    /// Sets which addresses may be connected to; by default, all may. Recipients are often user
    /// input, and their domain may name any address.
    pub fn address_filter(
        mut self,
        allow: impl Fn(IpAddr) -> bool + Send + Sync + 'static,
    ) -> Self {
        self.filter = Some(Arc::new(allow));
        self
    }

    /// Reads the trust anchors, unless that was done before.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`](crate::ErrorKind::Config): there are none, or the settings cannot be
    /// used. [`ErrorKind::Timeout`](crate::ErrorKind::Timeout): not before the deadline.
    pub(crate) async fn load_trust(&self, clock: &Clock) -> crate::Result<()> {
        connector_for(&self.endpoint, clock).await.map(|_| ())
    }

    /// Fetches the policy of a domain from one of these addresses of `mta-sts.DOMAIN`: the first
    /// that accepts the connection.
    ///
    /// # Errors
    ///
    /// Each reason is a [kind](FetchErrorKind) of its own.
    ///
    /// # Cancel safety
    ///
    /// Dropped before its end, it closes the connection.
    pub async fn fetch(
        &self,
        domain: &DomainName,
        addresses: &[IpAddr],
    ) -> Result<Policy, FetchError> {
        let fail = |kind, message: String| FetchError::new(domain, kind, message);
        let host = format!("mta-sts.{domain}");
        // As a trait object, since the future is large, and with it those of all that fetch.
        let fetching: Pin<Box<dyn Future<Output = _> + Send>> =
            Box::pin(self.fetch_in(domain, &host, addresses));
        let text = timeout(self.timeout, fetching).await.unwrap_or_else(|_| {
            let message = format!("it did not come within {:?}", self.timeout);
            Err(fail(FetchErrorKind::TimedOut, message))
        })?;
        Policy::parse(&text)
            .map_err(|error| fail(FetchErrorKind::Policy, error.to_string()).with_source(error))
    }

    async fn fetch_in(
        &self,
        domain: &DomainName,
        host: &str,
        addresses: &[IpAddr],
    ) -> Result<Vec<u8>, FetchError> {
        let failed = |kind| {
            move |error: crate::Error| {
                FetchError::new(domain, kind, error.message()).with_source(error)
            }
        };
        if addresses.is_empty() {
            let message = format!("{host} has no address");
            return Err(FetchError::new(domain, FetchErrorKind::NoAddress, message));
        }
        let connector = self.endpoint.connector(file::time_limit()).await;
        let connector = connector.map_err(failed(FetchErrorKind::Trust))?;
        let is_allowed =
            |address: &&IpAddr| self.filter.as_ref().is_none_or(|allow| allow(**address));
        let addresses: Vec<_> = addresses
            .iter()
            .filter(is_allowed)
            .map(|address| SocketAddr::new(*address, self.port))
            .collect();
        if addresses.is_empty() {
            let message = format!("no address of {host} is allowed");
            let kind = FetchErrorKind::AddressRefused;
            return Err(FetchError::new(domain, kind, message));
        }
        let destination = Destination::Host(host.to_owned(), self.port);
        let opening = self.endpoint.route.open_any(&destination, addresses).await;
        let stream = opening.map_err(failed(FetchErrorKind::Connect))?;
        let handshake = connector.handshake(host, stream, TlsMode::Https);
        let (stream, _) = handshake.await.map_err(|error| {
            let is_certificate = std::error::Error::source(&error)
                .is_some_and(|source| source.is::<crate::tls::CertificateFailure>());
            let kind = match is_certificate {
                true => FetchErrorKind::Certificate,
                false => FetchErrorKind::Tls,
            };
            failed(kind)(error)
        })?;
        self.get(domain, host, stream).await
    }

    /// Sends the request, and reads the response.
    async fn get<S>(
        &self,
        domain: &DomainName,
        host: &str,
        stream: S,
    ) -> Result<Vec<u8>, FetchError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send,
    {
        let http = |error: hyper::Error| {
            let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}"));
            let message = format!("HTTP failed: {error}{}", cause.unwrap_or_default());
            FetchError::new(domain, FetchErrorKind::Http, message).with_source(error)
        };
        let authority = match self.port {
            443 => host.to_owned(),
            port => format!("{host}:{port}"),
        };
        let request = Request::get(PATH)
            .header(HOST, authority)
            .header(USER_AGENT, concat!("envoi/", env!("CARGO_PKG_VERSION")))
            .header(ACCEPT_ENCODING, "identity")
            .header(CONNECTION, "close")
            .body(String::new())
            .expect("a domain name can be written into a header");
        let connecting = http1::Builder::new()
            .max_buf_size(MAX_HEADER)
            .handshake(TokioIo::new(stream));
        let (mut sender, connection) = connecting.await.map_err(http)?;
        let exchange = pin!(async {
            let response = sender.send_request(request).await.map_err(http)?;
            let (kind, message) = match check(&response) {
                Ok(()) => match read(response).await.map_err(http)? {
                    Some(text) => return Ok(text),
                    None => {
                        let message = format!("it is larger than {} KiB", MAX_POLICY / 1024);
                        (FetchErrorKind::TooLarge, message)
                    }
                },
                Err(refusal) => refusal,
            };
            Err(FetchError::new(domain, kind, message))
        });
        // The connection moves the bytes of the exchange.
        match select(exchange, pin!(connection)).await {
            Either::Left((outcome, _)) => outcome,
            Either::Right((_, exchange)) => exchange.await,
        }
    }
}

impl fmt::Debug for PolicyFetcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PolicyFetcher")
            .field("timeout", &self.timeout)
            .field("port", &self.port)
            .finish_non_exhaustive()
    }
}

/// Checks status, media type and encoding.
fn check(response: &Response<Incoming>) -> Result<(), (FetchErrorKind, String)> {
    let header = |name: HeaderName| {
        let value = response.headers().get(name)?;
        Some(printable_bytes(value.as_bytes()))
    };
    let status = response.status();
    match status {
        StatusCode::OK => {}
        StatusCode::NOT_FOUND | StatusCode::GONE => {
            let message = format!("the server has no policy (status {status})");
            return Err((FetchErrorKind::NotFound, message));
        }
        status if status.is_redirection() => {
            let to = header(LOCATION).map(|location| format!(" to {}", quoted(&location)));
            let to = to.unwrap_or_default();
            let message = format!("the server redirects{to} (status {status})");
            return Err((FetchErrorKind::Redirected, message));
        }
        status => {
            let message = format!("the server answered with the status {status}");
            return Err((FetchErrorKind::Status, message));
        }
    }
    // Parameters are ignored: the policy is UTF-8 in any case (RFC 8461, 3.2).
    let media_type = header(CONTENT_TYPE).unwrap_or_default();
    let essence = media_type.split(';').next().unwrap_or_default().trim();
    if !essence.eq_ignore_ascii_case("text/plain") {
        let given = match essence {
            "" => "none".into(),
            essence => quoted(essence),
        };
        let message = format!("its media type is not text/plain, but {given}");
        return Err((FetchErrorKind::MediaType, message));
    }
    match header(CONTENT_ENCODING) {
        Some(encoding) if !encoding.trim().eq_ignore_ascii_case("identity") => {
            let encoding = beginning(&encoding, 100);
            let message = format!("it is encoded ({encoding}), which was not allowed");
            Err((FetchErrorKind::Http, message))
        }
        _ => Ok(()),
    }
}

/// Reads the body to its end; `None` if it is too large. One that is announced as too large is not
/// read.
///
/// Many servers end a body without a length by closing the connection, without ending TLS. That is
/// accepted after the end of a line: an attacker who cuts such a policy gains no more than by
/// blocking it, since what is left is not a policy, or lists fewer hosts. Within a line, it could
/// list another host, or have another lifetime.
async fn read(response: Response<Incoming>) -> Result<Option<Vec<u8>>, hyper::Error> {
    let has = |name: HeaderName| response.headers().contains_key(name);
    let ends_with_connection = !has(CONTENT_LENGTH) && !has(TRANSFER_ENCODING);
    let mut body = response.into_body();
    let mut text = Vec::new();
    if body.size_hint().lower() > MAX_POLICY as u64 {
        return Ok(None);
    }
    while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        let frame = match frame {
            Err(error) if ends_with_connection && is_eof(&error) && text.ends_with(b"\n") => break,
            frame => frame?,
        };
        let Ok(data) = frame.into_data() else {
            continue;
        };
        if text.len() + data.len() > MAX_POLICY {
            return Ok(None);
        }
        text.extend_from_slice(&data);
    }
    Ok(Some(text))
}

/// Whether the connection was closed below TLS.
fn is_eof(error: &hyper::Error) -> bool {
    std::error::Error::source(error)
        .and_then(|source| source.downcast_ref::<io::Error>())
        .is_some_and(|error| error.kind() == io::ErrorKind::UnexpectedEof)
}
