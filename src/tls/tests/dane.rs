//! TLSA records: their forms, and what matches them.

use super::*;
use crate::tls::dane::TlsaRecord;

fn spki(der: &[u8]) -> Vec<u8> {
    use x509_cert::der::{Decode as _, Encode as _};
    let parsed = x509_cert::Certificate::from_der(der).unwrap();
    let key = parsed.tbs_certificate().subject_public_key_info();
    key.to_der().unwrap()
}

#[test]
fn rdata_is_three_fields_and_the_rest() {
    for short in [&[][..], &[3], &[3, 1]] {
        assert_eq!(TlsaRecord::from_rdata(short), None);
    }
    let record = TlsaRecord::from_rdata(&[3, 1, 1, 0x0A, 0xFF]).unwrap();
    assert_eq!(
        (record.usage(), record.selector(), record.matching()),
        (3, 1, 1)
    );
    assert_eq!(record.data(), [0x0A, 0xFF]);
    assert_eq!(record.to_string(), "3 1 1 0aff");
    let empty = TlsaRecord::from_rdata(&[3, 1, 0]).unwrap();
    assert!(empty.data().is_empty() && !empty.is_usable());
}

/// RFC 7672, 3.1.3: usages 0 and 1 are unusable; RFC 7671, 10: so are unknown values and data that
/// cannot be right.
#[test]
fn usable_records_have_known_fields_and_data_of_their_form() {
    let certificate = Party::server(None).der.to_vec();
    let key = spki(&certificate);
    for (usage, selector, matching, data, is_usable) in [
        (0, 0, 1, vec![1; 32], false),
        (1, 1, 1, vec![1; 32], false),
        (2, 0, 1, vec![1; 32], true),
        (3, 1, 1, vec![1; 32], true),
        (3, 1, 2, vec![1; 64], true),
        (4, 1, 1, vec![1; 32], false),
        (255, 1, 1, vec![1; 32], false),
        (3, 2, 1, vec![1; 32], false),
        (3, 1, 3, vec![1; 32], false),
        (3, 1, 1, vec![1; 31], false),
        (3, 1, 1, vec![1; 64], false),
        (3, 1, 2, vec![1; 32], false),
        (3, 0, 0, certificate.clone(), true),
        (3, 0, 0, key.clone(), false),
        (2, 1, 0, key.clone(), true),
        (2, 1, 0, certificate.clone(), false),
        (3, 0, 0, [&certificate[..], &[0]].concat(), false),
        (3, 1, 0, [&key[..], &[0]].concat(), false),
        (
            3,
            0,
            0,
            certificate[..certificate.len() - 1].to_vec(),
            false,
        ),
    ] {
        let record = TlsaRecord::new(usage, selector, matching, data);
        assert_eq!(record.is_usable(), is_usable, "{record}");
    }
}

#[test]
fn a_record_matches_the_certificate_or_key_that_it_is_of() {
    use sha2::{Digest as _, Sha256, Sha512};
    let (server, other) = (Party::server(None), Party::server(None));
    let read = |party: &Party| Certificate::read(&party.der).unwrap();
    let (certificate, key) = (server.der.to_vec(), spki(&server.der));
    for usage in [2, 3] {
        for (selector, content) in [(0, &certificate), (1, &key)] {
            for (matching, data) in [
                (0, content.clone()),
                (1, Sha256::digest(content).to_vec()),
                (2, Sha512::digest(content).to_vec()),
            ] {
                let record = TlsaRecord::new(usage, selector, matching, data);
                assert!(record.matches(&read(&server)), "{record}");
                assert!(!record.matches(&read(&other)), "{record}");
            }
        }
    }
    let of_key = TlsaRecord::of_key(&read(&server));
    assert!(of_key.to_string().starts_with("3 1 1 "));
    assert!(of_key.matches(&read(&server)));
    let unusable = TlsaRecord::new(1, 1, 1, of_key.data());
    assert!(!unusable.matches(&read(&server)));
}
