//! TLSA records and a chain of certificates. Nothing is accepted unless a reference finds the
//! record for it, and no error shows a control character.

use std::fmt::Write as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use envoi::ErrorKind;
use envoi::mx::{Dane, TlsaRecord};
use sha2::{Digest as _, Sha256, Sha512};

/// Certificates, each with a key of its own: two authorities of one name, one below the first, and
/// servers: below that, below the first, expired, of another name, and below the second.
const KNOWN: [&[u8]; 8] = [
    include_bytes!("tlsa/root.der"),
    include_bytes!("tlsa/impostor.der"),
    include_bytes!("tlsa/middle.der"),
    include_bytes!("tlsa/server.der"),
    include_bytes!("tlsa/direct.der"),
    include_bytes!("tlsa/expired.der"),
    include_bytes!("tlsa/other.der"),
    include_bytes!("tlsa/forged.der"),
];
const HOST: &str = "mail.example.com";
/// 1 June 2026, when all but the expired one are valid.
const NOW: u64 = 1_780_272_000;

/// Records and certificates, as the input lists them.
#[derive(Default)]
struct Script {
    records: Vec<TlsaRecord>,
    chain: Vec<Vec<u8>>,
}

impl Script {
    /// One item after the other:
    ///
    /// - `r`, a length in two bytes, and the RDATA of a record;
    /// - `k`, usage, selector, matching type and a known certificate: its record;
    /// - `c` and a known certificate, which the server sends;
    /// - `x`, a known certificate, a position in two bytes and a byte that changes it there;
    /// - `d`, a length in two bytes, and any certificate.
    fn read(input: &[u8]) -> Self {
        let mut script = Script::default();
        let mut rest = input;
        while script.read_item(&mut rest).is_some() {}
        script
    }

    fn read_item(&mut self, rest: &mut &[u8]) -> Option<()> {
        match take(rest)? {
            b'r' => {
                let rdata = take_long(rest)?;
                match TlsaRecord::from_rdata(rdata) {
                    Some(record) => {
                        check_record(&record, rdata);
                        self.records.push(record);
                    }
                    None => assert!(rdata.len() < 3),
                }
            }
            b'k' => {
                let [usage, selector, matching] = [take(rest)?, take(rest)?, take(rest)?];
                let data = data(selector, matching, known(take(rest)?));
                let record = TlsaRecord::new(usage, selector, matching, data);
                self.records.push(record);
            }
            b'c' => self.chain.push(known(take(rest)?).to_vec()),
            b'x' => {
                let mut changed = known(take(rest)?).to_vec();
                let at = usize::from(u16::from_be_bytes([take(rest)?, take(rest)?]));
                let length = changed.len();
                changed[at % length] ^= take(rest)?;
                self.chain.push(changed);
            }
            b'd' => self.chain.push(take_long(rest)?.to_vec()),
            _ => {}
        }
        Some(())
    }
}

fn take(rest: &mut &[u8]) -> Option<u8> {
    let (first, after) = rest.split_first()?;
    *rest = after;
    Some(*first)
}

fn take_long<'i>(rest: &mut &'i [u8]) -> Option<&'i [u8]> {
    let length = usize::from(u16::from_be_bytes([take(rest)?, take(rest)?]));
    let (taken, after) = rest.split_at(length.min(rest.len()));
    *rest = after;
    Some(taken)
}

fn known(number: u8) -> &'static [u8] {
    KNOWN[usize::from(number) % KNOWN.len()]
}

/// The key of a known certificate, on the curve P-256: found by how each of them begins.
fn key(certificate: &[u8]) -> &[u8] {
    const START: &[u8] = &[
        0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08,
        0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
    ];
    let mut windows = certificate.windows(START.len());
    let at = windows
        .position(|window| window == START)
        .expect("known certificates have such keys");
    &certificate[at..at + 91]
}

/// The data of a record (RFC 6698, 2.1.4).
fn data(selector: u8, matching: u8, certificate: &[u8]) -> Vec<u8> {
    let selected = match selector {
        1 => key(certificate),
        _ => certificate,
    };
    match matching {
        1 => Sha256::digest(selected).to_vec(),
        2 => Sha512::digest(selected).to_vec(),
        _ => selected.to_vec(),
    }
}

