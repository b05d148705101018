//! Proxies: SOCKS5 (RFC 1928, 1929) and HTTP CONNECT (RFC 9110, 9.3.6).
//!
//! tokio-socks implements SOCKS5. CONNECT is implemented here with hyper's parser: the crates for
//! it read beyond the proxy's reply and so lose the greeting of a server that speaks first (or wait
//! forever for a reply that ends with an empty line).

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_socks::tcp::Socks5Stream;
use tokio_socks::{Error as SocksError, IntoTargetAddr as _, TargetAddr};
use zeroize::Zeroizing;

use super::{Connected, Destination, Tcp, tcp};
use crate::Secret;
use crate::diagnose::proxy as advice;
use crate::error::{Error, ErrorKind, Phase, Result};
use crate::proto::Secrets;
use crate::text::beginning;

/// The maximum size of the head of a reply to CONNECT, in bytes.
const MAX_HEAD: usize = 16 * 1024;
const MAX_FIELDS: usize = 64;
/// The maximum number of characters of the first line that are shown.
const MAX_SHOWN: usize = 100;

/// A proxy for connections to the server. The server's certificate is still verified against the
/// server's name; the login at the proxy is sent in clear, as SOCKS5 and HTTP define it.
///
/// ```
/// use envoi::{Endpoint, Proxy};
///
/// # fn example() -> envoi::Result<()> {
/// let proxy = Proxy::from_url("socks5h://alice:secret@proxy.example.org")?;
/// assert_eq!(proxy.to_string(), "socks5h://proxy.example.org:1080");
/// let endpoint = Endpoint::new("mail.example.org").proxy(proxy);
/// # Ok(())
/// # }
/// # example().unwrap();
/// ```
#[derive(Clone)]
#[must_use = "a method returns the changed value"]
pub struct Proxy {
    kind: ProxyKind,
    host: String,
    port: u16,
    login: Option<(String, Secret)>,
}

/// The protocol of a proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ProxyKind {
    /// SOCKS5; the server's name is resolved here.
    Socks5,
    /// SOCKS5; the proxy resolves the name.
    Socks5h,
    Http,
}

impl Proxy {
    /// A proxy without a login.
    pub(crate) fn new(kind: ProxyKind, host: String, port: u16) -> Self {
        Proxy {
            kind,
            host,
            port,
            login: None,
        }
    }

