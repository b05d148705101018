//! Names of domains beyond ASCII → their A-labels (`xn--…`, RFC 5890), which DNS, certificates and every server know.

use std::borrow::Cow;

/// The name in ASCII. `None` where it can have no such form, or this build does not know how (feature `idna`).
pub(crate) fn to_ascii(name: &str) -> Option<Cow<'_, str>> {
    if name.is_ascii() {
        return Some(Cow::Borrowed(name));
    }
    convert(name).map(Cow::Owned)
}

/// The name of a host in ASCII, or as it is, for a message that says what is wrong with it.
#[cfg(feature = "client")]
pub(crate) fn host(name: String) -> String {
    match to_ascii(&name) {
        Some(Cow::Owned(ascii)) => ascii,
        _ => name,
    }
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
    fn names_as_dns_has_them() {
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
        for name in
            ["ex\u{e4}mple..org", "-\u{e4}.org", "\u{e4} b.org", "\u{e4}<.org", &"\u{e4}".repeat(64), "\u{200d}.org"]
        {
            assert_eq!(to_ascii(name), None, "{name:?}");
        }
    }
}