fn check_record(record: &TlsaRecord, rdata: &[u8]) {
    let fields = [record.usage(), record.selector(), record.matching()];
    assert_eq!([&fields[..], record.data()].concat(), rdata);
    let mut digits = String::new();
    for octet in record.data() {
        let _ = write!(digits, "{octet:02x}");
    }
    let [usage, selector, matching] = fields;
    let text = format!("{usage} {selector} {matching} {digits}");
    assert_eq!(record.to_string(), text);
    let is_known = matches!(usage, 2 | 3) && selector <= 1 && matching <= 2;
    assert!(is_known || !record.is_usable(), "{record}");
}

/// Whether another usable record of the same usage and selector has a stronger digest (RFC 7671,
/// 9).
fn is_outranked(record: &TlsaRecord, records: &[TlsaRecord]) -> bool {
    record.matching() == 1
        && records.iter().any(|other| {
            other.is_usable()
                && other.matching() == 2
                && (other.usage(), other.selector()) == (record.usage(), record.selector())
        })
}

/// Whether the record is of this certificate: for a key, of one of the sequences in it.
fn is_of(record: &TlsaRecord, certificate: &[u8]) -> bool {
    let is_hashed = |content: &[u8]| match record.matching() {
        1 => Sha256::digest(content)[..] == *record.data(),
        2 => Sha512::digest(content)[..] == *record.data(),
        _ => content == record.data(),
    };
    match record.selector() {
        1 => (0..certificate.len())
            .filter_map(|at| sequence(&certificate[at..]))
            .any(is_hashed),
        _ => is_hashed(certificate),
    }
}

/// The sequence at the start of some DER, with its tag and length.
fn sequence(der: &[u8]) -> Option<&[u8]> {
    let (head, length) = match *der {
        [0x30, length @ ..=0x7f, ..] => (2, usize::from(length)),
        [0x30, 0x81, length, ..] => (3, usize::from(length)),
        [0x30, 0x82, high, low, ..] => (4, usize::from(u16::from_be_bytes([high, low]))),
        _ => return None,
    };
    der.get(..head + length)
}

/// Whether the record is for an authority whose key signed this server's certificate, and which is
/// either held by the record, or among what was sent.
fn is_above(record: &TlsaRecord, leaf: &[u8], above: &[Vec<u8>]) -> bool {
    let [root, impostor, middle, server, direct, _, _, forged] = KNOWN;
    let authorities = match leaf {
        leaf if leaf == server => &[middle, root][..],
        leaf if leaf == direct => &[root],
        leaf if leaf == forged => &[impostor],
        _ => return false,
    };
    let has_key =
        |bytes: &[u8], authority: &[u8]| bytes.windows(91).any(|window| window == key(authority));
    authorities.iter().any(|authority| {
        let is_held = record.matching() == 0 && has_key(record.data(), authority);
        let is_sent = |sent: &&Vec<u8>| has_key(sent, authority) && is_of(record, sent);
        is_held || above.iter().find(is_sent).is_some()
    })
}

pub fn check(input: &[u8]) {
    let Script { records, chain } = Script::read(input);
    let dane = Dane::new(HOST, records.clone());
    assert_eq!(dane.is_usable(), records.iter().any(TlsaRecord::is_usable));
    let result = dane.verify(&chain, at(NOW));
    // The order of the records does not matter.
    let reversed = Dane::new(HOST, records.iter().rev().cloned());
    assert_eq!(reversed.verify(&chain, at(NOW)).is_ok(), result.is_ok());
    match result {
        Ok(text) => {
            let (leaf, above) = chain.split_first().expect("no chain was accepted");
            let explains = |record: &&TlsaRecord| {
                record.is_usable()
                    && !is_outranked(record, &records)
                    && match record.usage() {
                        3 => is_of(record, leaf),
                        _ => is_above(record, leaf, above),
                    }
            };
            let record = records.iter().find(explains);
            assert!(record.is_some(), "{text}, of {records:?}");
            check_printable(&text);
        }
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::Tls, "{error:?}");
            check_printable(&error.to_string());
            let own = chain
                .first()
                .filter(|leaf| KNOWN.contains(&leaf.as_slice()));
            let is_own = |record: &&TlsaRecord| {
                record.usage() == 3
                    && record.is_usable()
                    && !is_outranked(record, &records)
                    && own.is_some_and(|leaf| is_of(record, leaf))
            };
            assert_eq!(records.iter().find(is_own), None, "{error}");
        }
    }
}

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

/// Names in certificates are untrusted.
fn check_printable(text: &str) {
    assert!(!text.contains(char::is_control), "{text:?}");
}
