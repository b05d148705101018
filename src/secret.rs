//! Passwords and tokens: they are wiped when dropped, and never printed.

use std::fmt;

use zeroize::Zeroizing;

/// A password or token. `Debug` prints `Secret(***)`, there is no `Display`, and its memory is
/// wiped when it is dropped. With the feature `serde` it can be deserialized, not serialized.
///
/// ```
/// let password = envoi::Secret::new("correct horse battery staple");
/// let credentials = envoi::Credentials::new("alice@example.org", password);
/// assert_eq!(credentials.user(), "alice@example.org");
/// ```
#[derive(Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Deserialize), serde(from = "String"))]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Wraps a secret.
    pub fn new(secret: impl Into<String>) -> Self {
        Secret(Zeroizing::new(secret.into()))
    }

    pub(crate) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(***)")
    }
}

impl<S: Into<String>> From<S> for Secret {
    fn from(secret: S) -> Self {
        Secret::new(secret)
    }
}

/// The user who logs in, and the proof of it. Its kind decides which
/// [mechanisms](crate::proto::Mechanism) can be used.
///
/// ```
/// use envoi::Credentials;
///
/// // A password: SCRAM, CRAM-MD5, PLAIN or LOGIN.
/// let password = Credentials::new("alice@example.org", "correct horse");
/// // A token of OAuth 2: OAUTHBEARER or XOAUTH2.
/// let token = Credentials::token("alice@example.org", "ya29.vF9dft4qmTc2Nvb3RlckBhdHRhdmlzdGEu");
/// // The client's certificate, or another property of the connection: EXTERNAL.
/// let external = Credentials::external();
/// // An administrator who sends as another user.
/// let proxy = Credentials::new("admin", "secret").authorize_as("alice@example.org");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "a method returns the changed value"]
pub struct Credentials {
    user: String,
    authorize_as: Option<String>,
    proof: Proof,
}

/// The proof of the user's identity.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Proof {
    Password(Secret),
    Token(Secret),
    External,
    Anonymous,
}

/// The kind of a [`Proof`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ProofKind {
    Password,
    Token,
    External,
    Anonymous,
}

impl Credentials {
    /// Logs in with a user name as the server knows it (often the whole address) and a password.
    pub fn new(user: impl Into<String>, secret: impl Into<Secret>) -> Self {
        Self::with(user, Proof::Password(secret.into()))
    }

    /// Logs in with a user name and an access token of OAuth 2 (RFC 6750), without `Bearer`.
    pub fn token(user: impl Into<String>, token: impl Into<Secret>) -> Self {
        Self::with(user, Proof::Token(token.into()))
    }

    /// Logs in by what the server knows of the connection: the client's certificate, or the user at
    /// the other end of a Unix socket (EXTERNAL; RFC 4422, A).
    pub fn external() -> Self {
        Self::with("", Proof::External)
    }

    /// Logs in anonymously (RFC 4505). The trace, an address or any word, is for the server's log
    /// and may be empty.
    pub fn anonymous(trace: impl Into<String>) -> Self {
        Self::with(trace, Proof::Anonymous)
    }

    /// Acts for another user than the one who logs in, if the server allows it. Only PLAIN, SCRAM,
    /// OAUTHBEARER and EXTERNAL can express it, so only they are used.
    pub fn authorize_as(mut self, user: impl Into<String>) -> Self {
        self.authorize_as = Some(user.into());
        self
    }

    /// Returns the user name.
    pub fn user(&self) -> &str {
        &self.user
    }

    fn with(user: impl Into<String>, proof: Proof) -> Self {
        Credentials {
            user: user.into(),
            authorize_as: None,
            proof,
        }
    }

    /// Returns the user to act for, if that is another one.
    pub(crate) fn authorization(&self) -> Option<&str> {
        self.authorize_as.as_deref()
    }

    pub(crate) fn proof_kind(&self) -> ProofKind {
        match self.proof {
            Proof::Password(_) => ProofKind::Password,
            Proof::Token(_) => ProofKind::Token,
            Proof::External => ProofKind::External,
            Proof::Anonymous => ProofKind::Anonymous,
        }
    }

    /// Returns the password or token; empty if there is none.
    pub(crate) fn secret(&self) -> &str {
        match &self.proof {
            Proof::Password(secret) | Proof::Token(secret) => secret.expose(),
            Proof::External | Proof::Anonymous => "",
        }
    }
}
