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

    /// Reads a secret from a file, of which it is all but one line end at its end. The file is
    /// UTF-8, or UTF-16 with a byte order mark, as PowerShell writes it.
    ///
    /// It blocks as reading a file does. Of a FIFO or a device the end is waited for, for 5 seconds
    /// at most.
    ///
    /// # Errors
    ///
    /// [`Kind::Config`](crate::Kind::Config): the file cannot be read, has more than 64 KiB, or is
    /// not text.
    ///
    /// ```no_run
    /// let password = envoi::Secret::from_file("/run/secrets/smtp-password")?;
    /// let endpoint = envoi::Endpoint::new("mail.example.org").user("alice@example.org").password(password);
    /// # Ok::<(), envoi::Error>(())
    /// ```
    #[cfg(feature = "client")]
    pub fn from_file(path: impl AsRef<std::path::Path>) -> crate::Result<Self> {
        Secret::read(path.as_ref(), "the password", crate::file::time_limit())
    }

    /// `what` is the secret, for an error.
    #[cfg(feature = "client")]
    pub(crate) fn read(path: &std::path::Path, what: &str, until: std::time::Instant) -> crate::Result<Self> {
        use crate::{Error, Kind, Phase, file};
        const LIMIT: u64 = 64 * 1024;

        let cannot = |error: std::io::Error| {
            let shown = crate::text::quoted(&path.to_string_lossy());
            let hint = match error.kind() {
                std::io::ErrorKind::NotFound => "Check the path.",
                std::io::ErrorKind::PermissionDenied => "Let the user that runs this program read it.",
                _ => "Give a regular file that holds the password.",
            };
            Error::new(Kind::Config, Phase::Setup, format!("the file {shown} with {what} cannot be read: {error}"))
                .with_hint(hint)
                .with_source(error)
        };
        let bytes = Zeroizing::new(file::read(path, LIMIT, until).map_err(cannot)?);
        let text = match file::utf8(&bytes) {
            std::borrow::Cow::Owned(text) => Zeroizing::new(text),
            std::borrow::Cow::Borrowed(text) => Zeroizing::new(text.to_vec()),
        };
        let text = std::str::from_utf8(&text)
            .map_err(|_| cannot(std::io::Error::new(std::io::ErrorKind::InvalidData, "it is not text in UTF-8")))?;
        let line = text.strip_suffix('\n').map(|line| line.strip_suffix('\r').unwrap_or(line));
        Ok(Secret::new(line.unwrap_or(text)))
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

/// Who logs in, and with what. What is given decides which [mechanisms](crate::proto::Mechanism) can be used.
///
/// ```
/// use envoi::Credentials;
///
/// // A password: SCRAM, CRAM-MD5, PLAIN or LOGIN.
/// let password = Credentials::new("alice@example.org", "correct horse");
/// // A token of OAuth 2: OAUTHBEARER or XOAUTH2.
/// let token = Credentials::token("alice@example.org", "ya29.vF9dft4qmTc2Nvb3RlckBhdHRhdmlzdGEuY29tCg");
/// // The client's certificate, or whatever else the server knows of the connection: EXTERNAL.
/// let external = Credentials::external();
/// // An administrator who sends as somebody else.
/// let proxy = Credentials::new("admin", "secret").authorize_as("alice@example.org");
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    user: String,
    authorize_as: Option<String>,
    proof: Proof,
}

/// What proves that it is the user who logs in.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Proof {
    Password(Secret),
    Token(Secret),
    External,
    Anonymous,
}

impl Credentials {
    /// A user name as the server knows it (often the whole address), and the password.
    pub fn new(user: impl Into<String>, secret: impl Into<Secret>) -> Self {
        Self::with(user, Proof::Password(secret.into()))
    }

    /// A user name, and an access token of OAuth 2 (RFC 6750) as it came, without `Bearer`.
    pub fn token(user: impl Into<String>, token: impl Into<Secret>) -> Self {
        Self::with(user, Proof::Token(token.into()))
    }

    /// What the server knows already tells who it is: the client's certificate, or the user at the other end of a
    /// Unix socket (EXTERNAL; RFC 4422, A).
    pub fn external() -> Self {
        Self::with("", Proof::External)
    }

    /// Nobody in particular (RFC 4505). The trace, an address or any word, is for the server's log, and may be empty.
    pub fn anonymous(trace: impl Into<String>) -> Self {
        Self::with(trace, Proof::Anonymous)
    }

    /// Acts for another user than the one who logs in; the server decides whether that is allowed. PLAIN, SCRAM, OAUTHBEARER
    /// and EXTERNAL can say it, and only they are used then.
    #[must_use]
    pub fn authorize_as(mut self, user: impl Into<String>) -> Self {
        self.authorize_as = Some(user.into());
        self
    }

    /// The user name.
    pub fn user(&self) -> &str {
        &self.user
    }

    fn with(user: impl Into<String>, proof: Proof) -> Self {
        Credentials { user: user.into(), authorize_as: None, proof }
    }

    /// For whom the user acts, where that is another one.
    pub(crate) fn authorization(&self) -> Option<&str> {
        self.authorize_as.as_deref()
    }

    pub(crate) fn proof(&self) -> &Proof {
        &self.proof
    }

    /// The password or token; empty where there is none.
    pub(crate) fn secret(&self) -> &str {
        match &self.proof {
            Proof::Password(secret) | Proof::Token(secret) => secret.expose(),
            Proof::External | Proof::Anonymous => "",
        }
    }
}
