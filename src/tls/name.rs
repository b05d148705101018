//! The names of subjects and issuers as text (RFC 4514).
//!
//! x509-cert writes them, too, but with a table of 1,500 object identifiers, which adds 200 KB to
//! each program.

use std::fmt::Write as _;

use x509_cert::attr::AttributeTypeAndValue;
use x509_cert::der::asn1::{
    BmpString, Ia5StringRef, PrintableStringRef, TeletexStringRef, Utf8StringRef,
};
use x509_cert::der::{Encode as _, Tag, Tagged as _};
use x509_cert::name::Name;

/// Writes a name, the most specific part first: `CN=mail.example.com,O=Example`.
pub(super) fn text(name: &Name) -> String {
    let mut written = String::new();
    let parts: Vec<_> = name.iter_rdn().collect();
    for part in parts.into_iter().rev() {
        for (number, attribute) in part.iter().enumerate() {
            match number {
                0 if written.is_empty() => {}
                0 => written.push(','),
                _ => written.push('+'),
            }
            push_attribute(&mut written, attribute);
        }
    }
    written
}

/// The common names in a name.
#[cfg(feature = "mx")]
pub(super) fn common_names(name: &Name) -> Vec<String> {
    name.iter_rdn()
        .flat_map(|part| part.iter())
        .filter(|attribute| attribute.oid.to_string() == "2.5.4.3")
        .filter_map(value_text)
        .collect()
}

/// Appends the type and the value. If either is not known, the value is written in hexadecimal
/// digits (RFC 4514, 2.4).
fn push_attribute(text: &mut String, attribute: &AttributeTypeAndValue) {
    let number = attribute.oid.to_string();
    let Some((key, value)) = type_text(&number).zip(value_text(attribute)) else {
        let _ = write!(text, "{number}=#");
        for byte in attribute.value.to_der().unwrap_or_default() {
            let _ = write!(text, "{byte:02x}");
        }
        return;
    };
    text.push_str(key);
    text.push('=');
    let mut characters = value.char_indices().peekable();
    while let Some((at, character)) = characters.next() {
        let is_outer = at == 0 || characters.peek().is_none();
        match character {
            '#' if at == 0 => text.push_str("\\#"),
            ' ' if is_outer => text.push_str("\\ "),
            '"' | '+' | ',' | ';' | '<' | '>' | '\\' => text.extend(['\\', character]),
            '\x00'..='\x1f' | '\x7f' => {
                let _ = write!(text, "\\{:02x}", u32::from(character));
            }
            _ => text.push(character),
        }
    }
}

/// The types that occur in certificates: of RFC 4519, of RFC 2985, and of the CA/Browser Forum's
/// guidelines.
fn type_text(number: &str) -> Option<&'static str> {
    Some(match number {
        "2.5.4.3" => "CN",
        "2.5.4.4" => "SN",
        "2.5.4.5" => "SERIALNUMBER",
        "2.5.4.6" => "C",
        "2.5.4.7" => "L",
        "2.5.4.8" => "ST",
        "2.5.4.9" => "STREET",
        "2.5.4.10" => "O",
        "2.5.4.11" => "OU",
        "2.5.4.12" => "TITLE",
        "2.5.4.13" => "DESCRIPTION",
        "2.5.4.15" => "BUSINESSCATEGORY",
        "2.5.4.16" => "POSTALADDRESS",
        "2.5.4.17" => "POSTALCODE",
        "2.5.4.18" => "POSTOFFICEBOX",
        "2.5.4.20" => "TELEPHONENUMBER",
        "2.5.4.41" => "NAME",
        "2.5.4.42" => "GN",
        "2.5.4.43" => "INITIALS",
        "2.5.4.44" => "GENERATIONQUALIFIER",
        "2.5.4.45" => "X500UNIQUEIDENTIFIER",
        "2.5.4.46" => "DNQUALIFIER",
        "2.5.4.51" => "HOUSEIDENTIFIER",
        "2.5.4.65" => "PSEUDONYM",
        "2.5.4.97" => "ORGANIZATIONIDENTIFIER",
        "0.9.2342.19200300.100.1.1" => "UID",
        "0.9.2342.19200300.100.1.3" => "MAIL",
        "0.9.2342.19200300.100.1.25" => "DC",
        "1.2.840.113549.1.9.1" => "EMAIL",
        "1.3.6.1.4.1.311.60.2.1.1" => "JURISDICTIONL",
        "1.3.6.1.4.1.311.60.2.1.2" => "JURISDICTIONST",
        "1.3.6.1.4.1.311.60.2.1.3" => "JURISDICTIONC",
        _ => return None,
    })
}

