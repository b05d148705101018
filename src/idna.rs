//! Converts non-ASCII domain names to A-labels (`xn--…`, RFC 5890), which DNS, certificates and
//! every server understand.

use std::borrow::Cow;

/// The name in ASCII. `None` if it has no such form, or this build lacks the feature `idna`.
pub(crate) fn to_ascii(name: &str) -> Option<Cow<'_, str>> {
    if name.is_ascii() {
        return Some(Cow::Borrowed(name));
    }
    convert(name).map(Cow::Owned)
}

/// The name in ASCII, if it is valid: each label that is non-ASCII or begins with `xn--` is allowed
/// by RFC 5890, or is mapped to such a label (UTS 46). Without the feature `idna`, every name is
/// valid.
#[cfg(feature = "idna")]
pub(crate) fn checked(name: &str) -> Option<Cow<'_, str>> {
    let is_encoded = |label: &&str| {
        label
            .get(..4)
            .is_some_and(|prefix| prefix.eq_ignore_ascii_case("xn--"))
    };
    // IDNA forbids some ASCII labels that DNS uses (`_dmarc`, `r3---sn`).
    let is_valid = !name.is_ascii()
        || name
            .split('.')
            .filter(is_encoded)
            .all(|label| convert(label).is_some());
    if is_valid { to_ascii(name) } else { None }
}

#[cfg(not(feature = "idna"))]
pub(crate) fn checked(name: &str) -> Option<Cow<'_, str>> {
    Some(Cow::Borrowed(name))
}

/// The name with non-ASCII labels as U-labels (RFC 5890), as RFC 6531, 3.3 requires: characters
/// that are only mapped (capitals, other full stops) are replaced.
pub(crate) fn to_unicode(name: &str) -> Cow<'_, str> {
    #[cfg(feature = "idna")]
    if !name.is_ascii() {
        return Cow::Owned(idna::domain_to_unicode(name).0);
    }
    Cow::Borrowed(name)
}

/// The name of a host in ASCII, or unchanged, for an error about it.
#[cfg(feature = "client")]
pub(crate) fn host(name: String) -> String {
    match to_ascii(&name) {
        Some(Cow::Owned(ascii)) => ascii,
        _ => name,
    }
}

/// Whether the host is an IPv6 address, with or without a zone (RFC 4007, 11).
#[cfg(feature = "client")]
pub(crate) fn is_ipv6(host: &str) -> bool {
    let (address, zone) = host.split_once('%').unwrap_or((host, "0"));
    let fine = |c: char| c.is_ascii_alphanumeric() || "-._~".contains(c);
    address.parse::<std::net::Ipv6Addr>().is_ok() && !zone.is_empty() && zone.chars().all(fine)
}

#[cfg(feature = "idna")]
fn convert(name: &str) -> Option<String> {
    idna::domain_to_ascii_strict(name).ok()
}

#[cfg(not(feature = "idna"))]
fn convert(_: &str) -> Option<String> {
    None
}

#[cfg(all(test, feature = "idna"))]
mod tests {
    use super::*;

    #[test]
    fn names_become_a_labels() {
        for (name, ascii) in [
            ("example.org", "example.org"),
            ("under_score.example.org", "under_score.example.org"),
            ("ex\u{e4}mple.org", "xn--exmple-cua.org"),
            ("EX\u{c4}MPLE.org", "xn--exmple-cua.org"),
            ("stra\u{df}e.de", "xn--strae-oqa.de"),
            ("\u{4f8b}\u{3048}.jp", "xn--r8jz45g.jp"),
            // A full stop of another script.
            ("\u{4f8b}\u{3048}\u{3002}jp", "xn--r8jz45g.jp"),
        ] {
            assert_eq!(to_ascii(name).as_deref(), Some(ascii), "{name}");
        }
        for name in [
            "ex\u{e4}mple..org",
            "-\u{e4}.org",
            "\u{e4} b.org",
            "\u{e4}<.org",
            &"\u{e4}".repeat(64),
            "\u{200d}.org",
        ] {
            assert_eq!(to_ascii(name), None, "{name:?}");
        }
    }
}
