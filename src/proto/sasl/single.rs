//! PLAIN (RFC 4616), EXTERNAL (RFC 4422, A) and ANONYMOUS (RFC 4505): one response, known
//! beforehand.

use zeroize::Zeroizing;

use super::{Mechanism, SaslExchange, SaslFailure, SaslSession};
use crate::Address;
use crate::secret::Credentials;
use crate::text::is_unprintable;

pub(super) struct Single {
    mechanism: Mechanism,
    response: Zeroizing<Vec<u8>>,
    repeated: bool,
}

impl Single {
    /// `authzid NUL authcid NUL passwd`, in UTF-8 as it was given.
    pub(super) fn plain(
        mechanism: Mechanism,
        credentials: &Credentials,
    ) -> Result<Self, SaslFailure> {
        let authzid = credentials.authorization().unwrap_or_default();
        validate(credentials)?;
        let response = [
            authzid,
            "\0",
            credentials.user(),
            "\0",
            credentials.secret(),
        ]
        .concat();
        Ok(Single::new(mechanism, response))
    }

    /// Whom to act for; nothing where the server is to tell that from what it knows.
    pub(super) fn external(
        mechanism: Mechanism,
        credentials: &Credentials,
    ) -> Result<Self, SaslFailure> {
        let user = credentials.authorization().unwrap_or_default();
        Ok(Single::new(mechanism, user.to_owned()))
    }

    /// The trace: nothing, an address, or a word without `@`, of 255 characters at most (RFC 4505,
    /// 2 and 3).
    pub(super) fn anonymous(
        mechanism: Mechanism,
        credentials: &Credentials,
    ) -> Result<Self, SaslFailure> {
        let trace = credentials.user();
        if trace.chars().count() > 255 {
            return Err("the trace of an anonymous login is longer than 255 characters".into());
        }
        if trace.contains(is_unprintable) {
            return Err(
                "the trace of an anonymous login contains a control character, or one that cannot \
                    be seen"
                    .into(),
            );
        }
        if trace.contains('@') && Address::lenient(trace).is_err() {
            return Err("the trace of an anonymous login has an @ and is not an address".into());
        }
        Ok(Single::new(mechanism, trace.to_owned()))
    }

    fn new(mechanism: Mechanism, response: String) -> Self {
        Single {
            mechanism,
            response: Zeroizing::new(response.into_bytes()),
            repeated: false,
        }
    }
}

impl SaslExchange for Single {
    fn mechanism(&self) -> Mechanism {
        self.mechanism
    }

    fn start(&mut self, _: &SaslSession<'_>) -> Result<Option<Vec<u8>>, SaslFailure> {
        Ok(Some(self.response.to_vec()))
    }

    /// A server that challenges did not read the initial response, and wants it now.
    fn respond(&mut self, _: &[u8]) -> Result<Vec<u8>, SaslFailure> {
        if std::mem::replace(&mut self.repeated, true) {
            return Err(format!("the server asks for more than {} has", self.mechanism).into());
        }
        Ok(self.response.to_vec())
    }
}

/// User and password are there, as PLAIN demands it (RFC 4616, 2): a server may take an empty
/// password for none at all.
pub(super) fn validate(credentials: &Credentials) -> Result<(), SaslFailure> {
    no_nul(&[credentials.user(), credentials.secret()])?;
    match (credentials.user(), credentials.secret()) {
        ("", _) => Err("the user name is empty".into()),
        (_, "") => Err("the password is empty".into()),
        _ => Ok(()),
    }
}

/// PLAIN has it as its separator (RFC 4616, 2), no name of a user has one (RFC 4422, 3.4.1), and
/// LOGIN's servers read to it.
fn no_nul(parts: &[&str]) -> Result<(), SaslFailure> {
    match parts.iter().any(|part| part.contains('\0')) {
        true => Err("the user name or the password contains a NUL character".into()),
        false => Ok(()),
    }
}
