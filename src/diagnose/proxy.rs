//! Advice about proxies that cannot be used.

/// No connection to the proxy, or it does not know CONNECT.
pub(crate) const CHECK_PROXY: &str =
    "Check the proxy's host, port and kind (socks5://, socks5h:// or http://), and that it runs.";

/// What listens there is not a proxy of this kind.
pub(crate) const NO_PROXY: &str = "Something else listens there, a mail server or another kind of \
    proxy: check the proxy's host, port and kind (socks5://, socks5h:// or http://).";

/// The rules of the SOCKS5 proxy do not allow the connection.
pub(crate) const NOT_ALLOWED: &str =
    "The proxy's rules forbid it: have its administrator allow the mail server and its port.";

/// The rules of the HTTP proxy do not allow the connection.
pub(crate) const CONNECT_NOT_ALLOWED: &str = "The proxy's rules forbid it; many let CONNECT \
    through to port 443 only: have its administrator allow the mail server and its port (squid: \
    SSL_ports; tinyproxy: ConnectPort).";

/// The name of the server is not found here, with `socks5://`.
pub(crate) const LOOK_UP_AT_PROXY: &str = "Check the spelling of the host name and the name \
    servers (DNS) of this machine, or let the proxy look the name up: socks5h:// in place of \
    socks5://.";

/// The proxy cannot reach the mail server.
pub(crate) const NO_ROUTE: &str = "Check the mail server's host and port. If they are right, the \
    proxy cannot reach it: its log says why.";

/// The SOCKS5 proxy does not support this type of address.
pub(crate) const OTHER_ADDRESSES: &str = "It may know names and IPv4 addresses alone, or addresses \
    alone: try socks5h:// in place of socks5://, or the reverse.";

/// The host name is longer than SOCKS5 allows.
pub(crate) const MAIL_SERVER_HOST: &str = "Check the mail server's host.";

/// A mail server answers in place of the proxy.
pub(crate) const MAIL_SERVER: &str = "That is a mail server: check the proxy's host and port, and \
    leave the proxy out if there is none.";

/// The proxy did not accept the login.
pub(crate) const WRONG_LOGIN: &str = "Check the user name and the password in the proxy's URL, and \
    whether the proxy takes logins by password.";

/// The proxy wants a login, and there is none.
pub(crate) const NO_LOGIN: &str = "Put a user name and a password into the proxy's URL, such as \
    socks5://user:password@proxy.example.org:1080.";

/// The proxy ended the connection without an answer.
pub(crate) const ENDED: &str = "It cannot reach the mail server, or does not allow it, or is \
    another kind of proxy (socks5://, socks5h:// or http://): its log says why.";

/// The proxy accepted the connection and did not connect to the server in time.
pub(crate) const NOT_THROUGH: &str = "The proxy cannot reach the mail server, or it is another \
    kind of proxy (socks5://, socks5h:// or http://): its log says why.";

/// The proxy was not reached in time.
pub(crate) const NOT_REACHED: &str =
    "Check the proxy's host and port, and whether a firewall drops connections to it.";