    /// Logs in at the proxy, with user name and password (RFC 1929) or with Basic authentication
    /// (RFC 7617).
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Request`] if the protocol cannot express them: the user name is empty or
    /// contains a colon (HTTP); one of them contains control characters (HTTP), or has more than
    /// 255 bytes (SOCKS5).
    pub fn login(mut self, user: impl Into<String>, password: impl Into<Secret>) -> Result<Self> {
        let (user, password) = (user.into(), password.into());
        let fault = match self.kind {
            _ if user.is_empty() => Some("the user name for the proxy is empty"),
            ProxyKind::Http if user.contains(':') => {
                Some("a user name for an HTTP proxy has no colon")
            }
            // RFC 7617, 2.
            ProxyKind::Http
                if [&user, password.expose()]
                    .iter()
                    .any(|text| text.contains(char::is_control)) =>
            {
                Some("user name and password for an HTTP proxy have no control characters")
            }
            ProxyKind::Http => None,
            _ if password.expose().is_empty() => {
                Some("a SOCKS5 proxy wants a password beside the user name")
            }
            _ if user.len() > 255 || password.expose().len() > 255 => {
                Some("user name and password for a SOCKS5 proxy have 255 bytes each at most")
            }
            _ => None,
        };
        if let Some(fault) = fault {
            return Err(Error::request(fault));
        }
        self.login = Some((user, password));
        Ok(self)
    }

    /// The host of the proxy; a non-ASCII name as A-labels (`xn--…`).
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port of the proxy.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The user name of the login, if there is a login.
    pub fn get_user(&self) -> Option<&str> {
        self.login.as_ref().map(|(user, _)| user.as_str())
    }

    fn at(&self) -> Destination {
        Destination::Host(self.host.clone(), self.port)
    }

    /// Redacts the login, which the proxy, or an impostor of the server, may echo.
    pub(crate) fn hide(&self, secrets: &mut Secrets) {
        if let Some((_, password)) = &self.login {
            secrets.add_with_base64(password.expose());
        }
        if let Some(field) = self.basic() {
            secrets.add(field);
        }
    }

    /// User and password for Basic authentication (RFC 7617, 2).
    fn basic(&self) -> Option<Zeroizing<String>> {
        let (user, password) = self
            .login
            .as_ref()
            .filter(|_| self.kind == ProxyKind::Http)?;
        let pair = Zeroizing::new(format!("{user}:{}", password.expose()));
        Some(Zeroizing::new(STANDARD.encode(pair.as_bytes())))
    }

    /// A text of the proxy, shortened. It is shortened last, since a part of a secret would not be
    /// found.
    fn shown(&self, text: &str) -> String {
        let mut secrets = Secrets::default();
        self.hide(&mut secrets);
        beginning(
            &secrets.redacted(text).unwrap_or_else(|| text.to_owned()),
            MAX_SHOWN,
        )
        .to_owned()
    }

    /// Connects to the proxy, and through it.
    pub(super) async fn connect(
        &self,
        tcp: &Tcp,
        destination: &Destination,
        at_proxy: &mut bool,
    ) -> Result<Connected> {
        let beyond = match self.kind {
            ProxyKind::Socks5 => {
                let found = tcp::resolve(destination)
                    .await
                    .map_err(|error| error.with_hint(advice::LOOK_UP_AT_PROXY));
                found?.into_iter().map(Destination::Address).collect()
            }
            _ => vec![destination.clone()],
        };
        self.connect_any(tcp, beyond, at_proxy).await
    }

    /// Connects to the proxy, and through it to the first of these destinations that it reaches.
    pub(super) async fn connect_any(
        &self,
        tcp: &Tcp,
        beyond: Vec<Destination>,
        at_proxy: &mut bool,
    ) -> Result<Connected> {
        let mut failure = None;
        for destination in beyond {
            let (mut stream, _) = tcp.open(&self.at()).await.map_err(|error| {
                let context = format!("the proxy {self}");
                error.context(context).with_hint(advice::CHECK_PROXY)
            })?;
            *at_proxy = true;
            let asked = match self.kind {
                ProxyKind::Http => self.connect_by_http(&mut stream, &destination).await,
                _ => self.connect_by_socks(&mut stream, &destination).await,
            };
            match asked {
                Ok(()) => {
                    return Ok(Connected {
                        stream: Box::new(stream),
                        peer: destination,
                        local_addr: None,
                    });
                }
                // Another address of the server may work.
                Err(error)
                    if matches!(error.kind(), ErrorKind::Connect | ErrorKind::Unsupported) =>
                {
                    failure = Some(error)
                }
                Err(error) => return Err(error),
            }
        }
        Err(failure.unwrap_or_else(|| {
            self.fault(ErrorKind::Connect, "was not asked", advice::CHECK_PROXY)
        }))
    }

    async fn connect_by_socks(
        &self,
        stream: &mut TcpStream,
        destination: &Destination,
    ) -> Result<()> {
        let target = match destination {
            Destination::Host(host, port) => (host.as_str(), *port).into_target_addr(),
            other => {
                let address = other.address().map(TargetAddr::Ip);
                address.ok_or(SocksError::AddressTypeNotSupported)
            }
        };
        let connected = match (target, &self.login) {
            (Err(error), _) => Err(error),
            (Ok(target), None) => Socks5Stream::connect_with_socket(stream, target).await,
            (Ok(target), Some((user, password))) => {
                Socks5Stream::connect_with_password_and_socket(
                    stream,
                    target,
                    user,
                    password.expose(),
                )
                .await
            }
        };
        let error = match connected {
            Ok(_) => return Ok(()),
            Err(error) => error,
        };
        let beyond = |why: &str| format!("cannot connect to {destination} ({why})");
        Err(match &error {
            SocksError::NoAcceptableAuthMethods | SocksError::AuthorizationRequired => {
                self.refused_login()
            }
            SocksError::PasswordAuthFailure(_) => self.refused_login(),
            SocksError::ConnectionNotAllowedByRuleset => self.fault(
                ErrorKind::Refused,
                format!("does not allow connections to {destination}"),
                advice::NOT_ALLOWED,
            ),
            SocksError::CommandNotSupported => self.fault(
                ErrorKind::Unsupported,
                beyond("it knows no CONNECT"),
                advice::CHECK_PROXY,
            ),
            SocksError::AddressTypeNotSupported => self.fault(
                ErrorKind::Unsupported,
                beyond("it does not support this type of address"),
                advice::OTHER_ADDRESSES,
            ),
            SocksError::InvalidTargetAddress(_) => self.fault(
                ErrorKind::Request,
                "takes host names of 255 bytes at most",
                advice::MAIL_SERVER_HOST,
            ),
            SocksError::GeneralSocksServerFailure => self.fault(
                ErrorKind::Connect,
                beyond("a general failure"),
                advice::NO_ROUTE,
            ),
            SocksError::NetworkUnreachable => self.fault(
                ErrorKind::Connect,
                beyond("the network is unreachable"),
                advice::NO_ROUTE,
            ),
            SocksError::HostUnreachable => self.fault(
                ErrorKind::Connect,
                beyond("the host is unreachable"),
                advice::NO_ROUTE,
            ),
            SocksError::ConnectionRefused => self.fault(
                ErrorKind::Connect,
                beyond("the connection was refused"),
                advice::NO_ROUTE,
            ),
            SocksError::TtlExpired => self.fault(
                ErrorKind::Connect,
                beyond("it took too long"),
                advice::NO_ROUTE,
            ),
            SocksError::Io(_) => self.ended(destination),
            _ => self.fault(
                ErrorKind::Protocol,
                "does not answer as a SOCKS5 proxy",
                advice::NO_PROXY,
            ),
        }
        .with_source(error))
    }

    async fn connect_by_http(
        &self,
        stream: &mut TcpStream,
        destination: &Destination,
    ) -> Result<()> {
        let mut request = Zeroizing::new(format!(
            "CONNECT {destination} HTTP/1.1\r\nHost: {destination}\r\n"
        ));
        if let Some(field) = self.basic() {
            // Allocated in full, so that no copy of the secret is left behind.
            request.reserve_exact(field.len() + 64);
            request.push_str("Proxy-Authorization: Basic ");
            request.push_str(&field);
            request.push_str("\r\n");
        }
        request.push_str("\r\n");
        let told = stream.write_all(request.as_bytes()).await;
        let status = match told {
            Ok(()) => self.status(stream, destination).await?,
            Err(error) => return Err(self.ended(destination).with_source(error)),
        };
        let describe = |what: &str| format!("{what} {destination} ({status})");
        Err(match status.code {
            200..=299 => return Ok(()),
            // tinyproxy replies 401 if the login is wrong.
            401 | 407 => self.refused_login(),
            502..=504 => self.fault(
                ErrorKind::Connect,
                describe("cannot connect to"),
                advice::NO_ROUTE,
            ),
            500..=599 => self.fault(
                ErrorKind::Connect,
                describe("failed at connecting to"),
                advice::NO_ROUTE,
            ),
            300..=499 => self.fault(
                ErrorKind::Refused,
                describe("does not connect to"),
                advice::CONNECT_NOT_ALLOWED,
            ),
            _ => self.fault(
                ErrorKind::Protocol,
                describe("gives a strange answer when asked for"),
                advice::NO_PROXY,
            ),
        })
    }

    /// Reads the head of the reply and nothing after it: byte by byte, as the next one may come
    /// from the server.
    async fn status(&self, stream: &mut TcpStream, destination: &Destination) -> Result<Status> {
        let mut head = Vec::new();
        while head.len() < MAX_HEAD {
            match stream.read_u8().await {
                Ok(byte) => head.push(byte),
                Err(error) => return Err(self.ended(destination).with_source(error)),
            }
            if head.ends_with(b"\n") {
                let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
                let mut answer = httparse::Response::new(&mut fields);
                match answer.parse(&head) {
                    Ok(httparse::Status::Complete(_)) => {
                        let (code, reason) = (
                            answer.code.unwrap_or_default(),
                            answer.reason.unwrap_or_default(),
                        );
                        return Ok(Status {
                            code,
                            reason: self.shown(reason),
                        });
                    }
                    Ok(httparse::Status::Partial) => {}
                    Err(_) => break,
                }
            }
        }
        let line = String::from_utf8_lossy(&head);
        let line = line.lines().next().unwrap_or_default();
        let message = format!("does not answer as an HTTP proxy: {:?}", self.shown(line));
        Err(self.fault(
            ErrorKind::Protocol,
            message,
            match line.starts_with("220") {
                true => advice::MAIL_SERVER,
                false => advice::NO_PROXY,
            },
        ))
    }

    fn refused_login(&self) -> Error {
        match &self.login {
            Some(_) => self.fault(
                ErrorKind::Auth,
                "did not accept the login",
                advice::WRONG_LOGIN,
            ),
            None => self.fault(ErrorKind::Auth, "wants a login", advice::NO_LOGIN),
        }
    }

    fn ended(&self, destination: &Destination) -> Error {
        let message = format!("ended the connection when asked for {destination}");
        self.fault(ErrorKind::Connect, message, advice::ENDED)
    }

    fn fault(&self, kind: ErrorKind, message: impl fmt::Display, hint: &str) -> Error {
        let message = format!("the proxy {self} {message}");
        Error::new(kind, Phase::Connect, message).with_hint(hint)
    }

    /// The error when the time-out for connecting was reached.
    pub(super) fn too_slow(&self, error: Error, at_proxy: bool) -> Error {
        if at_proxy {
            error
                .context(format!(
                    "the proxy {self} accepted the connection and did not lead to the server"
                ))
                .with_hint(advice::NOT_THROUGH)
        } else {
            let context = format!("the proxy {self} was not reached");
            error.context(context).with_hint(advice::NOT_REACHED)
        }
    }
}

/// The reply of an HTTP proxy.
struct Status {
    code: u16,
    reason: String,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.code, self.reason)
    }
}

impl fmt::Display for Proxy {
    /// As a URL, without the login: `socks5://proxy.example.org:1080`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match self.kind {
            ProxyKind::Socks5 => "socks5",
            ProxyKind::Socks5h => "socks5h",
            ProxyKind::Http => "http",
        };
        write!(f, "{scheme}://{}", self.at())
    }
}

impl fmt::Debug for Proxy {
    /// Without the login.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let login = self.login.is_some();
        f.debug_struct("Proxy")
            .field("kind", &self.kind)
            .field("at", &self.at())
            .field("login", &login)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn getters_return_what_was_set() {
        let proxy = Proxy::from_url("socks5h://proxy.example.org").unwrap();
        assert_eq!((proxy.host(), proxy.port()), ("proxy.example.org", 1080));
        assert_eq!(proxy.get_user(), None);
        let proxy = proxy.login("alice", "secret").unwrap();
        assert_eq!(proxy.get_user(), Some("alice"));
    }
}
