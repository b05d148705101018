//! The settings of a resolver as users write them: its address, and a file with anchors.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::str::FromStr;

use super::Resolver;
use crate::error::{Error, ErrorKind, Phase, Result};
use crate::file;

/// The port of DNS.
pub(super) const PORT: u16 = 53;

/// The maximum size of a file with anchors. A record takes less than 1 KiB.
const MAX_ANCHOR_FILE: u64 = 1024 * 1024;

impl FromStr for Resolver {
    type Err = Error;

    /// Asks the resolver at this address: `192.0.2.53`, `2001:db8::53`, or with a port,
    /// `192.0.2.53:5353` and `[2001:db8::53]:5353`. The port is 53 if it is left out.
    ///
    /// ```
    /// use envoi::mx::Resolver;
    ///
    /// let resolver: Resolver = "192.0.2.53".parse()?;
    /// assert_eq!(resolver.get_servers(), ["192.0.2.53:53".parse().unwrap()]);
    /// # Ok::<(), envoi::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Request`]: it is not an IP address, the port is 0, or the end of an IPv6
    /// address without brackets could be a port.
    fn from_str(address: &str) -> Result<Self> {
        to_server(address).map(Resolver::new)
    }
}

impl Resolver {
    /// Validates from the keys in a file, as [`anchors`](Self::anchors) does. The maximum size is
    /// 1 MiB. Blocks on file I/O.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Input`]: the file cannot be read. [`ErrorKind::Config`]: it contains other
    /// records, none at all, or cannot be parsed. The message names the file.
    pub fn anchor_file(self, path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let bytes = file::read(path, MAX_ANCHOR_FILE, file::time_limit()).map_err(|error| {
            let message = format!("the anchors of DNSSEC cannot be read: {error}");
            Error::new(ErrorKind::Input, Phase::Setup, message)
                .with_hint("Check that there is such a file, and that this user may read it.")
                .with_source(error)
        });
        // What is not UTF-8 is not a record.
        let anchors = bytes.and_then(|bytes| self.anchors(&String::from_utf8_lossy(&bytes)));
        anchors.map_err(|error| error.context(path.display()))
    }
}

fn to_server(address: &str) -> Result<SocketAddr> {
    let in_brackets = || -> Option<Ipv6Addr> {
        let inner = address.strip_prefix('[')?.strip_suffix(']')?;
        inner.parse().ok()
    };
    let without_port = address.parse::<IpAddr>().ok();
    let without_port = without_port.or_else(|| in_brackets().map(IpAddr::V6));
    if let Some(ip) = without_port
        && let Some((host, port)) = address.rsplit_once(':')
        && host.parse::<Ipv6Addr>().is_ok()
        && port.parse::<u16>().is_ok()
    {
        let message = "it is not clear whether the address of the resolver ends with a port";
        let hint = format!("Write [{host}]:{port}, or [{ip}] without a port.");
        return Err(Error::request(message).with_hint(hint));
    }
    let server = without_port.map(|ip| SocketAddr::new(ip, PORT));
    let server = server.or_else(|| address.parse().ok());
    match server {
        Some(server) if server.port() != 0 => Ok(server),
        Some(_) => Err(Error::request("the port of the resolver is 0")
            .with_hint("Give a port from 1 to 65535, or leave it out.")),
        // Not shown, as the message of no other setting shows what it cannot parse.
        None => Err(
            Error::request("the resolver is not given by its IP address")
                .with_hint("Give 192.0.2.53, 192.0.2.53:53, 2001:db8::53 or [2001:db8::53]:53."),
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn an_address_may_have_a_port() {
        for (text, expected) in [
            ("127.0.0.1", "127.0.0.1:53"),
            ("127.0.0.1:5377", "127.0.0.1:5377"),
            ("::1", "[::1]:53"),
            ("[::1]", "[::1]:53"),
            ("[::1]:5377", "[::1]:5377"),
            ("2001:db8::53", "[2001:db8::53]:53"),
            ("1:2:3:4:5:6:7:8", "[1:2:3:4:5:6:7:8]:53"),
            ("::ffff:192.0.2.1", "[::ffff:192.0.2.1]:53"),
        ] {
            let resolver: Resolver = text.parse().unwrap();
            assert_eq!(
                resolver.get_servers(),
                [expected.parse().unwrap()],
                "{text}"
            );
        }
    }

    #[test]
    fn what_is_not_an_address_is_refused_with_a_hint() {
        for (text, hint) in [
            ("", "Give 192.0.2.53, "),
            ("localhost", "Give 192.0.2.53, "),
            ("dns.example.org:53", "Give 192.0.2.53, "),
            ("192.0.2.1:", "Give 192.0.2.53, "),
            ("192.0.2.1:65536", "Give 192.0.2.53, "),
            ("[192.0.2.1]:53", "Give 192.0.2.53, "),
            ("::1:53:1:", "Give 192.0.2.53, "),
            ("192.0.2.1:0", "Give a port from 1"),
            ("[::1]:0", "Give a port from 1"),
            (
                "::1:5377",
                "Write [::1]:5377, or [::1:5377] without a port.",
            ),
            (
                "2001:db8::1:53",
                "Write [2001:db8::1]:53, or [2001:db8::1:53] without a port.",
            ),
        ] {
            let error = text.parse::<Resolver>().unwrap_err();
            assert_eq!(error.exit_code(), 64, "{text}: {error}");
            assert!(error.hint().unwrap().starts_with(hint), "{text}: {error}");
        }
    }

    #[test]
    fn a_file_with_anchors_is_named_in_errors() {
        let resolver = || Resolver::new(([127, 0, 0, 1], PORT).into());
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let path = file.path().to_owned();
        let error_of = |path: &Path| {
            let error = resolver().anchor_file(path).unwrap_err();
            let place = format!("{}: the anchors of DNSSEC cannot be", path.display());
            assert!(error.message().starts_with(&place), "{error}");
            assert!(error.hint().is_some(), "{error}");
            error.exit_code()
        };
        assert_eq!(error_of(&path), 78);
        for content in [
            &b"example. IN A 192.0.2.1\n"[..],
            b"not a zone file\n",
            b"\xff\xfe",
        ] {
            std::fs::write(&path, content).unwrap();
            assert_eq!(error_of(&path), 78);
        }
        assert_eq!(error_of(Path::new("/nothing/there")), 66);
        assert_eq!(error_of(path.parent().unwrap()), 66);
        std::fs::write(&path, "").unwrap();
        writeln!(file, ". IN DS 20326 8 2 {}", "e0".repeat(32)).unwrap();
        resolver().anchor_file(&path).unwrap();
    }
}
