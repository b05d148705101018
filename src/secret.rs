//! Passwords and tokens: they are wiped when dropped, and nothing can print them.

use zeroize::Zeroizing;

/// A password or token. It has no `Debug` and no `Display`, and its memory is wiped when it is dropped.
///
/// ```
/// let password = envoi::Secret::new("correct horse battery staple");
/// let credentials = envoi::Credentials::new("alice@example.org", password);
/// assert_eq!(credentials.user(), "alice@example.org");
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Takes a secret over.
    pub fn new(secret: impl Into<String>) -> Self {
        Secret(Zeroizing::new(secret.into()))
    }

    pub(crate) fn expose(&self) -> &str {
        &self.0
    }
}

impl<S: Into<String>> From<S> for Secret {
    fn from(secret: S) -> Self {
        Secret::new(secret)
    }
}

/// Who logs in, and with what.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    user: String,
    secret: Secret,
}

impl Credentials {
    /// A user name as the server knows it (often the whole address), and the password.
    pub fn new(user: impl Into<String>, secret: impl Into<Secret>) -> Self {
        Credentials { user: user.into(), secret: secret.into() }
    }

    /// The user name.
    pub fn user(&self) -> &str {
        &self.user
    }

    #[cfg(feature = "client")]
    pub(crate) fn into_parts(self) -> (String, Secret) {
        (self.user, self.secret)
    }

    pub(crate) fn secret(&self) -> &str {
        self.secret.expose()
    }
}
