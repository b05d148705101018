//! [`StsRecord`]: the TXT record that announces a policy.

use std::fmt;

use crate::dns::fields::{FieldsError, of_version};

/// The version of the record (RFC 8461, 3.1).
const VERSION: &str = "v=STSv1";

/// The maximum length of an id (RFC 8461, 3.1).
const MAX_ID: usize = 32;

/// The TXT record `_mta-sts.DOMAIN`, which announces a policy and names its version (RFC 8461,
/// 3.1).
///
/// ```
/// use envoi::mx::mta_sts::StsRecord;
///
/// let answer = [&b"v=STSv1; id=20160831085700Z;"[..], b"another record"];
/// let record = StsRecord::from_txt(answer)?.expect("the domain has a policy");
/// assert_eq!(record.id(), "20160831085700Z");
/// # Ok::<(), envoi::mx::mta_sts::StsRecordError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StsRecord {
    id: String,
}

impl StsRecord {
    /// Finds the record among the TXT records of `_mta-sts.DOMAIN`, each with its strings joined.
    /// `None` if there is none: the domain announces no policy. Unknown fields are ignored, and so
    /// is all but the first of several ids.
    ///
    /// # Errors
    ///
    /// There are several such records, or it is malformed. A sender then assumes that the domain
    /// announces no policy, too; one that it has stored remains valid.
    pub fn from_txt<'r>(
        records: impl IntoIterator<Item = &'r [u8]>,
    ) -> Result<Option<Self>, StsRecordError> {
        let fields = of_version(records, VERSION).map_err(|error| match error {
            FieldsError::Several(number) => StsRecordError::Several(number),
            FieldsError::Malformed(_) => StsRecordError::Malformed(error.to_string()),
        })?;
        let Some(fields) = fields else {
            return Ok(None);
        };
        let id = fields.iter().find(|(name, _)| *name == "id");
        let (_, id) = id.ok_or(StsRecordError::NoId)?;
        if id.len() > MAX_ID || !id.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return Err(StsRecordError::Malformed(format!(
                "the id {} is not of at most {MAX_ID} letters and digits",
                crate::text::quoted(id)
            )));
        }
        Ok(Some(StsRecord {
            id: (*id).to_owned(),
        }))
    }

    /// The id of the policy, which changes whenever the policy does.
    pub fn id(&self) -> &str {
        &self.id
    }
}

/// Why TXT records announce no usable policy.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StsRecordError {
    /// There are this many records with `v=STSv1`, where one is allowed.
    Several(usize),
    /// The record has no `id`.
    NoId,
    /// The record cannot be parsed, for this reason.
    Malformed(String),
}

impl fmt::Display for StsRecordError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the record of MTA-STS cannot be used: ")?;
        match self {
            StsRecordError::Several(number) => FieldsError::Several(*number).fmt(f),
            StsRecordError::NoId => f.write_str("it has no id"),
            StsRecordError::Malformed(reason) => f.write_str(reason),
        }
    }
}

impl std::error::Error for StsRecordError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(records: &[&str]) -> Result<Option<String>, StsRecordError> {
        let record = StsRecord::from_txt(records.iter().map(|record| record.as_bytes()))?;
        Ok(record.map(|record| record.id))
    }

    #[test]
    fn the_id_is_found() {
        let longest = "a".repeat(32);
        for (record, expected) in [
            ("v=STSv1; id=20160831085700Z;", "20160831085700Z"),
            ("v=STSv1;id=1", "1"),
            ("v=STSv1 \t;\tid=1 ; ", "1"),
            ("v=STSv1; other=x-y.z; id=1; id=2", "1"),
            (&format!("v=STSv1; id={longest}"), &longest),
        ] {
            assert_eq!(id(&[record]), Ok(Some(expected.to_owned())), "{record}");
        }
        let among_others = [
            "v=spf1 -all",
            "v=STSv1; id=7",
            "v=STSv10; id=8",
            "",
            "v=STSv1",
        ];
        assert_eq!(id(&among_others), Ok(Some("7".to_owned())));
    }

    #[test]
    fn other_records_announce_nothing() {
        for records in [
            &[][..],
            &["v=spf1 -all"],
            &["v=STSv2; id=1"],
            &["V=STSv1; id=1"],
            &["v=stsv1; id=1"],
            &[" v=STSv1; id=1"],
            &["id=1; v=STSv1"],
            &["v=STSv1"],
        ] {
            assert_eq!(id(records), Ok(None), "{records:?}");
        }
    }

    #[test]
    fn malformed_records_are_errors() {
        assert_eq!(
            id(&["v=STSv1; id=1", "v=STSv1; id=1"]),
            Err(StsRecordError::Several(2))
        );
        for record in ["v=STSv1;", "v=STSv1; x=1;"] {
            assert_eq!(id(&[record]), Err(StsRecordError::NoId), "{record}");
        }
        for record in [
            "v=STSv1; id",
            "v=STSv1; id=",
            "v=STSv1; id=a-b",
            "v=STSv1; id=a b",
            "v=STSv1;; id=1",
            "v=STSv1; =1",
            "v=STSv1; _x=1; id=1",
            &format!("v=STSv1; id={}", "a".repeat(33)),
            &format!("v=STSv1; {}=1; id=1", "a".repeat(33)),
        ] {
            let error = id(&[record]).expect_err(record);
            assert!(matches!(error, StsRecordError::Malformed(_)), "{record}");
        }
        assert!(StsRecord::from_txt([&b"v=STSv1; id=\xff"[..]]).is_err());
    }
}
