//! The login settings of an endpoint, and the credentials that they result in. The connection
//! decides about the mechanism and performs the login.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use crate::config::token::TokenSource;
use crate::error::{Error, ErrorKind, Phase, Result};
use crate::file;
use crate::proto::{Mechanism, SaslExchange, Secrets};
use crate::text::quoted;
use crate::{Credentials, Secret};

/// The login settings of the caller, which may be empty.
#[derive(Clone, Default)]
pub(crate) struct LoginSettings {
    pub(crate) user: Option<String>,
    /// Only one of the two passwords is set.
    pub(crate) password: Option<Secret>,
    pub(crate) password_file: Option<PasswordFile>,
    pub(crate) credentials: Option<Credentials>,
    pub(crate) tokens: Option<TokenSource>,
    pub(crate) exchanges: Option<Exchanges>,
    /// In order of preference; empty for all of them.
    pub(crate) mechanisms: Vec<Mechanism>,
}

impl LoginSettings {
    /// The credentials to log in with, if any.
    ///
    /// # Errors
    ///
    /// A user without a password, or a password without a user.
    pub(crate) fn chosen(&self) -> Result<Option<LoginWith<'_>>> {
        if let Some(exchanges) = &self.exchanges {
            return Ok(Some(LoginWith::Exchange(exchanges)));
        }
        if let Some(credentials) = &self.credentials {
            return Ok(Some(LoginWith::Credentials(credentials.clone())));
        }
        let takes_token = !self.mechanisms.is_empty()
            && self
                .mechanisms
                .iter()
                .all(|mechanism| mechanism.takes_token());
        if let Some(file) = &self.password_file {
            let is_token = takes_token;
            return match (&self.user, &self.tokens) {
                (Some(user), None) => Ok(Some(LoginWith::File {
                    user,
                    file,
                    is_token,
                })),
                (None, None) => Err(password_alone()),
                (_, Some(_)) => Err(tokens_misplaced()),
            };
        }
        let credentials = match (&self.user, &self.password, &self.tokens) {
            (Some(user), None, Some(source)) => {
                return Ok(Some(LoginWith::Tokens { user, source }));
            }
            (_, _, Some(_)) => return Err(tokens_misplaced()),
            (Some(user), Some(password), None) => credentials(user, password.clone(), takes_token),
            (None, Some(_), None) => return Err(password_alone()),
            (user, None, None) => match (user, &self.mechanisms[..]) {
                (None, [Mechanism::External]) => Credentials::external(),
                (Some(user), [Mechanism::External]) => Credentials::external().authorize_as(user),
                (user, [Mechanism::Anonymous]) => {
                    Credentials::anonymous(user.clone().unwrap_or_default())
                }
                (None, _) => return Ok(None),
                // The user is not quoted: it may contain a part of the password, if a colon was
                // encoded.
                (Some(_), _) => {
                    return Err(Error::request("there is a user name and no password")
                        .with_hint("Give one, or leave the user out to send without a login."));
                }
            },
        };
        Ok(Some(LoginWith::Credentials(credentials)))
    }

    /// Checks what can be checked before connecting.
    ///
    /// # Errors
    ///
    /// See [`chosen`](Self::chosen); or no mechanism can express the credentials.
    pub(crate) fn check(&self) -> Result<()> {
        match self.chosen()? {
            Some(LoginWith::Credentials(credentials)) => {
                Ok(Mechanism::check(&self.mechanisms, &credentials)?)
            }
            // A placeholder is enough to check the user.
            Some(LoginWith::File { user, is_token, .. }) => {
                let credentials = credentials(user, "any".into(), is_token);
                Ok(Mechanism::check(&self.mechanisms, &credentials)?)
            }
            Some(LoginWith::Tokens { user, .. }) => {
                let credentials = Credentials::token(user, "any");
                Ok(Mechanism::check(&self.mechanisms, &credentials)?)
            }
            Some(LoginWith::Exchange(_)) | None => Ok(()),
        }
    }

    /// Registers the secrets that are known before the login, for redaction.
    pub(crate) fn hide(&self, secrets: &mut Secrets) {
        let given = self.credentials.as_ref().map(Credentials::secret);
        for secret in given
            .into_iter()
            .chain(self.password.as_ref().map(Secret::expose))
        {
            secrets.add_with_base64(secret);
        }
        if let Some(password) = self.password_file.as_ref().and_then(PasswordFile::last) {
            secrets.add_with_base64(password.expose());
        }
        if let Some(token) = self.tokens.as_ref().and_then(TokenSource::last) {
            secrets.add_with_base64(token.expose());
        }
    }

    /// The name of the user, if the login has one.
    pub(crate) fn name(&self) -> Option<&str> {
        let name = self
            .credentials
            .as_ref()
            .map(Credentials::user)
            .or(self.user.as_deref());
        name.filter(|name| !name.is_empty())
    }

    /// Whether there are credentials to log in with.
    pub(crate) fn is_given(&self) -> bool {
        let needs_no_user = matches!(
            self.mechanisms[..],
            [Mechanism::External | Mechanism::Anonymous]
        );
        self.user.is_some()
            || self.credentials.is_some()
            || self.tokens.is_some()
            || self.exchanges.is_some()
            || needs_no_user
    }
}

