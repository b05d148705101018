//! The records that a domain publishes as text: which of several is meant, and whether it is valid.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use x509_cert::der::Decode as _;
use x509_cert::spki::SubjectPublicKeyInfoRef;

use crate::dns::LookupError;
use crate::dns::fields::{FieldsError, has_version, only};
use crate::mx::mta_sts::{StsRecord, StsRecordError};
use crate::mx::tls_report::{TlsRptRecord, TlsRptRecordError};
use crate::text::{printable_bytes, quoted};
use crate::tls::rsa_bits;

/// The minimal size of an RSA key that verifiers accept (RFC 8301, 3.2).
const MIN_RSA_BITS: usize = 1024;

/// Whether a record is published.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Published {
    /// The record, as text.
    Found(String),
    /// There is none.
    Absent,
    /// There is one that is not valid, or there are several: why.
    Invalid(String),
    /// It is not known, as the lookup failed.
    Failed(LookupError),
}

impl fmt::Display for Published {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Published::Found(text) => f.write_str(text),
            Published::Absent => f.write_str("none"),
            Published::Invalid(why) => write!(f, "not valid: {why}"),
            Published::Failed(error) => write!(f, "not known: {}", error.kind()),
        }
    }
}

/// Finds the record that is meant, and checks it.
fn published(
    texts: &[Vec<u8>],
    is_meant: impl Fn(&[u8]) -> bool,
    check: impl FnOnce(&[u8]) -> Result<(), String>,
) -> Published {
    match only(texts.iter().map(Vec::as_slice), is_meant) {
        Ok(None) => Published::Absent,
        Ok(Some(record)) => match check(record) {
            Ok(()) => Published::Found(printable_bytes(record)),
            Err(why) => Published::Invalid(why),
        },
        Err(error) => Published::Invalid(error.to_string()),
    }
}

pub(super) fn mta_sts(texts: &[Vec<u8>]) -> Published {
    let check = |record: &[u8]| match StsRecord::from_txt([record]) {
        Ok(_) => Ok(()),
        Err(StsRecordError::Several(number)) => Err(FieldsError::Several(number).to_string()),
        Err(StsRecordError::NoId) => Err("it has no id".to_owned()),
        Err(StsRecordError::Malformed(why)) => Err(why),
    };
    published(texts, |record| has_version(record, "v=STSv1"), check)
}

pub(super) fn tls_rpt(texts: &[Vec<u8>]) -> Published {
    let check = |record: &[u8]| match TlsRptRecord::from_txt([record]) {
        Ok(_) => Ok(()),
        Err(TlsRptRecordError::Several(number)) => Err(FieldsError::Several(number).to_string()),
        Err(TlsRptRecordError::NoDestination) => {
            Err("it has no rua with a mailto: or https: URI".to_owned())
        }
        Err(TlsRptRecordError::Malformed(why)) => Err(why),
    };
    published(texts, |record| has_version(record, "v=TLSRPTv1"), check)
}

/// RFC 7208, 4.5: the version ends with a space, or is all there is.
pub(super) fn spf(texts: &[Vec<u8>]) -> Published {
    const VERSION: &[u8] = b"v=spf1";
    let is_spf = |record: &[u8]| {
        record
            .split_at_checked(VERSION.len())
            .is_some_and(|(version, rest)| {
                version.eq_ignore_ascii_case(VERSION)
                    && rest.first().is_none_or(|byte| *byte == b' ')
            })
    };
    published(texts, is_spf, |_| Ok(()))
}

