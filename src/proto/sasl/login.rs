//! LOGIN, which is not specified in an RFC: the user name, then the password, whatever the prompts
//! are.

use super::single::validate;
use super::{Mechanism, SaslExchange, SaslFailure, SaslSession};
use crate::secret::Credentials;

pub(super) struct LoginExchange {
    credentials: Credentials,
    prompts: usize,
}

impl LoginExchange {
    pub(super) fn new(_: Mechanism, credentials: &Credentials) -> Result<Self, SaslFailure> {
        validate(credentials)?;
        Ok(LoginExchange {
            credentials: credentials.clone(),
            prompts: 0,
        })
    }
}

impl SaslExchange for LoginExchange {
    fn mechanism(&self) -> Mechanism {
        Mechanism::Login
    }

    fn start(&mut self, _: &SaslSession<'_>) -> Result<Option<Vec<u8>>, SaslFailure> {
        Ok(None)
    }

    fn ignores_challenges(&self) -> bool {
        true
    }

    /// Prompts may be in any language, empty, or not base64; only their order counts.
    fn respond(&mut self, _: &[u8]) -> Result<Vec<u8>, SaslFailure> {
        self.prompts += 1;
        match self.prompts {
            1 => Ok(self.credentials.user().into()),
            2 => Ok(self.credentials.secret().into()),
            _ => Err("the server asks for more than user name and password".into()),
        }
    }
}
