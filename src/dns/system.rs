//! The resolvers of the system.

use std::net::SocketAddr;

#[cfg(unix)]
use super::settings::PORT;
use crate::error::{Error, ErrorKind, Phase, Result};

/// The resolvers of `/etc/resolv.conf`.
#[cfg(unix)]
pub(super) fn servers() -> Result<Vec<SocketAddr>> {
    const PATH: &str = "/etc/resolv.conf";
    match std::fs::read_to_string(PATH) {
        Ok(text) => parse(&text).map_err(|line| invalid(&format!("{PATH}: {line}"))),
        // The manual page: the name server on the local machine is asked.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Ok(parse("").unwrap_or_default())
        }
        Err(error) => Err(invalid(&format!("{PATH}: {error}"))),
    }
}

#[cfg(not(unix))]
pub(super) fn servers() -> Result<Vec<SocketAddr>> {
    Err(invalid("this system has no /etc/resolv.conf"))
}

fn invalid(why: &str) -> Error {
    let message = format!("the resolvers of the system are not known: {why}");
    let hint = "Name a resolver by its address, with Resolver::new.";
    Error::new(ErrorKind::Config, Phase::Setup, message).with_hint(hint)
}

/// The addresses of the lines `nameserver`. The error is a line that is not valid.
#[cfg(unix)]
fn parse(text: &str) -> Result<Vec<SocketAddr>, String> {
    let mut servers = Vec::new();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        if words.next() != Some("nameserver") {
            continue;
        }
        let server = words.next().and_then(to_server);
        servers.push(server.ok_or_else(|| line.to_owned())?);
    }
    if servers.is_empty() {
        servers.push((std::net::Ipv4Addr::LOCALHOST, PORT).into());
    }
    Ok(servers)
}

/// An address, which may have a zone: `fe80::1%eth0` (RFC 4007, 11).
#[cfg(unix)]
fn to_server(text: &str) -> Option<SocketAddr> {
    use std::net::{IpAddr, ToSocketAddrs as _};

    if let Ok(address) = text.parse::<IpAddr>() {
        return Some((address, PORT).into());
    }
    // Only the system knows the number of the interface. A name would be looked up.
    crate::idna::is_ipv6(text).then_some(())?;
    (text, PORT).to_socket_addrs().ok()?.next()
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn resolvers_are_read_in_order() {
        let text = "# a comment\nsearch example.org\nnameserver 192.0.2.1\n\
                    nameserver 2001:db8::1 # another\noptions edns0\nnameserver\t127.0.0.53\n";
        let servers = parse(text).unwrap();
        let expected = ["192.0.2.1:53", "[2001:db8::1]:53", "127.0.0.53:53"];
        assert_eq!(servers, expected.map(|server| server.parse().unwrap()));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn an_address_may_have_a_zone() {
        let servers = parse("nameserver fe80::1%lo").unwrap();
        let SocketAddr::V6(server) = servers[0] else {
            panic!("{servers:?}");
        };
        assert_ne!(server.scope_id(), 0);
    }

    #[test]
    fn without_any_it_is_the_local_machine() {
        assert_eq!(
            parse("options edns0").unwrap(),
            ["127.0.0.1:53".parse().unwrap()]
        );
    }

    #[test]
    fn what_is_not_an_address_is_refused() {
        for line in [
            "nameserver",
            "nameserver dns.example.org",
            "nameserver 192.0.2",
        ] {
            assert_eq!(parse(line), Err(line.to_owned()));
        }
    }
}