/// RFC 7489, 6.3.
pub(super) fn dmarc(texts: &[Vec<u8>]) -> Published {
    let is_dmarc = |record: &[u8]| {
        first_tag(record).is_some_and(|(name, value)| name == "v" && value.starts_with("DMARC1"))
    };
    published(texts, is_dmarc, |record| {
        let tags = tags(record)?;
        let value = |name: &str| value_of(&tags, name);
        if let Some(version) = value("v").filter(|version| *version != "DMARC1") {
            let version = quoted(version);
            return Err(format!(
                "its version is {version}, and not DMARC1 before a semicolon"
            ));
        }
        let is_policy = |policy: &str| {
            let policies = ["none", "quarantine", "reject"];
            policies
                .iter()
                .any(|known| policy.eq_ignore_ascii_case(known))
        };
        for (name, is_required) in [("p", true), ("sp", false)] {
            match value(name) {
                Some(policy) if !is_policy(policy) => {
                    let policy = quoted(policy);
                    return Err(format!(
                        "its tag {name} is {policy}, and not none, quarantine or reject"
                    ));
                }
                None if is_required => return Err(format!("it has no policy (the tag {name})")),
                _ => {}
            }
        }
        for name in ["rua", "ruf"] {
            let mut uris = value(name).into_iter().flat_map(|uris| uris.split(','));
            if let Some(other) = uris.find(|uri| !uri.trim().contains(':')) {
                let other = quoted(other.trim());
                return Err(format!(
                    "its tag {name} has {other}, which is not a mailto: URI"
                ));
            }
        }
        Ok(())
    })
}

/// RFC 6376, 3.6.1. The version may be left out.
pub(super) fn dkim(texts: &[Vec<u8>]) -> Published {
    let is_key = |record: &[u8]| {
        let first = first_tag(record);
        let has_key = || {
            let mut parts = record.split(|byte| *byte == b';');
            parts.any(|part| first_tag(part).is_some_and(|(name, _)| name == "p"))
        };
        first.is_some_and(|(name, value)| name == "v" && value == "DKIM1") || has_key()
    };
    match published(texts, is_key, check_key) {
        Published::Absent if !texts.is_empty() => {
            Published::Invalid("there are texts, and none of them has a key (the tag p)".to_owned())
        }
        published => published,
    }
}

fn check_key(record: &[u8]) -> Result<(), String> {
    let tags = tags(record)?;
    let value = |name: &str| value_of(&tags, name);
    let has = |name: &str, default: &str, wanted: &[&str]| {
        let values = value(name).unwrap_or(default);
        values
            .split(':')
            .any(|value| wanted.contains(&value.trim()))
    };
    if let Some(version) = value("v")
        && (version != "DKIM1" || tags[0].0 != "v")
    {
        return Err("its version is not DKIM1, at its beginning".to_owned());
    }
    let key = value("p").ok_or("it has no key (the tag p)")?;
    if key.is_empty() {
        return Err("its key was revoked (the tag p is empty)".to_owned());
    }
    if !has("h", "sha256", &["sha256"]) {
        return Err("it does not allow SHA-256 (the tag h)".to_owned());
    }
    if !has("s", "*", &["*", "email"]) {
        return Err("it is not for mail (the tag s)".to_owned());
    }
    // Folding white space may be anywhere in it.
    let key: String = key.split_ascii_whitespace().collect();
    let key = STANDARD
        .decode(key)
        .map_err(|_| "its key is not Base64 (the tag p)")?;
    match value("k").unwrap_or("rsa") {
        "rsa" => {
            let info = SubjectPublicKeyInfoRef::from_der(&key).ok();
            // Some publish the key without its algorithm, which verifiers accept.
            let bare = info.map_or(Some(&key[..]), |info| info.subject_public_key.as_bytes());
            match bare.and_then(rsa_bits) {
                None => Err("its key is not one of RSA (the tag p)".to_owned()),
                Some(bits) if bits < MIN_RSA_BITS => Err(format!(
                    "its RSA key has {bits} bits, and verifiers need {MIN_RSA_BITS} or more \
                     (RFC 8301, 3.2)"
                )),
                Some(_) => Ok(()),
            }
        }
        "ed25519" if key.len() == 32 => Ok(()),
        "ed25519" => Err("its key is not one of Ed25519 (the tag p)".to_owned()),
        other => Err(format!(
            "its key is of the unknown kind {} (the tag k)",
            quoted(other)
        )),
    }
}

