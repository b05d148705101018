//! CRAM-MD5 (RFC 2195): the challenge, signed with the password.

use hmac::{Hmac, KeyInit as _, Mac as _};
use md5::Md5;

use super::single::validate;
use super::{Mechanism, SaslExchange, SaslFailure, SaslSession};
use crate::Secret;
use crate::secret::Credentials;

pub(super) struct CramMd5 {
    credentials: Credentials,
    /// The signature, with which passwords can be guessed offline.
    answer: Option<Secret>,
}

impl CramMd5 {
    pub(super) fn new(_: Mechanism, credentials: &Credentials) -> Result<Self, SaslFailure> {
        validate(credentials)?;
        Ok(CramMd5 {
            credentials: credentials.clone(),
            answer: None,
        })
    }
}

impl SaslExchange for CramMd5 {
    fn mechanism(&self) -> Mechanism {
        Mechanism::CramMd5
    }

    fn start(&mut self, _: &SaslSession<'_>) -> Result<Option<Vec<u8>>, SaslFailure> {
        Ok(None)
    }

    fn respond(&mut self, challenge: &[u8]) -> Result<Vec<u8>, SaslFailure> {
        if challenge.is_empty() {
            // A replay of the response would succeed with an empty challenge.
            return Err("the server's challenge is empty".into());
        }
        if self.answer.is_some() {
            return Err("the server sent a second challenge".into());
        }
        let answer = self
            .answer
            .insert(Secret::new(signature(self.credentials.secret(), challenge)));
        Ok([self.credentials.user(), " ", answer.expose()]
            .concat()
            .into_bytes())
    }

    fn secrets(&self) -> Vec<Secret> {
        self.answer.iter().cloned().collect()
    }
}

/// HMAC-MD5 in lower-case hexadecimal digits.
pub(crate) fn signature(password: &str, challenge: &[u8]) -> String {
    let mut mac =
        Hmac::<Md5>::new_from_slice(password.as_bytes()).expect("HMAC takes a key of any length");
    mac.update(challenge);
    mac.finalize()
        .into_bytes()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}
