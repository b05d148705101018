//! PLAIN (RFC 4616), EXTERNAL (RFC 4422, A) and ANONYMOUS (RFC 4505): a single response, known in
//! advance.

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
    /// `authzid NUL authcid NUL passwd`, in UTF-8 as given.
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

    /// The authorization identity; empty if the server derives it.
    pub(super) fn external(
        mechanism: Mechanism,
        credentials: &Credentials,
    ) -> Result<Self, SaslFailure> {
        let user = credentials.authorization().unwrap_or_default();
        Ok(Single::new(mechanism, user.to_owned()))
    }

    /// The trace: empty, an address, or a text without `@`, of at most 255 characters (RFC 4505, 2
    /// and 3).
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

    /// A server that sends a challenge did not read the initial response and requests it.
    fn respond(&mut self, _: &[u8]) -> Result<Vec<u8>, SaslFailure> {
        if std::mem::replace(&mut self.repeated, true) {
            return Err(format!("the server asks for more than {} has", self.mechanism).into());
        }
        Ok(self.response.to_vec())
    }
}

/// Checks that user and password are not empty, as PLAIN requires (RFC 4616, 2): a server may
/// accept an empty password as none at all.
pub(super) fn validate(credentials: &Credentials) -> Result<(), SaslFailure> {
    no_nul(&[credentials.user(), credentials.secret()])?;
    match (credentials.user(), credentials.secret()) {
        ("", _) => Err("the user name is empty".into()),
        (_, "") => Err("the password is empty".into()),
        _ => Ok(()),
    }
}

/// Checks for NUL, which is the separator of PLAIN (RFC 4616, 2), is not allowed in user names (RFC
/// 4422, 3.4.1), and ends the text for servers of LOGIN.
fn no_nul(parts: &[&str]) -> Result<(), SaslFailure> {
    match parts.iter().any(|part| part.contains('\0')) {
        true => Err("the user name or the password contains a NUL character".into()),
        false => Ok(()),
    }
}
