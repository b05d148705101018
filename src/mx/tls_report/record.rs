//! [`TlsRptRecord`]: where a domain wants its reports.

use std::fmt;

use percent_encoding::percent_decode_str;

use crate::Address;
use crate::dns::fields::{FieldsError, of_version};

/// The version of the record (RFC 8460, 3).
const VERSION: &str = "v=TLSRPTv1";

/// The TXT record `_smtp._tls.DOMAIN`, which says where a domain wants its TLS reports (RFC 8460,
/// 3).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TlsRptRecord {
    /// The destinations, at least one. Those of other schemes are left out.
    pub rua: Vec<ReportDestination>,
}

/// A destination of reports.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReportDestination {
    /// A message to this address (RFC 8460, 5.3).
    Mailto(Address),
    /// A `POST` to this URL (RFC 8460, 5.4).
    Https(String),
}

impl TlsRptRecord {
    /// Finds the record among the TXT records of `_smtp._tls.DOMAIN`, each with its strings joined.
    /// `None` if there is none: the domain wants no reports. Unknown fields are ignored.
    ///
    /// # Errors
    ///
    /// There are several such records, or it is malformed, or has no destination of a known scheme.
    /// A sender then assumes that the domain wants no reports, too.
    pub fn from_txt<'r>(
        records: impl IntoIterator<Item = &'r [u8]>,
    ) -> Result<Option<Self>, TlsRptRecordError> {
        let fields = of_version(records, VERSION).map_err(|error| match error {
            FieldsError::Several(number) => TlsRptRecordError::Several(number),
            FieldsError::Malformed(_) => TlsRptRecordError::Malformed(error.to_string()),
        })?;
        let Some(fields) = fields else {
            return Ok(None);
        };
        let uris = fields.iter().filter(|(name, _)| *name == "rua");
        let rua: Vec<_> = uris
            .flat_map(|(_, uris)| uris.split(','))
            .filter_map(|uri| ReportDestination::parse(uri.trim_matches([' ', '\t'])))
            .collect();
        match rua.is_empty() {
            true => Err(TlsRptRecordError::NoDestination),
            false => Ok(Some(TlsRptRecord { rua })),
        }
    }
}

impl ReportDestination {
    /// Parses a URI. Commas, exclamation points and semicolons are percent-encoded in it (RFC 8460,
    /// 3).
    fn parse(uri: &str) -> Option<Self> {
        let (scheme, rest) = uri.split_once(':')?;
        if scheme.eq_ignore_ascii_case("mailto") {
            // RFC 6068: header fields follow a question mark.
            let address = rest.split('?').next()?;
            let address = percent_decode_str(address).decode_utf8().ok()?;
            return Address::new(&*address).ok().map(ReportDestination::Mailto);
        }
        let has_host = rest
            .strip_prefix("//")
            .is_some_and(|rest| !rest.is_empty() && !rest.starts_with('/'));
        let is_plain = uri.bytes().all(|byte| byte.is_ascii_graphic());
        (scheme.eq_ignore_ascii_case("https") && has_host && is_plain)
            .then(|| ReportDestination::Https(uri.to_owned()))
    }
}

/// Why TXT records name no destination of reports.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TlsRptRecordError {
    /// There are this many records with `v=TLSRPTv1`, where one is allowed.
    Several(usize),
    /// There is no `rua` with a `mailto:` or `https:` URI.
    NoDestination,
    /// The record cannot be parsed, for this reason.
    Malformed(String),
}

impl fmt::Display for TlsRptRecordError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the record of TLS reports cannot be used: ")?;
        match self {
            TlsRptRecordError::Several(number) => FieldsError::Several(*number).fmt(f),
            TlsRptRecordError::NoDestination => {
                f.write_str("it has no rua with a mailto: or https: URI")
            }
            TlsRptRecordError::Malformed(reason) => f.write_str(reason),
        }
    }
}

impl std::error::Error for TlsRptRecordError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn rua(record: &str) -> Result<Vec<ReportDestination>, TlsRptRecordError> {
        let record = TlsRptRecord::from_txt([record.as_bytes()])?;
        Ok(record.map(|record| record.rua).unwrap_or_default())
    }

    fn mailto(address: &str) -> ReportDestination {
        ReportDestination::Mailto(Address::new(address).unwrap())
    }

    fn https(url: &str) -> ReportDestination {
        ReportDestination::Https(url.to_owned())
    }

    #[test]
    fn destinations_are_found() {
        for (record, expected) in [
            // RFC 8460, 3.1.1 and 3.1.2.
            (
                "v=TLSRPTv1;rua=mailto:reports@example.com",
                vec![mailto("reports@example.com")],
            ),
            (
                "v=TLSRPTv1; rua=https://reporting.example.com/v1/tlsrpt",
                vec![https("https://reporting.example.com/v1/tlsrpt")],
            ),
            (
                "v=TLSRPTv1 ; x=1; \
                 rua=MAILTO:a%21b@example.com?subject=x , https://r.example/?a=b;",
                vec![mailto("a!b@example.com"), https("https://r.example/?a=b")],
            ),
            (
                "v=TLSRPTv1; rua=ftp://r.example/,mailto:a@example.com,http://r.example/",
                vec![mailto("a@example.com")],
            ),
            (
                "v=TLSRPTv1; rua=mailto:a@b.example; rua=mailto:c@b.example",
                vec![mailto("a@b.example"), mailto("c@b.example")],
            ),
            ("v=TLSRPTv2; rua=mailto:a@example.com", vec![]),
            ("v=spf1 -all", vec![]),
        ] {
            assert_eq!(rua(record), Ok(expected), "{record}");
        }
    }

    #[test]
    fn records_without_a_destination_are_errors() {
        for record in [
            "v=TLSRPTv1;",
            "v=TLSRPTv1; rua=http://r.example/",
            "v=TLSRPTv1; rua=mailto:no at sign",
            "v=TLSRPTv1; rua=mailto:%ff@example.com",
            "v=TLSRPTv1; rua=mailto:a%0d%0ab@example.com",
            "v=TLSRPTv1; rua=https:///path",
            "v=TLSRPTv1; rua=https://a b/",
            "v=TLSRPTv1; rua=reports@example.com",
        ] {
            assert_eq!(
                rua(record),
                Err(TlsRptRecordError::NoDestination),
                "{record}"
            );
        }
        assert!(matches!(
            rua("v=TLSRPTv1; rua"),
            Err(TlsRptRecordError::Malformed(_))
        ));
        let twice = [&b"v=TLSRPTv1; rua=mailto:a@b.example"[..]; 2];
        assert_eq!(
            TlsRptRecord::from_txt(twice),
            Err(TlsRptRecordError::Several(2))
        );
    }
}
