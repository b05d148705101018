//! Parses the URL of a [`Proxy`].
//!
//! No message quotes the URL, since it may contain a password.

use std::str::FromStr;

use super::url;
use crate::error::{Error, Result};
use crate::transport::{Proxy, ProxyKind};
use crate::{Secret, idna};

const URL_HINT: &str = "A proxy's URL looks like socks5://user:password@proxy.example.org:1080, \
    socks5h:// (the proxy looks the names up) or \
    http://proxy.example.org:3128. Characters such as @ : / ? # % in user and password are \
    percent-encoded (%40 %3A %2F %3F %23 %25).";

impl Proxy {
    /// Creates a proxy from a URL: `socks5://user:password@host:1080`, `socks5h://…` or
    /// `http://user:password@host:3128`. User and password are optional, and so is the port 1080 of
    /// SOCKS5. With `socks5` the mail server's name is resolved here, with `socks5h` and `http` by
    /// the proxy.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Request`](crate::ErrorKind::Request): the URL is not valid. It is not quoted,
    /// as it may contain a password.
    pub fn from_url(url: &str) -> Result<Self> {
        let fault = |message: &str| Error::request(message).with_hint(URL_HINT);
        let (scheme, rest) = url
            .split_once("://")
            .ok_or_else(|| fault("the proxy's URL does not begin with a scheme"))?;
        let kind = match scheme.to_ascii_lowercase().as_str() {
            "socks5" => ProxyKind::Socks5,
            "socks5h" => ProxyKind::Socks5h,
            "http" => ProxyKind::Http,
            "https" => return Err(fault("TLS to a proxy is not supported")),
            "socks4" | "socks4a" | "socks" => {
                return Err(fault("only version 5 of SOCKS is supported"));
            }
            _ => return Err(fault("the proxy's URL has a scheme that is not known")),
        };
        let (user_info, host_and_port) = match rest.rsplit_once('@') {
            Some((user_info, host_and_port)) => (Some(user_info), host_and_port),
            None => (None, rest),
        };
        let host_and_port = host_and_port.strip_suffix('/').unwrap_or(host_and_port);
        if host_and_port.contains(['/', '?', '#']) {
            return Err(fault("there is something after the proxy's host and port"));
        }
        let about_proxy = |error: Error| error.context("the proxy").with_hint(URL_HINT);
        let (host, port) = url::split_port(host_and_port).map_err(about_proxy)?;
        let port = match (port, kind) {
            (Some(port), _) => port,
            (None, ProxyKind::Http) => return Err(fault("the proxy's URL names no port")),
            (None, _) => 1080,
        };
        let login = match user_info.map(|info| info.split_once(':').unwrap_or((info, ""))) {
            Some((user, password)) => {
                let user = url::decode(user, "user").map_err(about_proxy)?;
                let password = Secret::new(url::decode(password, "password").map_err(about_proxy)?);
                Some((user, password))
            }
            None => None,
        };
        let proxy = Proxy::new(kind, idna::host(host), port);
        match login {
            Some((user, password)) => proxy
                .login(user, password)
                .map_err(|error| error.with_hint(URL_HINT)),
            None => Ok(proxy),
        }
    }
}

impl FromStr for Proxy {
    type Err = Error;

    fn from_str(url: &str) -> Result<Self> {
        Proxy::from_url(url)
    }
}