fn value_text(attribute: &AttributeTypeAndValue) -> Option<String> {
    let value = &attribute.value;
    match value.tag() {
        Tag::PrintableString => {
            let value = value.decode_as::<PrintableStringRef<'_>>();
            value.ok().map(|value| value.as_str().to_owned())
        }
        Tag::Utf8String => {
            let value = value.decode_as::<Utf8StringRef<'_>>();
            value.ok().map(|value| value.as_str().to_owned())
        }
        Tag::Ia5String => {
            let value = value.decode_as::<Ia5StringRef<'_>>();
            value.ok().map(|value| value.as_str().to_owned())
        }
        Tag::TeletexString => {
            let value = value.decode_as::<TeletexStringRef<'_>>();
            value.ok().map(|value| value.as_str().to_owned())
        }
        Tag::BmpString => {
            let value = value.decode_as::<BmpString>();
            value.ok().map(|value| value.to_string())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::str::FromStr as _;

    use x509_cert::attr::AttributeTypeAndValue;
    use x509_cert::der::Decode as _;
    use x509_cert::der::asn1::{Any, ObjectIdentifier};
    use x509_cert::name::{Name, RdnSequence, RelativeDistinguishedName};

    use super::text;

    fn name(attributes: &[(&str, Tagged)]) -> Name {
        let attribute = |(oid, (tag, value)): &(&str, Tagged)| {
            let der = [&[*tag, value.len() as u8], &value[..]].concat();
            let attribute = AttributeTypeAndValue {
                oid: ObjectIdentifier::from_str(oid).unwrap(),
                value: Any::from_der(&der).unwrap(),
            };
            RelativeDistinguishedName::try_from(vec![attribute]).unwrap()
        };
        let parts: Vec<_> = attributes.iter().map(attribute).collect();
        Name::hazmat_from_rdn_sequence(RdnSequence::from(parts))
    }

    /// The tag of a string type, and its octets.
    type Tagged = (u8, &'static [u8]);

    const UTF8: u8 = 12;

    #[test]
    fn as_x509_cert_writes_it() {
        let values: [Tagged; 9] = [
            (19, b"Example Inc."),
            (UTF8, "Österreich".as_bytes()),
            (22, b"a@example.org"),
            (20, b"Teletex"),
            (UTF8, b" #a, b+c; \"d\" <e> \\ "),
            (UTF8, b"#1"),
            (UTF8, b"a\tb\x7f"),
            (UTF8, b""),
            (2, b"\x01"),
        ];
        let types = [
            "2.5.4.3",
            "2.5.4.5",
            "2.5.4.6",
            "2.5.4.10",
            "2.5.4.42",
            "0.9.2342.19200300.100.1.25",
            "1.2.840.113549.1.9.1",
            "1.2.3.4",
        ];
        for value in values {
            for oid in types {
                let name = name(&[("2.5.4.6", (19, b"AT")), (oid, value)]);
                assert_eq!(text(&name), name.to_string());
            }
        }
    }

    #[test]
    fn the_known_types_are_named_as_x509_cert_does() {
        let known = (0..=70).map(|number| format!("2.5.4.{number}"));
        let known = known.chain((1..=60).map(|n| format!("0.9.2342.19200300.100.1.{n}")));
        for oid in known.filter(|oid| super::type_text(oid).is_some()) {
            let name = name(&[(&oid, (UTF8, b"value"))]);
            assert_eq!(text(&name), name.to_string());
        }
    }

    #[test]
    fn older_and_newer_kinds() {
        let bmp = name(&[("2.5.4.3", (30, b"\0C\0A"))]);
        assert_eq!(text(&bmp), "CN=CA");
        let identifier = name(&[("2.5.4.97", (UTF8, b"VATDE-123"))]);
        assert_eq!(text(&identifier), "ORGANIZATIONIDENTIFIER=VATDE-123");
        assert_eq!(text(&Name::default()), "");
    }

    #[test]
    fn several_attributes_of_one_part() {
        let attribute = |text: &str| AttributeTypeAndValue::from_str(text).unwrap();
        let part = RelativeDistinguishedName::try_from(vec![attribute("CN=a"), attribute("O=b")]);
        let name = Name::hazmat_from_rdn_sequence(RdnSequence::from(vec![part.unwrap()]));
        assert_eq!(text(&name), "CN=a+O=b");
    }
}