fn password_alone() -> Error {
    Error::request("there is a password and no user name").with_hint("Set the user, too.")
}

fn tokens_misplaced() -> Error {
    Error::request("tokens from a source go with a user name, and without a password")
        .with_hint("Set the user, and leave the password out.")
}

/// The credentials of a user with a password, or with a token if only a mechanism for tokens may be
/// used.
pub(crate) fn credentials(user: &str, secret: Secret, is_token: bool) -> Credentials {
    match is_token {
        true => Credentials::token(user, secret),
        false => Credentials::new(user, secret),
    }
}

/// What an endpoint logs in with.
pub(crate) enum LoginWith<'a> {
    Credentials(Credentials),
    File {
        user: &'a str,
        file: &'a PasswordFile,
        is_token: bool,
    },
    Tokens {
        user: &'a str,
        source: &'a TokenSource,
    },
    Exchange(&'a Exchanges),
}

/// Makes the exchanges of a custom mechanism, one for each connection.
pub(crate) type Exchanges = Arc<dyn Fn() -> Box<dyn SaslExchange> + Send + Sync>;

/// A file with a password, which is read at each login.
#[derive(Clone)]
pub(crate) struct PasswordFile {
    path: PathBuf,
    /// The last password: the server knows it, and may echo it on a later connection. Shared by the
    /// clones of an endpoint.
    last: Arc<Mutex<Option<Secret>>>,
}

impl PasswordFile {
    pub(crate) fn new(path: PathBuf) -> Self {
        PasswordFile {
            path,
            last: Arc::default(),
        }
    }

    #[cfg(test)]
    pub(crate) fn path(&self) -> &std::path::Path {
        &self.path
    }

    /// Reads the file on a blocking thread.
    pub(crate) async fn read(&self) -> Result<Secret> {
        let path = self.path.clone();
        let read = move || Secret::read(&path, "the password", file::time_limit());
        let password = tokio::task::spawn_blocking(read).await.map_err(|panic| {
            let message = "the password could not be read";
            Error::new(ErrorKind::Config, Phase::Setup, message).with_source(panic)
        })??;
        if password.expose().is_empty() {
            let shown = quoted(&self.path.to_string_lossy());
            let message = format!("the file {shown} with the password is empty");
            return Err(
                Error::new(ErrorKind::Config, Phase::Setup, message).with_hint(
                    "Write the password into it, by renaming another file so that it is never \
                     read in between.",
                ),
            );
        }
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(password.clone());
        Ok(password)
    }

    fn last(&self) -> Option<Secret> {
        self.last
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}
