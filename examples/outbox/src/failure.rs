//! Why a command failed, with the exit code.

use crate::store::StoreError;

/// A failure of a command.
#[derive(Debug)]
pub struct Failure {
    pub message: String,
    pub hint: Option<String>,
    pub exit_code: u8,
}

impl Failure {
    pub fn new(exit_code: u8, message: impl Into<String>) -> Self {
        Failure {
            message: message.into(),
            hint: None,
            exit_code,
        }
    }

    /// The request is invalid.
    pub fn request(message: impl Into<String>) -> Self {
        Failure::new(64, message)
    }

    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Failure::new(error.exit_code(), error.to_string())
    }
}

impl From<envoi::Error> for Failure {
    fn from(error: envoi::Error) -> Self {
        Failure {
            message: error.message().to_owned(),
            hint: error.hint().map(str::to_owned),
            exit_code: error.exit_code(),
        }
    }
}
