//! Which addresses the servers of a domain may have.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

/// The addresses that may be connected to.
#[derive(Clone, Default)]
pub(crate) struct AddressFilter {
    pub(crate) public_only: bool,
    pub(crate) allow: Option<Arc<dyn Fn(IpAddr) -> bool + Send + Sync>>,
}

impl AddressFilter {
    /// Why the address may not be connected to; `None` if it may.
    pub(crate) fn refusal(&self, address: IpAddr) -> Option<&'static str> {
        if self.public_only && !is_public(address) {
            return Some("it is not an address of the public Internet");
        }
        let allows = self.allow.as_ref().is_none_or(|allow| allow(address));
        (!allows).then_some("the address filter does not allow it")
    }
}

impl fmt::Debug for AddressFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AddressFilter")
            .field("public_only", &self.public_only)
            .field("allow", &self.allow.is_some())
            .finish()
    }
}

/// Whether an address is one of the public Internet, by the registries of special addresses (RFC
/// 6890): not of a private network, of this machine or link, for documentation or tests, a
/// multicast group, or not assigned. An IPv6 address that contains an IPv4 address (mapped, NAT64,
/// 6to4) is public if that is.
///
/// ```
/// use envoi::mx::is_public;
///
/// assert!(is_public("9.9.9.9".parse().unwrap()));
/// for address in ["10.0.0.5", "169.254.169.254", "::1", "fd00::1", "::ffff:127.0.0.1"] {
///     assert!(!is_public(address.parse().unwrap()));
/// }
/// ```
pub fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let is_special = matches!(
        (a, b, c),
        (0 | 10 | 127, ..)              // this network, private, loopback
            | (100, 64..=127, _)        // shared by customers of a carrier (RFC 6598)
            | (169, 254, _)             // of a link
            | (172, 16..=31, _)         // private
            | (192, 0, 0 | 2)           // protocol assignments, documentation
            | (192, 88, 99)             // relays of 6to4, which no longer exist
            | (192, 168, _)             // private
            | (198, 18..=19, _)         // benchmarks
            | (198, 51, 100)            // documentation
            | (203, 0, 113)             // documentation
            | (224..=255, ..) // multicast, reserved, broadcast
    );
    !is_special
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    if let Some(mapped) = address.to_ipv4_mapped() {
        return is_public_v4(mapped);
    }
    let embedded = |high: u16, low: u16| {
        is_public_v4(Ipv4Addr::from((u32::from(high) << 16) | u32::from(low)))
    };
    match address.segments() {
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => embedded(high, low), // NAT64 (RFC 6052)
        [0x2002, high, low, ..] => embedded(high, low),               // 6to4 (RFC 3056)
        [0x2001, 0..=0x1ff, ..] => false, // protocol assignments, Teredo among them
        [0x2001, 0xdb8, ..] => false,     // documentation
        [0x3fff, 0..=0xfff, ..] => false, // documentation (RFC 9637)
        [first, ..] => first & 0xe000 == 0x2000, // all that is assigned for the Internet
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn special_addresses_are_not_public() {
        for public in [
            "1.1.1.1",
            "9.255.255.255",
            "11.0.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "172.15.0.1",
            "172.32.0.1",
            "192.0.1.1",
            "223.255.255.255",
            "2001:200::1",
            "2606:4700::1111",
            "2a00::1",
            "::ffff:8.8.8.8",
            "64:ff9b::8.8.8.8",
            "2002:808:808::1",
        ] {
            assert!(is_public(public.parse().unwrap()), "{public}");
        }
        for special in [
            "0.0.0.0",
            "10.0.0.5",
            "100.64.0.1",
            "127.0.1.10",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.8",
            "192.0.2.1",
            "192.168.1.1",
            "198.19.255.255",
            "198.51.100.7",
            "203.0.113.7",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::127.0.0.1",
            "::ffff:10.0.0.5",
            "64:ff9b::10.0.0.5",
            "64:ff9b:1::1",
            "100::1",
            "2001::1",
            "2001:db8::1",
            "2002:a00:5::1",
            "3fff::1",
            "fd00::1",
            "fe80::1",
            "fec0::1",
            "ff02::1",
        ] {
            assert!(!is_public(special.parse().unwrap()), "{special}");
        }
    }

    #[test]
    fn both_filters_apply() {
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        let mut filter = AddressFilter::default();
        assert_eq!(filter.refusal(address("10.0.0.5")), None);
        filter.public_only = true;
        assert!(filter.refusal(address("10.0.0.5")).is_some());
        filter.allow = Some(Arc::new(|address: IpAddr| address.is_ipv4()));
        assert_eq!(filter.refusal(address("1.1.1.1")), None);
        assert!(filter.refusal(address("2606:4700::1111")).is_some());
    }
}
