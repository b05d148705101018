//! JKS: the older form of Java's key stores, still that of many a `cacerts`.
//!
//! It is a list of entries, then a check sum that the password goes into. The certificates themselves are not
//! encrypted, so that Java opens a trust store without its password; so do we.

use sha1::{Digest as _, Sha1};
use tokio_rustls::rustls::pki_types::CertificateDer;

use super::formats::Unusable;
use super::keystore::{self, KeyStore};
use crate::Secret;

const CHECK_SUM: usize = 20;

/// Opens a JKS or JCEKS store. The keys in it are not read.
pub(super) fn open(bytes: &[u8], password: Option<&Secret>) -> Result<KeyStore, Unusable> {
    let damaged = || Unusable::new("is a Java key store (JKS) that is damaged", "Get the file anew.");
    let (content, check_sum) =
        bytes.len().checked_sub(CHECK_SUM).map(|middle| bytes.split_at(middle)).ok_or_else(damaged)?;
    if let Some(password) = password
        && check(content, password.expose()) != check_sum
    {
        return Err(keystore::wrong_password(true));
    }
    entries(&mut Reader(content)).ok_or_else(damaged)
}

/// The check sum: of the password, of two words that whoever wrote Java liked, and of all that stands before it.
fn check(content: &[u8], password: &str) -> [u8; CHECK_SUM] {
    let mut sum = Sha1::new();
    for unit in password.encode_utf16() {
        sum.update(unit.to_be_bytes());
    }
    sum.update("Mighty Aphrodite");
    sum.update(content);
    sum.finalize().into()
}

/// All entries; `None` where the file ends too early or says what no store says.
fn entries(reader: &mut Reader<'_>) -> Option<KeyStore> {
    let mut store = KeyStore::default();
    let _magic = reader.number()?;
    let version = reader.number()?;
    let count = reader.number()?;
    for _ in 0..count {
        let tag = reader.number()?;
        let _alias = reader.text()?;
        let _created = reader.take(8)?;
        match tag {
            1 => {
                let _key = reader.block()?;
                let certificates = reader.number()?;
                let mut chain = Vec::new();
                for _ in 0..certificates {
                    chain.push(reader.certificate(version)?);
                }
                store.own.push((None, chain));
            }
            2 => store.trusted.push(reader.certificate(version)?),
            // A secret key of JCEKS, a Java object whose end only Java finds. What came before it counts.
            3 => break,
            _ => return None,
        }
    }
    Some(store)
}

/// What is left of the file. Its numbers are big-endian, and none is believed before the bytes are there.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn number(&mut self) -> Option<u32> {
        self.take(4).and_then(|bytes| bytes.try_into().ok()).map(u32::from_be_bytes)
    }

    fn text(&mut self) -> Option<&'a [u8]> {
        let length = self.take(2).and_then(|bytes| bytes.try_into().ok()).map(u16::from_be_bytes)?;
        self.take(length.into())
    }

    fn block(&mut self) -> Option<&'a [u8]> {
        let length = self.number()?;
        self.take(length.try_into().ok()?)
    }

    fn certificate(&mut self, version: u32) -> Option<CertificateDer<'static>> {
        // Version 1 knew X.509 alone, and did not say so.
        if version > 1 {
            self.text()?;
        }
        self.block().map(|der| CertificateDer::from(der.to_vec()))
    }
}