/// The tags of a record of DKIM or DMARC, in order (RFC 6376, 3.2).
fn tags(record: &[u8]) -> Result<Vec<(&str, &str)>, String> {
    let text = std::str::from_utf8(record).map_err(|_| "it is not UTF-8")?;
    let mut tags: Vec<(&str, &str)> = Vec::new();
    let mut parts = text.split(';').peekable();
    while let Some(part) = parts.next() {
        if part.trim().is_empty() && parts.peek().is_none() {
            break;
        }
        let Some((name, value)) = first_tag(part.as_bytes()) else {
            let part = quoted(part.trim());
            return Err(format!("{part} is not a tag of the form name=value"));
        };
        if value_of(&tags, name).is_some() {
            return Err(format!("it has the tag {name} twice"));
        }
        tags.push((name, value));
    }
    Ok(tags)
}

fn value_of<'t>(tags: &[(&str, &'t str)], name: &str) -> Option<&'t str> {
    let mut tags = tags.iter();
    tags.find(|tag| tag.0 == name).map(|tag| tag.1)
}

/// The tag before the first semicolon.
fn first_tag(record: &[u8]) -> Option<(&str, &str)> {
    let first = record.split(|byte| *byte == b';').next()?;
    let (name, value) = std::str::from_utf8(first).ok()?.split_once('=')?;
    let name = name.trim();
    let is_name = name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    is_name.then(|| (name, value.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is found in these texts: `found`, `none`, or why it is not valid.
    fn found(find: fn(&[Vec<u8>]) -> Published, texts: &[&str]) -> String {
        let texts: Vec<_> = texts.iter().map(|text| text.as_bytes().to_vec()).collect();
        match find(&texts) {
            Published::Found(text) => {
                assert!(texts.contains(&text.into_bytes()));
                "found".to_owned()
            }
            Published::Absent => "none".to_owned(),
            Published::Invalid(why) => why,
            Published::Failed(error) => panic!("{error}"),
        }
    }

    #[track_caller]
    fn says(find: fn(&[Vec<u8>]) -> Published, texts: &[&str], words: &str) {
        let found = found(find, texts);
        assert!(found.contains(words), "{texts:?}: {found}");
    }

    const TWO: &str = "there are 2 such records, where one is allowed";

    #[test]
    fn spf_is_a_version_that_ends() {
        for (texts, words) in [
            (&["v=spf1 mx -all"][..], "found"),
            (&["v=spf1", "another text"], "found"),
            (&["V=SPF1 -all"], "found"),
            (&["v=spf10 -all"], "none"),
            (&["v=spf1;-all"], "none"),
            (&["v=spf"], "none"),
            (&[" v=spf1 -all"], "none"),
            (&[], "none"),
            (&["v=spf1 mx -all", "v=spf1 -all"], TWO),
        ] {
            says(spf, texts, words);
        }
    }

    #[test]
    fn dmarc_has_a_policy() {
        for (texts, words) in [
            (&["v=DMARC1; p=none"][..], "found"),
            (
                &["v = DMARC1 ; p = Reject ; rua = mailto:a@b.example , mailto:c@b.example!10m;"],
                "found",
            ),
            (&["v=DMARC1;p=quarantine;sp=none;x=;"], "found"),
            (&["p=none; v=DMARC1"], "none"),
            (&["v=spf1 -all"], "none"),
            (&["v=DMARC1"], "has no policy (the tag p)"),
            (&["v=DMARC1; p=drop"], "its tag p is \"drop\""),
            (&["v=DMARC1; p=none; sp=drop"], "its tag sp is \"drop\""),
            (&["v=DMARC1 p=none"], "its version is \"DMARC1 p=none\""),
            (
                &["v=DMARC1; p=none; rua=a@b.example"],
                "its tag rua has \"a@b.example\"",
            ),
            (
                &["v=DMARC1; none"],
                "\"none\" is not a tag of the form name=value",
            ),
            (&["v=DMARC1; p=none; p=reject"], "it has the tag p twice"),
            (&["v=DMARC1; p=none", "v=DMARC1; p=none"], TWO),
        ] {
            says(dmarc, texts, words);
        }
    }

    /// RFC 6376, A: the key of the example, of 1024 bits, and one of RFC 8463, A.2.
    const RSA: &str = "MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDwIRP/UC3SBsEmGqZ9ZJW3/DkM\
        oGeLnQg1fWn7/zYtIxN2SnFCjxOCKG9v3b4jYfcTNh5ijSsq631uBItLa7od+v/RtdC2UzJ1lWT947qR+Rcac2gb\
        to/NMqJ0fzfVjH4OuKhitdY9tf6mcwGjaNBcWToIMmPSPDdQPNUYckcQ2QIDAQAB";
    const ED25519: &str = "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=";

    #[test]
    fn dkim_has_a_key() {
        for (text, words) in [
            ("v=DKIM1; p={RSA}", "found"),
            (
                "v=DKIM1; k=rsa; h=sha1:sha256; s=email; t=y; p={RSA};",
                "found",
            ),
            ("p={RSA}", "found"),
            ("k=ed25519; p={ED}", "found"),
            (
                "v=DKIM1; k=ed25519; p= 11qYAYKxCrfVS/7TyWQHOg7h cvPapiMlrwIaaPcHURo=",
                "found",
            ),
            ("v=DKIM1; p=", "its key was revoked"),
            ("v=DKIM1; k=rsa", "it has no key (the tag p)"),
            ("v=DKIM2; p={RSA}", "its version is not DKIM1"),
            (
                "p={RSA}; v=DKIM1",
                "its version is not DKIM1, at its beginning",
            ),
            ("v=DKIM1; p=***", "its key is not Base64"),
            ("v=DKIM1; p=AAAA", "its key is not one of RSA"),
            ("v=DKIM1; p={ED}", "its key is not one of RSA"),
            (
                "v=DKIM1; k=ed25519; p={RSA}",
                "its key is not one of Ed25519",
            ),
            ("v=DKIM1; k=dsa; p={RSA}", "of the unknown kind \"dsa\""),
            ("v=DKIM1; h=sha1; p={RSA}", "does not allow SHA-256"),
            ("v=DKIM1; s=tlsrpt; p={RSA}", "is not for mail"),
            ("v=DKIM1; p={RSA}; p={RSA}", "the tag p twice"),
            ("v=spf1 -all", "none of them has a key"),
        ] {
            let text = text.replace("{RSA}", RSA).replace("{ED}", ED25519);
            says(dkim, &[&text], words);
        }
        let key = format!("v=DKIM1; p={RSA}");
        says(dkim, &[], "none");
        says(dkim, &["a text", &key], "found");
        says(dkim, &[&key, &key], TWO);
    }

    #[test]
    fn a_short_rsa_key_is_refused() {
        // RSAPublicKey: a modulus of 512 bits, and the exponent 65537.
        let modulus = [&[0x02, 0x41, 0][..], &[0xff; 64]].concat();
        let numbers = [&modulus[..], &[0x02, 3, 1, 0, 1]].concat();
        let key = [&[0x30, numbers.len() as u8][..], &numbers].concat();
        let record = format!("v=DKIM1; p={}", STANDARD.encode(key));
        says(dkim, &[&record], "its RSA key has 512 bits");
    }

    #[test]
    fn mta_sts_and_tls_rpt_are_as_senders_read_them() {
        for (texts, words) in [
            (&["v=STSv1; id=1", "a text"][..], "found"),
            (&["v=STSv1 id=1"], "none"),
            (&["v=STSv1;"], "it has no id"),
            (
                &["v=STSv1; id=not-valid"],
                "is not of at most 32 letters and digits",
            ),
            (&["v=STSv1; id=1", "v=STSv1; id=2"], TWO),
        ] {
            says(mta_sts, texts, words);
        }
        for (texts, words) in [
            (&["v=TLSRPTv1; rua=mailto:a@b.example"][..], "found"),
            (&["v=TLSRPTv1 rua=mailto:a@b.example"], "none"),
            (
                &["v=TLSRPTv1; rua=a@b.example"],
                "it has no rua with a mailto: or https: URI",
            ),
            (
                &["v=TLSRPTv1; rua"],
                "is not a field of the form name=value",
            ),
            (&["v=TLSRPTv1; rua=mailto:a@b.example"; 2], TWO),
        ] {
            says(tls_rpt, texts, words);
        }
    }
}
