//! Says why the TLSA records of a host do not verify it.

use tokio_rustls::rustls::pki_types::UnixTime;

use super::verify::DaneError;
use super::{Dane, TlsaRecord};
use crate::diagnose::dane as advice;
use crate::text::printable;
use crate::tls::failure::VerifyError;
use crate::tls::store::TrustStore;
use crate::tls::{Certificate, CertificateFailure, CertificateProblem};

/// The maximum number of records and names in a message.
const LISTED: usize = 4;

impl Dane {
    pub(super) fn failure(
        &self,
        why: DaneError,
        chain: Vec<Certificate>,
        now: UnixTime,
    ) -> CertificateFailure {
        let host = self.base_domain();
        let records = self.records_text();
        let (presented, own) = match chain.first() {
            Some(leaf) => {
                let own = TlsaRecord::of_key(leaf).to_string();
                (format!("\"{}\" with the key {own}", leaf.subject), own)
            }
            None => ("that cannot be read".into(), "3 1 1 …".into()),
        };
        let failure = |problem, message, hint, chain| CertificateFailure {
            problem,
            chain,
            index: Some(0),
            message: printable(message),
            hint: printable(hint),
        };
        match why {
            DaneError::NoUsableRecord => failure(
                CertificateProblem::Other,
                format!("DANE cannot verify {host}: {records}, and none is usable"),
                advice::unusable(&own),
                chain,
            ),
            DaneError::NoMatch => failure(
                CertificateProblem::WrongKey,
                format!(
                    "DANE does not verify {host}: it presents the certificate {presented}, and no \
                        TLSA record is of that or of an authority above it; {records}"
                ),
                advice::no_match(&own),
                chain,
            ),
            DaneError::Chain(VerifyError::Invalid(webpki::Error::UnknownIssuer)) => failure(
                CertificateProblem::UnknownIssuer,
                format!(
                    "DANE does not verify {host}: its certificate {presented} was not issued under \
                        the authority of a TLSA record, even if that was sent; {records}"
                ),
                advice::broken_chain(&own),
                chain,
            ),
            DaneError::Chain(VerifyError::Invalid(webpki::Error::CertNotValidForName(_))) => {
                let names = chain.first().map_or(Vec::new(), Certificate::dns_names);
                failure(
                    CertificateProblem::WrongName,
                    format!(
                        "DANE does not verify {host}: its certificate is for {}, not for {}; \
                            {records}",
                        list(&names, ", "),
                        list(&self.names, " or ")
                    ),
                    advice::broken_chain(&own),
                    chain,
                )
            }
            DaneError::Chain(why) => {
                let is_about_chain = matches!(why, VerifyError::Invalid(_));
                let general =
                    CertificateFailure::new(why, chain, host, &TrustStore::default(), now);
                let hint = match is_about_chain {
                    true => advice::broken_chain(&own),
                    false => general.hint.clone(),
                };
                CertificateFailure {
                    message: format!("DANE does not verify {host}: {general}; {records}"),
                    hint,
                    ..general
                }
            }
        }
    }

    /// The records, in the words of a message.
    fn records_text(&self) -> String {
        let texts: Vec<_> = self.records.iter().map(shortened).collect();
        match texts.len() {
            1 => format!("its TLSA record is {}", texts[0]),
            _ => format!("its TLSA records are {}", list(&texts, ", ")),
        }
    }
}

/// A record, without most of a certificate or key that it holds.
fn shortened(record: &TlsaRecord) -> String {
    let text = record.to_string();
    match text.get(..140) {
        Some(start) => format!("{start}…"),
        None => text,
    }
}

fn list(texts: &[String], separator: &str) -> String {
    let mut listed = texts[..texts.len().min(LISTED)].join(separator);
    match texts.len() {
        0 => listed.push_str("no name"),
        number if number > LISTED => {
            listed.push_str(&format!(" and {} more", number - LISTED));
        }
        _ => {}
    }
    listed
}
